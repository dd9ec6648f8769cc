import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { MillraceError } from '../../../lib/base/errors.js';
import type { JobId, TaskManagerId } from '../../../lib/base/ids.js';
import { Keys } from '../../../ha/keys.js';
import { decodeText, encodeText, prefixEnd } from '../../../ha/kv-store.js';
import type { CheckpointPointer, JobResult, Leadership, StoredJob } from '../../../ha/services.js';
import { codeOf } from '../../support/code-of.js';
import { MemoryCluster, type MemoryCandidate } from '../../support/memory-cluster.js';
import { settle } from '../../support/manual-clock.js';

const keys = new Keys('test');
const jobId = 'a'.repeat(32) as JobId;
const otherId = 'b'.repeat(32) as JobId;

const job = (changes: Partial<StoredJob> = {}): StoredJob => ({
  jobId,
  submissionId: 's1',
  name: 'a job',
  graph: encodeText('the graph'),
  desired: 'RUNNING',
  submittedAt: 7,
  ...changes,
});

const result = (changes: Partial<JobResult> = {}): JobResult => ({
  jobId,
  name: 'a job',
  state: 'FINISHED',
  archive: '{"a":1}',
  finishedAt: 9,
  ...changes,
});

const pointer = (checkpointId: number): CheckpointPointer => ({
  checkpointId,
  metadataPath: `/chk-${String(checkpointId)}`,
  sha256: 'f'.repeat(64),
  timestamp: 1,
  sizeBytes: 2,
  kind: 'checkpoint',
});

async function temporaryFolder(t: Test): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'millrace-ha-'));
  t.teardown(() => rm(folder, { recursive: true, force: true }));
  return folder;
}

interface Leader extends MemoryCandidate {
  readonly cluster: MemoryCluster;
  readonly leadership: Leadership;
}

async function leader(t: Test, storageDir?: string): Promise<Leader> {
  const cluster = new MemoryCluster(t, storageDir === undefined ? {} : { storageDir });
  const candidate = await cluster.candidate('a');
  return { ...candidate, cluster, leadership: await candidate.contender.leads() };
}

/** Keys under a prefix, without it. */
function keysUnder({ cluster }: Leader, prefix: string): string[] {
  const { entries } = cluster.server.range({ key: prefix, rangeEnd: prefixEnd(prefix) });
  return entries.map((entry) => entry.key.slice(prefix.length));
}

t.test('a job is stored once; repeating its submission is no error, another one is', async (t) => {
  const { leadership } = await leader(t);
  await leadership.jobs.put(job());
  await leadership.jobs.put(job({ name: 'ignored' }));
  t.same(await leadership.jobs.get(jobId), { ...job(), graph: Buffer.from('the graph') });
  t.equal(await codeOf(leadership.jobs.put(job({ submissionId: 's2' }))), 'JOB_DUPLICATE');
  t.equal(await leadership.jobs.get(otherId), undefined);
});

t.test('jobs are listed in the order of their submission', async (t) => {
  const { leadership } = await leader(t);
  await leadership.jobs.put(job({ jobId: otherId }));
  await leadership.jobs.put(job());
  await leadership.jobs.setDesired(otherId, 'CANCELED');
  await leadership.jobs.putExecution(jobId, { generation: 0, attempts: {} });
  t.same(await leadership.jobs.list(), [otherId, jobId]);
  t.equal((await leadership.jobs.get(otherId))?.desired, 'CANCELED');
  t.equal(
    await codeOf(leadership.jobs.setDesired('c'.repeat(32) as JobId, 'RUNNING')),
    'JOB_NOT_FOUND',
  );
});

t.test('the attempts of a generation are recorded and replaced', async (t) => {
  const { leadership } = await leader(t);
  t.equal(
    await codeOf(leadership.jobs.putExecution(jobId, { generation: 0, attempts: {} })),
    'JOB_NOT_FOUND',
  );
  await leadership.jobs.put(job());
  t.equal(await leadership.jobs.getExecution(jobId), undefined);
  const attempt = { taskManagerId: 'tm' as TaskManagerId, allocationId: 'al', attemptNumber: 2 };
  await Promise.all([
    leadership.jobs.putExecution(jobId, { generation: 0, attempts: {} }),
    leadership.jobs.putExecution(jobId, { generation: 1, attempts: { x_0: attempt } }),
  ]);
  t.same(await leadership.jobs.getExecution(jobId), { generation: 1, attempts: { x_0: attempt } });
});

