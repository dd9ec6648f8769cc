import fc from 'fast-check';
import t from 'tap';
import type { MillraceError } from '../../../lib/base/errors.js';
import { hashKey, keyGroupOf } from '../../../lib/state/key-group.js';
import { identityOf, keyOf } from '../../../lib/state/key-identity.js';
import { computeKeyGroupRange, subtaskOfKeyGroup } from '../../../lib/state/key-group-range.js';

t.test('hashes are frozen: checkpoints and channels depend on each bit', async (t) => {
  const golden: [unknown, number][] = [
    [0, 0],
    [1, 1364076727],
    [-1, -2114883783],
    [42, 142593372],
    [2147483647, -104067416],
    [-2147483648, 1832674720],
    [2147483648, -1065945258],
    [0.5, 722473890],
    [-0.5, 1367927175],
    [NaN, 104869765],
    [Infinity, -2108951150],
    [-Infinity, -1574868783],
    [1e300, 436181118],
    [9007199254740991, 283757394],
    ['', 0],
    ['a', 1867108634],
    ['ab', 374890698],
    ['abc', 1118836419],
    ['user-00042', 238240559],
    ['zażółć', -281886313],
    ['\ud83d\ude00', 1443257913],
    ['\u0000', 821347078],
    [true, 262886248],
    [false, -878682501],
    [0n, 1481172435],
    [1n, -1796041778],
    [-1n, -289577584],
    [123456789012345678901234567890n, -22913504],
    [null, -1716808456],
    [[], -663740136],
    [[1], 1327969011],
    [[1, 2], 1855504817],
    [['a', 1], 1587872433],
    [['a', ['b', null]], 1493611475],
  ];
  for (const [key, hash] of golden) t.equal(hashKey(key), hash, JSON.stringify(String(key)));
});

t.test('key groups and their subtasks are frozen', async (t) => {
  // Of 16, 128 and 32768 groups; of the 128 at parallelism 2, 3 and 4.
  const golden: [unknown, number[], number[]][] = [
    [0, [0, 0, 0], [0, 0, 0]],
    [-0, [0, 0, 0], [0, 0, 0]],
    [42, [12, 92, 19804], [1, 2, 2]],
    [-1, [9, 57, 28473], [0, 1, 1]],
    [0.5, [2, 34, 5026], [0, 0, 1]],
    [NaN, [5, 5, 12165], [0, 0, 0]],
    ['', [0, 0, 0], [0, 0, 0]],
    ['abc', [3, 67, 5827], [1, 1, 2]],
    ['user-00042', [15, 47, 17199], [0, 1, 1]],
    ['zażółć', [7, 23, 16791], [0, 0, 0]],
    [true, [8, 104, 21352], [1, 2, 3]],
    [1n, [14, 78, 5070], [1, 1, 2]],
    [null, [8, 120, 5368], [1, 2, 3]],
    [
      [1, 2],
      [1, 49, 16817],
      [0, 1, 1],
    ],
    [
      ['a', ['b', null]],
      [3, 83, 13267],
      [1, 1, 2],
    ],
  ];
  for (const [key, groups, subtasks] of golden) {
    const group = keyGroupOf(key, 128);
    t.same(
      [
        [16, 128, 32_768].map((max) => keyGroupOf(key, max)),
        [2, 3, 4].map((parallelism) => subtaskOfKeyGroup(group, 128, parallelism)),
      ],
      [groups, subtasks],
      String(key),
    );
  }
});

t.test('keys hash by value', async (t) => {
  t.equal(hashKey(-0), hashKey(0));
  t.equal(hashKey(NaN), hashKey(-NaN));
  t.equal(hashKey([-0, ['a']]), hashKey([0, ['a']]));
  t.not(hashKey(1), hashKey('1'));
  t.not(hashKey(1), hashKey(1n));
  t.not(hashKey(['ab', 'c']), hashKey(['a', 'bc']));
  for (const key of [{ a: 1 }, undefined, () => 1, Symbol('s'), [1, {}], new Date(0)]) {
    for (const use of [hashKey, identityOf]) {
      try {
        use(key);
        t.fail('accepted');
      } catch (error) {
        t.equal((error as MillraceError).code, 'RECORD_UNSUPPORTED');
      }
    }
  }
});

const primitive = fc.oneof(
  fc.string({ unit: 'binary' }),
  fc.constantFrom('\u0000', '\u0000s', '\u0000t1:_', '', 's1:a', '1', 'true', 'null'),
  fc.double(),
  fc.integer(),
  fc.bigInt(),
  fc.boolean(),
  fc.constant(null),
);
const key = fc.letrec((tie) => ({
  key: fc.oneof(primitive, primitive, fc.array(tie('key'), { maxLength: 4 })),
})).key;

/** Equality of keys, written down once more: -0 is 0, NaN is NaN, types differ. */
function sameKey(a: unknown, b: unknown): boolean {
  if (Array.isArray(a) && Array.isArray(b)) {
    return a.length === b.length && a.every((part, i) => sameKey(part, b[i]));
  }
  return a === b || (a !== a && b !== b);
}

t.test('identities are equal exactly when keys are, and lead back to the key', async () => {
  fc.assert(
    fc.property(key, key, (a, b) => {
      const same = new Set([identityOf(a), identityOf(b)]).size === 1;
      return (
        same === sameKey(a, b) &&
        sameKey(keyOf(identityOf(a)), a) &&
        (!same || hashKey(a) === hashKey(b)) &&
        hashKey(keyOf(identityOf(a))) === hashKey(a)
      );
    }),
    { numRuns: 3000 },
  );
});

t.test('every key group belongs to exactly one subtask', async () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 600 }), fc.nat(), (maxParallelism, seed) => {
      const parallelism = 1 + (seed % maxParallelism);
      let next = 0;
      for (let index = 0; index < parallelism; index += 1) {
        const { start, end } = computeKeyGroupRange(maxParallelism, parallelism, index);
        if (start !== next || end < start) return false;
        for (let group = start; group <= end; group += 1) {
          if (subtaskOfKeyGroup(group, maxParallelism, parallelism) !== index) return false;
        }
        next = end + 1;
      }
      return next === maxParallelism;
    }),
  );
});

t.test('keys spread evenly over key groups', async (t) => {
  const makers: ((i: number) => unknown)[] = [
    (i) => i,
    (i) => i * 1024,
    (i) => i + 0.5,
    (i) => `user-${String(i)}`,
    (i) => BigInt(i) * 1_000_000n,
    (i) => [i % 100, `p${String(i)}`],
  ];
  for (const make of makers) {
    const counts = new Array<number>(128).fill(0);
    for (let i = 0; i < 128 * 200; i += 1) {
      const group = keyGroupOf(make(i), 128);
      counts[group] = counts[group]! + 1;
    }
    t.ok(Math.min(...counts) > 130 && Math.max(...counts) < 270, String(make(7)));
  }
});
