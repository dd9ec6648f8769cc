/**
 * Keys to key groups (and key-group-range.ts: key groups to subtasks). A key hashes by its value, never by a column's type, so every process
 * and every restore agrees. NB: frozen. Checkpoints and channels depend on each bit (golden values in the test).
 */
import { MillraceError } from '../base/errors.js';

const nanHash = 0x7ff80000;
/** Java's hash codes of booleans. */
const trueHash = 1231;
const falseHash = 1237;
const nullHash = 0x6e756c6c;
const bigintSeed = 0x62696769;
const tupleSeed = 0x7475706c;

const float = new Float64Array(1);
const words = new Int32Array(float.buffer);
const isLittleEndian = new Uint8Array(Int32Array.of(1).buffer)[0] === 1;
const lowWord = isLittleEndian ? 0 : 1;

/** Finalizer of murmur3-32: every input bit reaches every output bit. */
export function fmix32(value: number): number {
  let h = value | 0;
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return h ^ (h >>> 16);
}

/** One block of murmur3-32. */
function mixBlock(hash: number, block: number): number {
  const k = Math.imul(block, 0xcc9e2d51);
  const h = hash ^ Math.imul((k << 15) | (k >>> 17), 0x1b873593);
  return (Math.imul((h << 13) | (h >>> 19), 5) + 0xe6546b64) | 0;
}

/**
 * murmur3-32 over the UTF-16 code units, little endian, two to a block. The block is written out here: the
 * function is called for each record, and inlines whole.
 */
function hashString(text: string, seed: number): number {
  const { length } = text;
  const even = length & ~1;
  let h = seed;
  for (let i = 0; i < even; i += 2) {
    const k = Math.imul(text.charCodeAt(i) | (text.charCodeAt(i + 1) << 16), 0xcc9e2d51);
    h ^= Math.imul((k << 15) | (k >>> 17), 0x1b873593);
    h = (Math.imul((h << 13) | (h >>> 19), 5) + 0xe6546b64) | 0;
  }
  if (even !== length) {
    const k = Math.imul(text.charCodeAt(even), 0xcc9e2d51);
    h ^= Math.imul((k << 15) | (k >>> 17), 0x1b873593);
  }
  return fmix32(h ^ (length * 2));
}

function hashDouble(key: number): number {
  if (key !== key) return fmix32(nanHash);
  float[0] = key;
  return fmix32((words[lowWord] ?? 0) ^ fmix32(words[1 - lowWord] ?? 0));
}

function hashTuple(key: readonly unknown[]): number {
  let h = tupleSeed;
  for (const part of key) h = mixBlock(h, hashKey(part));
  return fmix32(h ^ key.length);
}

/** A signed 32-bit hash. RECORD_UNSUPPORTED for what cannot be a key. */
export function hashKey(key: unknown): number {
  if (typeof key === 'string') return hashString(key, 0);
  // -0 | 0 is 0 and -0 === 0, so that both zeros hash as an integer.
  if (typeof key === 'number') return (key | 0) === key ? fmix32(key) : hashDouble(key);
  return hashOther(key);
}

function hashOther(key: unknown): number {
  switch (typeof key) {
    case 'boolean':
      return fmix32(key ? trueHash : falseHash);
    case 'bigint':
      return hashString(key.toString(16), bigintSeed);
    case 'object':
      if (key === null) return fmix32(nullHash);
      if (Array.isArray(key)) return hashTuple(key);
      break;
    default:
  }
  throw unsupportedKey(key);
}

/** Objects are refused because equal looking ones are different keys to JavaScript. */
export function unsupportedKey(key: unknown): MillraceError {
  const type = typeof key === 'object' ? 'an object' : `a value of type ${typeof key}`;
  return new MillraceError(
    'RECORD_UNSUPPORTED',
    `the key selector returned ${type}; a key is a number, string, boolean, bigint, null, or an array of these`,
  );
}

export function keyGroupOf(key: unknown, maxParallelism: number): number {
  return (hashKey(key) >>> 0) % maxParallelism;
}

/** The same from the key's hash. */
export function keyGroupOfHash(hash: number, maxParallelism: number): number {
  return (hash >>> 0) % maxParallelism;
}
