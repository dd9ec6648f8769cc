import { MillraceError } from '../base/errors.js';
import { DataGeneratorSource } from './datagen-source.js';

/** The whole numbers from `from` to `to`, both included; none when `to` is below `from`. */
export class SequenceSource extends DataGeneratorSource<number> {
  constructor(from: number, to: number) {
    if (!Number.isSafeInteger(from) || !Number.isSafeInteger(to)) {
      throw new MillraceError(
        'JOB_INVALID',
        `a sequence from ${from} to ${to}: expected whole numbers`,
      );
    }
    super((index) => from + index, { count: Math.max(0, to - from + 1) });
  }
}
