/** The half-open interval [start, end) of event-time ms. */
export class TimeWindow {
  readonly start: number;
  readonly end: number;

  constructor(start: number, end: number) {
    this.start = start;
    this.end = end;
  }

  /** The latest timestamp that belongs to it: the window is complete when the watermark reaches it. */
  get maxTimestamp(): number {
    return this.end - 1;
  }
}

/** Start of the aligned window of `size` that contains `timestamp`, exact also for negative times. */
export function windowStart(timestamp: number, size: number, offset: number): number {
  const remainder = (timestamp - offset) % size;
  return timestamp - (remainder < 0 ? remainder + size : remainder);
}
