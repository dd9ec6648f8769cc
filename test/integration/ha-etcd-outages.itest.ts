import { setTimeout as sleep } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { Etcd3 } from 'etcd3';
import { FaultProxy } from '../../bin/drills/fault-proxy.js';
import { createEtcdHighAvailability } from '../../ha/etcd/create-etcd-high-availability.js';
import { EtcdKvStore } from '../../ha/etcd/etcd-kv-store.js';
import { encodeText, type KvStore } from '../../ha/kv-store.js';
import type { CheckpointPointer, HighAvailability, LeaderElection } from '../../ha/services.js';
import { StateWatch } from '../../ha/state-watch.js';
import type { Env } from '../../lib/base/env.js';
import type { JobId, JobManagerId } from '../../lib/base/ids.js';
import type { LogFields, Logger } from '../../lib/base/logger.js';
import { codeOf } from '../support/code-of.js';
import { TestEtcd } from '../support/etcd.js';
import { RecordingContender } from '../support/recording-contender.js';
import { testEnv } from '../support/test-env.js';

const put = (kv: KvStore, key: string, value = 'x'): Promise<unknown> =>
  kv.txn({ compare: [], then: [{ op: 'put', key, value: encodeText(value) }] });

/** An Env that notes the events in its log, and asks members in the order in which they are given. */
function recordingEnv(): { readonly env: Env; readonly events: LogFields[] } {
  const events: LogFields[] = [];
  const note = (fields: LogFields): void => {
    if (fields.event !== undefined) events.push(fields);
  };
  const log: Logger = {
    child: () => log,
    error: note,
    warn: note,
    info: note,
    debug: () => undefined,
    trace: () => undefined,
  };
  const env = testEnv();
  return {
    env: { ...env, log, random: { ...env.random, next: () => 0, hex: (n) => env.random.hex(n) } },
    events,
  };
}

const metric = (env: Env, name: string): number =>
  env.metrics.samples().find((sample) => sample.name === name)?.value ?? 0;

t.test('a member that hangs delays one read by a moment, and nothing after it', async (t) => {
  const etcd = await TestEtcd.start(t, { members: 3 });
  const hung = await etcd.follower();
  const others = etcd.members.filter((member) => member !== hung);
  const direct = new EtcdKvStore(testEnv(), { endpoints: others.map(({ endpoint }) => endpoint) });
  t.teardown(() => direct.close());
  await put(direct, 'a');
  hung.pause();
  t.teardown(() => {
    hung.resume();
  });
  const { env } = recordingEnv();
  // Asked in this order at first.
  const kv = new EtcdKvStore(env, {
    endpoints: [hung, ...others].map((member) => member.endpoint),
  });
  t.teardown(() => kv.close());
  const readsMs = async (count: number): Promise<number> => {
    const since = Date.now();
    for (let i = 0; i < count; i += 1) t.ok(await kv.get('a'));
    return Date.now() - since;
  };
  const first = await readsMs(1);
  t.comment(`first read: ${String(first)} ms`);
  t.ok(first >= 140 && first < 900, 'asked another member after 150 ms, not after the try’s 1,000');
  t.ok(metric(env, 'etcdHedgedReadsWon') >= 1);
  const next = await readsMs(20);
  t.comment(`next 20: ${String(next)} ms`);
  t.ok(next < 1_500, 'the hung member is not asked first any more');
  await put(kv, 'a', 'nor for writes, which cannot be sent twice');
  const txn = await kv.txn({ compare: [], then: [{ op: 'get', key: 'a' }] });
  t.equal(txn.succeeded, true);
});

interface Candidate {
  readonly ha: HighAvailability;
  readonly election: LeaderElection;
  readonly contender: RecordingContender;
}

async function candidate(t: Test, env: Env, endpoints: string[], name: string): Promise<Candidate> {
  const ha = await createEtcdHighAvailability(env, {
    endpoints,
    clusterId: 'space',
    quotaBackendBytes: 100_000,
  });
  const election = ha.createElection({
    jobManagerId: name as JobManagerId,
    rpcAddress: `${name}:1`,
    restAddress: `http://${name}:2`,
  });
  const contender = new RecordingContender();
  election.start(contender);
  t.teardown(async () => {
    await election.close();
    await ha.close();
  });
  return { ha, election, contender };
}

