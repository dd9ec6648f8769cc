import { deepStrictEqual } from 'node:assert';
import fc from 'fast-check';
import t from 'tap';
import type {
  BatchCodec,
  BatchDecoder,
  BatchWriter,
} from '../../../lib/record/codec/batch-codec.js';
import {
  columnarBatchCodec,
  createColumnarCodec,
} from '../../../lib/record/codec/columnar-batch-codec.js';
import { NO_TIMESTAMP } from '../../../lib/record/stream-element.js';

type Element = readonly [value: unknown, timestamp: number];

/** An edge with its channels, which keeps what went in and what came out of each. */
class Edge {
  readonly sent: Element[][];
  readonly received: Element[][];
  /** The format byte of each batch. */
  readonly formats: number[] = [];
  readonly sizes: number[] = [];
  readonly #writers: BatchWriter[];
  readonly #decoders: BatchDecoder[];
  readonly #transport: (bytes: Uint8Array) => Uint8Array;

  constructor(
    options: {
      codec?: BatchCodec;
      channels?: number;
      bufferBytes?: number;
      transport?: (bytes: Uint8Array) => Uint8Array;
    } = {},
  ) {
    const { codec = columnarBatchCodec, channels = 1, bufferBytes = 4096 } = options;
    this.#transport = options.transport ?? ((bytes) => bytes);
    this.#writers = codec.createWriters(channels, { bufferBytes });
    this.#decoders = codec.createDecoders(channels);
    this.sent = this.#writers.map(() => []);
    this.received = this.#writers.map(() => []);
  }

  send(value: unknown, timestamp = NO_TIMESTAMP, channel = 0): void {
    const isFull = this.#writers[channel]!.append(value, timestamp);
    this.sent[channel]!.push([value, timestamp]);
    if (isFull) this.seal(channel);
  }

  seal(channel = 0): void {
    const sealed = this.#writers[channel]!.seal();
    this.formats.push(sealed[0]!);
    this.sizes.push(sealed.byteLength);
    const reader = this.#decoders[channel]!.open(this.#transport(sealed));
    for (let i = 0; i < reader.count; i += 1) {
      this.received[channel]!.push([reader.value(i), reader.timestamp(i)]);
    }
  }

  count(channel = 0): number {
    return this.#writers[channel]!.count;
  }

  /** Everything came back as it went in. */
  check(): void {
    this.#writers.forEach((_, channel) => this.seal(channel));
    for (const [channel, sent] of this.sent.entries()) checkSame(this.received[channel]!, sent);
  }

  get columnarShare(): number {
    return this.formats.filter((format) => format === 2).length / this.formats.length;
  }
}

function checkSame(actual: unknown, expected: unknown): void {
  deepStrictEqual(actual, expected);
  deepStrictEqual(keyOrder(actual), keyOrder(expected));
}

/** The keys of plain objects at all depths, which deepStrictEqual takes in any order. */
function keyOrder(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(keyOrder);
  if (value === null || typeof value !== 'object' || ArrayBuffer.isView(value)) return 0;
  if (value instanceof Map) return Array.from(value, ([k, v]) => [keyOrder(k), keyOrder(v)]);
  return Object.entries(value).map(([key, field]) => [key, keyOrder(field)]);
}

const codeUnits = fc
  .array(fc.integer({ min: 0, max: 0xffff }), { maxLength: 12 })
  .map((units) => String.fromCharCode(...units));

/** Arbitrary values by what a column is made of. */
const typed = {
  int32: fc.integer(),
  number: fc.oneof(fc.double(), fc.constantFrom(-0, NaN, Infinity, 2 ** 31, -(2 ** 31) - 1)),
  boolean: fc.boolean(),
  ascii: fc.string(),
  string: fc.oneof(codeUnits, fc.string({ unit: 'grapheme' }), fc.string()),
  bigint: fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }),
  hugeBigint: fc.bigInt({ min: -(2n ** 200n), max: 2n ** 200n }),
  word: fc.constantFrom('click', 'view', '日本', ''),
  date: fc.date({ noInvalidDate: true }),
  nothing: fc.constantFrom(null, undefined),
  bytes: fc.uint8Array({ maxLength: 10 }),
} as const;

