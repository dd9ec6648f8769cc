/**
 * Collects the records of one channel in columns. The `append` of a schema is generated
 * (columnar-writer-code.ts); the rest, which runs once a batch, is here.
 */
import { Buffer } from 'node:buffer';
import type { BatchWriter } from './batch-codec.js';
import { textEncoding, type BatchLayout } from './columnar-layout.js';
import { sizeOfText, textBytesToTry, tryWriteAscii, writeText } from './text-region.js';
import { categoriesMax, categoryLengthMax } from './record-schema.js';
import { encodeValue } from './value-codec.js';

/** What a writer asks for when a record is not of its schema. */
export interface MisfitHandler {
  /** Appends it in another way, to a writer that takes the place of this one with all it holds. */
  misfit(writer: ColumnarWriter, value: unknown, timestamp: number): boolean;
  /** The writer is empty: it may be replaced. */
  sealed(writer: ColumnarWriter): void;
}

export interface ColumnarWriterOptions {
  readonly index: number;
  readonly bufferBytes: number;
  readonly owner: MisfitHandler;
}

export type ColumnarWriterClass = new (options: ColumnarWriterOptions) => ColumnarWriter;

/** Records that a writer has room for; more are a misfit. */
export function recordCapacity(layout: BatchLayout, bufferBytes: number): number {
  const room = bufferBytes - layout.header.byteLength - layout.bytesFixed;
  const most = Math.ceil(room / Math.max(1, layout.bytesPerRecord)) + 1;
  return Math.min(Math.max(most, 4), 1 << 16);
}

/** Where a column begins while the batch is collected, in bytes: room for `capacity` records in each. */
export function scratchOffsets(layout: BatchLayout, capacity: number): readonly number[] {
  let offset = layout.header.byteLength;
  const offsets = layout.columns.map((column) => {
    const start = offset;
    offset = Math.ceil((offset + column.bytes * (capacity + column.extra)) / 8) * 8;
    return start;
  });
  return [...offsets, offset];
}

const noBytes = new Uint8Array(0);

/** Fields are public for generated code only. */
export abstract class ColumnarWriter implements BatchWriter {
  count = 0;
  /** Strings of the batch, one after another; a rope until it is sealed. */
  text = '';
  textLength = 0;
  /** `any` values of the batch. */
  anyBytes: Uint8Array = noBytes;
  anyLength = 0;
  firstTimestamp = 0;
  /** Of each field that is a category, its strings in this batch and their numbers. */
  readonly categories: readonly Map<string, number>[];
  /** Fields that have too many, or too long ones, by their numbers among the leaves. */
  readonly crowded = new Set<number>();
  /** `append` answers true from so many bytes (a character counted as one) on. */
  limit: number;
  f64!: Float64Array;
  i64!: BigInt64Array;
  i32!: Int32Array;
  u32!: Uint32Array;
  u16!: Uint16Array;
  u8!: Uint8Array;
  readonly index: number;
  readonly layout: BatchLayout;
  readonly #owner: MisfitHandler;
  readonly #room: number;
  readonly #scratch: readonly number[];
  #bytes!: Buffer;

