import type { Clock } from '../base/clock.js';

/** Steps between two looks at the clock while steps are cheap. */
const stepsPerLookMax = 32;

/**
 * How long one task may run before the others get their turn: so many records or ms, or until an output
 * has no room. Shared by the tasks of a slot, as one runs at a time together with those it calls directly.
 */
export class Quantum {
  readonly #clock: Clock;
  readonly #records: number;
  readonly #ms: number;
  #left = 0;
  #deadline = 0;
  #lookedAt = 0;
  #stepsPerLook = 1;
  #untilLook = 1;
  #isOver = true;

  constructor(clock: Clock, records: number, ms: number) {
    this.#clock = clock;
    this.#records = records;
    this.#ms = ms;
  }

  begin(): void {
    this.#isOver = false;
    this.#left = this.#records;
    this.#lookedAt = this.#clock.now();
    this.#deadline = this.#lookedAt + this.#ms;
    this.#untilLook = this.#stepsPerLook;
  }

  /** An output has no room, or a task that was called directly failed. */
  stop(): void {
    this.#isOver = true;
  }

  get isOver(): boolean {
    return this.#isOver;
  }

  /** Counts one step; true when it was the last. */
  step(): boolean {
    this.#left -= 1;
    this.#untilLook -= 1;
    if (this.#left <= 0) this.#isOver = true;
    else if (this.#untilLook <= 0) this.#look();
    return this.#isOver;
  }

  /** The clock costs as much as a cheap record, so it is looked at less often while records are cheap. */
  #look(): void {
    const now = this.#clock.now();
    const isCheap = (now - this.#lookedAt) * 4 < this.#ms;
    this.#stepsPerLook = isCheap ? Math.min(stepsPerLookMax, 2 * this.#stepsPerLook) : 1;
    this.#untilLook = this.#stepsPerLook;
    this.#lookedAt = now;
    if (now >= this.#deadline) this.#isOver = true;
  }
}