t.test('a graph too large for etcd goes to a file, whose damage fails this job only', async (t) => {
  const folder = await temporaryFolder(t);
  const l = await leader(t, folder);
  const { leadership } = l;
  // Incompressible, so that only its size decides.
  const large = Buffer.alloc(100_000);
  for (let i = 0; i < large.length; i += 1) large[i] = Math.floor(l.env.random.next() * 256);
  const compressible = Buffer.alloc(1_000_000, 'x');
  await leadership.jobs.put(job({ graph: large }));
  await leadership.jobs.put(job({ jobId: otherId, graph: compressible }));
  t.same((await leadership.jobs.get(jobId))?.graph, large);
  t.same((await leadership.jobs.get(otherId))?.graph, compressible);
  const stored = await readdir(join(folder, l.ha.clusterUid, 'ha', 'jobs'));
  t.same(stored, [jobId], 'what compresses well stays in etcd');
  for (const key of [keys.graph(jobId), keys.graph(otherId)]) {
    t.ok((l.cluster.server.range({ key }).entries[0]?.value.length ?? Infinity) <= 65_536);
  }
  const files = join(folder, l.ha.clusterUid, 'ha', 'jobs', jobId);
  const [name] = await readdir(files);
  await writeFile(join(files, name!), 'damaged');
  t.equal(await codeOf(leadership.jobs.get(jobId)), 'RECOVERY_FAILED');
  await rm(join(files, name!));
  t.equal(await codeOf(leadership.jobs.get(jobId)), 'RECOVERY_FAILED');
  t.same(await leadership.jobs.list(), [jobId, otherId], 'it is still listed');
  t.ok(await leadership.jobs.get(otherId));
});

t.test('a job whose values cannot be decoded is listed, and fails alone', async (t) => {
  const l = await leader(t);
  await l.leadership.jobs.put(job());
  for (const value of ['not json', '[]', '{"submissionId":1}']) {
    const put = { op: 'put' as const, key: keys.spec(jobId), value: encodeText(value) };
    l.cluster.server.txn({ compare: [], then: [put] });
    t.equal(await codeOf(l.leadership.jobs.get(jobId)), 'RECOVERY_FAILED', value);
    t.same(await l.leadership.jobs.list(), [jobId]);
  }
});

t.test('a result is written once, and its job never runs again', async (t) => {
  const folder = await temporaryFolder(t);
  const l = await leader(t, folder);
  const { jobs, results } = l.leadership;
  await jobs.put(job());
  await jobs.putExecution(jobId, { generation: 0, attempts: {} });
  await results.createDirty(result());
  await results.createDirty(result());
  t.equal(await codeOf(results.createDirty(result({ state: 'FAILED' }))), 'CONFLICT');
  t.equal(await codeOf(jobs.put(job())), 'JOB_DUPLICATE', 'not even by the same submission');
  t.equal(await jobs.getExecution(jobId), undefined);
  t.same(await results.get(jobId), { ...result(), dirty: true });
  await results.markClean(jobId);
  await results.markClean(jobId);
  t.same(keysUnder(l, keys.jobPrefix(jobId)), []);
  t.same(await results.list(), [{ ...result(), dirty: false }]);
  t.equal(await codeOf(jobs.put(job())), 'JOB_DUPLICATE');
  t.equal(await codeOf(results.markClean(otherId)), 'JOB_NOT_FOUND');
  t.equal(await results.get(otherId), undefined);
});

t.test('a large archive goes to a file; cleaning up removes the job folder only', async (t) => {
  const folder = await temporaryFolder(t);
  const l = await leader(t, folder);
  const noise = Array.from({ length: 60_000 }, () => l.env.random.hex(1)).join('');
  await l.leadership.jobs.put(job({ graph: encodeText(noise + noise + noise) }));
  await l.leadership.results.createDirty(result({ archive: noise }));
  const root = join(folder, l.ha.clusterUid, 'ha');
  t.same((await readdir(root)).sort(), ['jobs', 'results']);
  await l.leadership.results.markClean(jobId);
  t.same(await readdir(join(root, 'jobs')), []);
  t.equal((await l.leadership.results.get(jobId))?.archive, noise);
});

