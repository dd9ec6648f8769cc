/** When a TaskManager tries to register, and when it waits: against a connector that is told what comes of it. */
import t, { type Test } from 'tap';
import { Deferred } from '../../../../lib/base/deferred.js';
import { MillraceError } from '../../../../lib/base/errors.js';
import type { JobManagerConnector } from '../../../../lib/rpc/rpc-service.js';
import { LeaderConnection } from '../../../../lib/taskmanager/leader-connection.js';
import { ManualClock } from '../../../../lib/testing/manual-clock.js';
import { Leadership } from '../../../support/task-executor-fixture.js';
import { testEnv } from '../../../support/test-env.js';

type Connection = Awaited<ReturnType<JobManagerConnector['connect']>>;

interface Try {
  readonly address: string;
  readonly revision: number;
  readonly at: number;
  readonly signal: AbortSignal | undefined;
  readonly outcome: Deferred<Connection>;
}

interface Fixture {
  readonly clock: ManualClock;
  readonly leadership: Leadership;
  readonly tries: Try[];
}

function fixture(t: Test): Fixture {
  const clock = new ManualClock();
  const leadership = new Leadership();
  const tries: Try[] = [];
  const connection = new LeaderConnection(testEnv(clock), {
    retrieval: leadership,
    connector: {
      connect: ({ rpcAddress, epoch }, _registration, _handler, signal) => {
        const outcome = new Deferred<Connection>();
        const { revision } = epoch;
        signal?.addEventListener('abort', () => outcome.reject(gone()));
        tries.push({ address: rpcAddress, revision, at: clock.now(), signal, outcome });
        return outcome.promise;
      },
    },
    handler: {} as never,
    registration: () => ({}) as never,
    heartbeat: () => ({}) as never,
    onConnected: () => undefined,
    onDisconnected: () => undefined,
  });
  connection.start();
  t.teardown(() => connection.close());
  return { clock, leadership, tries };
}

const gone = (): MillraceError => new MillraceError('RPC_DISCONNECTED', 'nobody is there');

async function settle(): Promise<void> {
  for (let i = 0; i < 20; i += 1) await Promise.resolve();
}

/** A session that ends when told. */
function accept(last: Try | undefined): Deferred<string> {
  const closed = new Deferred<string>();
  last?.outcome.resolve({
    response: { heartbeatIntervalMs: 1e6, heartbeatTimeoutMs: 1e7 },
    gateway: { heartbeat: () => new Promise(() => undefined) } as never,
    session: { closed: closed.promise, close: (reason) => closed.resolve(reason) },
  });
  return closed;
}

t.test(
  'a leader that died is tried again soon, then less often, and not for ever in vain',
  async (t) => {
    const { clock, leadership, tries } = fixture(t);
    leadership.elect('old:1', 1);
    await settle();
    const session = accept(tries[0]);
    await settle();
    session.resolve('the process died');
    await settle();
    t.equal(tries.length, 1, 'not in the same moment');
    clock.advance(24);
    await settle();
    t.equal(tries.length, 2, 'its key still names it: after 20 ms, jittered');
    for (let ms = 0; ms < 60_000; ms += 100) {
      tries.at(-1)?.outcome.reject(gone());
      await settle();
      clock.advance(100);
      await settle();
    }
    t.ok(tries.length > 50 && tries.length < 100, `${String(tries.length)} tries in a minute`);
    tries.at(-1)?.outcome.reject(gone());
    await settle();
    leadership.elect('new:1', 2);
    await settle();
    t.match(tries.at(-1), { address: 'new:1', revision: 2, at: clock.now() }, 'at once');
  },
);

t.test('news heard while a registration fails ends the pause after it', async (t) => {
  const { leadership, tries } = fixture(t);
  leadership.elect('new:1', 1, 'RECOVERING');
  await settle();
  t.equal(tries.length, 1);
  leadership.elect('new:1', 1, 'ACTIVE');
  await settle();
  t.equal(tries[0]?.signal?.aborted, false, 'the same leader goes on being asked');
  tries[0]?.outcome.reject(new MillraceError('NO_LEADER', 'not yet'));
  await settle();
  t.equal(tries.length, 2, 'without waiting');
  tries[1]?.outcome.reject(new MillraceError('NO_LEADER', 'not yet'));
  await settle();
  t.equal(tries.length, 2, 'but once');
});

t.test('who does not answer is left the moment another leader is known', async (t) => {
  const { clock, leadership, tries } = fixture(t);
  leadership.elect('silent:1', 1);
  await settle();
  leadership.elect('new:1', 2);
  await settle();
  t.equal(tries[0]?.signal?.aborted, true);
  t.match(tries[1], { address: 'new:1', at: clock.now() });
  const session = accept(tries[1]);
  leadership.vanish();
  await settle();
  t.equal(session.settled, false, 'a session outlives news of no leader at all');
  leadership.elect('newer:1', 3);
  await settle();
  t.equal(await session.promise, 'another leader is known');
  t.match(tries[2], { address: 'newer:1', at: clock.now() });
});
