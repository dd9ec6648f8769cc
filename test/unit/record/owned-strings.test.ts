import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import t from 'tap';
import { own } from '../../../lib/record/codec/owned-strings.js';

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
  t.end();
});

t.test('an owned string is the same string', (t) => {
  for (const text of [
    '',
    'short',
    'a string that is long enough',
    'ä€😀 and more than that',
    '\ud800'.repeat(20),
  ]) {
    t.equal(own(text), text);
  }
  t.end();
});
