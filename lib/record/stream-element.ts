/**
 * What flows on a channel. Records are a value and a timestamp, passed as two arguments and never
 * wrapped; everything else is a control event, which travels between batches, never inside one.
 */

/** A record without an event time. */
export const NO_TIMESTAMP = -Infinity;
/** Before any watermark was seen. */
export const MIN_WATERMARK = -Infinity;
/** No record with a timestamp can come any more: emitted at the end of bounded input. */
export const MAX_WATERMARK = Infinity;

export type ControlEvent =
  /** No later record of this channel has a timestamp <= `timestamp` (late ones excepted). Event-time ms. */
  | { readonly kind: 'watermark'; readonly timestamp: number }
  /** An idle channel does not hold back the watermark of its consumer. */
  | { readonly kind: 'watermarkStatus'; readonly active: boolean }
  /** Chandy-Lamport marker: everything before it belongs to the checkpoint. `timestamp` is the trigger's wall time. */
  | { readonly kind: 'barrier'; readonly checkpointId: number; readonly timestamp: number }
  /** The checkpoint was aborted upstream: end its alignment. */
  | { readonly kind: 'cancelBarrier'; readonly checkpointId: number }
  /** The producer has emitted all its records and finished its operators; barriers may still follow. */
  | { readonly kind: 'endOfData' }
  /** Nothing follows on this channel; counts as a barrier for every later checkpoint. */
  | { readonly kind: 'endOfPartition' };
