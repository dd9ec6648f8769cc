import { durationMs, type Duration } from '../time/duration.js';
import { TimeWindow, windowStart } from './window.js';

/** Says which window an event time falls into. Aligned: the same for every key. */
export interface WindowAssigner {
  /** Constructor-like name for people and graphs. */
  readonly name: string;
  /** Name and parameters: windows in a checkpoint fit only an assigner of the same description. */
  readonly description: string;
  assign(timestamp: number): TimeWindow;
}

/**
 * Adjacent windows of one size, aligned to the epoch plus an offset.
 *
 * @example
 * TumblingEventTimeWindows.of('60s');
 */
export class TumblingEventTimeWindows implements WindowAssigner {
  readonly name = 'TumblingEventTimeWindows';
  readonly sizeMs: number;
  readonly offsetMs: number;

  private constructor(sizeMs: number, offsetMs: number) {
    this.sizeMs = sizeMs;
    this.offsetMs = offsetMs;
  }

  /** `offset` shifts the alignment (days of a time zone); its absolute value is below the size. */
  static of(size: Duration, offset: Duration = 0): TumblingEventTimeWindows {
    const sizeMs = durationMs(size, 'the window size');
    if (sizeMs === 0) throw new RangeError('the window size is 0: expected at least 1 ms');
    const isNegative = typeof offset === 'number' && offset < 0;
    const offsetMs = isNegative
      ? -durationMs(-offset, 'the window offset')
      : durationMs(offset, 'the window offset');
    if (Math.abs(offsetMs) >= sizeMs) {
      throw new RangeError(`the window offset ${offsetMs} ms is not below the size ${sizeMs} ms`);
    }
    return new TumblingEventTimeWindows(sizeMs, offsetMs);
  }

  get description(): string {
    return `${this.name}(${this.sizeMs} ms, offset ${this.offsetMs} ms)`;
  }

  assign(timestamp: number): TimeWindow {
    const start = windowStart(timestamp, this.sizeMs, this.offsetMs);
    return new TimeWindow(start, start + this.sizeMs);
  }
}
