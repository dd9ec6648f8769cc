/**
 * Short keys of text by slot, as bytes in rows of 32: to compare one costs a single access to memory, where a string
 * costs two (to a million keys most accesses miss the caches), and the garbage collector sees nothing of them.
 */
import { chunkBits, chunkMask, sizeFor } from './slots.js';

const rowBits = 5;
const lengthMax = (1 << rowBits) - 1;

export class KeyTexts {
  /** Rows: length + 1 (0: none), then a byte for each character. */
  readonly #chunks: (Buffer | undefined)[] = [];

  /** False when the text is too long or has characters beyond Latin-1. The slot has none. */
  tryPut(slot: number, text: string): boolean {
    const { length } = text;
    if (length > lengthMax) return false;
    for (let i = 0; i < length; i += 1) if (text.charCodeAt(i) > 0xff) return false;
    const chunk = this.#reach(slot);
    const row = (slot & chunkMask) << rowBits;
    chunk[row] = length + 1;
    for (let i = 0; i < length; i += 1) chunk[row + 1 + i] = text.charCodeAt(i);
    return true;
  }

  has(slot: number): boolean {
    const chunk = this.#chunks[slot >>> chunkBits];
    const row = (slot & chunkMask) << rowBits;
    return chunk !== undefined && row < chunk.length && chunk[row] !== 0;
  }

  isAt(slot: number, text: string): boolean {
    const chunk = this.#chunks[slot >>> chunkBits];
    const { length } = text;
    const row = (slot & chunkMask) << rowBits;
    if (chunk === undefined || row >= chunk.length || chunk[row] !== length + 1) return false;
    for (let i = 0; i < length; i += 1) {
      if (chunk[row + 1 + i] !== text.charCodeAt(i)) return false;
    }
    return true;
  }

  /** The slot has one. */
  get(slot: number): string {
    const chunk = this.#chunks[slot >>> chunkBits]!;
    const row = (slot & chunkMask) << rowBits;
    return chunk.toString('latin1', row + 1, row + chunk[row]!);
  }

  remove(slot: number): void {
    this.#chunks[slot >>> chunkBits]![(slot & chunkMask) << rowBits] = 0;
  }

  #reach(slot: number): Buffer {
    const index = slot >>> chunkBits;
    const chunk = this.#chunks[index];
    if (chunk !== undefined && (slot & chunkMask) << rowBits < chunk.length) return chunk;
    while (this.#chunks.length < index) this.#chunks.push(undefined);
    const grown = Buffer.alloc(sizeFor(slot) << rowBits);
    if (chunk !== undefined) grown.set(chunk);
    this.#chunks[index] = grown;
    return grown;
  }
}
