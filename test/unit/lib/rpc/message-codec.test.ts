import fc from 'fast-check';
import t from 'tap';
import { hasCode } from '../../../../lib/base/errors.js';
import { MessageCodec } from '../../../../lib/rpc/message-codec.js';

const frame = (payload: unknown) => ({
  epoch: { era: 1, revision: 2 },
  kind: 'request' as const,
  id: 7,
  method: 'm',
  payload,
});

/** Plain data as splits and snapshots hold it. */
const plain = fc.letrec<{ value: unknown }>((tie) => ({
  value: fc.oneof(
    { maxDepth: 4 },
    fc.double(),
    fc.integer(),
    fc.constantFrom(-0, NaN, Infinity, -Infinity, null, true, false, 2 ** 53, -(2 ** 31)),
    fc.bigInt({ min: -(2n ** 100n), max: 2n ** 100n }),
    fc.string({ unit: 'binary' }),
    fc.uint8Array(),
    fc.date({ noInvalidDate: true }),
    fc.array(tie('value'), { maxLength: 5 }),
    fc.dictionary(fc.string(), tie('value'), { maxKeys: 5 }),
    fc
      .array(fc.tuple(fc.string(), tie('value')), { maxLength: 4 })
      .map((entries) => new Map(entries)),
    fc.array(fc.integer(), { maxLength: 4 }).map((items) => new Set(items)),
  ),
})).value;

/** Equal as a reader sees it: prototypes of plain objects do not matter, -0 does. */
function isSame(a: unknown, b: unknown): boolean {
  if (Object.is(a, b)) return true;
  if (typeof a !== 'object' || typeof b !== 'object' || a === null || b === null) return false;
  if (a instanceof Date) return b instanceof Date && a.getTime() === b.getTime();
  if (a instanceof Uint8Array) {
    return b.constructor === Uint8Array && isSame([...a], [...(b as Uint8Array)]);
  }
  if (Array.isArray(a)) {
    return Array.isArray(b) && a.length === b.length && a.every((item, i) => isSame(item, b[i]));
  }
  if (a instanceof Map) return b instanceof Map && isSame([...a], [...b]);
  if (a instanceof Set) return b instanceof Set && isSame([...a], [...b]);
  const [left, right] = [Object.entries(a), Object.entries(b)];
  return (
    !(b instanceof Map) &&
    left.length === right.length &&
    left.every(([key, value]) => Object.hasOwn(b, key) && isSame(value, (b as never)[key]))
  );
}

t.test('every plain value survives, in messages one after the other', async (t) => {
  const codec = new MessageCodec();
  fc.assert(
    fc.property(plain, (value) => {
      const decoded = codec.decode(codec.encode(frame(value)));
      return isSame(value, decoded.payload);
    }),
    { numRuns: 2000 },
  );
  t.pass('2000 values');
});

t.test('any bytes are a frame or refused, never a crash', async (t) => {
  const codec = new MessageCodec();
  const message = codec.encode(frame({ a: [1, 2, { b: 'text' }] }));
  const refusedOrRead = (bytes: Uint8Array): boolean => {
    try {
      return codec.decode(bytes).method !== undefined;
    } catch (error) {
      return hasCode(error, 'RPC_PROTOCOL');
    }
  };
  fc.assert(fc.property(fc.uint8Array({ maxLength: 200 }), refusedOrRead), { numRuns: 2000 });
  fc.assert(
    fc.property(fc.nat(message.length - 1), fc.nat(255), (at, value) => {
      const damaged = new Uint8Array(message);
      damaged[at] = value;
      return refusedOrRead(damaged);
    }),
    { numRuns: 2000 },
  );
  t.throws(() => codec.decode(message.subarray(0, message.length - 3)), { code: 'RPC_PROTOCOL' });
});

t.test('what refers to itself, or cannot be encoded, is refused by its sender', async (t) => {
  const codec = new MessageCodec();
  const loop: Record<string, unknown> = {};
  loop['self'] = loop;
  t.throws(() => codec.encode(frame(loop)), { code: 'RPC_PROTOCOL' });
});
