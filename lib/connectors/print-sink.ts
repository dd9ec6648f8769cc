import { inspect } from 'node:util';
import type { Sink, SinkContext, SinkWriter } from '../api/sink.js';

/**
 * Writes records to standard output, `prefix:subtask> record`, as Flink's print does. At least once:
 * after a failure records are printed again.
 */
export class PrintSink<T> implements Sink<T> {
  readonly #prefix: string;

  constructor(prefix = '') {
    this.#prefix = prefix;
  }

  createWriter(context: SinkContext): SinkWriter<T> {
    const subtask = context.parallelism > 1 ? String(context.subtaskIndex + 1) : '';
    const label = [this.#prefix, subtask].filter((part) => part !== '').join(':');
    const lead = label === '' ? '' : `${label}> `;
    return {
      write: (value) => {
        // eslint-disable-next-line no-restricted-globals -- printing is what this sink is for
        console.log(
          typeof value === 'string'
            ? lead + value
            : `${lead}${inspect(value, { breakLength: Infinity, compact: true })}`,
        );
      },
      close: () => undefined,
    };
  }
}
