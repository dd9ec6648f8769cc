/** Encoding and decoding of records in one thread, every field read and the last records kept. */
import { columnarBatchCodec } from '../../lib/record/codec/columnar-batch-codec.js';
import { NO_TIMESTAMP } from '../../lib/record/stream-element.js';
import { naiveCodec } from './codecs.js';
import { expectEqual, microArguments, repeat, tell } from './protocol.js';
import { kindOf } from './shapes.js';

const args = microArguments();
const { make, check } = kindOf(args.shape ?? 'trade');
const batchRecords = 512;
const bufferBytes = 32 * 1024;
/** Made before: the cost of making records is not that of encoding them. */
const records = Array.from({ length: 16 * batchRecords }, (_, i) => make(i, args.keys));
const kept = new Array<unknown>(256).fill(undefined);
let seen = 0;
let encodedBytes = 0;
let total = 0;

function take(record: unknown): void {
  kept[seen & 0xff] = record;
  seen += 1;
  total += check(record);
}

function millrace(): () => number {
  const writers = columnarBatchCodec.createWriters(1, { bufferBytes });
  const [decoder] = columnarBatchCodec.createDecoders(1);
  // Stands for the channel's buffer, into which a batch is copied.
  const buffer = new Uint8Array(2 * bufferBytes);
  const pass = (): void => {
    const sealed = writers[0]!.seal();
    encodedBytes += sealed.byteLength;
    buffer.set(sealed);
    const reader = decoder!.open(buffer.subarray(0, sealed.byteLength));
    for (let i = 0; i < reader.count; i += 1) take(reader.value(i));
  };
  return () => {
    for (const record of records) if (writers[0]!.append(record, NO_TIMESTAMP)) pass();
    if (writers[0]!.count > 0) pass();
    return records.length;
  };
}

function naive(name: string): () => number {
  const codec = naiveCodec(name, make(0, args.keys));
  const batches = Array.from({ length: 16 }, (_, i) =>
    records.slice(i * batchRecords, (i + 1) * batchRecords),
  );
  return () => {
    for (const batch of batches) {
      const bytes = codec.encode(batch);
      encodedBytes += bytes.byteLength;
      for (const record of codec.decode(bytes)) take(record);
    }
    return records.length;
  };
}

function structuredCloneOf(): () => number {
  const batches = Array.from({ length: 16 }, (_, i) =>
    records.slice(i * batchRecords, (i + 1) * batchRecords),
  );
  return () => {
    for (const batch of batches) for (const record of structuredClone(batch)) take(record);
    return records.length;
  };
}

function pieceOf(variant: string): () => number {
  if (variant === 'millrace') return millrace();
  if (variant === 'structured-clone') return structuredCloneOf();
  return naive(variant);
}

const result = await repeat(args, pieceOf(args.variant));
const expected = records.reduce((sum: number, record) => sum + check(record), 0);
expectEqual('the sum of checks', total, expected * (seen / records.length));
tell({ ...result, facts: { ...result.facts, bytes: encodedBytes / seen } });
