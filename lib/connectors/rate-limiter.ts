import type { SourceReaderContext } from '../api/source.js';

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

/** A reader's rate: how many records it may emit now, and a wake-up when that is none. */
export class ReaderPace {
  readonly #context: SourceReaderContext;
  readonly #limiter: RateLimiter | undefined;
  #cancelTimer: (() => void) | undefined;

  /** `recordsPerSecond` of this subtask; 0: as fast as it goes. */
  constructor(context: SourceReaderContext, recordsPerSecond: number) {
    this.#context = context;
    this.#limiter = recordsPerSecond > 0 ? new RateLimiter(recordsPerSecond) : undefined;
  }

  /** Infinity without a rate. None until the timer fires, once it is set. */
  allowed(): number {
    const limiter = this.#limiter;
    if (limiter === undefined) return Infinity;
    if (this.#cancelTimer !== undefined) return 0;
    const allowed = limiter.available(this.#context.now());
    if (allowed > 0) return allowed;
    this.#cancelTimer = this.#context.setTimer(limiter.waitMs, () => {
      this.#cancelTimer = undefined;
      this.#context.wakeUp();
    });
    return 0;
  }

  take(records: number): void {
    this.#limiter?.take(records);
  }

  close(): void {
    this.#cancelTimer?.();
  }
}