const kinds: readonly fc.Arbitrary<unknown>[] = Object.values(typed);

const anything = fc.letrec((tie) => ({
  any: fc.oneof(
    { depthSize: 'small' },
    ...kinds,
    fc.float64Array({ maxLength: 4 }),
    fc.uint8Array({ maxLength: 4 }).map((bytes) => bytes.slice().buffer),
    fc.array(tie('any'), { maxLength: 4 }),
    fc.sparseArray(tie('any'), { maxLength: 6, maxNumElements: 4 }),
    tie('object'),
    fc.array(fc.tuple(tie('any'), tie('any')), { maxLength: 3 }).map((entries) => new Map(entries)),
    fc.array(tie('any'), { maxLength: 3 }).map((values) => new Set(values)),
  ),
  object: fc.dictionary(
    fc.oneof(codeUnits, fc.constantFrom('__proto__', 'constructor', 'toString', '1', '0')),
    tie('any'),
    { maxKeys: 5 },
  ),
}));

const timestamps = fc.oneof(
  fc.constant(NO_TIMESTAMP),
  fc.integer({ min: 1e12, max: 1e12 + 1e6 }),
  fc.double({ noNaN: true }),
);

/** Records of one shape, most of which keep to the types of its fields. */
const shaped = fc
  .array(
    fc.tuple(
      fc.constantFrom('a', 'b', '1', 'key', 'constructor', 'ü', '\ud800'),
      fc.constantFrom(...kinds),
    ),
    { minLength: 0, maxLength: 5 },
  )
  .chain((fields) => {
    const shape = Object.fromEntries(fields) as Record<string, fc.Arbitrary<unknown>>;
    const record = fc.record(shape, { noNullPrototype: true });
    const nested = fc.record({ ...shape, nested: record }, { noNullPrototype: true });
    const loose = fc.record(
      Object.fromEntries(Object.keys(shape).map((key) => [key, anything.any])),
      { noNullPrototype: true },
    );
    const oneOf = fc.constantFrom(record, nested).chain((usual) =>
      fc.array(fc.oneof({ weight: 12, arbitrary: usual }, { weight: 1, arbitrary: loose }), {
        minLength: 10,
        maxLength: 40,
      }),
    );
    return oneOf;
  });

const primitives = fc
  .constantFrom(...kinds)
  .chain((kind) => fc.array(kind, { minLength: 5, maxLength: 40 }));
const mixed = fc.array(anything.any, { maxLength: 20 });

/** Parts that follow each other on one edge; `again` repeats each, so that a schema is learned from it. */
const streams = fc.array(
  fc.tuple(
    fc.oneof({ weight: 5, arbitrary: shaped }, { weight: 2, arbitrary: primitives }, mixed),
    fc.array(timestamps, { minLength: 1, maxLength: 3 }),
    fc.integer({ min: 1, max: 12 }),
  ),
  { minLength: 1, maxLength: 4 },
);

t.test('any stream of records comes back as it went in', (t) => {
  const seen = new Set<number>();
  fc.assert(
    fc.property(
      streams,
      fc.integer({ min: 1, max: 3 }),
      fc.constantFrom(64, 512, 4096),
      (parts, channels, bufferBytes) => {
        const edge = new Edge({ channels, bufferBytes });
        let n = 0;
        for (const [values, stamps, again] of parts) {
          for (let round = 0; round < again; round += 1) {
            for (const value of values) {
              n += 1;
              edge.send(value, stamps[n % stamps.length], n % channels);
              if (n % 97 === 0) edge.seal(n % channels);
            }
          }
        }
        edge.check();
        for (const format of edge.formats) seen.add(format);
      },
    ),
    { seed: 3, numRuns: 150 },
  );
  t.strictSame([...seen].sort(), [1, 2]);
  t.end();
});

