import type { Sink, SinkWriter } from '../api/sink.js';

/** Takes everything and keeps nothing: for measurements. */
export class BlackholeSink<T> implements Sink<T> {
  createWriter(): SinkWriter<T> {
    return { write: () => undefined, close: () => undefined };
  }
}
