/**
 * The one encoding of user values: records on channels, keys, state. A value comes back equal, bit for
 * bit where that can be seen (-0, NaN, undefined, bigints of any size, lone surrogates, holes), or is refused
 * with RECORD_UNSUPPORTED and the path to the offender. Nothing is dropped or coerced.
 *
 * The bytes are msgpack by msgpackr; what msgpackr would change is wrapped in one extension (`Escape`)
 * by a walk over the value, which copies only what contains such a thing. NB: the format is part of checkpoints.
 */
import { Packr, addExtension } from 'msgpackr';
import { MillraceError } from '../../base/errors.js';

/** Deeper values are refused: they are cyclic, or would overflow the stack somewhere else. */
const depthMax = 400;
/** Longer arrays are not searched for properties beside their elements (`match` results are short). */
const arrayPropertyCheckMax = 64;

/** Kinds of escape. Frozen: they are in checkpoints. */
const kind = {
  negativeZero: 0,
  bigint: 1,
  utf16: 2,
  bytes: 3,
  date: 4,
  sparseArray: 5,
  entries: 6,
  nullPrototype: 7,
  map: 8,
  set: 9,
} as const;

class Escape {
  readonly kind: number;
  readonly payload: unknown;

  constructor(escapeKind: number, payload: unknown) {
    this.kind = escapeKind;
    this.payload = payload;
  }
}

addExtension({
  Class: Escape,
  type: 0x4d,
  write: (escape: Escape) => [escape.kind, escape.payload],
  read: (data: [number, unknown]) => revive(data[0], data[1]),
});

const packr = new Packr({ useRecords: true, copyBuffers: true, int64AsType: 'bigint' });

/** @param what names the value in errors: `record`, `key`, `state "count"`. */
export function encodeValue(value: unknown, what = 'record'): Uint8Array {
  return packr.pack(prepare(value, { what, path: [] }));
}

/** The value shares no memory with `bytes`. */
export function decodeValue(bytes: Uint8Array): unknown {
  return packr.unpack(isShared(bytes) ? new Uint8Array(bytes) : bytes) as unknown;
}

/** NB: msgpackr's native code reads no shared memory: some strings (those that are no ASCII) end the process. */
export function isShared(bytes: Uint8Array): boolean {
  return bytes.buffer instanceof SharedArrayBuffer;
}

interface Walk {
  readonly what: string;
  readonly path: (string | number)[];
}

function refuse(walk: Walk, reason: string): MillraceError {
  const steps = walk.path.map((step) =>
    typeof step === 'number' ? `[${String(step)}]` : `.${step}`,
  );
  const where = steps.length > 24 ? `${steps.slice(0, 24).join('')}…` : steps.join('');
  return new MillraceError(
    'RECORD_UNSUPPORTED',
    `${walk.what}${where} is ${reason}; records, keys and state are plain data`,
    { details: { what: walk.what, path: where } },
  );
}

const isWellFormed = (String.prototype as unknown as { isWellFormed: (this: string) => boolean })
  .isWellFormed;

function prepare(value: unknown, walk: Walk): unknown {
  switch (typeof value) {
    case 'string':
      return isWellFormed.call(value)
        ? value
        : new Escape(kind.utf16, Buffer.from(value, 'utf16le'));
    case 'number':
      return Object.is(value, -0) ? new Escape(kind.negativeZero, null) : value;
    case 'boolean':
    case 'undefined':
      return value;
    case 'bigint':
      return BigInt.asIntN(64, value) === value
        ? value
        : new Escape(kind.bigint, value.toString(16));
    case 'object':
      return value === null ? null : prepareObject(value, walk);
    case 'function':
      throw refuse(walk, 'a function');
    default:
      throw refuse(walk, `a ${typeof value}`);
  }
}

