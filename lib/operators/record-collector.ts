import type { Collector } from '../api/functions.js';
import type { OutputTag } from '../api/side-output.js';
import { NO_TIMESTAMP } from '../record/stream-element.js';
import type { Output } from './stream-operator.js';

/** What user functions emit through: results get the timestamp of the record or timer at hand. */
export class RecordCollector<R> implements Collector<R> {
  timestamp = NO_TIMESTAMP;
  readonly #output: Output;

  constructor(output: Output) {
    this.#output = output;
  }

  collect(value: R): void {
    this.#output.collect(value, this.timestamp);
  }

  collectSide(tag: OutputTag<unknown>, value: unknown): void {
    this.#output.collectSide(tag.id, value, this.timestamp);
  }

  /** As functions see it. */
  get timestampOrUndefined(): number | undefined {
    return this.timestamp === NO_TIMESTAMP ? undefined : this.timestamp;
  }
}
