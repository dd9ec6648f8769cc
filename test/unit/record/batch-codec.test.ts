import fc from 'fast-check';
import t from 'tap';
import type { BatchDecoder, BatchWriter } from '../../../lib/record/codec/batch-codec.js';
import { generalBatchCodec } from '../../../lib/record/codec/general-batch-codec.js';
import { NO_TIMESTAMP } from '../../../lib/record/stream-element.js';

const newWriter = (): BatchWriter =>
  generalBatchCodec.createWriters(1, { bufferBytes: 32_768 })[0]!;
const newDecoder = (): BatchDecoder => generalBatchCodec.createDecoders(1)[0]!;

const values: readonly unknown[] = [
  undefined,
  null,
  true,
  0,
  -0,
  NaN,
  Infinity,
  1.5,
  2 ** 40,
  10n,
  -(2n ** 80n),
  '',
  'ä€😀',
  '\ud800',
  new Date(5),
  new Map<unknown, unknown>([[1, { a: undefined }]]),
  new Set([-0, 'x']),
  [1, [2, [3]]],
  { a: { b: [] } },
  Uint8Array.of(1, 2, 3),
  Float64Array.of(-0, NaN),
];

t.test('a batch comes back value by value as it went in', (t) => {
  const writer = newWriter();
  const decoder = newDecoder();
  for (let round = 0; round < 2; round += 1) {
    values.forEach((value, i) => writer.append(value, i === 0 ? NO_TIMESTAMP : i * 1.5));
    t.equal(writer.count, values.length);
    const sealed = writer.seal();
    t.equal(writer.count, 0);
    const reader = decoder.open(sealed.slice());
    t.equal(reader.count, values.length);
    values.forEach((value, i) => {
      t.strictSame(reader.value(i), value);
      if (typeof value === 'number') t.ok(Object.is(reader.value(i), value));
      t.equal(reader.timestamp(i), i === 0 ? NO_TIMESTAMP : i * 1.5);
    });
  }
  t.end();
});

t.test('a value is captured when it is appended', (t) => {
  const writer = newWriter();
  const value = { n: 1 };
  writer.append(value, 0);
  value.n = 2;
  const decoder = newDecoder();
  const reader = decoder.open(writer.seal());
  t.same(reader.value(0), { n: 1 });
  t.end();
});

t.test('what cannot be encoded is refused and leaves the batch as it was', (t) => {
  const writer = newWriter();
  writer.append('first', 1);
  t.throws(() => writer.append({ f: () => 1 }, 2), { code: 'RECORD_UNSUPPORTED' });
  writer.append('second', 3);
  const decoder = newDecoder();
  const reader = decoder.open(writer.seal());
  t.same([reader.count, reader.value(0), reader.value(1)], [2, 'first', 'second']);
  t.end();
});

t.test('a batch is read from shared memory', (t) => {
  const writer = newWriter();
  values.forEach((value, i) => writer.append(value, i));
  const sealed = writer.seal();
  const shared = new Uint8Array(new SharedArrayBuffer(65_536));
  shared.set(sealed, 64);
  const reader = newDecoder().open(shared.subarray(64, 64 + sealed.byteLength));
  values.forEach((value, i) => t.strictSame(reader.value(i), value));
  t.end();
});

t.test('bytes that are no whole batch are refused', (t) => {
  const writer = newWriter();
  writer.append('a value', 1);
  writer.append('another', 2);
  const sealed = writer.seal().slice();
  const decoder = newDecoder();
  t.throws(() => decoder.open(sealed.subarray(0, sealed.length - 1)), { code: 'RPC_PROTOCOL' });
  t.throws(() => decoder.open(Uint8Array.of(9, 0, 0, 0, 0)), { code: 'RPC_PROTOCOL' });
  t.throws(() => decoder.open(new Uint8Array()), { code: 'RPC_PROTOCOL' });
  t.end();
});

t.test('any JSON-like batch round-trips', (t) => {
  const writer = newWriter();
  const decoder = newDecoder();
  fc.assert(
    fc.property(fc.array(fc.tuple(fc.jsonValue(), fc.double({ noNaN: true }))), (records) => {
      for (const [value, timestamp] of records) writer.append(value, timestamp);
      const reader = decoder.open(writer.seal());
      return (
        reader.count === records.length &&
        records.every(
          ([value, timestamp], i) =>
            JSON.stringify(reader.value(i)) === JSON.stringify(value) &&
            Object.is(reader.timestamp(i), timestamp),
        )
      );
    }),
    { seed: 1 },
  );
  t.pass('for 100 runs');
  t.end();
});