function prepareObject(value: object, walk: Walk): unknown {
  if (walk.path.length >= depthMax)
    throw refuse(walk, `nested more than ${depthMax} deep, or cyclic`);
  if (Array.isArray(value)) return prepareArray(value, walk);
  const prototype = Object.getPrototypeOf(value) as unknown;
  if (prototype === Object.prototype) return preparePlain(value as Record<string, unknown>, walk);
  if (prototype === null) return new Escape(kind.nullPrototype, entriesOf(value, walk));
  if (prototype === Date.prototype) return new Escape(kind.date, (value as Date).getTime());
  if (prototype === Map.prototype) return prepareMap(value as Map<unknown, unknown>, walk);
  if (prototype === Set.prototype) return prepareSet(value as Set<unknown>, walk);
  const bytes = prepareBytes(value, prototype);
  if (bytes !== undefined) return bytes;
  const name = value.constructor?.name;
  throw refuse(
    walk,
    name ? `an instance of ${name}, whose class would be lost` : 'no plain object',
  );
}

function preparePlain(object: Record<string, unknown>, walk: Walk): unknown {
  refuseSymbols(object, walk);
  let copy: Record<string, unknown> | undefined;
  for (const key in object) {
    // msgpackr tells types apart by `constructor`, assigns `__proto__`, and writes keys as UTF-8.
    if (key === 'constructor' || key === '__proto__' || !isWellFormed.call(key)) {
      return new Escape(kind.entries, entriesOf(object, walk));
    }
    const before = object[key];
    const after = prepareAt(before, key, walk);
    if (!isSame(after, before)) {
      copy ??= { ...object };
      copy[key] = after;
    }
  }
  return copy ?? object;
}

function prepareArray(array: readonly unknown[], walk: Walk): unknown {
  if (Object.getPrototypeOf(array) !== Array.prototype) {
    throw refuse(walk, `an instance of ${array.constructor.name}, whose class would be lost`);
  }
  const isShort = array.length <= arrayPropertyCheckMax;
  if (isShort ? Object.keys(array).length > array.length : Object.hasOwn(array, 'index')) {
    throw refuse(walk, 'an array with properties of its own, such as a regular expression match');
  }
  let copy: unknown[] | undefined;
  for (let i = 0; i < array.length; i += 1) {
    const before = array[i];
    if (before === undefined && !(i in array)) return prepareSparse(array, walk);
    const after = prepareAt(before, i, walk);
    if (!isSame(after, before)) {
      copy ??= array.slice();
      copy[i] = after;
    }
  }
  return copy ?? array;
}

function prepareSparse(array: readonly unknown[], walk: Walk): Escape {
  const present: unknown[] = [];
  array.forEach((value, index) => present.push(index, prepareAt(value, index, walk)));
  return new Escape(kind.sparseArray, [array.length, present]);
}

function prepareMap(map: Map<unknown, unknown>, walk: Walk): Escape {
  const flat: unknown[] = [];
  let index = 0;
  for (const [key, value] of map) {
    flat.push(prepareAt(key, index, walk), prepareAt(value, index, walk));
    index += 1;
  }
  return new Escape(kind.map, flat);
}

function prepareSet(set: Set<unknown>, walk: Walk): Escape {
  return new Escape(
    kind.set,
    Array.from(set, (value, index) => prepareAt(value, index, walk)),
  );
}

function entriesOf(object: object, walk: Walk): unknown[] {
  refuseSymbols(object, walk);
  return Object.entries(object).flatMap(([key, value]) => [
    prepare(key, walk),
    prepareAt(value, key, walk),
  ]);
}

function prepareAt(value: unknown, step: string | number, walk: Walk): unknown {
  // Most values are these, and need no path.
  if (typeof value === 'string' || typeof value === 'number') return prepare(value, walk);
  walk.path.push(step);
  const prepared = prepare(value, walk);
  walk.path.pop();
  return prepared;
}

/** Only an Escape or a copy differs; NaN is itself. */
function isSame(after: unknown, before: unknown): boolean {
  return after === before || typeof after === 'number';
}

function refuseSymbols(object: object, walk: Walk): void {
  if (Object.getOwnPropertySymbols(object).length > 0) {
    throw refuse(walk, 'an object with symbol keys, which would be lost');
  }
}

