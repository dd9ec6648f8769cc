import { deepStrictEqual } from 'node:assert';
import fc from 'fast-check';
import t from 'tap';
import type { MillraceError } from '../../../lib/base/errors.js';
import { decodeValue, encodeValue } from '../../../lib/record/codec/value-codec.js';

const roundTrip = (value: unknown): unknown => decodeValue(encodeValue(value));

const codeUnits = fc
  .array(fc.integer({ min: 0, max: 0xffff }), { maxLength: 20 })
  .map((units) => String.fromCharCode(...units));

const scalar = fc.oneof(
  fc.constantFrom<unknown>(undefined, null, true, false, -0, NaN, Infinity, -Infinity, 0n, -1n),
  fc.double(),
  fc.integer(),
  fc.maxSafeInteger(),
  fc.bigInt(),
  fc.bigInt({ min: -(2n ** 200n), max: 2n ** 200n }),
  codeUnits,
  fc.date({ noInvalidDate: true }),
  fc.uint8Array(),
  fc.uint8Array().map((bytes) => Buffer.from(bytes)),
  fc.float64Array(),
  fc.bigInt64Array(),
  fc.int16Array(),
  fc.uint8Array().map((bytes) => bytes.slice().buffer),
);

const value = fc.letrec((tie) => ({
  any: fc.oneof(
    { depthSize: 'small' },
    scalar,
    tie('array'),
    tie('object'),
    tie('map'),
    tie('set'),
  ),
  array: fc.oneof(fc.array(tie('any')), fc.sparseArray(tie('any'), { maxLength: 12 })),
  object: fc.dictionary(
    fc.oneof(
      codeUnits,
      fc.constantFrom('__proto__', 'constructor', 'toJSON', '1', '0', 'then', 'size'),
    ),
    tie('any'),
  ),
  map: fc.array(fc.tuple(tie('any'), tie('any'))).map((entries) => new Map(entries)),
  set: fc.array(tie('any')).map((values) => new Set(values)),
})).any;

t.test('values come back strictly equal', async () => {
  fc.assert(
    fc.property(value, (v) => {
      deepStrictEqual(roundTrip(v), v);
    }),
    { numRuns: 600 },
  );
});

t.test('what msgpack would change survives', async (t) => {
  for (const v of [
    -0,
    2n ** 64n,
    -(2n ** 63n),
    2n ** 63n,
    '\ud800x',
    5n,
    5,
    [-0],
    { a: { b: -0 } },
  ]) {
    t.doesNotThrow(() => {
      deepStrictEqual(roundTrip(v), v);
    });
  }
  const { groups } = /(?<x>a)/.exec('a')!;
  t.equal(Object.getPrototypeOf(roundTrip(groups)), null);
});

t.test('an invalid date stays one', async (t) => {
  const [date] = roundTrip([new Date(NaN)]) as [Date];
  t.ok(date instanceof Date && Number.isNaN(date.getTime()));
});

t.test('many shapes of objects in one value', async (t) => {
  const shapes = Array.from({ length: 2000 }, (_, i) => ({ [`k${String(i % 700)}`]: i, v: -0 }));
  t.doesNotThrow(() => {
    deepStrictEqual(roundTrip(shapes), shapes);
  });
});

t.test('the value is not changed and shares no memory with the bytes', async (t) => {
  const original = Object.freeze({ list: Object.freeze([-0, Object.freeze({ n: 2n ** 80n })]) });
  t.doesNotThrow(() => encodeValue(original));
  const bytes = encodeValue(new Uint8Array([1, 2, 3]));
  const decoded = decodeValue(bytes) as Uint8Array;
  bytes.fill(0);
  t.same([...decoded], [1, 2, 3]);
});

t.test('what would be lost is refused with its path', async (t) => {
  class Point {
    x = 1;
  }
  const cyclic: { self?: unknown } = {};
  cyclic.self = cyclic;
  const cases: [unknown, RegExp][] = [
    [() => 1, /^record is a function/],
    [{ a: [1, Symbol('s')] }, /^record\.a\[1\] is a symbol/],
    [{ at: new Point() }, /^record\.at is an instance of Point/],
    [new Map([[1, new Error('e')]]), /an instance of Error/],
    [/x/, /RegExp/],
    [{ [Symbol('s')]: 1 }, /symbol keys/],
    [/(a)/.exec('a'), /regular expression match/],
    [cyclic, /cyclic/],
    [new (class extends Array {})(), /an instance of/],
    [Promise.resolve(), /Promise/],
  ];
  for (const [v, message] of cases) {
    try {
      encodeValue(v);
      t.fail(`accepted ${String(message)}`);
    } catch (error) {
      t.equal((error as MillraceError).code, 'RECORD_UNSUPPORTED');
      t.match((error as MillraceError).message, message);
    }
  }
});
