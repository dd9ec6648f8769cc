import { isDeepStrictEqual } from 'node:util';
import fc from 'fast-check';
import t from 'tap';
import type { BatchWriter } from '../../../lib/record/codec/batch-codec.js';
import {
  columnarBatchCodec,
  createColumnarCodec,
} from '../../../lib/record/codec/columnar-batch-codec.js';
import type { RecordSchema } from '../../../lib/record/codec/record-schema.js';
import { NO_TIMESTAMP } from '../../../lib/record/stream-element.js';

const writerOf = (schema: RecordSchema): BatchWriter[] =>
  createColumnarCodec({ schema }).createWriters(1, { bufferBytes: 4096 });

/** What a batch of these records is on the wire. */
function sealed(
  schema: RecordSchema,
  records: readonly (readonly [value: unknown, timestamp: number])[],
): Uint8Array {
  const writers = writerOf(schema);
  for (const [value, timestamp] of records) writers[0]!.append(value, timestamp);
  return writers[0]!.seal().slice();
}

const goldenNumbers = [
  '020100000200000000000000000000000000000000000000000000001700000089d71b705b226e22',
  '2c5b2261222c2269222c2262222c2266225d5d0000000000000000000000e03f0000000000000080',
  '01000000feffffff',
].join('');
const goldenStrings = [
  '02010000040000000000000000408f400300000003000000000000000a000000387e328e5b226f22',
  '2c22733f225d000000000000f4010000ffffffff0000000000000200020003000300000100026162',
  '63',
].join('');
const goldenCategories = [
  '020100000400000000000000000000000900000009000000000000001e000300a52559155b226e22',
  '2c5b226b696e64222c22633f222c2274657874222c2273225d5d0000000000000000010003000300',
  '0400000100000000010002020378797a776162636465',
].join('');
const goldenAll = [
  '020101000300000000000000000000000e0000000f0000000c0000006d0003005ef2dad65b227822',
  '2c5b226964222c2269222c227072696365222c2266222c226e616d65222c2273222c226f6e222c22',
  '62222c226174222c5b226b6579222c226c222c22646179222c2264225d2c2274616773222c226122',
  '2c226b696e64222c2263222c226e6f7465222c22733f225d5d000000000000000000000000000000',
  '000000000000e03f000000000000f03f000000000000000001000000000000000200000000000000',
  '0000000000000000000000000000f03f0000000000000040000000000000e03f000000000000f83f',
  '00000000000004400000000001000000020000000000000004000000080000000c00000002000400',
  '0600000002000400070001000100010001020002040392a1780092a1780192a178026e306e316e32',
  'c3bc6576656e6f6464',
].join('');
const goldenGeneral = ['010200000000000000000014400100000001000000000000f0ff03000000a2c3bc'].join(
  '',
);

const decoder = columnarBatchCodec.createDecoders(1)[0]!;
const decode = (bytes: Uint8Array): unknown[] => {
  const reader = decoder.open(bytes);
  return Array.from({ length: reader.count }, (_, i) => [reader.value(i), reader.timestamp(i)]);
};

const record = (i: number): unknown => ({
  id: i,
  price: i / 2,
  name: `n${String(i)}`,
  on: i % 2 === 0,
  at: { key: BigInt(i), day: new Date(i) },
  tags: ['x', i],
  kind: i % 2 === 0 ? 'even' : 'odd',
  note: i % 3 === 0 ? null : i % 3 === 1 ? undefined : 'ü',
});

const schema: RecordSchema = {
  fields: {
    id: 'int32',
    price: 'number',
    name: 'string',
    on: 'boolean',
    at: { fields: { key: 'bigint', day: 'date' } },
    tags: 'any',
    kind: 'category',
    note: 'string?',
  },
};

// NB: these bytes are what other versions of Millrace send and expect. When one must change, so must the version.
t.test('the bytes of a batch are those of version 1', (t) => {
  const numbers = sealed({ fields: { a: 'int32', b: 'number' } }, [
    [{ a: 1, b: 0.5 }, NO_TIMESTAMP],
    [{ a: -2, b: -0 }, NO_TIMESTAMP],
  ]);
  t.equal(Buffer.from(numbers).toString('hex'), goldenNumbers);
  const strings = sealed('string?', [
    ['ab', 1000],
    [null, 1500],
    ['c', 999],
    [undefined, 1000],
  ]);
  t.equal(Buffer.from(strings).toString('hex'), goldenStrings);
  const categories = sealed({ fields: { kind: 'category?', text: 'string' } }, [
    [{ kind: 'ab', text: 'x' }, NO_TIMESTAMP],
    [{ kind: 'cde', text: 'yz' }, NO_TIMESTAMP],
    [{ kind: null, text: '' }, NO_TIMESTAMP],
    [{ kind: 'ab', text: 'w' }, NO_TIMESTAMP],
  ]);
  t.equal(Buffer.from(categories).toString('hex'), goldenCategories);
  const all = sealed(
    schema,
    Array.from({ length: 3 }, (_, i) => [record(i), i + 0.5]),
  );
  t.equal(Buffer.from(all).toString('hex'), goldenAll);
  const general = sealed('any', [
    [1, 5],
    ['ü', NO_TIMESTAMP],
  ]);
  t.equal(Buffer.from(general).toString('hex'), goldenGeneral);
  t.strictSame(
    decode(all),
    [0, 1, 2].map((i) => [record(i), i + 0.5]),
  );
  t.end();
});

