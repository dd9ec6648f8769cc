/**
 * Values by slot. The chunks are plain arrays: V8 keeps numbers unboxed in them as long as a chunk has nothing
 * else. NaN marks an absent value; a real NaN is kept as an object.
 */
import { chunkBits, chunkMask, chunkSize } from './key-index.js';

/** Stands for a value of NaN. */
export const realNaN = Object.freeze({ value: NaN });

const doubles: number[] = [];
/** Absent values as elements that are no longer unboxed. */
const mixed: unknown[] = [{}];
for (let i = 0; i < chunkSize; i += 1) {
  doubles.push(NaN);
  if (i > 0) mixed.push(NaN);
}
mixed[0] = NaN;

const firstChunk = 16;
/** In place of chunks that have no value yet. */
const noChunk: unknown[] = [];

/** Told before a value changes: see ColumnSnapshot. */
export interface ColumnObserver {
  beforeChange(slot: number): void;
}

export class Column {
  /** True while snapshots are being written: what is about to change goes to `capture` first. */
  isObserved = false;
  readonly #chunks: unknown[][] = [];
  #hasObjects = false;
  #observers: readonly ColumnObserver[] = [];

  /** NaN when absent; a present NaN is `realNaN`. */
  peek(slot: number): unknown {
    const chunk = this.#chunks[slot >>> chunkBits];
    if (chunk === undefined) return NaN;
    const at = slot & chunkMask;
    return at < chunk.length ? chunk[at] : NaN;
  }

  /** True when the slot had no value. */
  put(slot: number, value: unknown): boolean {
    if (this.isObserved) this.capture(slot);
    let chunk = this.#chunks[slot >>> chunkBits];
    const at = slot & chunkMask;
    if (chunk === undefined || at >= chunk.length) chunk = this.#grow(slot, value);
    const before = chunk[at];
    if (value !== value) chunk[at] = realNaN;
    else chunk[at] = value;
    return before !== before;
  }

  /** True when the slot had a value. */
  remove(slot: number): boolean {
    const before = this.peek(slot);
    if (before !== before) return false;
    if (this.isObserved) this.capture(slot);
    this.#chunks[slot >>> chunkBits]![slot & chunkMask] = NaN;
    return true;
  }

  /** Before a value is changed in place, replaced or removed, and before a slot gets its first. */
  capture(slot: number): void {
    for (const observer of this.#observers) observer.beforeChange(slot);
  }

  observe(observer: ColumnObserver): void {
    this.#observers = [...this.#observers, observer];
    this.isObserved = true;
  }

  unobserve(observer: ColumnObserver): void {
    this.#observers = this.#observers.filter((other) => other !== observer);
    this.isObserved = this.#observers.length > 0;
  }

  #grow(slot: number, value: unknown): unknown[] {
    this.#hasObjects ||= typeof value !== 'number';
    const template = this.#hasObjects ? mixed : doubles;
    const index = slot >>> chunkBits;
    while (this.#chunks.length < index) this.#chunks.push(noChunk);
    const before = this.#chunks[index];
    let size = index > 0 ? chunkSize : firstChunk;
    while (size <= (slot & chunkMask)) size *= 4;
    const chunk = template.slice(0, size);
    if (before !== undefined) for (let i = 0; i < before.length; i += 1) chunk[i] = before[i];
    this.#chunks[index] = chunk;
    return chunk;
  }
}
