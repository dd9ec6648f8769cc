import t from 'tap';
import { decodeValue } from '../../../lib/record/codec/value-codec.js';
import { GroupLog } from '../../../lib/state/group-log.js';

function roundTrip(elements: readonly unknown[]): unknown {
  const log = new GroupLog('state');
  log.open(0);
  for (let i = 0; i < elements.length; i += 2) log.entry(elements[i], elements[i + 1]);
  log.close();
  return decodeValue(Buffer.concat([...log.payload(0)]));
}

t.test('numbers behind objects come back as numbers', async (t) => {
  const shapes = Array.from({ length: 64 }, (_, i) => [`key ${i}`, { [`field ${i}`]: i }]).flat();
  const numbers = Array.from({ length: 600 }, (_, i) => i - 300);
  const more = [-0, NaN, 0.5, 2 ** 31 - 1, -(2 ** 31), 2 ** 31, Infinity, -Infinity];
  const elements = [...shapes, ...numbers, ...more];
  t.strictSame(roundTrip(elements), elements);
  t.ok(Object.is((roundTrip([1, -0]) as unknown[])[1], -0));
});
