import type { CancelTimer, Clock } from '../base/clock.js';

interface ManualTimer {
  readonly at: number;
  readonly order: number;
  readonly fn: () => void;
}

/** A clock that stands still until it is advanced; timers fire synchronously, in order of time. */
export class ManualClock implements Clock {
  #now = 0;
  readonly #wallTimeAtZero: number;
  #order = 0;
  readonly #timers = new Set<ManualTimer>();

  /** @param wallTime Unix ms at the start */
  constructor(wallTime = 0) {
    this.#wallTimeAtZero = wallTime;
  }

  now(): number {
    return this.#now;
  }

  wallTime(): number {
    return this.#wallTimeAtZero + this.#now;
  }

  setTimer(delayMs: number, fn: () => void): CancelTimer {
    const timer = { at: this.#now + Math.max(0, delayMs), order: this.#order, fn };
    this.#order += 1;
    this.#timers.add(timer);
    return () => {
      this.#timers.delete(timer);
    };
  }

  /** Timers that have not fired. */
  get timerCount(): number {
    return this.#timers.size;
  }

  /** Fires what is due on the way, also what those timers set. */
  advance(ms: number): void {
    const end = this.#now + ms;
    for (;;) {
      const due = this.#nextDue(end);
      if (due === undefined) break;
      this.#timers.delete(due);
      this.#now = Math.max(this.#now, due.at);
      due.fn();
    }
    this.#now = end;
  }

  #nextDue(end: number): ManualTimer | undefined {
    let next: ManualTimer | undefined;
    for (const timer of this.#timers) {
      if (timer.at > end) continue;
      const isEarlier =
        next === undefined ||
        timer.at < next.at ||
        (timer.at === next.at && timer.order < next.order);
      if (isEarlier) next = timer;
    }
    return next;
  }
}