type BytesConstructor = new (buffer: ArrayBuffer) => unknown;

/** Binary types by name. Frozen: the names are in checkpoints. */
const binaryTypes: ReadonlyMap<string, BytesConstructor> = new Map<string, BytesConstructor>([
  ['Int8Array', Int8Array],
  ['Uint8Array', Uint8Array],
  ['Uint8ClampedArray', Uint8ClampedArray],
  ['Int16Array', Int16Array],
  ['Uint16Array', Uint16Array],
  ['Int32Array', Int32Array],
  ['Uint32Array', Uint32Array],
  ['Float32Array', Float32Array],
  ['Float64Array', Float64Array],
  ['BigInt64Array', BigInt64Array],
  ['BigUint64Array', BigUint64Array],
  ['DataView', DataView],
]);

function prepareBytes(value: object, prototype: unknown): Escape | undefined {
  if (prototype === ArrayBuffer.prototype) {
    return new Escape(kind.bytes, ['ArrayBuffer', Buffer.from(value as ArrayBuffer)]);
  }
  if (!ArrayBuffer.isView(value)) return undefined;
  const bytes = Buffer.from(value.buffer, value.byteOffset, value.byteLength);
  if (prototype === Buffer.prototype) return new Escape(kind.bytes, ['Buffer', bytes]);
  const name = value.constructor.name;
  const known = binaryTypes.get(name);
  return known?.prototype === prototype ? new Escape(kind.bytes, [name, bytes]) : undefined;
}

function revive(escapeKind: number, payload: unknown): unknown {
  switch (escapeKind) {
    case kind.negativeZero:
      return -0;
    case kind.bigint:
      return parseBigInt(payload as string);
    case kind.utf16:
      return Buffer.from(payload as Uint8Array).toString('utf16le');
    case kind.bytes:
      return reviveBytes(payload as [string, Uint8Array]);
    case kind.date:
      return new Date(payload as number);
    case kind.sparseArray:
      return reviveSparse(payload as [number, unknown[]]);
    case kind.entries:
      return reviveEntries({}, payload as unknown[]);
    case kind.nullPrototype:
      return reviveEntries(Object.create(null) as object, payload as unknown[]);
    case kind.map:
      return new Map(pairs(payload as unknown[]));
    case kind.set:
      return new Set(payload as unknown[]);
    default:
      throw new MillraceError(
        'CHECKPOINT_CORRUPT',
        `encoded value has an unknown escape ${String(escapeKind)}`,
      );
  }
}

function parseBigInt(hex: string): bigint {
  return hex.startsWith('-') ? -BigInt(`0x${hex.slice(1)}`) : BigInt(`0x${hex}`);
}

function reviveBytes([name, bytes]: [string, Uint8Array]): unknown {
  if (name === 'Buffer') return Buffer.from(bytes);
  const copy = new ArrayBuffer(bytes.byteLength);
  new Uint8Array(copy).set(bytes);
  if (name === 'ArrayBuffer') return copy;
  const constructor = binaryTypes.get(name);
  if (constructor !== undefined) return new constructor(copy);
  throw new MillraceError('CHECKPOINT_CORRUPT', `encoded value has an unknown binary type ${name}`);
}

function reviveSparse([length, present]: [number, unknown[]]): unknown[] {
  const array: unknown[] = [];
  array.length = length;
  for (const [index, value] of pairs(present)) array[index as number] = value;
  return array;
}

function reviveEntries(target: object, flat: unknown[]): object {
  for (const [key, value] of pairs(flat)) {
    // Not an assignment: `__proto__` would set the prototype.
    Object.defineProperty(target, key as string, {
      value,
      writable: true,
      enumerable: true,
      configurable: true,
    });
  }
  return target;
}

function* pairs(flat: readonly unknown[]): Generator<[unknown, unknown]> {
  for (let i = 0; i < flat.length; i += 2) yield [flat[i], flat[i + 1]];
}
