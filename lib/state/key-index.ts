/**
 * The keys of one operator subtask: from a key to a dense number, its slot, and back. States, windows and
 * timers are columns indexed by slot. Slots begin at 0; freed ones are used again. Columns and keys lie
 * in chunks of 4096 slots, so that nothing is ever copied as a whole when it grows.
 */
import { homeOf, KeyCells, spread } from './key-cells.js';
import { unsupportedKey } from './key-group.js';
import { KeyTexts } from './key-texts.js';
import { own } from '../record/codec/owned-strings.js';
import { chunkBits, chunkMask, chunkSize, firstChunk } from './slots.js';

export class KeyIndex {
  /** Slots from here on were never used: a snapshot that begins now looks at those before. */
  limit = 0;
  readonly #cells: KeyCells;
  /** By slot; a freed slot and one of a short text hold 0 or ''. */
  readonly #keys: unknown[][] = [];
  /** Every key that is a short text. */
  readonly #texts = new KeyTexts();
  /** By slot: the key's hash and the number of states and timers that hold the slot. */
  readonly #facts: Int32Array[] = [];
  /** Freed slots: the first, and in place of its hash the next, each + 1. */
  #free = 0;
  /** Every key is a 32-bit integer, whose hash no other such key has: it need not be compared. */
  #isInts = true;

  constructor(expected = 0) {
    this.#cells = new KeyCells(expected);
  }

  /** The slot of a key; -1 when it has none. `hash` is the key's `hashKey`. */
  find(key: unknown, hash: number): number {
    if (typeof key === 'string') return this.#findString(key, hash);
    if (this.#isInts) {
      return typeof key === 'number' && (key | 0) === key ? this.#cells.find(hash) : -1;
    }
    return this.#findOther(key, hash);
  }

  /** Gives the key a slot; it has none. Nothing holds it yet. */
  insert(key: unknown, hash: number): number {
    const slot = this.#free > 0 ? this.#free - 1 : this.limit;
    const isText = typeof key === 'string' && this.#texts.tryPut(slot, key);
    const owned = isText ? 0 : canonicalKey(key);
    if (this.#isInts) this.#isInts = !isText && typeof owned === 'number' && (owned | 0) === owned;
    this.#allocate(owned);
    const facts = this.#facts[slot >>> chunkBits]!;
    const at = (slot & chunkMask) << 1;
    facts[at] = hash;
    facts[at + 1] = 0;
    this.#cells.insert(hash, slot);
    return slot;
  }

  /** Do not change it: an array is the index's own. */
  keyAt(slot: number): unknown {
    if (this.#texts.has(slot)) return this.#texts.get(slot);
    return this.#keys[slot >>> chunkBits]![slot & chunkMask];
  }

  /** Of a freed slot a number of no meaning. */
  hashAt(slot: number): number {
    return this.#facts[slot >>> chunkBits]![(slot & chunkMask) << 1]!;
  }

  hold(slot: number): void {
    const facts = this.#facts[slot >>> chunkBits]!;
    const at = ((slot & chunkMask) << 1) + 1;
    facts[at] = facts[at]! + 1;
  }

  /** True when nothing holds the slot any more: it is free. */
  release(slot: number): boolean {
    const facts = this.#facts[slot >>> chunkBits]!;
    const at = (slot & chunkMask) << 1;
    const holders = facts[at + 1]! - 1;
    facts[at + 1] = holders;
    if (holders > 0) return false;
    this.#cells.remove(facts[at]!, slot);
    if (this.#texts.has(slot)) this.#texts.remove(slot);
    const keys = this.#keys[slot >>> chunkBits]!;
    keys[slot & chunkMask] = typeof keys[slot & chunkMask] === 'number' ? 0 : '';
    facts[at] = this.#free;
    this.#free = slot + 1;
    return true;
  }

  /** Takes the first free slot, or the next one. */
  #allocate(key: unknown): void {
    const free = this.#free;
    if (free > 0) {
      this.#free = this.hashAt(free - 1);
      this.#keys[(free - 1) >>> chunkBits]![(free - 1) & chunkMask] = key;
      return;
    }
    const slot = this.limit;
    this.limit += 1;
    const chunk = slot >>> chunkBits;
    const at = slot & chunkMask;
    if (at === 0) {
      this.#keys.push([]);
      this.#facts.push(new Int32Array(2 * (chunk === 0 ? firstChunk : chunkSize)));
    } else if (2 * at === this.#facts[chunk]!.length) {
      const facts = new Int32Array(8 * at);
      facts.set(this.#facts[chunk]!);
      this.#facts[chunk] = facts;
    }
    this.#keys[chunk]!.push(key);
  }

  #findString(key: string, hash: number): number {
    const { directory, directoryShift } = this.#cells;
    const cells = directory[Math.imul(hash, spread) >>> directoryShift]!;
    const mask = cells.length - 1;
    let at = homeOf(cells, hash);
    for (;;) {
      const slot = cells[at + 1]! - 1;
      if (slot < 0) return -1;
      if (cells[at] === hash) {
        if (this.#texts.isAt(slot, key)) return slot;
        // Only a long text is a string here.
        if (this.#keys[slot >>> chunkBits]![slot & chunkMask] === key) return slot;
      }
      at = (at + 2) & mask;
    }
  }

  #findOther(key: unknown, hash: number): number {
    const { directory, directoryShift } = this.#cells;
    const cells = directory[Math.imul(hash, spread) >>> directoryShift]!;
    const mask = cells.length - 1;
    let at = homeOf(cells, hash);
    for (;;) {
      const slot = cells[at + 1]! - 1;
      if (slot < 0) return -1;
      if (cells[at] === hash && isSameKey(this.keyAt(slot), key)) return slot;
      at = (at + 2) & mask;
    }
  }
}

/** Equality of keys: -0 is 0, NaN is NaN, tuples are equal part by part, types differ. */
export function isSameKey(a: unknown, b: unknown): boolean {
  if (a === b) return true;
  if (typeof a === 'number') return a !== a && b !== b;
  if (!Array.isArray(a) || !Array.isArray(b) || a.length !== b.length) return false;
  for (let i = 0; i < a.length; i += 1) if (!isSameKey(a[i], b[i])) return false;
  return true;
}

/** A key as it is kept: 0 for -0, strings and arrays its own. RECORD_UNSUPPORTED for what cannot be a key. */
export function canonicalKey(key: unknown): unknown {
  switch (typeof key) {
    case 'string':
      return own(key);
    case 'number':
      return key === 0 ? 0 : key;
    case 'boolean':
    case 'bigint':
      return key;
    case 'object':
      if (key === null) return null;
      if (Array.isArray(key)) return key.map(canonicalKey);
      break;
    default:
  }
  throw unsupportedKey(key);
}
