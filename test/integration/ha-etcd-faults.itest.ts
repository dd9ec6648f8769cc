import { createServer } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { Etcd3 } from 'etcd3';
import type { MillraceError } from '../../lib/base/errors.js';
import type { JobId, JobManagerId } from '../../lib/base/ids.js';
import { EtcdKvStore } from '../../ha/etcd/etcd-kv-store.js';
import { createHighAvailability } from '../../ha/index.js';
import { Keys } from '../../ha/keys.js';
import { encodeText, type KvStore } from '../../ha/kv-store.js';
import { LeaseKeeper } from '../../ha/lease-keeper.js';
import { StateWatch } from '../../ha/state-watch.js';
import { TestEtcd } from '../support/etcd.js';
import { RecordingContender } from '../support/recording-contender.js';
import { testEnv } from '../support/test-env.js';

async function errorOf(work: Promise<unknown>): Promise<MillraceError | undefined> {
  return work.then(
    () => undefined,
    (error: unknown) => error as MillraceError,
  );
}

/** Handles that keep the process alive, by kind. */
const handles = (): string[] =>
  process
    .getActiveResourcesInfo()
    .filter(
      (kind) => !['TTYWrap', 'PipeWrap', 'ProcessWrap', 'Immediate', 'CloseReq'].includes(kind),
    )
    .sort();

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  const { port } = server.address() as { port: number };
  await new Promise((resolve) => server.close(resolve));
  return port;
}

function put(kv: KvStore, key: string, value: string): Promise<unknown> {
  return kv.txn({ compare: [], then: [{ op: 'put', key, value: encodeText(value) }] });
}

async function leader(t: Test, kv: KvStore): Promise<RecordingContender> {
  const ha = await createHighAvailability(testEnv(), kv, { clusterId: 'faults' });
  const election = ha.createElection({
    jobManagerId: 'a' as JobManagerId,
    rpcAddress: 'a:1',
    restAddress: 'http://a:2',
  });
  const contender = new RecordingContender();
  election.start(contender);
  t.teardown(async () => {
    await election.close();
    await ha.close();
  });
  await contender.leads();
  return contender;
}

t.test('an etcd that is not there is named, with what to do, within the bound', async (t) => {
  const before = handles();
  const endpoint = `http://127.0.0.1:${String(await freePort())}`;
  const kv = new EtcdKvStore(testEnv(), { endpoints: [endpoint], callTimeoutMs: 1_000 });
  const since = Date.now();
  const works = [kv.get('a'), put(kv, 'a', 'b'), kv.grantLease(3_000)];
  for (const error of await Promise.all(works.map((work) => errorOf(work)))) {
    t.equal(error?.code, 'ETCD_UNAVAILABLE', 'a write that was never sent is no unknown outcome');
    t.match(error?.message, endpoint);
    t.match(error?.message, /etcdctl endpoint health/);
  }
  t.ok(Date.now() - since < 3_000);
  t.equal((await errorOf(kv.keepAliveOnce('1')))?.code, 'ETCD_UNAVAILABLE');
  const write = { op: 'put', key: 'a', value: encodeText('b') } as const;
  const noTime = await errorOf(kv.txn({ compare: [], then: [write] }, { timeoutMs: 1 }));
  t.equal(noTime?.code, 'ETCD_UNAVAILABLE', 'nor is one that had no time to connect');
  const ended = new Promise((resolve) => {
    kv.watch({ key: 'a', startRevision: 1 }, { onEvents: () => undefined, onEnd: resolve });
  });
  t.ok(await ended);
  await kv.close();
  // Connections that are being tried are given up within a second (etcd3's own wait).
  for (let i = 0; i < 30 && handles().join() !== before.join(); i += 1) await sleep(50);
  t.same(handles(), before);
});

t.test('unusable endpoints are refused', async (t) => {
  for (const endpoints of [[], ['127.0.0.1:2379'], ['http://a/b']]) {
    try {
      await new EtcdKvStore(testEnv(), { endpoints }).close();
      t.fail(`accepted ${JSON.stringify(endpoints)}`);
    } catch (error) {
      t.equal((error as MillraceError).code, 'CONFIG');
    }
  }
});

t.test('closing a store in use leaves no socket and no timer behind', async (t) => {
  const etcd = await TestEtcd.start(t);
  // etcd3 loads lazily; the harness keeps its pipes.
  const warm = new EtcdKvStore(testEnv(), { endpoints: etcd.endpoints });
  await warm.get('a');
  await warm.close();
  await sleep(100);
  const before = handles();
  const kv = new EtcdKvStore(testEnv(), { endpoints: etcd.endpoints });
  const env = testEnv();
  const watch = new StateWatch(env, kv, { prefix: '/x/', onState: () => undefined });
  watch.start();
  const keeper = new LeaseKeeper(
    env,
    kv,
    { ttlMs: 3_000 },
    { onHeld: () => undefined, onLost: () => undefined },
  );
  keeper.start();
  await put(kv, '/x/a', '1');
  await sleep(700);
  const pending = kv.get('a');
  await keeper.close();
  await watch.close();
  await Promise.allSettled([kv.close(), pending]);
  for (let i = 0; i < 40 && handles().join() !== before.join(); i += 1) await sleep(50);
  t.same(handles(), before);
});

