/**
 * A token bucket on the wall clock for sources with a rate. Holds a tenth of a second's worth, so that
 * a stall is not made up for by a burst.
 */
export class RateLimiter {
  readonly #perMs: number;
  readonly #capacity: number;
  #tokens = 1;
  #filledAt: number | undefined;

  /** `recordsPerSecond` of this subtask: a source's rate divided by its parallelism. */
  constructor(recordsPerSecond: number) {
    this.#perMs = recordsPerSecond / 1000;
    this.#capacity = Math.max(1, recordsPerSecond / 10);
  }

  /** Records that may be emitted now; each is to be paid with `take`. */
  available(now: number): number {
    const elapsed = Math.max(0, now - (this.#filledAt ?? now));
    this.#filledAt = now;
    this.#tokens = Math.min(this.#capacity, this.#tokens + elapsed * this.#perMs);
    return Math.floor(this.#tokens);
  }

  take(records: number): void {
    this.#tokens -= records;
  }

  /** Whole ms until a record may be emitted; at least 1. */
  get waitMs(): number {
    return Math.max(1, Math.ceil((1 - this.#tokens) / this.#perMs));
  }
}