  constructor(layout: BatchLayout, capacity: number, options: ColumnarWriterOptions) {
    this.layout = layout;
    this.index = options.index;
    this.#owner = options.owner;
    this.#room = Math.min(
      options.bufferBytes - layout.header.byteLength - layout.bytesFixed,
      (capacity - 1) * Math.max(1, layout.bytesPerRecord),
    );
    this.limit = Math.floor(this.#room * 0.8);
    this.#scratch = scratchOffsets(layout, capacity);
    this.categories = Array.from({ length: layout.categories }, () => new Map<string, number>());
    const size = Math.max(this.#scratch.at(-1)!, options.bufferBytes);
    this.#allocate(size, layout.header);
  }

  abstract append(value: unknown, timestamp: number): boolean;

  /** A record that does not fit into the columns, or no more. */
  misfit(value: unknown, timestamp: number): boolean {
    return this.#owner.misfit(this, value, timestamp);
  }

  /** @returns where the bytes of the value end. */
  putAny(value: unknown, start: number, record: unknown): number {
    const encoded = this.#encode(value, record);
    const end = start + encoded.byteLength;
    if (end > this.anyBytes.byteLength) {
      const larger = new Uint8Array(Math.max(end, 2 * this.anyBytes.byteLength, 1024));
      larger.set(this.anyBytes.subarray(0, start));
      this.anyBytes = larger;
    }
    this.anyBytes.set(encoded, start);
    return end;
  }

  /** @returns the number of a category seen for the first time; undefined: the field is none after all. */
  addCategory(field: number, leaf: number, text: string): number | undefined {
    const known = this.categories[field]!;
    if (known.size >= categoriesMax || text.length > categoryLengthMax) {
      this.crowded.add(leaf);
      return undefined;
    }
    known.set(text, known.size);
    // Room for it is taken from the records, as their loop looks at those only.
    this.limit -= text.length + 1;
    return known.size - 1;
  }

  /** Valid until the next append. */
  seal(): Uint8Array {
    const { count } = this;
    const layout = this.layout;
    for (const column of layout.columns) {
      // Columns with an element more begin with a 0, which the last batch may have written over.
      if (column.extra === 1)
        this.#bytes.fill(
          0,
          this.#scratch[column.index],
          this.#scratch[column.index]! + column.bytes,
        );
    }
    let end = layout.header.byteLength;
    for (const column of layout.columns) {
      const from = this.#scratch[column.index]!;
      const bytes = column.bytes * (count + column.extra);
      this.#bytes.copyWithin(end, from, from + bytes);
      end += bytes;
    }
    const sizesStart = end;
    if (this.categories.length > 0) end = this.#putCategories(end);
    this.#bytes.writeUInt16LE(end - sizesStart, 30);
    const used = end - layout.header.byteLength + this.text.length + this.anyLength;
    const anyLength = this.anyLength;
    if (anyLength > 0) {
      this.#reserve(end + anyLength, end);
      this.#bytes.set(this.anyBytes.subarray(0, anyLength), end);
      end += anyLength;
    }
    end = this.#finish(end);
    // No Buffer, whose `slice` would not copy.
    const sealed = new Uint8Array(this.#bytes.buffer, 0, end);
    this.#setLimit(used, end - layout.header.byteLength - layout.bytesFixed, count);
    this.count = 0;
    this.text = '';
    this.textLength = 0;
    this.anyLength = 0;
    this.#owner.sealed(this);
    return sealed;
  }

  /** Their sizes at `start`, their strings behind the text of the records. */
  #putCategories(start: number): number {
    let most = start;
    for (const known of this.categories) most += 1 + known.size;
    this.#reserve(most, start);
    let end = start;
    for (const known of this.categories) {
      this.#bytes[end++] = known.size;
      for (const text of known.keys()) {
        this.#bytes[end++] = text.length;
        this.text += text;
      }
      known.clear();
    }
    return end;
  }

  /** The text, and what of the header differs between batches. */
  #finish(start: number): number {
    const { text } = this;
    let encoding: number = textEncoding.ascii;
    let end = start + text.length;
    if (text !== '') {
      this.#reserve(start + textBytesToTry(text), start);
      if (!tryWriteAscii(this.#bytes, start, text)) {
        const size = sizeOfText(text);
        encoding = size.encoding;
        end = start + size.bytes;
        this.#reserve(end, start);
        writeText(this.#bytes, start, text, size);
      }
    }
    const bytes = this.#bytes;
    bytes[2] = encoding;
    bytes.writeUInt32LE(this.count, 4);
    bytes.writeDoubleLE(this.layout.schema.timestamps === 'offset' ? this.firstTimestamp : 0, 8);
    bytes.writeUInt32LE(text.length, 16);
    bytes.writeUInt32LE(end - start, 20);
    bytes.writeUInt32LE(this.anyLength, 24);
    return end;
  }

  /** Leaves room for one more record, a little larger than those of this batch; characters may take bytes. */
  #setLimit(counted: number, bytes: number, count: number): void {
    if (count === 0 || counted === 0) return;
    const growth = bytes > counted ? (1.05 * bytes) / counted : 1;
    this.limit = Math.floor(this.#room / growth - (1.25 * counted) / count - 16);
  }

  #reserve(bytes: number, used: number): void {
    if (bytes > this.#bytes.byteLength)
      this.#allocate(bytes + (bytes >>> 2), this.#bytes.subarray(0, used));
  }

  #allocate(size: number, content: Uint8Array): void {
    const buffer = new ArrayBuffer(Math.ceil(size / 8) * 8);
    this.#bytes = Buffer.from(buffer);
    this.#bytes.set(content);
    this.f64 = new Float64Array(buffer);
    this.i64 = new BigInt64Array(buffer);
    this.i32 = new Int32Array(buffer);
    this.u32 = new Uint32Array(buffer);
    this.u16 = new Uint16Array(buffer);
    this.u8 = new Uint8Array(buffer);
  }

  #encode(value: unknown, record: unknown): Uint8Array {
    try {
      return encodeValue(value);
    } catch (error) {
      // Once more, for the whole path in the message.
      encodeValue(record);
      throw error;
    }
  }
}
