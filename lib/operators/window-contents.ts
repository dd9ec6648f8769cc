/** The keys and accumulators of one window: a table of its own, dropped whole with the window. */
import { Column, isRealNaN } from '../state/column.js';
import { KeyIndex } from '../state/key-index.js';
import type { TimeWindow } from '../windowing/window.js';

export class WindowContents {
  readonly window: TimeWindow;
  readonly start: number;
  readonly end: number;
  /** Slots in order of a key's first element. */
  readonly index: KeyIndex;
  /** Of keys that have not fired, and of those that fired and are kept for late elements. */
  readonly accumulators = new Column();
  /** No slot before it is pending, once the window fires. */
  cursor = 0;
  /** By slot: 1 for a key that fired. As long as it has to be. */
  #fired = new Uint8Array(0);

  /** @param expectedKeys how many keys it will probably have */
  constructor(window: TimeWindow, expectedKeys = 0) {
    this.window = window;
    this.start = window.start;
    this.end = window.end;
    this.index = new KeyIndex(expectedKeys);
  }

  /** NaN is no value. */
  peek(slot: number): unknown {
    const value = this.accumulators.peek(slot);
    return isRealNaN(value) ? NaN : value;
  }

  /** Before an element is added: the accumulator as the column has it, pending now and known to snapshots. */
  begin(slot: number): unknown {
    if (slot < this.#fired.length && this.#fired[slot] === 1) this.setFired(slot, false);
    const { accumulators } = this;
    if (accumulators.isObserved) accumulators.capture(slot);
    return accumulators.peek(slot);
  }

  has(slot: number): boolean {
    const value = this.accumulators.peek(slot);
    return value === value;
  }

  isFired(slot: number): boolean {
    return slot < this.#fired.length && this.#fired[slot] === 1;
  }

  setFired(slot: number, isFired: boolean): void {
    if (this.isFired(slot) === isFired) return;
    // Snapshots under way have it as it was.
    if (this.accumulators.isObserved) this.accumulators.capture(slot);
    if (slot >= this.#fired.length) {
      const grown = new Uint8Array(Math.max(64, 2 * this.#fired.length, slot + 1));
      grown.set(this.#fired);
      this.#fired = grown;
    }
    this.#fired[slot] = isFired ? 1 : 0;
    if (!isFired && slot < this.cursor) this.cursor = slot;
  }

  /** The next pending slot, which `cursor` is moved to; -1 when there is none. */
  nextPending(): number {
    const { limit } = this.index;
    while (this.cursor < limit) {
      if (this.has(this.cursor) && !this.isFired(this.cursor)) return this.cursor;
      this.cursor += 1;
    }
    return -1;
  }
}
