import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import t from 'tap';
import { own, ownStrings } from '../../../lib/record/codec/owned-strings.js';

setFlagsFromString('--expose-gc');
const collectGarbage = runInNewContext('gc') as () => void;

/** MB that are kept alive by what `keep` returns for 1000 texts of 32 KB. */
function keptMegabytes(keep: (piece: string) => unknown): number {
  const kept: unknown[] = [];
  collectGarbage();
  const before = process.memoryUsage().heapUsed;
  for (let i = 0; i < 1000; i += 1) {
    const text = Buffer.alloc(32_768, `text ${String(i)} `).toString('latin1');
    kept.push(keep(text.substring(100, 130)));
  }
  collectGarbage();
  const after = process.memoryUsage().heapUsed;
  t.equal(kept.length, 1000);
  return (after - before) / 2 ** 20;
}

t.test('an owned string does not keep the text it was cut from', (t) => {
  t.ok(keptMegabytes((piece) => piece) > 25, 'a piece does');
  t.ok(keptMegabytes(own) < 5);
  t.ok(keptMegabytes((piece) => ownStrings({ n: 1, piece })) < 5);
  t.ok(keptMegabytes((piece) => ownStrings([1, piece])) < 5);
  t.end();
});

t.test('nobody can tell an owned value from the one before', (t) => {
  const texts = [
    '',
    'short',
    'a string that is long enough',
    'ä€😀 and more than that',
    '\ud800'.repeat(20),
  ];
  for (const text of texts) t.equal(own(text), text);
  const object = { b: texts[2], a: 1, nested: { text: texts[2] } };
  const { nested } = object;
  t.equal(ownStrings(object), object);
  t.strictSame(object, { b: texts[2], a: 1, nested: { text: texts[2] } });
  t.equal(object.nested, nested);
  t.strictSame(Object.keys(object), ['b', 'a', 'nested']);
  const sparse: unknown[] = [texts[3], undefined, 1];
  sparse.length = 10;
  t.equal(ownStrings(sparse), sparse);
  t.notOk(5 in sparse);
  for (const value of [1, null, undefined, true, 5n, new Map(), new Date(0)]) {
    t.equal(ownStrings(value), value);
  }
  t.end();
});

t.test('what is not writable stays as it is', (t) => {
  const long = 'a string that is long enough';
  let writes = 0;
  const guarded = Object.defineProperties(
    {},
    {
      constant: { value: long, enumerable: true },
      accessor: {
        get: () => long,
        set: () => {
          writes += 1;
        },
        enumerable: true,
      },
    },
  );
  t.doesNotThrow(() => ownStrings(guarded));
  t.equal(writes, 0);
  t.doesNotThrow(() => ownStrings(Object.freeze({ long })));
  t.doesNotThrow(() => ownStrings(Object.freeze([long])));
  t.end();
});
