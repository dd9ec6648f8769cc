import type { Clock } from '../base/clock.js';

/** Steps between two looks at the clock while steps are cheap. */
const stepsPerLookMax = 64;

/**
 * How long one task may run before the others get their turn: so many records or ms, or until an output
 * has no room. Shared by the tasks of a slot, as one runs at a time together with those it calls directly.
 *
 * Generated code counts for itself: `if (--quantum.budget <= 0) quantum.tick()`, then asks `isOver`.
 */
export class Quantum {
  /** Steps until `tick` is due. */
  budget = 0;
  isOver = true;
  readonly #clock: Clock;
  readonly #records: number;
  readonly #ms: number;
  /** Steps left after those of the budget. */
  #left = 0;
  #deadline = 0;
  #lookedAt = 0;
  #stepsPerLook = 1;

  constructor(clock: Clock, records: number, ms: number) {
    this.#clock = clock;
    this.#records = records;
    this.#ms = ms;
  }

  begin(): void {
    this.isOver = false;
    this.#left = this.#records;
    this.#lookedAt = this.#clock.now();
    this.#deadline = this.#lookedAt + this.#ms;
    this.#grant();
  }

  /** An output has no room, or a task that was called directly failed. */
  stop(): void {
    this.isOver = true;
  }

  /** Counts one step; true when it was the last. */
  step(): boolean {
    this.budget -= 1;
    if (this.budget <= 0) this.tick();
    return this.isOver;
  }

  /**
   * The budget is used up. The clock costs as much as a cheap record, so it is looked at less often while records
   * are cheap.
   */
  tick(): void {
    if (this.#left <= 0) {
      this.isOver = true;
      return;
    }
    const now = this.#clock.now();
    const isCheap = (now - this.#lookedAt) * 4 < this.#ms;
    this.#stepsPerLook = isCheap ? Math.min(stepsPerLookMax, 2 * this.#stepsPerLook) : 1;
    this.#lookedAt = now;
    if (now >= this.#deadline) this.isOver = true;
    else this.#grant();
  }

  #grant(): void {
    this.budget = Math.min(this.#stepsPerLook, this.#left);
    this.#left -= this.budget;
  }
}
