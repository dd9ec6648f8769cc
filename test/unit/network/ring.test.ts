import { Worker } from 'node:worker_threads';
import fc from 'fast-check';
import t from 'tap';
import { Bell, createBells } from '../../../lib/network/bell.js';
import { ChannelReader } from '../../../lib/network/channel-reader.js';
import { ChannelWriter } from '../../../lib/network/channel-writer.js';
import { createRingMemory, Ring } from '../../../lib/network/ring.js';
import type { ControlEvent } from '../../../lib/record/stream-element.js';
import type { RingWorkerData } from '../../support/ring-worker.js';

interface Channel {
  readonly ring: Ring;
  readonly writer: ChannelWriter;
  readonly reader: ChannelReader;
  readonly producerBell: Bell;
  readonly consumerBell: Bell;
}

function createChannel(buffers = 3, bufferBytes = 16, maxOverdraft = 1000): Channel {
  const bells = createBells(2);
  const ring = new Ring(createRingMemory({ buffers, bufferBytes }), bells);
  ring.attach('producer', 0);
  ring.attach('consumer', 1);
  return {
    ring,
    writer: new ChannelWriter('c', ring, maxOverdraft),
    reader: new ChannelReader('c', ring),
    producerBell: new Bell(bells, 0),
    consumerBell: new Bell(bells, 1),
  };
}

const barrier = (checkpointId: number): ControlEvent => ({
  kind: 'barrier',
  checkpointId,
  timestamp: 1,
});

t.test('whatever is written comes out whole and in order, under any interleaving', (t) => {
  const step = fc.oneof(
    fc.record({ kind: fc.constant('batch' as const), length: fc.integer({ min: 1, max: 90 }) }),
    fc.record({ kind: fc.constant('barrier' as const) }),
    fc.record({ kind: fc.constant('read' as const) }),
    fc.record({ kind: fc.constant('room' as const) }),
  );
  fc.assert(
    fc.property(
      fc.array(step, { maxLength: 120 }),
      fc.integer({ min: 2, max: 5 }),
      (steps, buffers) => {
        const { writer, reader } = createChannel(buffers);
        const expected: (string | ControlEvent)[] = [];
        const actual: (string | ControlEvent)[] = [];
        let n = 0;
        const read = (): boolean => {
          const next = reader.next();
          if (next === undefined) return false;
          actual.push(next instanceof Uint8Array ? Buffer.from(next).toString('hex') : next);
          return true;
        };
        for (const { kind, ...rest } of steps) {
          n += 1;
          if (kind === 'batch') {
            const bytes = Buffer.alloc((rest as { length: number }).length, n);
            writer.writeBatch(bytes);
            expected.push(bytes.toString('hex'));
          } else if (kind === 'barrier') {
            writer.writeControl(barrier(n));
            expected.push(barrier(n));
          } else if (kind === 'read') read();
          else if (writer.hasRoom && !writer.isFlushed) return false;
        }
        for (let idle = 0; idle < 2;) idle = read() || !writer.isFlushed ? 0 : idle + 1;
        return JSON.stringify(actual) === JSON.stringify(expected);
      },
    ),
    { numRuns: 200, seed: 1 },
  );
  t.pass('for 200 interleavings');
  t.end();
});

t.test('control frames have a lane of their own and need no credit', (t) => {
  const { ring, writer, reader } = createChannel(2);
  while (ring.freeBuffers > 0) writer.writeBatch(new Uint8Array(16));
  t.equal(writer.hasRoom, false);
  writer.writeControl(barrier(1));
  reader.next();
  reader.next();
  t.same(reader.next(), barrier(1), 'behind the data, without a free buffer');
  t.equal(writer.hasRoom, true);
  for (let i = 0; i < 16; i += 1) t.equal(ring.writeControl(barrier(i)), true);
  t.equal(ring.writeControl(barrier(16)), false, 'the lane is full');
  t.ok(ring.claim(), 'and data still has its buffers');
  t.end();
});

