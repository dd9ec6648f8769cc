import t from 'tap';
import { FencedWriter } from '../../../ha/fencing.js';
import { encodeText, type TxnOp } from '../../../ha/kv-store.js';
import { MemoryKvServer } from '../../../ha/memory/memory-kv-server.js';
import { MemoryKvStore } from '../../../ha/memory/memory-kv-store.js';
import { silentLogger, type LogFields } from '../../../lib/base/logger.js';
import type { MillraceError } from '../../../lib/base/errors.js';
import { ManualClock } from '../../support/manual-clock.js';
import { testEnv } from '../../support/test-env.js';

t.test('a write of a leadership that is over is refused, and leaves an event', async (t) => {
  const clock = new ManualClock();
  const server = new MemoryKvServer(clock);
  const kv = new MemoryKvStore(clock, server);
  t.teardown(async () => {
    await kv.close();
    server.close();
  });
  const put = (key: string): TxnOp => ({ op: 'put', key, value: encodeText('{"w":"1.1"}') });
  const { revision } = await kv.txn({ compare: [], then: [put('/candidate')] });
  const events: LogFields[] = [];
  const env = {
    ...testEnv(clock),
    log: { ...silentLogger, warn: (fields: LogFields) => events.push(fields) },
  };
  const ending = new AbortController();
  let mayAct = true;
  let lost = 0;
  const writer = new FencedWriter(env, kv, {
    candidateKey: '/candidate',
    epoch: { era: 1, revision },
    signal: ending.signal,
    mayAct: () => mayAct,
    onLost: () => {
      lost += 1;
    },
  });
  const write = (key: string): Promise<string> =>
    writer.write({ compare: [], then: [put(key)], read: [key], writeId: '1.1' }).then(
      () => 'committed',
      (error: unknown) => (error as MillraceError).code,
    );
  t.equal(await write('/x/a'), 'committed');
  t.same(events, []);

  // Waits while it is suspended, and is not sent any more when the leadership ends meanwhile.
  mayAct = false;
  const waiting = write('/x/b');
  await kv.txn({ compare: [], then: [{ op: 'delete', key: '/candidate' }] });
  mayAct = true;
  t.equal(await write('/x/c'), 'LEADERSHIP_LOST');
  t.equal(lost, 1);
  ending.abort();
  t.equal(await waiting, 'LEADERSHIP_LOST');
  t.equal(await write('/x/d'), 'LEADERSHIP_LOST');
  const common = { event: 'leader.write-refused', outcome: 'not written', epoch: `1.${revision}` };
  t.match(
    events,
    ['/x/c', '/x/b', '/x/d'].map((key) => ({ ...common, key })),
  );
  t.equal(env.metrics.counter('fencedOut').count, 3);
  t.same((await kv.range({ key: '/x/', rangeEnd: '/x0' })).count, 1);
});
