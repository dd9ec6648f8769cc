/**
 * How a batch of records becomes bytes for a channel. Values come back as they went in: nothing is
 * dropped or coerced; what cannot be encoded throws RECORD_UNSUPPORTED when it is appended.
 *
 * The calls on the record path (`append`, `value`, `timestamp`) are prototype methods of few classes, so
 * that V8 inlines them into the generated code of a chain. A codec that learns the shape of records makes a
 * class for it and from then on uses instances of that class: callers hold arrays and ask again, as noted.
 */
export interface BatchCodec {
  /**
   * One writer for each channel of an outgoing edge of one subtask; they learn one schema together. The codec
   * may replace elements of the array whenever one of them is called (never losing what is in it), so
   * hold the array and an index, not a writer.
   */
  createWriters(channels: number, options: BatchWriterOptions): BatchWriter[];
  /** One decoder for each channel of an input of one subtask; they share what was made for a schema. */
  createDecoders(channels: number): BatchDecoder[];
}

export interface BatchWriterOptions {
  /** Size of a channel's buffers: `append` answers true before a batch outgrows it. */
  readonly bufferBytes: number;
}

/** Collects one batch at a time; a value is captured when it is appended. */
export interface BatchWriter {
  /**
   * `timestamp` is event-time ms, NO_TIMESTAMP for none. True: seal now, one more record of average size would
   * not fit into a buffer. A record that is refused leaves the batch as it was.
   */
  append(value: unknown, timestamp: number): boolean;
  /** Records since the last `seal`. */
  readonly count: number;
  /** The batch; valid until the next `append`. Starts a new one. */
  seal(): Uint8Array;
}

export interface BatchDecoder {
  /**
   * `bytes` must stay unchanged until the next `open`. The reader is valid until then. Throws RPC_PROTOCOL
   * for another format or version.
   */
  open(bytes: Uint8Array): BatchReader;
}

/** The records of one batch. */
export interface BatchReader {
  readonly count: number;
  /** Decodes the i-th value; called at most once per record, in order. */
  value(i: number): unknown;
  timestamp(i: number): number;
}
