import { deepStrictEqual } from 'node:assert';
import t from 'tap';
import {
  columnarBatchCodec,
  createColumnarCodec,
} from '../../../lib/record/codec/columnar-batch-codec.js';
import type { RecordSchema } from '../../../lib/record/codec/record-schema.js';
import { NO_TIMESTAMP } from '../../../lib/record/stream-element.js';

/** Values that a column of the type would change. */
const strangers: readonly (readonly [RecordSchema, usual: unknown, ...others: unknown[]])[] = [
  ['int32', 5, -0, 2 ** 31, -(2 ** 31) - 1, 0.5, NaN, '5', null, true, 5n],
  ['number', 0.5, 5n, '5', undefined, false, [0.5]],
  ['boolean', true, 1, 0, null, undefined, 'true'],
  ['bigint', 5n, 2n ** 63n, -(2n ** 63n) - 1n, 5, null],
  ['string', 'a', '\ud800', 5, null, ['a'], 'x'.repeat(70_000)],
  ['category', 'a', '\udc00', 5, undefined, 'x'.repeat(300)],
  ['date', new Date(5), 5, null, '1970-01-01', { a: 1 }],
  [{ fields: { a: 'int32' } }, { a: 1 }, {}, { a: 1, b: 2 }, { b: 1 }, { a: -0 }, [1], null, 1],
  [{ fields: { a: 'int32', b: 'string?' } }, { a: 1, b: 'x' }, { b: 'x', a: 1 }, { a: 1 }],
  [{ fields: { a: { fields: { b: 'int32' } } } }, { a: { b: 1 } }, { a: null }, { a: { b: -0 } }],
];

const keys = (value: unknown): string[] =>
  typeof value === 'object' && value !== null ? Object.keys(value) : [];

t.test('what a column would change is not put into it', (t) => {
  for (const [schema, usual, ...others] of strangers) {
    for (const other of others) {
      for (const records of [[other], [usual, other], [usual, other, usual]]) {
        const codec = createColumnarCodec({ schema });
        const writers = codec.createWriters(1, { bufferBytes: 4096 });
        for (const record of records) writers[0]!.append(record, NO_TIMESTAMP);
        const reader = columnarBatchCodec.createDecoders(1)[0]!.open(writers[0]!.seal());
        const decoded = Array.from({ length: reader.count }, (_, i) => reader.value(i));
        deepStrictEqual(decoded, records);
        deepStrictEqual(decoded.map(keys), records.map(keys));
      }
    }
  }
  t.pass('for all of them');
  t.end();
});

t.test('timestamps are exact', (t) => {
  const series = [
    [1, 2, 3],
    [1e12, 1e12 + 5, NO_TIMESTAMP],
    [NO_TIMESTAMP, 5],
    [5, 5 + 2 ** 31],
    [5, 5 - 2 ** 31],
    [0, -0],
    [-0, 0],
    [5, 5.5],
    [0.1, 1.1, 2.1, 1234.1],
    [1048576.1, 0.1],
    [2 ** 53, 1],
    [Infinity, Infinity],
    [NaN, 5],
  ];
  for (const timestamps of series) {
    for (const first of [1, NO_TIMESTAMP]) {
      const codec = createColumnarCodec({ schema: 'int32' });
      const writers = codec.createWriters(1, { bufferBytes: 4096 });
      writers[0]!.append(1, first);
      writers[0]!.seal();
      for (const timestamp of timestamps) writers[0]!.append(1, timestamp);
      const reader = columnarBatchCodec.createDecoders(1)[0]!.open(writers[0]!.seal());
      const decoded = Array.from({ length: reader.count }, (_, i) => reader.timestamp(i));
      deepStrictEqual(decoded, timestamps);
    }
  }
  t.pass('for all series');
  t.end();
});

t.test('symbol keys are found where a schema is learned and at the start of a batch', (t) => {
  const withSymbol = { a: 1, [Symbol('s')]: 1 };
  const nested = { a: { b: 1, [Symbol('s')]: 1 } };
  for (const record of [withSymbol, nested]) {
    const schema: RecordSchema = {
      fields: { a: record === nested ? { fields: { b: 'int32' } } : 'int32' },
    };
    for (const codec of [columnarBatchCodec, createColumnarCodec({ schema })]) {
      const writers = codec.createWriters(1, { bufferBytes: 4096 });
      t.throws(() => writers[0]!.append(record, NO_TIMESTAMP), { code: 'RECORD_UNSUPPORTED' });
      t.equal(writers[0]!.count, 0);
    }
  }
  t.end();
});
