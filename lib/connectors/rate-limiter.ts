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

  /** Takes a token and answers 0, or answers the ms until there is one. */
  tryTake(now: number): number {
    const elapsed = Math.max(0, now - (this.#filledAt ?? now));
    this.#filledAt = now;
    this.#tokens = Math.min(this.#capacity, this.#tokens + elapsed * this.#perMs);
    if (this.#tokens >= 1) {
      this.#tokens -= 1;
      return 0;
    }
    return Math.max(1, Math.ceil((1 - this.#tokens) / this.#perMs));
  }
}
