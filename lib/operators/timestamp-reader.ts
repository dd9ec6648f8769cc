import { MillraceError } from '../base/errors.js';
import { NO_TIMESTAMP } from '../record/stream-element.js';
import type { TimestampAssigner } from '../time/watermark-strategy.js';
import { userError } from './user-function.js';

/** Event time of records: the assigner's, or the one that came with the record. */
export class TimestampReader {
  readonly #assign: TimestampAssigner<unknown> | undefined;
  readonly #operatorName: string;

  constructor(assign: TimestampAssigner<unknown> | undefined, operatorName: string) {
    this.#assign = assign;
    this.#operatorName = operatorName;
  }

  /** `recordTimestamp` and the result are NO_TIMESTAMP for a record without one. */
  read(value: unknown, recordTimestamp: number): number {
    const assign = this.#assign;
    if (assign === undefined) return recordTimestamp;
    let timestamp: unknown;
    try {
      timestamp = assign(value, recordTimestamp === NO_TIMESTAMP ? undefined : recordTimestamp);
    } catch (error) {
      throw userError(this.#operatorName, error);
    }
    if (typeof timestamp === 'number' && Number.isFinite(timestamp)) return timestamp;
    throw new MillraceError(
      'USER_FUNCTION',
      `${this.#operatorName}: the timestamp assigner returned ${String(timestamp)}; event time is a finite number of milliseconds`,
    );
  }
}