t.test('the columns of a schema take what it says and widen for the rest', (t) => {
  const steps: readonly ((i: number) => unknown)[] = [
    (i) => i,
    (i) => i / 2,
    (i) => (i % 2 === 0 ? null : i),
    (i) => (i % 3 === 0 ? undefined : i),
    () => -0,
    (i) => (i % 2 === 0 ? 'text' : i),
  ];
  const edge = new Edge();
  for (const step of steps) {
    for (let i = 0; i < 150; i += 1) {
      edge.send(
        { id: i, value: step(i), name: `n${String(i)}`, at: { x: i, day: new Date(i) } },
        i,
      );
    }
  }
  edge.check();
  t.ok(edge.columnarShare > 0.8, `${String(edge.columnarShare)} of the batches are columnar`);
  t.end();
});

t.test('a record of another shape makes its batch general, and the schema comes back', (t) => {
  const edge = new Edge();
  for (let i = 0; i < 3000; i += 1) edge.send(i === 1500 ? [i] : { a: i, b: 'text' }, i);
  edge.check();
  const { formats } = edge;
  t.equal(formats.at(-2), 2);
  t.equal(formats[formats.indexOf(2) + 1], 2);
  t.ok(formats.lastIndexOf(1) > formats.indexOf(2), 'a general batch in between');
  t.ok(edge.columnarShare > 0.6);
  t.end();
});

t.test('records and what is none by turns end up general, at a bounded price', (t) => {
  const edge = new Edge();
  for (let i = 0; i < 20_000; i += 1) edge.send(i % 400 < 399 ? { a: i } : i, i);
  edge.check();
  t.strictSame(new Set(edge.formats.slice(-20)), new Set([1]));
  t.end();
});

t.test('records of several shapes share a batch', (t) => {
  const shapes: readonly ((i: number) => unknown)[] = [
    (i) => ({ kind: 'click', at: i, page: `page ${String(i)}`, list: [i] }),
    (i) => ({ kind: 'view', page: `page ${String(i)}`, from: null, user: { id: i } }),
    (i) => ({ at: i / 2, list: [], other: new Set([i]), rest: i % 2 === 0 ? i : 'text' }),
    () => ({}),
    (i) => ({ kind: 'click', at: i, page: 'ü', extra: `x${String(i)}` }),
    (i) => ({ kind: 'click', at: i, extra: `x${String(i)}`, page: 'ü' }),
  ];
  for (const stepRecords of [1, 200]) {
    const edge = new Edge({ channels: 2 });
    for (let i = 0; i < 4000; i += 1) {
      const shape = Math.floor(i / stepRecords) % shapes.length;
      edge.send(shapes[shape]!(i), i, (i * 7) % 2);
    }
    edge.check();
    t.ok(edge.columnarShare > 0.9, String(edge.formats));
    t.ok(
      edge.sizes.every((size) => size <= 4096),
      String(edge.sizes),
    );
  }
  t.end();
});

t.test('objects with keys of their own are not taken for shapes', (t) => {
  const edge = new Edge();
  for (let i = 0; i < 1000; i += 1) edge.send({ [`user${String(i % 50)}`]: i }, i);
  edge.check();
  t.strictSame(new Set(edge.formats), new Set([1]));
  t.end();
});

t.test('the writers of an edge learn together', (t) => {
  const edge = new Edge({ channels: 4 });
  for (let i = 0; i < 64; i += 1) edge.send({ a: i }, i, 0);
  edge.send({ a: 1 }, 1, 3);
  edge.check();
  t.strictSame(edge.formats.slice(0, 4).sort(), [1, 2, 2, 2]);
  t.end();
});

t.test(
  'strings with few values are one string for all records of a batch and those after it',
  (t) => {
    const countries = ['Österreich', '日本', '', '\ud800', 'the longest country name of all'];
    const edge = new Edge();
    for (let i = 0; i < 2000; i += 1) {
      const country = i % 11 === 0 ? null : countries[i % 5];
      edge.send({
        id: i,
        country,
        text: `t${String(i)}`,
        at: { kind: i % 2 === 0 ? 'view' : 'click' },
      });
    }
    edge.check();
    t.ok(edge.columnarShare > 0.7);
    t.ok(edge.sizes.at(-2)! > 0.8 * 4096);
    t.ok(Math.max(...edge.sizes.slice(3)) <= 4096, String(edge.sizes));
    t.end();
  },
);