t.test('a header costs less than one part in a hundred of a buffer', (t) => {
  const bytes = sealed(schema, [[record(0), NO_TIMESTAMP]]);
  t.ok(bytes.byteLength < 328, String(bytes.byteLength));
  t.end();
});

t.test('a batch that is cut short or too long is refused', (t) => {
  const whole = sealed(
    schema,
    Array.from({ length: 20 }, (_, i) => [record(i), i]),
  );
  t.equal(decoder.open(whole).count, 20);
  for (let length = 0; length < whole.byteLength; length += 1) {
    try {
      decoder.open(whole.subarray(0, length));
      t.fail(`${String(length)} bytes were accepted`);
    } catch (error) {
      if ((error as { code?: string }).code !== 'RPC_PROTOCOL') throw error;
    }
  }
  t.throws(() => decoder.open(Buffer.concat([whole, Buffer.alloc(8)])), { code: 'RPC_PROTOCOL' });
  t.end();
});

t.test('another format, version or schema than this one knows is refused', (t) => {
  const whole = sealed(schema, [[record(1), 1]]);
  const change = (offset: number, byte: number): Uint8Array => {
    const changed = whole.slice();
    changed[offset] = byte;
    return changed;
  };
  const refusals: readonly (readonly [Uint8Array, RegExp])[] = [
    [change(0, 9), /format/],
    [change(1, 2), /version 2/],
    [change(40, 0x21), /schema/],
    [change(32, 0xff), /schema/],
    [change(2, 7), /text/],
    [change(16, 1), /text/],
    [change(24, 0), /cut short/],
  ];
  for (const [bytes, message] of refusals) {
    t.throws(() => decode(bytes), { code: 'RPC_PROTOCOL', message });
  }
  t.end();
});

t.test('a batch without bytes for its records cannot claim any number of them', (t) => {
  const whole = sealed({ fields: {} }, [[{}, NO_TIMESTAMP]]);
  t.strictSame(decode(whole), [[{}, NO_TIMESTAMP]]);
  whole.fill(0xff, 4, 8);
  t.throws(() => decode(whole), { code: 'RPC_PROTOCOL' });
  t.end();
});

t.test('damaged bytes give RPC_PROTOCOL or a batch of as many records', (t) => {
  const records = Array.from({ length: 12 }, (_, i): [unknown, number] => [record(i), i]);
  const whole = sealed(schema, records);
  let refused = 0;
  let changed = 0;
  fc.assert(
    fc.property(
      fc.array(fc.tuple(fc.nat(whole.byteLength - 1), fc.nat(255)), { minLength: 1, maxLength: 4 }),
      (flips) => {
        const bytes = whole.slice();
        for (const [at, byte] of flips) bytes[at] = byte;
        try {
          const decoded = decode(bytes);
          if (!isDeepStrictEqual(decoded, records)) changed += 1;
          return decoded.length === records.length;
        } catch (error) {
          refused += 1;
          return (error as { code?: string }).code === 'RPC_PROTOCOL';
        }
      },
    ),
    { seed: 5, numRuns: 2000 },
  );
  t.ok(refused > 200 && changed > 200, `${String(refused)} refused, ${String(changed)} changed`);
  t.end();
});

t.test('arbitrary bytes are no batch', (t) => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), fc.constantFrom(1, 2), (bytes, format) => {
      try {
        decode(Uint8Array.of(format, 1, ...bytes));
        return false;
      } catch (error) {
        return (error as { code?: string }).code === 'RPC_PROTOCOL';
      }
    }),
    { seed: 5, numRuns: 1000 },
  );
  t.pass('for 1000 runs');
  t.end();
});

t.test('decoders of an input remember schemas, but not all there ever were', (t) => {
  for (let round = 0; round < 2; round += 1) {
    for (let i = 0; i < 100; i += 1) {
      const name = `field${String(i)}`;
      const bytes = sealed({ fields: { [name]: 'int32' } }, [[{ [name]: i }, 5]]);
      const reader = decoder.open(bytes);
      t.strictSame(reader.value(0), { [name]: i });
    }
  }
  t.end();
});
