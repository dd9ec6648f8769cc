import { MillraceError } from '../base/errors.js';
import { NO_TIMESTAMP } from '../record/stream-element.js';
import type { TimestampAssigner } from '../time/watermark-strategy.js';
import type { CodeScope } from './operator-code.js';
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
    return Number.isFinite(timestamp) ? (timestamp as number) : this.refuse(timestamp);
  }

  /** Statements that do what `read` does, into a `const` of this name; `recordTimestamp` is an expression, undefined for none. */
  generate(scope: CodeScope, value: string, recordTimestamp: string, name: string): string {
    const assign = this.#assign;
    if (assign === undefined) return `const ${name} = ${recordTimestamp} ?? -Infinity;`;
    const [assignName, reader] = [
      scope.bind('assign', () => assign),
      scope.bind('time', () => this),
    ];
    return `const ${name} = ${assignName}(${value}, ${recordTimestamp});
if (!Number.isFinite(${name})) ${reader}.refuse(${name});`;
  }

  refuse(timestamp: unknown): never {
    throw new MillraceError(
      'USER_FUNCTION',
      `${this.#operatorName}: the timestamp assigner returned ${String(timestamp)}; event time is a finite number of milliseconds`,
    );
  }
}
