import { setTimeout as sleep } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { createEtcdHighAvailability } from '../../ha/etcd/create-etcd-high-availability.js';
import { EtcdKvStore } from '../../ha/etcd/etcd-kv-store.js';
import { encodeText, type KvStore } from '../../ha/kv-store.js';
import type { HighAvailability } from '../../ha/services.js';
import { StateWatch } from '../../ha/state-watch.js';
import type { MillraceError } from '../../lib/base/errors.js';
import type { JobId, JobManagerId, TaskManagerId } from '../../lib/base/ids.js';
import { enableAuth } from '../support/etcd-roles.js';
import { TestEtcd } from '../support/etcd.js';
import { RecordingContender } from '../support/recording-contender.js';
import { testEnv } from '../support/test-env.js';

const clusterId = 'roles';
const root = `/millrace/v1/${clusterId}/`;

function errorOf(work: Promise<unknown>): Promise<MillraceError | undefined> {
  return work.then(
    () => undefined,
    (error: unknown) => error as MillraceError,
  );
}

const put = (kv: KvStore, key: string): Promise<unknown> =>
  kv.txn({ compare: [], then: [{ op: 'put', key, value: encodeText('x') }] });

const authOf = (name: string): { username: string; password: string } => ({
  username: name,
  password: `${name}!`,
});

function store(t: Test, endpoints: string[], name: string): EtcdKvStore {
  const kv = new EtcdKvStore(testEnv(), { endpoints, auth: authOf(name) });
  t.teardown(() => kv.close());
  return kv;
}

async function highAvailability(
  t: Test,
  endpoints: string[],
  name: string,
): Promise<HighAvailability> {
  const ha = await createEtcdHighAvailability(testEnv(), {
    endpoints,
    clusterId,
    auth: authOf(name),
  });
  t.teardown(() => ha.close());
  return ha;
}

const job = {
  jobId: 'a'.repeat(32) as JobId,
  submissionId: 's',
  name: 'a job',
  graph: encodeText('graph'),
  desired: 'RUNNING',
  submittedAt: 1,
} as const;

t.test(
  'JobManagers and TaskManagers do with etcd what their roles allow, and no more',
  async (t) => {
    const { endpoints } = await TestEtcd.start(t);
    await enableAuth({ hosts: endpoints }, clusterId);
    const ha = await highAvailability(t, endpoints, 'millrace-jm');
    const election = ha.createElection({
      jobManagerId: 'jm' as JobManagerId,
      rpcAddress: 'a:1',
      restAddress: 'http://a:2',
    });
    const contender = new RecordingContender();
    election.start(contender);
    t.teardown(() => election.close());
    const leadership = await contender.leads();
    await leadership.jobs.put(job);
    await leadership.publishActive();
    t.same(await leadership.jobs.list(), [job.jobId]);
    t.match(await ha.storeHealth!(), [{ isHealthy: true }]);

    const tm = await highAvailability(t, endpoints, 'millrace-tm');
    const registration = await tm.registerTaskManager({
      taskManagerId: 'tm-1' as TaskManagerId,
      dataAddress: 'b:1',
      slots: 1,
      pid: 1,
    });
    t.equal(registration.registered, true);
    t.match(await leadership.listTaskManagers(), [{ taskManagerId: 'tm-1' }]);
    await tm.probe();
    const retrieval = tm.leaderRetrieval();
    t.teardown(() => retrieval.close());
    while (retrieval.current()?.state !== 'ACTIVE') await sleep(10);
    t.match(await tm.storeHealth!(), [{ isHealthy: true }], 'health needs no permission');

    const kv = store(t, endpoints, 'millrace-tm');
    for (const [work, what] of [
      [() => put(kv, `${root}jobs/x/spec`), `write ${root}jobs/x/spec`],
      [() => put(kv, `${root}leader`), `write ${root}leader`],
      [() => kv.get(`${root}jobs/x/spec`), `read ${root}jobs/x/spec`],
    ] as const) {
      const error = await errorOf(work());
      t.equal(error?.code, 'ETCD_REJECTED');
      t.match(error?.message, `does not allow the user "millrace-tm" to ${what}`);
    }
    await registration.close();
    t.same(await leadership.listTaskManagers(), []);
  },
);

t.test('a wrong password is told as such', async (t) => {
  const { endpoints } = await TestEtcd.start(t);
  await enableAuth({ hosts: endpoints }, clusterId);
  const kv = new EtcdKvStore(testEnv(), {
    endpoints,
    auth: { username: 'millrace-jm', password: 'wrong' },
  });
  t.teardown(() => kv.close());
  const error = await errorOf(kv.get(`${root}cluster`));
  t.equal(error?.code, 'ETCD_REJECTED');
  t.match(error?.message, /does not accept the user "millrace-jm": .*username and .password/);
});

t.test('tokens that expire are replaced, under calls, a lease and a watch', async (t) => {
  // The shortest life a token may have; one that was lost with a member's memory below.
  const etcd = await TestEtcd.start(t, { flags: { 'auth-token-ttl': '1' } });
  const { endpoints } = etcd;
  await enableAuth({ hosts: endpoints }, clusterId);
  const kv = store(t, endpoints, 'millrace-jm');
  const seen: string[] = [];
  const watch = new StateWatch(testEnv(), kv, {
    prefix: `${root}jobs/`,
    resyncMs: 60_000,
    onState: ({ entries }) => seen.push([...entries.keys()].join()),
  });
  watch.start();
  t.teardown(() => watch.close());
  const { leaseId } = await kv.grantLease(60_000);
  const key = `${root}jobs/leased`;
  await kv.txn({ compare: [], then: [{ op: 'put', key, value: encodeText('x'), leaseId }] });
  await sleep(2_500);
  await Promise.all(Array.from({ length: 20 }, (_, i) => put(kv, `${root}jobs/${String(i)}`)));
  t.ok((await kv.keepAliveOnce(leaseId)) > 0);
  while (seen.at(-1)?.includes(`${root}jobs/19`) !== true) await sleep(10);

  await etcd.members[0]!.kill();
  etcd.members[0]!.spawn();
  while ((await errorOf(put(kv, `${root}jobs/after`))) !== undefined) await sleep(20);
  while (seen.at(-1)?.includes(`${root}jobs/after`) !== true) await sleep(10);
  await kv.revokeLease(leaseId);
  t.equal(await kv.get(key), undefined);
});
