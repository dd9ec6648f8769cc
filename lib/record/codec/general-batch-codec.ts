/**
 * Batches of any values, each encoded by itself (value-codec.ts). Layout, little-endian: u8 format,
 * u32 count, then per record f64 timestamp, u32 length, bytes.
 */
import { MillraceError } from '../../base/errors.js';
import type {
  BatchCodec,
  BatchDecoder,
  BatchReader,
  BatchWriter,
  BatchWriterOptions,
} from './batch-codec.js';
import { decodeValue, encodeValue, isShared } from './value-codec.js';

const generalFormat = 1;
const headerBytes = 5;
const recordHeaderBytes = 12;

export const generalBatchCodec: BatchCodec = {
  createWriters: (channels, options) =>
    Array.from({ length: channels }, () => new GeneralBatchWriter(options)),
  createDecoders: (channels) => Array.from({ length: channels }, () => new GeneralBatchReader()),
};

export class GeneralBatchWriter implements BatchWriter {
  #bytes = new Uint8Array(4096);
  #view = new DataView(this.#bytes.buffer);
  #length = headerBytes;
  readonly #bufferBytes: number;
  count = 0;

  constructor({ bufferBytes }: BatchWriterOptions) {
    this.#bufferBytes = bufferBytes;
  }

  append(value: unknown, timestamp: number): boolean {
    const encoded = encodeValue(value);
    const start = this.#length;
    const end = start + recordHeaderBytes + encoded.byteLength;
    if (end > this.#bytes.byteLength) this.#grow(end);
    this.#view.setFloat64(start, timestamp, true);
    this.#view.setUint32(start + 8, encoded.byteLength, true);
    this.#bytes.set(encoded, start + recordHeaderBytes);
    this.#length = end;
    this.count += 1;
    return end + end / this.count >= this.#bufferBytes;
  }

  seal(): Uint8Array {
    this.#view.setUint8(0, generalFormat);
    this.#view.setUint32(1, this.count, true);
    const sealed = this.#bytes.subarray(0, this.#length);
    this.#length = headerBytes;
    this.count = 0;
    return sealed;
  }

  #grow(atLeast: number): void {
    const larger = new Uint8Array(Math.max(atLeast, 2 * this.#bytes.byteLength));
    larger.set(this.#bytes.subarray(0, this.#length));
    this.#bytes = larger;
    this.#view = new DataView(larger.buffer);
  }
}

export class GeneralBatchReader implements BatchDecoder, BatchReader {
  #bytes = new Uint8Array(0);
  #view = new DataView(this.#bytes.buffer);
  /** Where each record starts. */
  #offsets: number[] = [];
  count = 0;

  open(bytes: Uint8Array): BatchReader {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    if (bytes.byteLength < headerBytes || view.getUint8(0) !== generalFormat) {
      throw new MillraceError(
        'RPC_PROTOCOL',
        'a batch of records is in a format this version does not know',
      );
    }
    const count = view.getUint32(1, true);
    const offsets: number[] = [];
    let offset = headerBytes;
    for (let i = 0; i < count && offset + recordHeaderBytes <= bytes.byteLength; i += 1) {
      offsets.push(offset);
      offset += recordHeaderBytes + view.getUint32(offset + 8, true);
    }
    if (offsets.length !== count || offset !== bytes.byteLength) {
      throw new MillraceError('RPC_PROTOCOL', 'a batch of records is cut short');
    }
    // Once for the batch instead of once for each value (value-codec.ts).
    this.#bytes = (isShared(bytes) ? new Uint8Array(bytes) : bytes) as Uint8Array<ArrayBuffer>;
    this.#view = new DataView(this.#bytes.buffer, this.#bytes.byteOffset, bytes.byteLength);
    this.#offsets = offsets;
    this.count = count;
    return this;
  }

  value(i: number): unknown {
    const start = this.#at(i);
    const length = this.#view.getUint32(start + 8, true);
    const from = start + recordHeaderBytes;
    return decodeValue(this.#bytes.subarray(from, from + length));
  }

  timestamp(i: number): number {
    return this.#view.getFloat64(this.#at(i), true);
  }

  #at(i: number): number {
    const offset = this.#offsets[i];
    if (offset === undefined)
      throw new RangeError(`a batch of ${String(this.count)} has no record ${String(i)}`);
    return offset;
  }
}