t.test('a category with too many or too long values becomes a plain string', (t) => {
  for (const crowd of [(i: number) => `n${String(i)}`, (i: number) => 'x'.repeat(60 + (i % 9))]) {
    const edge = new Edge({ channels: 2 });
    for (let i = 0; i < 3000; i += 1) {
      edge.send(
        { a: i < 300 ? 'same' : crowd(i), b: i % 3 === 0 ? 'x' : 'y', c: `c${String(i)}` },
        i,
        i % 2,
      );
    }
    edge.check();
    t.ok(edge.columnarShare > 0.7, String(edge.formats));
  }
  t.end();
});

t.test('a declared schema is used from the first record on', (t) => {
  const codec = createColumnarCodec({
    schema: {
      fields: {
        id: 'int32',
        price: 'number?',
        name: 'string',
        flags: { fields: { on: 'boolean' } },
        tags: 'any',
        key: 'bigint',
        day: 'date',
      },
    },
  });
  const record = (price: unknown): unknown => ({
    id: 1,
    price,
    name: 'n',
    flags: { on: true },
    tags: ['x', -0],
    key: 1n,
    day: new Date(5),
  });
  const edge = new Edge({ codec });
  edge.send(record(1.5), 1);
  edge.send(record(null), 2);
  edge.send(record('another type'), 3);
  edge.send({ id: 1 }, 4);
  t.equal(edge.count(), 4, 'nothing is lost on the way from writer to writer');
  edge.check();
  const text = new Edge({ codec: createColumnarCodec({ schema: 'string' }) });
  text.send('a');
  text.send(1);
  text.check();
  t.strictSame([edge.formats, text.formats], [[2], [1]]);
  const kept = new Edge({ codec: createColumnarCodec({ schema: 'string' }) });
  kept.send('a');
  kept.check();
  t.strictSame(kept.formats, [2]);
  t.end();
});

t.test('an invalid date stays one', (t) => {
  const writers = createColumnarCodec({ schema: 'date' }).createWriters(1, { bufferBytes: 512 });
  writers[0]!.append(new Date(NaN), NO_TIMESTAMP);
  const day = columnarBatchCodec.createDecoders(1)[0]!.open(writers[0]!.seal()).value(0);
  t.ok(day instanceof Date && Number.isNaN(day.getTime()));
  t.end();
});

t.test('a value is captured when it is appended', (t) => {
  const writers = columnarBatchCodec.createWriters(1, { bufferBytes: 32_768 });
  for (let i = 0; i < 64; i += 1) writers[0]!.append({ n: i, list: [i] }, 0);
  writers[0]!.seal();
  const value = { n: 1, list: [1] };
  writers[0]!.append(value, 0);
  value.n = 2;
  value.list[0] = 2;
  const sealed = writers[0]!.seal();
  t.equal(sealed[0], 2);
  t.strictSame(columnarBatchCodec.createDecoders(1)[0]!.open(sealed).value(0), { n: 1, list: [1] });
  t.end();
});

t.test('a refused record leaves the batch as it was', (t) => {
  class Point {
    a = 1;
    b = 'x';
  }
  const refused: readonly unknown[] = [
    { a: () => 1, b: 'x' },
    { a: 1, b: Symbol('s') },
    { a: 1, b: { c: [new Point()] } },
    new Point(),
    Symbol('s'),
    () => 1,
    /x/,
    new WeakMap(),
    { a: Promise.resolve(), b: 'x' },
  ];
  const edge = new Edge({ bufferBytes: 32_768 });
  for (let i = 0; i < 64; i += 1) edge.send({ a: i, b: 'x' }, i);
  edge.seal();
  t.throws(() => edge.send({ a: 1, b: 'x', [Symbol('s')]: 1 }), { code: 'RECORD_UNSUPPORTED' });
  for (const value of refused) {
    edge.send({ a: 1, b: 'before' }, 5);
    const count = edge.count();
    t.throws(() => edge.send(value, 6), { code: 'RECORD_UNSUPPORTED' });
    t.equal(edge.count(), count);
  }
  edge.check();
  t.strictSame(edge.formats, [1, 2]);
  t.throws(() => edge.send({ a: 1, b: { c: [new Point()] } }), {
    message: /^record\.b\.c\[0\] is/,
  });
  t.end();
});

