/**
 * Values by slot. The chunks are plain arrays: V8 keeps numbers unboxed in them as long as a chunk has nothing
 * else. NaN marks an absent value; a real NaN is kept as an object. Objects of numbers may be kept as rows of doubles,
 * chunk by chunk, as long as they are all of one shape (see number-record.ts).
 */
import { numberRecordOf, type NumberRecord } from './number-record.js';
import { ownStrings } from './own.js';
import { chunkBits, chunkMask, chunkSize, sizeFor } from './slots.js';

/** Stands for a value of NaN. */
export const realNaN = Object.freeze({ value: NaN });

/** Compares objects with objects only: numbers would be boxed for it. */
export function isRealNaN(value: unknown): boolean {
  return typeof value === 'object' && value === realNaN;
}

const doubles: number[] = [];
/** Absent values as elements that are no longer unboxed. */
const mixed: unknown[] = [{}];
for (let i = 0; i < chunkSize; i += 1) {
  doubles.push(NaN);
  if (i > 0) mixed.push(NaN);
}
mixed[0] = NaN;

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
  /** Shape of the rows, once there was one. */
  #record: NumberRecord | undefined;
  /** Chunks of rows, in place of those of values. */
  readonly #rows: (number[] | undefined)[] = [];
  /** New chunks may be rows. */
  #takesRows: boolean;

  /** @param takesRows values are plain data that is never changed in place; reading may give an equal object */
  constructor(takesRows = false) {
    this.#takesRows = takesRows;
  }

  /** NaN when absent; a present NaN is `realNaN`. */
  peek(slot: number): unknown {
    if (this.#record !== undefined) {
      const rows = this.#rows[slot >>> chunkBits];
      if (rows !== undefined) {
        const row = (slot & chunkMask) * this.#record.width;
        return row < rows.length ? this.#record.read(rows, row) : NaN;
      }
    }
    const chunk = this.#chunks[slot >>> chunkBits];
    if (chunk === undefined) return NaN;
    const at = slot & chunkMask;
    return at < chunk.length ? chunk[at] : NaN;
  }

  /** As `put`, with strings of its own, and as a row if it may be. */
  update(slot: number, value: unknown): boolean {
    if (typeof value === 'number' && this.#record === undefined) return this.put(slot, value);
    if (typeof value === 'object' && value !== null) {
      const rows = this.#rowsAt(slot, value);
      if (rows !== undefined) {
        if (this.isObserved) this.capture(slot);
        const row = (slot & chunkMask) * this.#record!.width;
        const before = rows[row];
        if (this.#record!.write(rows, row, value)) return before !== before;
      }
    }
    return this.put(slot, ownStrings(value, this.peek(slot)));
  }

  /** True when the slot had no value. */
  put(slot: number, value: unknown): boolean {
    if (this.isObserved) this.capture(slot);
    if (this.#record !== undefined) this.#leaveRows(slot);
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
    const rows = this.#rows[slot >>> chunkBits];
    if (rows !== undefined) rows[(slot & chunkMask) * this.#record!.width] = NaN;
    else this.#chunks[slot >>> chunkBits]![slot & chunkMask] = NaN;
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

  /** The chunk of rows a slot lies in, long enough; undefined when it is one of values. */
  #rowsAt(slot: number, value: object): number[] | undefined {
    const index = slot >>> chunkBits;
    const rows = this.#rows[index];
    const row = slot & chunkMask;
    if (this.#record !== undefined && rows !== undefined) {
      return row * this.#record.width < rows.length ? rows : this.#growRows(slot, rows);
    }
    if (!this.#takesRows || (this.#chunks[index] ?? noChunk) !== noChunk) return undefined;
    this.#record ??= numberRecordOf(value);
    if (this.#record !== undefined) return this.#growRows(slot, []);
    this.#takesRows = false;
    return undefined;
  }

  #growRows(slot: number, before: readonly number[]): number[] {
    const { width } = this.#record!;
    const index = slot >>> chunkBits;
    const rows = before.slice();
    const length = width * sizeFor(slot);
    while (rows.length < length) rows.push(NaN);
    while (this.#rows.length < index) this.#rows.push(undefined);
    this.#rows[index] = rows;
    return rows;
  }

  /** A value that is no such row comes: the chunk's rows become objects, and later chunks are none. */
  #leaveRows(slot: number): void {
    const index = slot >>> chunkBits;
    const rows = this.#rows[index];
    if (rows === undefined) return;
    this.#takesRows = false;
    const { width } = this.#record!;
    const first = index << chunkBits;
    const values = Array.from({ length: rows.length / width }, (_, i) => this.peek(first + i));
    this.#rows[index] = undefined;
    values.forEach((each, i) => {
      if (each === each) this.#store(first + i, each);
    });
  }

  #store(slot: number, value: unknown): void {
    const chunk = this.#chunks[slot >>> chunkBits];
    const at = slot & chunkMask;
    const room = chunk === undefined || at >= chunk.length ? this.#grow(slot, value) : chunk;
    room[at] = value;
  }

  #grow(slot: number, value: unknown): unknown[] {
    this.#hasObjects ||= typeof value !== 'number';
    const template = this.#hasObjects ? mixed : doubles;
    const index = slot >>> chunkBits;
    while (this.#chunks.length < index) this.#chunks.push(noChunk);
    const before = this.#chunks[index];
    const chunk = template.slice(0, sizeFor(slot));
    if (before !== undefined) for (let i = 0; i < before.length; i += 1) chunk[i] = before[i];
    this.#chunks[index] = chunk;
    return chunk;
  }
}