t.test('a database without space takes no jobs, and elects all the same', async (t) => {
  const etcd = await TestEtcd.start(t);
  const kv = new EtcdKvStore(testEnv(), { endpoints: etcd.endpoints });
  t.teardown(() => kv.close());
  const ha = await createHighAvailability(testEnv(), kv, { clusterId: 'full' });
  const contenders: RecordingContender[] = [];
  const elections = ['a', 'b'].map((name) => {
    const election = ha.createElection({
      jobManagerId: name as JobManagerId,
      rpcAddress: `${name}:1`,
      restAddress: `http://${name}:2`,
    });
    const contender = new RecordingContender();
    contenders.push(contender);
    election.start(contender);
    return election;
  });
  t.teardown(async () => {
    for (const election of elections) await election.close();
    await ha.close();
  });
  await Promise.race(contenders.map((contender) => contender.leads()));
  const [ahead, standby] =
    contenders[0]!.current === undefined
      ? [contenders[1]!, contenders[0]!]
      : [contenders[0]!, contenders[1]!];
  const prefix = '/millrace/v1/full/election/';
  const range = { key: prefix, rangeEnd: `${prefix.slice(0, -1)}0` };
  while ((await kv.range(range)).count < 2) await sleep(20);
  const raw = new Etcd3({ hosts: etcd.endpoints });
  t.teardown(() => {
    raw.close();
  });
  // As etcd does itself when its quota is exceeded.
  const { header } = await raw.maintenance.status();
  const alarm = (action: 'Activate' | 'Deactivate'): Promise<unknown> =>
    raw.maintenance.alarm({ action, memberID: header.member_id, alarm: 'Nospace' });
  await alarm('Activate');
  t.equal((await errorOf(put(kv, 'a', 'b')))?.code, 'ETCD_NO_SPACE');
  await elections[contenders.indexOf(ahead)]!.close();
  const leadership = await standby.leads();
  t.equal(leadership.mayAct(), true);
  await standby.until(
    () =>
      standby.leader?.restAddress !== ahead.leader?.restAddress ||
      standby.leader?.state === 'RECOVERING',
  );
  await leadership.publishActive();
  t.equal(
    standby.leader?.state,
    'RECOVERING',
    'nothing can be put, but the queue names the leader',
  );
  await alarm('Deactivate');
  await standby.until(() => standby.leader?.state === 'ACTIVE');
});

t.test('members of a cluster fail one by one, and the leader keeps leading', async (t) => {
  const etcd = await TestEtcd.start(t, { members: 3 });
  const kv = new EtcdKvStore(testEnv(), { endpoints: etcd.endpoints });
  t.teardown(() => kv.close());
  const contender = await leader(t, kv);
  const keptLeading = (): void => {
    t.same(contender.events, ['granted']);
  };
  const states: number[] = [];
  const watch = new StateWatch(testEnv(), kv, {
    prefix: '/watched/',
    onState: (state) => states.push(state.revision),
  });
  watch.start();
  t.teardown(() => watch.close());
  const writeAndSee = async (value: string): Promise<void> => {
    const seen = states.length;
    const since = Date.now();
    while ((await errorOf(put(kv, '/watched/a', value))) !== undefined) {
      t.ok(Date.now() - since < 10_000, 'writable');
    }
    while (states.length === seen) await sleep(10);
    t.comment(`${value}: ${String(Date.now() - since)} ms`);
    t.ok(Date.now() - since < 6_000, value);
  };
  await writeAndSee('healthy');

  const hung = await etcd.follower();
  hung.pause();
  await writeAndSee('a follower hangs');
  await sleep(4_000);
  keptLeading();
  hung.resume();

  const old = await etcd.leader();
  await old.kill();
  await writeAndSee('the leader is killed');
  await sleep(4_000);
  keptLeading();
  await old.start();

  for (const member of etcd.members) {
    await member.stop();
    await writeAndSee(`${member.name} restarts`);
    await member.start();
  }
  await sleep(1_000);
  keptLeading();
});

t.test(
  'an etcd that is out suspends the leader; back with the lease alive, it resumes',
  async (t) => {
    const etcd = await TestEtcd.start(t);
    const kv = new EtcdKvStore(testEnv(), { endpoints: etcd.endpoints });
    t.teardown(() => kv.close());
    const contender = await leader(t, kv);
    etcd.members[0]!.pause();
    await contender.until(() => contender.events.at(-1) === 'suspended');
    t.equal(contender.current?.mayAct(), false);
    await etcd.members[0]!.kill();
    await etcd.members[0]!.start();
    await contender.until(() => contender.events.length > 2);
    t.equal(contender.events[2], 'resumed', 'a restarted etcd begins the lease anew');
    t.equal(contender.current?.mayAct(), true);
  },
);

t.test('a write to a member that hangs may have happened; a fenced one happens once', async (t) => {
  const etcd = await TestEtcd.start(t);
  const kv = new EtcdKvStore(testEnv(), { endpoints: etcd.endpoints, tryTimeoutMs: 300 });
  t.teardown(() => kv.close());
  const contender = await leader(t, kv);
  const { jobs } = contender.current!;
  const job = {
    jobId: 'a'.repeat(32) as JobId,
    submissionId: 's',
    name: 'a job',
    graph: encodeText('graph'),
    desired: 'RUNNING',
    submittedAt: 1,
  } as const;
  etcd.members[0]!.pause();
  const plain = errorOf(put(kv, '/plain', '1'));
  const fenced = jobs.put(job);
  t.equal((await plain)?.code, 'UNKNOWN_OUTCOME');
  await sleep(500);
  etcd.members[0]!.resume();
  await fenced;
  t.same(await jobs.list(), [job.jobId]);
  const spec = await kv.get(new Keys('faults').spec(job.jobId));
  t.equal(spec?.version, 1);
  t.same(contender.events, ['granted'], 'the hang was shorter than the lease');
});
