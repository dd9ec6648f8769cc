/**
 * How a batch of records becomes bytes for a channel. Values come back as they went in: nothing is
 * dropped or coerced; what cannot be encoded throws RECORD_UNSUPPORTED when it is appended.
 */
export interface BatchCodec {
  createWriter(): BatchWriter;
  createReader(): BatchReader;
}

/** Collects one batch at a time; a value is captured when it is appended. */
export interface BatchWriter {
  /** `timestamp` is event-time ms, NO_TIMESTAMP for none. */
  append(value: unknown, timestamp: number): void;
  /** Records since the last `seal`. */
  readonly count: number;
  /** Bytes that `seal` would return now. */
  readonly byteLength: number;
  /** The batch; valid until the next `append`. Starts a new one. */
  seal(): Uint8Array;
}

/** Reads one batch at a time. */
export interface BatchReader {
  /** `bytes` must stay unchanged until the next `open`. Throws RPC_PROTOCOL for another format. */
  open(bytes: Uint8Array): void;
  readonly count: number;
  /** Decodes the i-th value; called at most once per record, in order. */
  value(i: number): unknown;
  timestamp(i: number): number;
}
