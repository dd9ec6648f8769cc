/** Records of random jobs: fields in changing shapes with every kind of payload, all computed from numbers. */

/** What every record says about itself, whatever its shape. */
export interface Fields {
  /** The split it comes from, `source.split`; empty where that is lost. */
  readonly l: string;
  /** Number in its split. */
  readonly n: number;
  /** Event time in ms. */
  readonly t: number;
  readonly k: number;
  readonly s: string;
  /** Anything. */
  readonly p: unknown;
}

export const shapes = [
  'flat',
  'absent',
  'wide',
  'nested',
  'tuple',
  'map',
  'order',
  'text',
  'number',
  'mixed',
] as const;
export type Shape = (typeof shapes)[number];
const mixable: readonly Shape[] = ['flat', 'absent', 'wide', 'nested', 'tuple', 'order', 'text'];

export const payloads = [
  'int',
  'grows',
  'turns',
  'zero',
  'double',
  'special',
  'ascii',
  'utf8',
  'surrogate',
  'nothing',
  'missing',
  'boolean',
  'bigint',
  'date',
  'collection',
  'tuple',
  'object',
  'changing',
  'names',
  'bytes',
  'long',
] as const;
export type Payload = (typeof payloads)[number];

/** 32 well mixed bits. */
export function mix(...parts: readonly number[]): number {
  let h = 0x9e3779b9;
  for (const part of parts) {
    h = Math.imul(h ^ (part | 0), 0x85ebca6b);
    h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
    h ^= h >>> 16;
  }
  return h >>> 0;
}

const pick = <T>(items: readonly T[], h: number): T => items[h % items.length]!;

/** Records of a split after which channels have learned what to expect (from 64, where one in two or three goes over it). */
export const learnedAfter = 160;

export function payloadOf(kind: Payload, h: number, n: number): unknown {
  switch (kind) {
    case 'int':
      return (h % 2001) - 1000;
    case 'grows':
      // Whole and small at first, then not.
      return n < learnedAfter ? n : n < learnedAfter + 20 ? n + 2 ** 31 : n / 3;
    case 'turns':
      // Whole numbers until a channel has learned that, and then for once something else.
      if (n < learnedAfter || h % 17 !== 0) return h % 100;
      return pick<unknown>([-0, -0, NaN, 1.5, 2 ** 31, null, undefined, 'text', 3n], h >>> 8);
    case 'zero':
      return h % 11 !== 0 ? h % 9 : n < learnedAfter ? 0 : -0;
    case 'double':
      return (h - 2 ** 31) / 1000;
    case 'special':
      return pick([0, -0, NaN, Infinity, -Infinity, 2 ** 53, -(2 ** 31), 2 ** 31, 5e-324], h);
    case 'ascii':
      return `text ${h % 100}`;
    case 'utf8':
      return n < learnedAfter ? 'plain' : pick(['é', 'zażółć', '😀 of', '\u0000', ''], h);
    case 'surrogate':
      return pick(['\ud800', 'a\udc00b', 'fine', '😀'], h);
    case 'nothing':
      return pick([undefined, null, 0, ''], h);
    case 'missing':
      return h % 3 === 0 ? undefined : h % 50;
    case 'boolean':
      return h % 2 === 0;
    case 'bigint':
      return BigInt(h) * pick([1n, -1n, 2n ** 70n, 0n], h >>> 3);
    case 'date':
      return new Date(h % 7 === 0 ? NaN : h);
    case 'collection':
      return h % 2 === 0
        ? new Map<unknown, unknown>([
            [h % 9, { a: undefined }],
            ['m', -0],
          ])
        : new Set<unknown>([h % 9, 'x', null]);
    case 'tuple':
      return [h % 10, `t${h % 3}`, [null, h % 2 === 0]];
    case 'object':
      return { a: h % 10, b: { c: `c${h % 4}`, d: [h % 3] } };
    case 'changing':
      return pick<unknown>([{ a: 1 }, { a: 'one' }, { b: 2, a: null }, { a: { b: h } }, 7, []], h);
    case 'names':
      return pick<unknown>(
        [
          { constructor: 1 },
          JSON.parse('{"__proto__":{"x":1}}'),
          { toString: 'x', '': 2 },
          { 'a b': 1, 'ü.x': 2, 3: 'index' },
          Object.assign(Object.create(null) as object, { bare: h % 5 }),
        ],
        h,
      );
    case 'bytes':
      return pick<unknown>([Uint8Array.of(1, 2, h), Float64Array.of(-0, NaN), new Uint8Array()], h);
    case 'long':
      return h % 16 === 0 ? pick(['x', 'é'], h >>> 5).repeat(20_000 + (h % 30_000)) : 'short';
  }
}

