import { chunkBits, chunkMask, chunkSize } from './slots.js';

const firstChunk = 16;

/** Rows of a few 32-bit integers by number, in chunks: never copied as a whole when it grows. */
export class IntRows {
  readonly #width: number;
  readonly #chunks: Int32Array[] = [];

  constructor(width: number) {
    this.#width = width;
  }

  get(row: number, field: number): number {
    return this.#chunks[row >>> chunkBits]![(row & chunkMask) * this.#width + field]!;
  }

  set(row: number, field: number, value: number): void {
    this.#chunks[row >>> chunkBits]![(row & chunkMask) * this.#width + field] = value;
  }

  /** Makes room; rows are added in ascending order. */
  reach(row: number): void {
    const index = row >>> chunkBits;
    const chunk = this.#chunks[index];
    const needed = ((row & chunkMask) + 1) * this.#width;
    if (chunk !== undefined && chunk.length >= needed) return;
    let rows = index > 0 ? chunkSize : firstChunk;
    while (rows * this.#width < needed) rows *= 4;
    const grown = new Int32Array(rows * this.#width);
    if (chunk !== undefined) grown.set(chunk);
    this.#chunks[index] = grown;
  }
}