t.test(
  'with its quota reached etcd elects, renews and reads, and goes on after a cleaning',
  async (t) => {
    const etcd = await TestEtcd.start(t, { flags: { 'quota-backend-bytes': '4000000' } });
    const { endpoints } = etcd;
    const { env, events } = recordingEnv();
    const a = await candidate(t, env, endpoints, 'a');
    const first = await a.contender.leads();
    await first.publishActive();
    const jobId = 'a'.repeat(32) as JobId;
    await first.jobs.put({
      jobId,
      submissionId: 's',
      name: 'a job',
      graph: encodeText('graph'),
      desired: 'RUNNING',
      submittedAt: 1,
    });
    const b = await candidate(t, testEnv(), endpoints, 'b');
    while (a.ha.candidates().length < 2) await sleep(10);

    const raw = new Etcd3({ hosts: endpoints });
    t.teardown(() => {
      raw.close();
    });
    const filler = new EtcdKvStore(env, { endpoints });
    t.teardown(() => filler.close());
    for (let i = 0; i < 50; i += 1) {
      if ((await codeOf(put(filler, 'fill', 'x'.repeat(500_000)))) === 'ETCD_NO_SPACE') break;
    }
    const pointer: CheckpointPointer = {
      checkpointId: 1,
      metadataPath: '/chk-1',
      sha256: 'f'.repeat(64),
      timestamp: 1,
      sizeBytes: 1,
      kind: 'checkpoint',
    };
    t.equal(await codeOf(first.checkpointPointers(jobId).add(pointer, [])), 'ETCD_NO_SPACE');
    t.match(await a.ha.storeHealth!(), [{ isHealthy: false, alarms: ['NOSPACE'] }]);
    t.equal(metric(env, 'etcdNoSpace'), 1);
    t.match(
      events.filter(({ event }) => event === 'etcd.no-space').length,
      2,
      'once per connection',
    );
    await sleep(4_000);
    t.same(a.contender.events, ['granted'], 'its lease is renewed beyond its time to live');

    await a.election.close();
    const second = await b.contender.leads();
    await second.publishActive();
    t.same(await second.jobs.list(), [jobId], 'and reads what it needs');
    t.equal(second.mayAct(), true);
    t.equal(await codeOf(second.checkpointPointers(jobId).add(pointer, [])), 'ETCD_NO_SPACE');
    t.equal(b.contender.leader?.state, 'RECOVERING');

    const { header } = await raw.maintenance.status();
    await raw.kv.compact({ revision: header.revision, physical: true });
    await raw.maintenance.defragment();
    await raw.maintenance.alarm({
      action: 'Deactivate',
      memberID: header.member_id,
      alarm: 'Nospace',
    });
    await second.checkpointPointers(jobId).add(pointer, []);
    t.match(await second.checkpointPointers(jobId).list(), [{ checkpointId: 1 }]);
    await b.contender.until(() => b.contender.leader?.state === 'ACTIVE');
    await put(filler, 'small');
    t.ok(events.some(({ event }) => event === 'etcd.space-again'));
  },
);

t.test('a database near its quota is told once', async (t) => {
  const { endpoints } = await TestEtcd.start(t);
  const { env, events } = recordingEnv();
  const filler = new EtcdKvStore(testEnv(), { endpoints });
  t.teardown(() => filler.close());
  await put(filler, 'fill', 'x'.repeat(200_000));
  // Written to the file a moment later.
  while ((await filler.members())[0]!.dbSizeBytes < 150_000) await sleep(20);
  await candidate(t, env, endpoints, 'a');
  while (!events.some(({ event }) => event === 'etcd.near-quota')) await sleep(20);
  t.match(
    events.filter(({ event }) => event === 'etcd.near-quota'),
    [{ endpoint: endpoints[0], quotaBytes: 100_000 }],
  );
  t.ok(metric(env, 'etcdDbSizeBytes') > 100_000);
});

t.test('what was deleted and compacted while a watcher was cut off is noticed', async (t) => {
  const etcd = await TestEtcd.start(t);
  const [member] = etcd.members;
  const proxy = await FaultProxy.listen({ host: '127.0.0.1', port: member!.spec.clientPort });
  t.teardown(() => proxy.close());
  const direct = new EtcdKvStore(testEnv(), { endpoints: etcd.endpoints });
  t.teardown(() => direct.close());
  for (const key of ['/w/a', '/w/b', '/w/c']) await put(direct, key);

  const kv = new EtcdKvStore(testEnv(), {
    endpoints: [`http://127.0.0.1:${String(proxy.port)}`],
    callTimeoutMs: 1_000,
  });
  t.teardown(() => kv.close());
  let state: string[] = [];
  let changed = (): void => undefined;
  let outages = 0;
  const watch = new StateWatch(testEnv(), kv, {
    prefix: '/w/',
    // Only the end of the watch makes it read again.
    resyncMs: 3_600_000,
    onState: ({ entries }) => {
      state = [...entries.values()].map((e) => `${e.key}=${Buffer.from(e.value).toString()}`);
      changed();
    },
    onUnavailable: () => {
      outages += 1;
    },
  });
  const until = async (condition: () => boolean): Promise<void> => {
    while (!condition()) {
      await new Promise<void>((resolve) => {
        changed = resolve;
      });
    }
  };
  watch.start();
  t.teardown(() => watch.close());
  await until(() => state.length === 3);
  await put(direct, '/w/c', 'seen by the watch');
  await until(() => state.includes('/w/c=seen by the watch'));

  await proxy.set('refuse');
  await direct.txn({ compare: [], then: [{ op: 'delete', key: '/w/a' }] });
  await direct.txn({ compare: [], then: [{ op: 'delete', key: '/w/b' }] });
  await put(direct, '/w/b', 'created again');
  await put(direct, '/w/c', 'changed');
  const raw = new Etcd3({ hosts: etcd.endpoints });
  t.teardown(() => {
    raw.close();
  });
  const { header } = await raw.kv.range({ key: Buffer.from('x') });
  await raw.kv.compact({ revision: header.revision, physical: true });
  while (outages === 0) await sleep(20);
  t.equal(state.length, 3, 'nothing is known yet');
  await proxy.set('pass');
  await until(() => state.length === 2);
  t.same(state, ['/w/b=created again', '/w/c=changed']);
  await put(direct, '/w/d', 'new');
  await until(() => state.includes('/w/d=new'));
});