/** A record of these fields; `number` keeps only `n`, `text` loses the payload. */
export function shaped(shape: Shape, fields: Fields): unknown {
  const { l, n, t, k, s, p } = fields;
  switch (shape) {
    case 'flat':
      return { l, n, t, k, s, p };
    case 'absent':
      return p === undefined ? { l, n, t, k, s } : { l, n, t, k, s, p };
    case 'wide':
      return {
        ...{ l, n, t, k, s, p },
        half: n / 2,
        maybe: n % 2 === 0 ? s : null,
        never: undefined,
        big: n % 3 === 0 ? 2 ** 31 + n : n,
        zero: n > learnedAfter && n % 29 === 0 ? -0 : 0,
        yes: n % 2 === 0,
        accent: n % 5 === 4 ? `${s}é` : s,
      };
    case 'nested':
      return { h: { l, n, t }, b: { k, s, p } };
    case 'tuple':
      return [l, n, t, k, s, p];
    case 'map':
      return new Map<string, unknown>(Object.entries({ l, n, t, k, s, p }));
    case 'order':
      return n % 2 === 0 ? { p, s, k, t, n, l } : { l, n, t, k, s, p };
    case 'text':
      return [l, n, t, Object.is(k, -0) ? '-0' : k, s].join('|');
    case 'number':
      return n;
    case 'mixed':
      return shaped(pick(mixable, n), fields);
  }
}

export function fieldsOf(value: unknown): Fields {
  if (typeof value === 'number') {
    return { l: '', n: value, t: value * 7, k: value, s: 'number', p: undefined };
  }
  if (typeof value === 'string') {
    const [l = '', n, t, k, ...s] = value.split('|');
    return { l, n: Number(n), t: Number(t), k: Number(k), s: s.join('|'), p: undefined };
  }
  if (Array.isArray(value)) {
    const [l, n, t, k, s, p] = value as [string, number, number, number, string, unknown];
    return { l, n, t, k, s, p };
  }
  if (value instanceof Map) return Object.fromEntries(value);
  const { h, b } = value as { h?: object; b?: object };
  if (h !== undefined) return { ...h, ...b } as Fields;
  const { l, n, t, k, s, p } = value as Fields;
  return { l, n, t, k, s, p };
}

export const keys = [
  'lane',
  'number',
  'double',
  'string',
  'tuple',
  'nested',
  'boolean',
  'bigint',
  'mixed',
  'odd',
] as const;
export type Key = (typeof keys)[number];

export function keyOfRecord(kind: Key, value: unknown): unknown {
  const { l, n, k, s } = fieldsOf(value);
  const small = Number.isFinite(k) ? Math.trunc(k) % 7 : 0;
  switch (kind) {
    case 'lane':
      return l;
    case 'number':
      return small;
    case 'double':
      return small / 2;
    case 'string':
      return s;
    case 'tuple':
      return [small, s];
    case 'nested':
      return [l, [small, null]];
    case 'boolean':
      return n % 2 === 0;
    case 'bigint':
      return BigInt(small) * 2n ** 65n;
    case 'mixed':
      return n % 3 === 0 ? small : n % 3 === 1 ? String(small) : [small];
    case 'odd':
      return pick([NaN, -0, 0, null, '', '\u0000s', 1e300, 'é'], n);
  }
}

/** As an operator gives a key back: -0 is 0. */
export function plainKey(key: unknown): unknown {
  if (Array.isArray(key)) return key.map(plainKey);
  return key === 0 ? 0 : key;
}

const textMax = 80;

/** The value as text: equal only for values that cannot be told apart (order of keys, -0, holes, prototypes count). */
export function show(value: unknown): string {
  switch (typeof value) {
    case 'string':
      return value.length <= textMax ? JSON.stringify(value) : showLong(value);
    case 'number':
      return Object.is(value, -0) ? '-0' : String(value);
    case 'bigint':
      return `${value}n`;
    case 'object':
      return value === null ? 'null' : showObject(value);
    default:
      return String(value);
  }
}

function showLong(text: string): string {
  let h = 0;
  for (let i = 0; i < text.length; i += 1) h = (Math.imul(h, 31) + text.charCodeAt(i)) | 0;
  return `${JSON.stringify(text.slice(0, 16))}…${text.length}#${h}`;
}

function showObject(value: object): string {
  if (Array.isArray(value)) {
    return `[${Array.from(value, (item, i) => (i in value ? show(item) : 'hole')).join(',')}]`;
  }
  if (value instanceof Date) return `Date(${value.getTime()})`;
  if (value instanceof Map) {
    return `Map{${[...value].map(([k, v]) => `${show(k)}=>${show(v)}`).join(',')}}`;
  }
  if (value instanceof Set) return `Set{${[...value].map(show).join(',')}}`;
  if (ArrayBuffer.isView(value)) {
    const items = Array.from(value as unknown as Iterable<unknown>, show);
    return `${value.constructor.name}(${items.join(',')})`;
  }
  const prototype = Object.getPrototypeOf(value) as unknown;
  const name = prototype === Object.prototype ? '' : prototype === null ? 'bare' : 'class';
  const entries = Object.entries(value).map(([k, v]) => `${JSON.stringify(k)}:${show(v)}`);
  return `${name}{${entries.join(',')}}`;
}