t.test('the path of what is refused names the field, in columns of any values too', (t) => {
  const edge = new Edge();
  for (let i = 0; i < 64; i += 1) edge.send({ a: [i] });
  edge.seal();
  edge.send({ a: [1] });
  t.throws(() => edge.send({ a: [() => 1] }), { message: /^record\.a\[0\] is a function/ });
  edge.check();
  t.strictSame(edge.formats, [1, 2]);
  t.end();
});

t.test('batches stay within the buffer unless one record is larger', (t) => {
  const bufferBytes = 2048;
  const edge = new Edge({ bufferBytes });
  for (let i = 0; i < 2000; i += 1) {
    edge.send({ id: i, text: `some text ${'x'.repeat(i % 30)}`, list: [i] }, i);
  }
  edge.seal();
  t.ok(Math.max(...edge.sizes) <= bufferBytes, String(Math.max(...edge.sizes)));
  const full = edge.sizes.slice(2, -1);
  t.ok(full.reduce((sum, size) => sum + size) / full.length > 0.85 * bufferBytes);
  edge.send({ id: 1, text: 'x'.repeat(10_000), list: [] }, 5);
  edge.send({ id: 1, text: 'x'.repeat(200_000), list: [] }, 5);
  edge.send({ id: 1, text: 'small again', list: [] }, 5);
  edge.check();
  t.end();
});

t.test('text that is no ASCII makes batches that fit, too', (t) => {
  const edge = new Edge({ bufferBytes: 2048 });
  for (let i = 0; i < 1000; i += 1) edge.send({ text: `€uro ${String(i)} ${'ä'.repeat(i % 20)}` });
  edge.check();
  const late = edge.sizes.slice(4);
  t.ok(Math.max(...late) <= 2048, String(Math.max(...late)));
  t.ok(edge.columnarShare > 0.8);
  t.end();
});

t.test('whoever does not seal when told to loses nothing', (t) => {
  const writers = columnarBatchCodec.createWriters(1, { bufferBytes: 512 });
  for (let i = 0; i < 64; i += 1) writers[0]!.append(i, i);
  writers[0]!.seal();
  for (let i = 0; i < 1000; i += 1) writers[0]!.append(i, i);
  t.equal(writers[0]!.count, 1000);
  const reader = columnarBatchCodec.createDecoders(1)[0]!.open(writers[0]!.seal());
  t.equal(reader.count, 1000);
  for (let i = 0; i < 1000; i += 1) {
    if (reader.value(i) !== i || reader.timestamp(i) !== i) t.fail(`record ${String(i)}`);
  }
  t.end();
});

t.test('batches are read from any place, shared memory too', (t) => {
  const shared = new Uint8Array(new SharedArrayBuffer(1 << 16));
  const places: readonly ((bytes: Uint8Array) => Uint8Array)[] = [
    (bytes) => {
      shared.set(bytes, 64);
      return shared.subarray(64, 64 + bytes.byteLength);
    },
    (bytes) => {
      shared.set(bytes, 3);
      return shared.subarray(3, 3 + bytes.byteLength);
    },
    (bytes) => Buffer.concat([Buffer.from('x'), bytes]).subarray(1),
    (bytes) => bytes.slice(),
  ];
  for (const transport of places) {
    const edge = new Edge({ transport });
    for (let i = 0; i < 500; i += 1) {
      edge.send({ n: i, d: i / 2, s: `s${String(i)}`, l: BigInt(i), o: [i], u: 'ü' }, i);
    }
    edge.check();
    t.ok(edge.columnarShare > 0.7);
  }
  t.end();
});

t.test('records may be read in any order and left out', (t) => {
  const writers = columnarBatchCodec.createWriters(1, { bufferBytes: 32_768 });
  const record = (i: number): unknown => ({ i, s: `text of record ${String(i)}` });
  for (let i = 0; i < 64; i += 1) writers[0]!.append(record(i), i);
  writers[0]!.seal();
  for (let i = 0; i < 500; i += 1) writers[0]!.append(record(i), i);
  const reader = columnarBatchCodec.createDecoders(1)[0]!.open(writers[0]!.seal());
  for (const i of [499, 0, 250, 251, 3, 498]) t.strictSame(reader.value(i), record(i));
  t.end();
});
