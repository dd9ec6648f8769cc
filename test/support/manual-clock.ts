import type { CancelTimer, Clock } from '../../lib/base/clock.js';

/** Time that passes only when a test says so. */
export class ManualClock implements Clock {
  #now = 1_000;
  readonly #timers = new Set<{ readonly at: number; readonly fn: () => void }>();

  now(): number {
    return this.#now;
  }

  wallTime(): number {
    return 1_700_000_000_000 + this.#now;
  }

  setTimer(delayMs: number, fn: () => void): CancelTimer {
    const timer = { at: this.#now + Math.max(0, delayMs), fn };
    this.#timers.add(timer);
    return () => {
      this.#timers.delete(timer);
    };
  }

  /** Timers that have neither fired nor been cancelled; for tests that look for leaks. */
  get pendingTimers(): number {
    return this.#timers.size;
  }

  /** Lets `ms` pass: fires timers in order, and lets what they started run after each. */
  async advance(ms: number): Promise<void> {
    const end = this.#now + ms;
    await settle();
    for (;;) {
      const due = [...this.#timers].filter((timer) => timer.at <= end);
      const next = due.sort((a, b) => a.at - b.at)[0];
      if (next === undefined) break;
      this.#timers.delete(next);
      this.#now = Math.max(this.#now, next.at);
      next.fn();
      await settle();
    }
    this.#now = end;
    await settle();
  }

  /** Moves the clock without firing anything, as a blocked event loop does. */
  jump(ms: number): void {
    this.#now += ms;
  }
}

/** Lets promises that depend on nothing but each other settle. */
export async function settle(): Promise<void> {
  for (let i = 0; i < 3; i += 1) await new Promise((resolve) => setImmediate(resolve));
}