t.test('a completed checkpoint is added once, in ascending order, with its garbage', async (t) => {
  const l = await leader(t);
  const pointers = l.leadership.checkpointPointers(jobId);
  t.equal(await codeOf(pointers.add(pointer(1), [])), 'JOB_NOT_FOUND');
  await l.leadership.jobs.put(job());
  await pointers.add(pointer(1), []);
  await pointers.add(pointer(2), []);
  await pointers.add(pointer(2), []);
  const other = { ...pointer(2), sha256: '0'.repeat(64) };
  t.equal(await codeOf(pointers.add(other, [])), 'CONFLICT', 'the id is taken');
  await pointers.add(pointer(10), [1, 2, 5]);
  t.equal(await codeOf(pointers.add(pointer(9), [])), 'CONFLICT', 'a later one is there');
  t.same(await pointers.list(), [pointer(10)]);
  t.same(await pointers.listGarbage(), [pointer(1), pointer(2)]);
  await pointers.removeGarbage(1);
  await pointers.removeGarbage(1);
  t.same(await pointers.listGarbage(), [pointer(2)]);
});

t.test('more checkpoints are subsumed than fit into one transaction', async (t) => {
  const l = await leader(t);
  await l.leadership.jobs.put(job());
  const pointers = l.leadership.checkpointPointers(jobId);
  const ids = Array.from({ length: 130 }, (_, i) => i + 1);
  for (const id of ids) await pointers.add(pointer(id), []);
  await pointers.add(pointer(200), ids);
  t.same(await pointers.list(), [pointer(200)]);
  t.equal((await pointers.listGarbage()).length, 130);
});

t.test('a write whose answer is lost is reported as what happened', async (t) => {
  for (const fault of ['lose-request', 'lose-response'] as const) {
    const l = await leader(t);
    await l.leadership.jobs.put(job());
    const ids = l.leadership.checkpointIds(jobId);
    const pointers = l.leadership.checkpointPointers(jobId);
    let left = 0;
    l.kv.faults.onWrite = () => {
      left -= 1;
      return left >= 0 ? fault : 'none';
    };
    const faulty = async (work: () => Promise<unknown>): Promise<void> => {
      // A single lost answer, then one that is lost again when the write is repeated.
      left = 2;
      const done = work();
      await l.cluster.clock.advance(0);
      for (let i = 0; i < 20; i += 1) await l.cluster.clock.advance(20);
      await done;
    };
    await faulty(() => l.leadership.jobs.put(job({ jobId: otherId })));
    await faulty(() => pointers.add(pointer(1), []));
    await faulty(() => pointers.add(pointer(2), [1]));
    t.same(await pointers.list(), [pointer(2)], fault);
    await faulty(() => pointers.removeGarbage(1));
    t.same(await pointers.listGarbage(), []);
    await faulty(() => l.leadership.jobs.setDesired(jobId, 'CANCELED'));
    t.equal((await l.leadership.jobs.get(jobId))?.desired, 'CANCELED');
    t.equal(
      await (async () => {
        let id = 0;
        await faulty(async () => {
          id = await ids.next();
        });
        return id;
      })(),
      1,
      'a block is not taken twice',
    );
    await faulty(() => l.leadership.results.createDirty(result()));
    await faulty(() => l.leadership.results.markClean(jobId));
    t.equal((await l.leadership.results.get(jobId))?.dirty, false);
    const committed = l.env.metrics.counter('unknownOutcomesCommitted').count;
    t.equal(committed > 0, fault === 'lose-response');
  }
});

t.test('a write that cannot be confirmed in time says that its outcome is unknown', async (t) => {
  const l = await leader(t);
  l.kv.faults.onWrite = () => 'lose-request';
  let error: MillraceError | undefined;
  const done = l.leadership.jobs.put(job()).catch((reason: unknown) => {
    error = reason as MillraceError;
  });
  for (let i = 0; i < 30 && error === undefined; i += 1) await l.cluster.clock.advance(500);
  await done;
  t.match(error, { code: 'ETCD_UNAVAILABLE', details: { outcome: 'unknown' } });
});

