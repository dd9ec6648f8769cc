/**
 * Reads the records of a columnar batch in place. `value` and `timestamp` of a schema are generated
 * (columnar-reader-code.ts). Views span the whole buffer of a batch, and are kept while batches come from the same one
 * (a ring's); a batch is checked as a whole when it is opened, so that no index leads out of it.
 */
import { Buffer } from 'node:buffer';
import { MillraceError } from '../../base/errors.js';
import type { BatchReader } from './batch-codec.js';
import { recordsMax, textEncoding, type BatchLayout } from './columnar-layout.js';
import { own } from './owned-strings.js';
import { decodeValue, isShared } from './value-codec.js';

/** A string that is kept pins the page of text it was cut from: small pages pin little, and cost little more. */
const pageBytes = 2048;

export type ColumnarReaderClass = new () => ColumnarReader;

export const damagedBatch = (reason: string): MillraceError =>
  new MillraceError('RPC_PROTOCOL', `a batch of records is damaged: ${reason}`);

const knownCategoriesMax = 1024;

const noBuffer = Buffer.alloc(0);

/** Fields are public for generated code only. */
export abstract class ColumnarReader implements BatchReader {
  count = 0;
  firstTimestamp = 0;
  /** The text of the records from `pageFirst` on, `pageRecords` of them. */
  page = '';
  pageFirst = 0;
  pageRecords = 0;
  /** Position in the text of the batch where the page begins. */
  pageStart = 0;
  f64 = new Float64Array(0);
  i64 = new BigInt64Array(0);
  i32 = new Int32Array(0);
  u32 = new Uint32Array(0);
  u16 = new Uint16Array(0);
  u8 = new Uint8Array(0);
  /** Of each field that is a category, its strings in this batch. */
  readonly categories: string[][];
  readonly #layout: BatchLayout;
  /** Categories of batches before, so that equal ones are the same string, whose hash is known. */
  readonly #known = new Map<string, string>();
  #buffer: ArrayBufferLike | undefined;
  /** A copy of a batch that is not aligned. */
  #aligned = new Uint8Array(0);
  /** Of the text. */
  #text: Buffer = noBuffer;
  #encoding = 0;
  #textLength = 0;
  /** Of it, what is not of categories. */
  #recordsText = 0;
  /** Of the `any` values. */
  #any: Uint8Array = noBuffer;

  constructor(layout: BatchLayout) {
    this.#layout = layout;
    this.categories = Array.from({ length: layout.categories }, () => []);
  }

  abstract value(i: number): unknown;
  abstract timestamp(i: number): number;
  /** Sets the bases of the columns of a batch that begins at `start` of the views; generated. */
  abstract place(start: number, count: number): void;
  /** Where in the text the i-th record begins; generated. */
  abstract textStart(i: number): number;
  abstract anyStart(i: number): number;

  /** @param bytes with a header as long as the layout's, which was checked. */
  load(bytes: Uint8Array): this {
    const layout = this.#layout;
    const whole = bytes.byteOffset % 8 === 0 ? bytes : this.#align(bytes);
    const view = new DataView(whole.buffer, whole.byteOffset, whole.byteLength);
    const count = view.getUint32(4, true);
    const textLength = view.getUint32(16, true);
    const textBytes = view.getUint32(20, true);
    const anyBytes = view.getUint32(24, true);
    const columnsEnd = layout.header.byteLength + count * layout.bytesPerRecord + layout.bytesFixed;
    const sizesBytes = view.getUint16(30, true);
    if (columnsEnd + sizesBytes + anyBytes + textBytes !== whole.byteLength)
      throw damagedBatch('cut short');
    if (layout.bytesPerRecord === 0 && count > recordsMax) throw damagedBatch('too many records');
    this.#view(whole.buffer);
    this.place(whole.byteOffset, count);
    this.firstTimestamp = view.getFloat64(8, true);
    this.#encoding = view.getUint8(2);
    const anyAt = whole.byteOffset + columnsEnd + sizesBytes;
    const any = anyBytes === 0 ? noBuffer : new Uint8Array(whole.buffer, anyAt, anyBytes);
    // Once for the batch instead of once for each value (value-codec.ts).
    this.#any = isShared(any) ? new Uint8Array(any) : any;
    this.#text =
      textBytes === 0 ? noBuffer : Buffer.from(whole.buffer, anyAt + anyBytes, textBytes);
    this.#textLength = textLength;
    this.count = count;
    this.#checkTails(textBytes, anyBytes);
    this.#firstPage();
    this.#readCategories(new Uint8Array(whole.buffer, anyAt - sizesBytes, sizesBytes));
    return this;
  }