t.test('watermarks and statuses that wait become one, so a blocked channel stays bounded', (t) => {
  const { writer, reader, ring } = createChannel(2);
  for (let i = 0; i < 16; i += 1) writer.writeControl(barrier(i));
  for (let i = 0; i < 1000; i += 1) {
    writer.writeControl({ kind: 'watermark', timestamp: i });
    writer.writeControl({ kind: 'watermarkStatus', active: i % 2 === 1 });
  }
  writer.writeControl({ kind: 'watermark', timestamp: 1000 });
  writer.writeControl(barrier(17));
  for (let i = 0; i < 16; i += 1) t.same(reader.next(), barrier(i));
  t.equal(writer.isFlushed, true);
  const rest: unknown[] = [];
  for (let next = reader.next(); next !== undefined; next = reader.next()) rest.push(next);
  t.same(rest.slice(-3), [
    { kind: 'watermarkStatus', active: true },
    { kind: 'watermark', timestamp: 1000 },
    barrier(17),
  ]);
  t.ok(rest.length <= 6, `${String(rest.length)} frames are left of 2002`);
  t.ok(ring.isEmpty);
  t.end();
});

t.test('the overdraft is bounded', (t) => {
  const { writer } = createChannel(2, 16, 4);
  for (let i = 0; i < 6; i += 1) writer.writeBatch(new Uint8Array(16));
  t.throws(() => writer.writeBatch(new Uint8Array(16)), { code: 'OVERDRAFT_EXCEEDED' });
  t.end();
});

t.test('only a producer that waits is woken, when half of the buffers are free', (t) => {
  const { ring, writer, reader, producerBell } = createChannel(4);
  for (let i = 0; i < 4; i += 1) writer.writeBatch(new Uint8Array(16));
  reader.next();
  t.equal(producerBell.sequence, 0, 'it did not ask');
  writer.writeBatch(new Uint8Array(16));
  t.equal(writer.hasRoom, false);
  reader.next();
  t.equal(producerBell.sequence, 0);
  reader.next();
  t.equal(producerBell.sequence, 1);
  t.equal(ring.freeBuffers, 2);
  t.end();
});

t.test('a failed end is seen by the other, at once', (t) => {
  const { ring, writer, reader, consumerBell } = createChannel();
  writer.writeBatch(new Uint8Array(4));
  const before = consumerBell.sequence;
  ring.end('producer', 'failed');
  ring.end('producer', 'closed');
  t.match(reader.failure, { code: 'NETWORK' });
  t.equal(writer.failure, undefined);
  t.equal(consumerBell.sequence, before + 1, 'the first word stands');
  t.end();
});

t.test('a bell wakes a sleeper once, and not at all when it is cancelled', async (t) => {
  const alive = setInterval(() => undefined, 1000);
  const bell = new Bell(createBells(1), 0);
  let woken = 0;
  const seen = bell.sequence;
  bell.ring();
  await new Promise<void>((resolve) => bell.sleep(seen, resolve));
  t.pass('rung before it slept: awake at once');
  const wake = new Promise<void>((resolve) =>
    bell.sleep(bell.sequence, () => {
      woken += 1;
      resolve();
    }),
  );
  bell.ring();
  bell.ring();
  await wake;
  t.equal(woken, 1);
  const cancel = bell.sleep(bell.sequence, () => {
    woken += 1;
  });
  cancel();
  bell.ring();
  await new Promise((resolve) => setImmediate(resolve));
  t.equal(woken, 1);
  clearInterval(alive);
});

t.test('two threads hand over everything, sleeping and waking each other', async (t) => {
  const bells = createBells(2);
  const memory = createRingMemory({ buffers: 4, bufferBytes: 256 });
  const ring = new Ring(memory, bells);
  ring.attach('producer', 0);
  ring.attach('consumer', 1);
  const entry = new URL('../../support/ring-worker.js', import.meta.url);
  const run = (end: 'producer' | 'consumer', bell: number): Promise<unknown> => {
    const data: RingWorkerData = { end, memory, bells, bell, items: 30_000 };
    const worker = new Worker(entry, { workerData: data });
    return new Promise((resolve, reject) => {
      worker.on('message', resolve);
      worker.on('error', reject);
    });
  };
  t.same(await Promise.all([run('producer', 0), run('consumer', 1)]), ['done', 'done']);
  t.ok(ring.isEmpty || ring.peek()?.kind === 'control');
});
