/**
 * Encoded entries of a snapshot, collected by chain (a key group, or a part of one) in the order they come in.
 * An entry is a pair of values (key and value, time and key); a chain is the elements of one array of the value
 * codec. Numbers and short ASCII strings are written right here, what else there is by the value codec.
 */
import { encodeValue } from '../record/codec/value-codec.js';

const firstBlockBytes = 1024;
const blockBytesMax = 256 * 1024;
/** Elements the value codec is given at once: objects of one shape share its description. */
export const batchElementsMax = 128;
const asciiMax = 255;
/** Fewer bytes are copied by a loop sooner than by a call. */
const loopBytesMax = 48;
const pairBytesMax = 2 * (asciiMax + 2);

interface Chain {
  first: number;
  last: number;
  bytes: number;
  elements: number;
}

export class GroupLog {
  readonly #what: string;
  readonly #blocks: Buffer[] = [];
  #block: Buffer;
  #at = 0;
  readonly #chains = new Map<number, Chain>();
  /** Runs of bytes of one chain: block, first byte, length, and the chain's next run (-1: none). */
  readonly #runs: number[] = [];
  #chain: Chain = { first: -1, last: -1, bytes: 0, elements: 0 };
  #start = 0;
  #batch: unknown[] = [];

  /** @param what names the state in errors */
  constructor(what: string) {
    this.#what = what;
    this.#block = Buffer.allocUnsafeSlow(firstBlockBytes);
    this.#blocks.push(this.#block);
  }

  /** The entries up to `close` belong to this chain. Nothing else may run in between. */
  open(id: number): void {
    let chain = this.#chains.get(id);
    if (chain === undefined) {
      chain = { first: -1, last: -1, bytes: 0, elements: 0 };
      this.#chains.set(id, chain);
    }
    this.#chain = chain;
    this.#start = this.#at;
    // What an entry that could not be encoded left behind.
    if (this.#batch.length > 0) this.#batch = [];
  }

  /** RECORD_UNSUPPORTED for what cannot be encoded, now or on `close`. */
  entry(first: unknown, second: unknown): void {
    this.#chain.elements += 2;
    if (isShort(first) && isShort(second)) {
      if (this.#batch.length > 0) this.#flush();
      this.#reserve(pairBytesMax);
      const start = this.#at;
      if (this.#writeShort(first) && this.#writeShort(second)) return;
      this.#at = start;
    }
    this.#batch.push(first, second);
    if (this.#batch.length >= batchElementsMax) this.#flush();
  }

  close(): void {
    if (this.#batch.length > 0) this.#flush();
    this.#endRun();
  }

  chains(): IterableIterator<number> {
    return this.#chains.keys();
  }

  has(id: number): boolean {
    return this.#chains.has(id);
  }

  /** Bytes of a chain's array, its header included. */
  sizeOf(id: number): number {
    return arrayHeaderBytes + (this.#chains.get(id)?.bytes ?? 0);
  }

  /**
   * The chain as an encoded array, in pieces. Entries that were captured one by one are runs of a few bytes: they
   * are put together, as a view of each would cost more than all the rest.
   */
  *payload(id: number): Generator<Uint8Array> {
    const chain = this.#chains.get(id);
    yield arrayHeader(chain?.elements ?? 0);
    const pieceBytes = Math.min(chain?.bytes ?? 0, blockBytesMax);
    let piece = Buffer.allocUnsafeSlow(pieceBytes);
    let at = 0;
    for (let run = chain?.first ?? -1; run >= 0; run = this.#runs[run + 3]!) {
      const block = this.#blocks[this.#runs[run]!]!;
      const start = this.#runs[run + 1]!;
      const length = this.#runs[run + 2]!;
      if (at > 0 && at + length > pieceBytes) {
        yield piece.subarray(0, at);
        piece = Buffer.allocUnsafeSlow(pieceBytes);
        at = 0;
      }
      if (length > pieceBytes) yield block.subarray(start, start + length);
      else if (length > loopBytesMax) {
        piece.set(block.subarray(start, start + length), at);
        at += length;
      } else {
        for (let i = 0; i < length; i += 1) piece[at + i] = block[start + i]!;
        at += length;
      }
    }
    if (at > 0) yield piece.subarray(0, at);
  }

  #flush(): void {
    const batch = this.#batch;
    this.#batch = [];
    const bytes = encodeValue(batch, this.#what);
    const header = batch.length < 16 ? 1 : batch.length < 0x10000 ? 3 : 5;
    const length = bytes.byteLength - header;
    this.#reserve(length);
    this.#block.set(bytes.subarray(header), this.#at);
    this.#at += length;
  }

  #endRun(): void {
    const length = this.#at - this.#start;
    if (length === 0) return;
    const chain = this.#chain;
    const run = this.#runs.length;
    this.#runs.push(this.#blocks.length - 1, this.#start, length, -1);
    if (chain.last < 0) chain.first = run;
    else this.#runs[chain.last + 3] = run;
    chain.last = run;
    chain.bytes += length;
    this.#start = this.#at;
  }

  #reserve(bytes: number): void {
    if (this.#at + bytes <= this.#block.byteLength) return;
    this.#endRun();
    const size = Math.min(blockBytesMax, this.#block.byteLength * 4);
    this.#block = Buffer.allocUnsafeSlow(Math.max(size, bytes));
    this.#blocks.push(this.#block);
    this.#at = 0;
    this.#start = 0;
  }

  /** False when it is a string that is no ASCII; what was written of it counts for nothing. */
  #writeShort(value: string | number): boolean {
    const block = this.#block;
    if (typeof value === 'number') {
      this.#at = writeNumber(block, this.#at, value);
      return true;
    }
    const { length } = value;
    let at = this.#at;
    if (length < 32) {
      block[at] = 0xa0 | length;
      at += 1;
    } else {
      block[at] = 0xd9;
      block[at + 1] = length;
      at += 2;
    }
    let union = 0;
    for (let i = 0; i < length; i += 1) {
      const code = value.charCodeAt(i);
      union |= code;
      block[at + i] = code;
    }
    this.#at = at + length;
    return union < 0x80;
  }
}

function isShort(value: unknown): value is string | number {
  return typeof value === 'number' || (typeof value === 'string' && value.length <= asciiMax);
}

function writeNumber(target: Buffer, at: number, value: number): number {
  if ((value | 0) === value && !Object.is(value, -0)) {
    // From 64 on one byte could be the number of an object's shape.
    if (value >= 0 && value < 64) {
      target[at] = value;
      return at + 1;
    }
    target[at] = 0xd2;
    return target.writeInt32BE(value, at + 1);
  }
  // As float64 every number is exact, -0 and NaN too.
  target[at] = 0xcb;
  return target.writeDoubleBE(value, at + 1);
}

export function encodedNumber(value: number): Buffer {
  const bytes = Buffer.alloc(9);
  return bytes.subarray(0, writeNumber(bytes, 0, value));
}

export const arrayHeaderBytes = 5;

/** Of an array of `length` elements that follow. */
export function arrayHeader(length: number): Buffer {
  const header = Buffer.alloc(arrayHeaderBytes);
  header[0] = 0xdd;
  header.writeUInt32BE(length, 1);
  return header;
}

export const binaryHeaderBytes = 5;

/** Of a byte string of `length` bytes that follow. */
export function binaryHeader(length: number): Buffer {
  const header = Buffer.alloc(binaryHeaderBytes);
  header[0] = 0xc6;
  header.writeUInt32BE(length, 1);
  return header;
}