  /** Makes the page that holds the text of the i-th record. */
  turnPage(i: number): void {
    const first = i - (i % this.pageRecords);
    const past = Math.min(first + this.pageRecords, this.count);
    const start = this.textStart(first);
    this.page = this.#slice(start, this.textStart(past));
    this.pageFirst = first;
    this.pageStart = start;
  }

  decodeAny(start: number, end: number): unknown {
    try {
      return decodeValue(this.#any.subarray(start, end));
    } catch (error) {
      throw new MillraceError('RPC_PROTOCOL', 'a value in a batch of records is damaged', {
        cause: error,
      });
    }
  }

  unknownShape(): never {
    throw damagedBatch('a record is of no shape');
  }

  #checkTails(textBytes: number, anyBytes: number): void {
    const { textStarts, anyStarts } = this.#layout;
    const { count } = this;
    this.#recordsText = textStarts === undefined ? 0 : this.textStart(count);
    const isRestRight =
      this.categories.length > 0
        ? this.#recordsText <= this.#textLength
        : this.#recordsText === this.#textLength;
    if (!isRestRight) throw damagedBatch('its text has another length');
    const any = anyStarts === undefined ? 0 : this.anyStart(count);
    if (any !== anyBytes) throw damagedBatch('its values have another length');
    const isRight =
      this.#encoding === textEncoding.ascii
        ? textBytes === this.#textLength
        : this.#encoding === textEncoding.utf16
          ? textBytes === 2 * this.#textLength
          : this.#encoding === textEncoding.utf8 && textBytes > this.#textLength;
    if (!isRight) throw damagedBatch('its text does not fill its bytes');
  }

  /** UTF-8 is one page, since places in it are not known. */
  #firstPage(): void {
    const { count } = this;
    this.pageFirst = 0;
    this.pageStart = 0;
    this.page = '';
    if (this.#text.byteLength === 0) {
      this.pageRecords = count;
    } else if (this.#encoding === textEncoding.utf8) {
      this.page = this.#text.toString('utf8');
      this.pageRecords = count;
      if (this.page.length !== this.#textLength) throw damagedBatch('its text is no UTF-8');
    } else {
      const perPage = Math.floor((pageBytes * count) / Math.max(1, this.#text.byteLength));
      this.pageRecords = Math.min(Math.max(perPage, 1), Math.max(count, 1));
      if (count > 0 && this.#layout.textStarts !== undefined) this.turnPage(0);
    }
  }

  #readCategories(sizes: Uint8Array): void {
    if (this.#known.size > knownCategoriesMax) this.#known.clear();
    let at = 0;
    let start = this.#recordsText;
    for (const strings of this.categories) {
      strings.length = 0;
      const count = sizes[at++] ?? 0;
      for (let k = 0; k < count; k += 1) {
        const end = start + (sizes[at++] ?? 0);
        strings.push(this.#category(start, end));
        start = end;
      }
    }
    if (at !== sizes.length || start !== this.#textLength) {
      throw damagedBatch('its categories have another length');
    }
  }

  #category(start: number, end: number): string {
    const isPaged = this.#encoding !== textEncoding.utf8;
    const text = isPaged ? this.#slice(start, end) : this.page.substring(start, end);
    const known = this.#known.get(text);
    if (known !== undefined) return known;
    const owned = own(text);
    this.#known.set(owned, owned);
    return owned;
  }

  #slice(start: number, end: number): string {
    return this.#encoding === textEncoding.ascii
      ? this.#text.toString('latin1', start, end)
      : this.#text.toString('utf16le', 2 * start, 2 * end);
  }

  #align(bytes: Uint8Array): Uint8Array {
    if (this.#aligned.byteLength < bytes.byteLength) {
      this.#aligned = new Uint8Array(Math.ceil((bytes.byteLength * 5) / 32) * 8);
    }
    this.#aligned.set(bytes);
    return this.#aligned.subarray(0, bytes.byteLength);
  }

  #view(buffer: ArrayBufferLike): void {
    if (buffer === this.#buffer) return;
    this.#buffer = buffer;
    const bytes = buffer.byteLength;
    const has = (view: string): boolean => this.#layout.columns.some((c) => c.view === view);
    // The casts: generated code does not care whether memory is shared.
    const plain = buffer as ArrayBuffer;
    if (has('f64')) this.f64 = new Float64Array(plain, 0, bytes >>> 3);
    if (has('i64')) this.i64 = new BigInt64Array(plain, 0, bytes >>> 3);
    if (has('i32')) this.i32 = new Int32Array(plain, 0, bytes >>> 2);
    if (has('u32')) this.u32 = new Uint32Array(plain, 0, bytes >>> 2);
    if (has('u16')) this.u16 = new Uint16Array(plain, 0, bytes >>> 1);
    if (has('u8')) this.u8 = new Uint8Array(plain);
  }
}
