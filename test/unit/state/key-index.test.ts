import fc from 'fast-check';
import t from 'tap';
import { KeyCells } from '../../../lib/state/key-cells.js';
import { hashKey } from '../../../lib/state/key-group.js';
import { isSameKey, KeyIndex } from '../../../lib/state/key-index.js';
import { identityOf, type KeyIdentity } from '../../../lib/state/key-identity.js';

const someKey = fc.oneof(
  fc.integer({ min: -20, max: 20 }),
  fc.constantFrom<unknown[]>(0, -0, NaN, 0.5, -1.5, 2 ** 31, Infinity),
  fc.constantFrom<unknown[]>('', '0', 'a', 'a longer key of text', '\u0000s', 'zażółć'),
  fc.constantFrom<unknown[]>(true, false, null, 0n, 1n, 2n ** 70n),
  fc.constantFrom<unknown[]>([], [-0], [0, 'a'], ['a', 0], [[1], [NaN]], ['a longer key of text']),
);

t.test('keys have slots of their own, which freed keys give back', async () => {
  fc.assert(
    fc.property(
      fc.array(fc.tuple(someKey, fc.boolean()), { maxLength: 200 }),
      fc.boolean(),
      (steps, onlyIntegers) => {
        const index = new KeyIndex();
        const model = new Map<KeyIdentity, number>();
        for (const [key, isAdded] of steps) {
          if (onlyIntegers && typeof key !== 'number') continue;
          const slot = index.find(key, hashKey(key));
          if (slot !== (model.get(identityOf(key)) ?? -1)) return false;
          if (isAdded && slot < 0) {
            const added = index.insert(key, hashKey(key));
            index.hold(added);
            model.set(identityOf(key), added);
          } else if (!isAdded && slot >= 0) {
            if (!index.release(slot)) return false;
            model.delete(identityOf(key));
          }
          if (new Set(model.values()).size !== model.size) return false;
        }
        const keys = [...model].every(
          ([identity, slot]) =>
            Object.is(identityOf(index.keyAt(slot)), identity) &&
            index.hashAt(slot) === hashKey(index.keyAt(slot)),
        );
        return keys && index.limit <= steps.length;
      },
    ),
    { numRuns: 500 },
  );
});

t.test('a slot is free when nothing holds it any more', async (t) => {
  const index = new KeyIndex();
  const slot = index.insert('a', hashKey('a'));
  index.hold(slot);
  index.hold(slot);
  t.notOk(index.release(slot));
  t.equal(index.find('a', hashKey('a')), slot);
  t.ok(index.release(slot));
  t.equal(index.find('a', hashKey('a')), -1);
  t.equal(index.insert('b', hashKey('b')), slot, 'used again');
});

t.test('an index of hundreds of thousands of keys grows and shrinks', async (t) => {
  const index = new KeyIndex();
  const count = 150_000;
  const keyOf = (i: number): unknown => (i % 3 === 0 ? i : i % 3 === 1 ? `key ${i}` : i + 0.5);
  for (let i = 0; i < count; i += 1) index.hold(index.insert(keyOf(i), hashKey(keyOf(i))));
  const found = (from: number, step: number): number => {
    let sum = 0;
    for (let i = from; i < count; i += step) {
      if (index.find(keyOf(i), hashKey(keyOf(i))) === i) sum += 1;
    }
    return sum;
  };
  t.equal(found(0, 1), count);
  for (let i = 0; i < count; i += 2) index.release(i);
  t.equal(found(0, 2), 0);
  t.equal(found(1, 2), count / 2);
  for (let i = 0; i < count; i += 2) index.hold(index.insert(keyOf(i), hashKey(keyOf(i))));
  t.equal(index.limit, count);
});

t.test('entries of one hash are kept apart, however many', async (t) => {
  const cells = new KeyCells();
  for (let i = 0; i < 3000; i += 1) cells.insert(42, i);
  for (let i = 0; i < 3000; i += 1) cells.insert(i * 7 + 1000, 5000 + i);
  for (let i = 2999; i > 0; i -= 1) cells.remove(42, i);
  t.equal(cells.find(42), 0);
  let found = 0;
  for (let i = 0; i < 3000; i += 1) if (cells.find(i * 7 + 1000) === 5000 + i) found += 1;
  t.equal(found, 3000);
  t.equal(cells.find(43), -1);
});

t.test('keys are equal as identities are', async () => {
  fc.assert(
    fc.property(someKey, someKey, (a, b) => {
      const same = new Set([identityOf(a), identityOf(b)]).size === 1;
      return isSameKey(a, b) === same;
    }),
    { numRuns: 2000 },
  );
});
