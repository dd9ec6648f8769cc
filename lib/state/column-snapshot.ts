/**
 * Copy-on-write snapshot of a column: what it held when this was made. Entries are encoded bit by bit by
 * `encode`, or earlier, right before they change. Several can be under way on one column at the same time, each
 * with its own marks.
 */
import type { Column, ColumnObserver } from './column.js';
import { isRealNaN } from './column.js';
import { batchElementsMax, GroupLog } from './group-log.js';
import type { KeyIndex } from './key-index.js';

/** Bounds of the work between two yields of `encode`. */
export const slotsPerStep = 4096;
export const entriesPerStep = batchElementsMax;

/** So that one call of the value codec has about so many entries of a chain. */
const entriesPerChain = 32;

export interface ColumnSnapshotOptions {
  /** Names the state in errors. */
  readonly what: string;
  readonly column: Column;
  readonly index: KeyIndex;
  /** Which chain of the log a slot's entry belongs to, from 0 to `chains` - 1. */
  readonly chains: number;
  readonly chainOf: (slot: number) => number;
  /** Value to payload. */
  readonly encode: (value: unknown) => unknown;
}

export class ColumnSnapshot implements ColumnObserver {
  readonly log: GroupLog;
  /** Slots looked at so far, for people and tests. */
  progress = 0;
  readonly #options: ColumnSnapshotOptions;
  /** Slots from here on came later. */
  readonly #limit: number;
  /** A bit per slot: encoded, or found to be absent. */
  readonly #done: Uint8Array;
  #failure: Error | undefined;

  constructor(options: ColumnSnapshotOptions) {
    this.log = new GroupLog(options.what);
    this.#options = options;
    this.#limit = options.index.limit;
    this.#done = new Uint8Array((this.#limit + 7) >>> 3);
    options.column.observe(this);
  }

  beforeChange(slot: number): void {
    if (slot >= this.#limit) return;
    const bit = 1 << (slot & 7);
    const byte = this.#done[slot >>> 3]!;
    if ((byte & bit) !== 0) return;
    this.#done[slot >>> 3] = byte | bit;
    const value = this.#options.column.peek(slot);
    if (value !== value) return;
    try {
      this.log.open(this.#options.chainOf(slot));
      this.#add(slot, value);
      this.log.close();
    } catch (error) {
      // The record at hand is not to blame; the snapshot fails.
      this.#failure ??= error as Error;
    }
  }

  /** Encodes everything, a bounded part between two yields. Throws what a value that cannot be encoded throws. */
  *encode(): Generator<void> {
    const stripe = Math.max(1, Math.ceil((this.#options.chains * entriesPerChain) / slotsPerStep));
    const slots = Math.min(this.#limit, stripe * slotsPerStep);
    const heads = new Int32Array(slots === 0 ? 0 : this.#options.chains);
    const next = new Int32Array(slots);
    for (let from = 0; from < this.#limit; from += slots) {
      const to = Math.min(this.#limit, from + slots);
      yield* this.#sort(from, to, heads, next);
      yield* this.#encodeStripe(from, heads, next);
    }
    this.end();
    if (this.#failure !== undefined) throw this.#failure;
  }

  /** Nothing is captured from here on. */
  end(): void {
    this.#options.column.unobserve(this);
  }

  /** Links the entries of each chain: heads and next hold slot - from + 1. */
  *#sort(from: number, to: number, heads: Int32Array, next: Int32Array): Generator<void> {
    const { column, chainOf } = this.#options;
    heads.fill(0);
    for (let slot = to - 1; slot >= from; slot -= 1) {
      if (!this.#isDone(slot)) {
        const value = column.peek(slot);
        if (value === value) {
          const chain = chainOf(slot);
          next[slot - from] = heads[chain]!;
          heads[chain] = slot - from + 1;
        }
      }
      if ((slot & (slotsPerStep - 1)) === 0) {
        this.progress = Math.max(this.progress, to - slot);
        yield;
      }
    }
  }

  *#encodeStripe(from: number, heads: Int32Array, next: Int32Array): Generator<void> {
    let entries = 0;
    for (let chain = 0; chain < heads.length; chain += 1) {
      let link = heads[chain]!;
      if (link === 0) continue;
      this.log.open(chain);
      while (link !== 0) {
        const slot = from + link - 1;
        link = next[link - 1]!;
        if (this.#isDone(slot)) continue;
        this.#done[slot >>> 3]! |= 1 << (slot & 7);
        this.#add(slot, this.#options.column.peek(slot));
        entries += 1;
        if (entries < entriesPerStep) continue;
        // Values are read here and may change during the yield: nothing stays half done.
        this.log.close();
        entries = 0;
        this.progress += entriesPerStep;
        yield;
        this.log.open(chain);
      }
      this.log.close();
    }
    yield;
  }

  #isDone(slot: number): boolean {
    return (this.#done[slot >>> 3]! & (1 << (slot & 7))) !== 0;
  }

  #add(slot: number, value: unknown): void {
    const { index, encode } = this.#options;
    this.log.entry(index.keyAt(slot), isRealNaN(value) ? NaN : encode(value));
  }
}
