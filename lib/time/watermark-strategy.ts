import { durationMs, type Duration } from './duration.js';

/** Event time of a record in ms. `recordTimestamp` is what the source gave it, if anything. */
export type TimestampAssigner<T> = (value: T, recordTimestamp: number | undefined) => number;

interface StrategyFields {
  /** Absent: no watermarks. */
  readonly outOfOrdernessMs?: number;
  readonly idlenessMs?: number;
  readonly assigner?: TimestampAssigner<never>;
}

/**
 * How a stream tells event time: who reads the timestamp of a record, and how far records may come
 * out of order. The watermark trails the highest timestamp seen by the bound and 1 ms, per split.
 *
 * @example
 * WatermarkStrategy.forBoundedOutOfOrderness('60s')
 *   .withTimestampAssigner((line: LogLine) => line.time)
 *   .withIdleness('30s');
 */
export class WatermarkStrategy<in T> {
  /** Absent: no watermarks are made. */
  readonly outOfOrdernessMs: number | undefined;
  /** Absent: a silent split holds the watermark back for ever. */
  readonly idlenessMs: number | undefined;
  /** Absent: the source's own timestamps are used. */
  readonly timestampAssigner: TimestampAssigner<T> | undefined;

  private constructor(fields: StrategyFields) {
    this.outOfOrdernessMs = fields.outOfOrdernessMs;
    this.idlenessMs = fields.idlenessMs;
    this.timestampAssigner = fields.assigner as TimestampAssigner<T> | undefined;
  }

  /** Within a split timestamps never decrease. */
  static forMonotonousTimestamps<T = unknown>(): WatermarkStrategy<T> {
    return new WatermarkStrategy<T>({ outOfOrdernessMs: 0 });
  }

  /** A record comes at most `bound` after a record with a higher timestamp; later ones are late. */
  static forBoundedOutOfOrderness<T = unknown>(bound: Duration): WatermarkStrategy<T> {
    const outOfOrdernessMs = durationMs(bound, 'the bound of out-of-orderness');
    return new WatermarkStrategy<T>({ outOfOrdernessMs });
  }

  /** For jobs without event time: only the end of bounded input is announced. */
  static noWatermarks<T = unknown>(): WatermarkStrategy<T> {
    return new WatermarkStrategy<T>({});
  }

  withTimestampAssigner<U extends T>(assigner: TimestampAssigner<U>): WatermarkStrategy<U> {
    return new WatermarkStrategy<U>({ ...this.#fields(), assigner });
  }

  /** A split (or input) silent for so long is left out of the watermark until it speaks again. */
  withIdleness(timeout: Duration): WatermarkStrategy<T> {
    const idlenessMs = durationMs(timeout, 'the idleness timeout');
    if (idlenessMs === 0) throw new RangeError('the idleness timeout is 0: expected at least 1 ms');
    return new WatermarkStrategy<T>({ ...this.#fields(), idlenessMs });
  }

  #fields(): StrategyFields {
    return {
      ...(this.outOfOrdernessMs !== undefined && { outOfOrdernessMs: this.outOfOrdernessMs }),
      ...(this.idlenessMs !== undefined && { idlenessMs: this.idlenessMs }),
      ...(this.timestampAssigner !== undefined && { assigner: this.timestampAssigner }),
    };
  }
}