t.test('checkpoint ids grow strictly over leaders, blocks and raises', async (t) => {
  const l = await leader(t);
  await l.leadership.jobs.put(job());
  const first = l.leadership.checkpointIds(jobId);
  const ids: number[] = [];
  for (let i = 0; i < 70; i += 1) ids.push(await first.next());
  t.same(
    ids,
    Array.from({ length: 70 }, (_, i) => i + 1),
    'one leader leaves no gap',
  );
  await first.raiseTo(50);
  t.equal(await first.next(), 71, 'a raise never lowers');
  await first.raiseTo(100);
  t.equal(await first.next(), 101, 'within the block');
  await first.raiseTo(1_000);
  t.equal(await first.next(), 1_001);
  const b = await l.cluster.candidate('b');
  await l.election.close();
  const second = (await b.contender.leads()).checkpointIds(jobId);
  const given = await second.highestGiven();
  t.ok(given >= 1_001, 'all ids of the first leader');
  const next = await second.next();
  t.ok(next > given, 'none of its own');
  t.ok(next > 1_001);
  await second.raiseTo(5_000);
  t.same(await Promise.all([second.next(), second.next()]), [5_001, 5_002]);
  t.equal(await second.highestGiven(), given, 'its own ids do not count');
  t.equal(await codeOf(b.contender.current!.checkpointIds(otherId).next()), 'JOB_NOT_FOUND');
});

t.test('a TaskManager is listed while it is registered, and registers again', async (t) => {
  const l = await leader(t);
  const process = await l.cluster.process();
  const info = { taskManagerId: 'h-1' as TaskManagerId, dataAddress: 'h:1', slots: 2, pid: 3 };
  const registration = await process.ha.registerTaskManager(info);
  t.equal(registration.registered, true);
  t.same(await l.leadership.listTaskManagers(), [info]);
  const broken = keys.taskManager('broken' as TaskManagerId);
  l.cluster.server.txn({
    compare: [],
    then: [{ op: 'put', key: broken, value: encodeText('{') }],
  });
  t.same(await l.leadership.listTaskManagers(), [info], 'a damaged entry hides no other');
  const key = keys.taskManager(info.taskManagerId);
  const { leaseId } = l.cluster.server.range({ key }).entries[0]!;
  l.cluster.server.revokeLease(leaseId!);
  t.same(await l.leadership.listTaskManagers(), []);
  await l.cluster.clock.advance(2_000);
  t.same(await l.leadership.listTaskManagers(), [info], 'with the next renewal');
  await registration.close();
  await settle();
  t.same(await l.leadership.listTaskManagers(), []);
  t.equal(registration.registered, false);
});

t.test('a storage directory belongs to one cluster', async (t) => {
  const folder = await temporaryFolder(t);
  const cluster = new MemoryCluster(t, { storageDir: folder });
  const [a, b] = await Promise.all([cluster.process(), cluster.process()]);
  t.match(a.ha.clusterUid, /^[0-9a-f]{16}$/);
  t.equal(a.ha.clusterUid, b.ha.clusterUid, 'two first starts agree');
  t.equal((await cluster.process()).ha.clusterUid, a.ha.clusterUid, 'and so does a later one');
  t.match(JSON.parse(await readFile(join(folder, 'cluster.json'), 'utf8')), {
    uid: a.ha.clusterUid,
    state: 'ready',
  });
  const message = async (work: Promise<unknown>): Promise<string> =>
    work.then(
      () => 'none',
      (error: unknown) => `${(error as MillraceError).code}: ${(error as Error).message}`,
    );

  const empty = await temporaryFolder(t);
  const second = await message(cluster.process({ storageDir: empty }));
  t.match(
    second,
    new RegExp(`^CLUSTER_MISMATCH: .*${a.ha.clusterUid}.*${folder}.*no cluster.json`),
  );
  t.same(await readdir(empty), [], 'and is left as it was');

  const foreign = await message(cluster.process({ clusterId: 'other' }));
  t.match(foreign, /^CLUSTER_MISMATCH: expected jobs, found none/);

  const otherFolder = await temporaryFolder(t);
  const other = await cluster.process({ clusterId: 'other', storageDir: otherFolder });
  const both = await message(cluster.process({ storageDir: otherFolder }));
  t.match(both, new RegExp(`^CLUSTER_MISMATCH: .*${a.ha.clusterUid}.*${other.ha.clusterUid}`));

  await writeFile(join(folder, 'cluster.json'), '{');
  t.match(await message(cluster.process()), /^CLUSTER_MISMATCH: .*damaged/);
});

t.test('a first start that was cut short can be repeated', async (t) => {
  const folder = await temporaryFolder(t);
  const uid = '0123456789abcdef';
  await writeFile(join(folder, 'cluster.json'), JSON.stringify({ uid, state: 'creating' }));
  const cluster = new MemoryCluster(t, { storageDir: folder });
  t.equal((await cluster.process()).ha.clusterUid, uid);
  t.match(JSON.parse(await readFile(join(folder, 'cluster.json'), 'utf8')), { state: 'ready' });
});

t.test('unusable options are refused with what would do', async (t) => {
  const cluster = new MemoryCluster(t);
  t.equal(await codeOf(cluster.process({ clusterId: 'a/b' })), 'CONFIG');
  t.equal(await codeOf(cluster.process({ leaseTtlMs: 2_000 })), 'CONFIG');
});

t.test('the keys are those an administrator looks for', async (t) => {
  const l = await leader(t);
  const { leadership } = l;
  await l.cluster.candidate('host:1/b');
  await leadership.jobs.put(job());
  await leadership.jobs.putExecution(jobId, { generation: 0, attempts: {} });
  await leadership.checkpointIds(jobId).next();
  const pointers = leadership.checkpointPointers(jobId);
  await pointers.add(pointer(9), []);
  await pointers.add(pointer(10), [9]);
  await leadership.jobs.put(job({ jobId: otherId }));
  await leadership.results.createDirty(result({ jobId: otherId }));
  await leadership.results.markClean(otherId);
  const info = { taskManagerId: 'h-1' as TaskManagerId, dataAddress: 'h:1', slots: 2, pid: 3 };
  const registration = await l.ha.registerTaskManager(info);
  const found = keysUnder(l, '/millrace/v1/test/').map((key) =>
    key.replace(/-[0-9a-f]{8}$/, '-<nonce>'),
  );
  t.same(found, [
    'cluster',
    'election/a-<nonce>',
    'election/host%3A1%2Fb-<nonce>',
    `jobs/${jobId}/ckpt/0000000000000000010`,
    `jobs/${jobId}/ckptctr`,
    `jobs/${jobId}/exec`,
    `jobs/${jobId}/gc/0000000000000000009`,
    `jobs/${jobId}/graph`,
    `jobs/${jobId}/spec`,
    'leader',
    `results/${otherId}`,
    'tms/h-1',
  ]);
  await registration.close();
});

t.test('values are text that an administrator can read', async (t) => {
  const l = await leader(t);
  await l.leadership.jobs.put(job());
  const { entries } = l.cluster.server.range({ key: keys.spec(jobId) });
  t.match(JSON.parse(decodeText(entries[0]!.value)), {
    w: `1.${String(l.leadership.epoch.revision)}.1`,
    submissionId: 's1',
    desired: 'RUNNING',
  });
});

t.test('a write that is refused after its answer was lost is reported as written', async (t) => {
  const l = await leader(t);
  let tries = 0;
  l.kv.faults.onWrite = () => {
    tries += 1;
    if (tries === 1) return 'lose-response';
    throw new MillraceError('ETCD_REJECTED', 'the database is full');
  };
  const done = l.leadership.jobs.put(job());
  for (let i = 0; i < 20 && tries < 2; i += 1) await l.cluster.clock.advance(20);
  await done;
  t.equal(await codeOf(l.leadership.jobs.setDesired(jobId, 'CANCELED')), 'ETCD_REJECTED');
});
