import { mkdtemp, readdir, rm, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { exportCluster, importCluster, type HaArchive } from '../../../ha/ha-archive.js';
import { verifyCluster } from '../../../ha/ha-verify.js';
import { Keys } from '../../../ha/keys.js';
import { encodeText, type KvStore } from '../../../ha/kv-store.js';
import type { Leadership } from '../../../ha/services.js';
import { MillraceError } from '../../../lib/base/errors.js';
import type { JobId, TaskManagerId } from '../../../lib/base/ids.js';
import { SystemRandom } from '../../../lib/base/system-random.js';
import { codeOf } from '../../support/code-of.js';
import { MemoryCluster, type MemoryCandidate } from '../../support/memory-cluster.js';

const random = new SystemRandom();
const jobId = 'a'.repeat(32) as JobId;
const endedId = 'b'.repeat(32) as JobId;
const keys = new Keys('test');
/** Does not compress: large enough for a file. */
const largeGraph = Buffer.from(random.hex(200_000), 'hex');

async function temporaryFolder(t: Test): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'millrace-ha-'));
  t.teardown(() => rm(folder, { recursive: true, force: true }));
  return folder;
}

interface Source {
  readonly cluster: MemoryCluster;
  readonly candidate: MemoryCandidate;
  readonly leadership: Leadership;
  readonly storageDir: string;
}

/** A cluster with a job that ran and one that ended, whose graph and archive lie in files. */
async function source(t: Test): Promise<Source> {
  const storageDir = await temporaryFolder(t);
  const cluster = new MemoryCluster(t, { storageDir });
  const candidate = await cluster.candidate('a');
  const leadership = await candidate.contender.leads();
  for (const id of [jobId, endedId]) {
    await leadership.jobs.put({
      jobId: id,
      submissionId: `s-${id}`,
      name: 'a job',
      graph: id === jobId ? largeGraph : encodeText('small'),
      desired: 'RUNNING',
      submittedAt: 1,
    });
  }
  const attempt = {
    taskManagerId: 'tm' as TaskManagerId,
    allocationId: 'slot',
    attemptNumber: 0,
  };
  await leadership.jobs.putExecution(jobId, { generation: 3, attempts: { x: attempt } });
  const id = await leadership.checkpointIds(jobId).next();
  for (const checkpointId of [id, id + 1]) {
    const pointer = {
      checkpointId,
      metadataPath: `/chk-${String(checkpointId)}/_metadata`,
      sha256: 'f'.repeat(64),
      timestamp: 1,
      sizeBytes: 2,
      kind: 'checkpoint',
    } as const;
    await leadership.checkpointPointers(jobId).add(pointer, checkpointId > id ? [id] : []);
  }
  const archive = JSON.stringify({ text: random.hex(100_000) });
  await leadership.results.createDirty({
    jobId: endedId,
    name: 'a job',
    state: 'FINISHED',
    archive,
    finishedAt: 5,
  });
  await leadership.results.markClean(endedId);
  return { cluster, candidate, leadership, storageDir };
}

const exported = (from: Source): Promise<HaArchive> =>
  exportCluster(from.candidate.kv, 'test', { storageDir: from.storageDir, random, now: 7 });

const through = (archive: HaArchive): HaArchive => JSON.parse(JSON.stringify(archive)) as HaArchive;

t.test('what was exported is there after an import, with a new era', async (t) => {
  const from = await source(t);
  const archive = through(await exported(from));
  t.equal(archive.files.length, 2);
  t.notMatch(archive.entries.map(({ key }) => key).join(' '), /election|leader|tms/);

  const storageDir = await temporaryFolder(t);
  const to = new MemoryCluster(t, { storageDir });
  const kv = to.connect();
  const progress: number[] = [];
  const report = await importCluster(kv, 'test', archive, {
    storageDir,
    random,
    onProgress: (done) => progress.push(done),
  });
  const { clusterUid } = from.candidate.ha;
  t.match(report, { uid: clusterUid, era: archive.era + 1, resumed: false });
  t.equal(progress.at(-1), archive.entries.length);

  const b = await to.candidate('b');
  t.equal(b.ha.clusterUid, clusterUid);
  const leadership = await b.contender.leads();
  t.equal(leadership.epoch.era, archive.era + 1);
  t.same(await leadership.jobs.list(), [jobId]);
  t.ok(Buffer.from((await leadership.jobs.get(jobId))!.graph).equals(largeGraph));
  t.match(await leadership.jobs.getExecution(jobId), { generation: 3 });
  t.match(await leadership.checkpointPointers(jobId).list(), [{ checkpointId: 2 }]);
  t.match(await leadership.checkpointPointers(jobId).listGarbage(), [{ checkpointId: 1 }]);
  t.ok((await leadership.checkpointIds(jobId).next()) > 2);
  t.match(await leadership.results.list(), [{ jobId: endedId, dirty: false }]);
  const verified = await verifyCluster(kv, 'test', { storageDir, random });
  t.match(verified, { jobs: 1, results: 1, checkpoints: 1, uid: clusterUid });
  t.same(
    verified.findings.filter(({ severity }) => severity === 'error'),
    [],
  );
});

t.test('an import that was interrupted goes on, and nothing starts before', async (t) => {
  const from = await source(t);
  const archive = await exported(from);
  const many = Array.from({ length: 200 }, (_, i) => ({
    key: `jobs/${'c'.repeat(32)}/ckpt/${String(i).padStart(19, '0')}`,
    value: '{}',
  }));
  const large = { ...archive, entries: [...archive.entries, ...many] };
  const storageDir = await temporaryFolder(t);
  const to = new MemoryCluster(t, { storageDir });
  const kv = to.connect();
  let writes = 0;
  kv.faults.onWrite = () => {
    writes += 1;
    if (writes === 3) throw new MillraceError('ETCD_UNAVAILABLE', 'cut off');
    return 'none';
  };
  const options = { storageDir, random };
  t.equal(await codeOf(importCluster(kv, 'test', large, options)), 'ETCD_UNAVAILABLE');
  t.equal(await codeOf(to.candidate('early')), 'CLUSTER_MISMATCH');
  t.equal(await codeOf(to.process({ storageDir: await temporaryFolder(t) })), 'CLUSTER_MISMATCH');
  t.match((await verifyCluster(kv, 'test', options)).findings, [
    { severity: 'error', where: keys.importMarker, problem: /interrupted/ },
    {},
  ]);
  t.equal(await codeOf(importCluster(kv, 'test', archive, options)), 'CLUSTER_MISMATCH', 'another');
  const report = await importCluster(kv, 'test', large, options);
  t.match(report, { resumed: true, entries: large.entries.length });
  t.equal(await kv.get(keys.importMarker), undefined);
  await (await to.candidate('late')).contender.leads();
});

t.test('an import never mixes with what lives', async (t) => {
  const from = await source(t);
  const archive = await exported(from);
  const { kv } = from.candidate;
  const { storageDir } = from;
  const into = (target: KvStore, clusterId: string, dir = storageDir): Promise<string> =>
    codeOf(importCluster(target, clusterId, archive, { storageDir: dir, random }));
  t.equal(await into(kv, 'test'), 'CLUSTER_MISMATCH', 'a JobManager runs');
  await from.candidate.election.close();
  t.equal(await into(kv, 'test'), 'CLUSTER_MISMATCH', 'the prefix is not empty');
  t.equal(await into(kv, 'copy'), 'CLUSTER_MISMATCH', 'the uid lives under another id');
  t.equal(await kv.get(new Keys('copy').importMarker), undefined, 'nothing was begun');

  const foreignDir = await temporaryFolder(t);
  const marker = { uid: 'f'.repeat(16), state: 'ready' };
  await writeFile(join(foreignDir, 'cluster.json'), JSON.stringify(marker));
  const empty = new MemoryCluster(t).connect();
  t.equal(await into(empty, 'test', foreignDir), 'CLUSTER_MISMATCH', 'the directory of another');
  const other = { ...archive, kind: 'other' } as unknown as HaArchive;
  t.equal(await codeOf(importCluster(empty, 'test', other, { random })), 'CONFIG');
  t.equal(
    await codeOf(importCluster(empty, 'test', archive, { random })),
    'CONFIG',
    'no directory',
  );
  const [file, ...files] = archive.files;
  const changed = { ...archive, files: [{ ...file!, base64: 'AAAA' }, ...files] };
  const folder = await temporaryFolder(t);
  t.equal(
    await codeOf(importCluster(empty, 'test', changed, { storageDir: folder, random })),
    'RECOVERY_FAILED',
  );
  t.equal(await codeOf(exportCluster(empty, 'test', { random, now: 1 })), 'CLUSTER_MISMATCH');
});

t.test('a verification names what does not fit, and only that', async (t) => {
  const from = await source(t);
  const { kv, ha } = from.candidate;
  const { storageDir } = from;
  const verify = async (): Promise<string[]> => {
    const { findings } = await verifyCluster(kv, 'test', {
      storageDir,
      random,
      checkCheckpoint: async (_, { checkpointId }) => (checkpointId === 9 ? ['nine'] : []),
      findOrphans: async () => ['/orphan'],
      checkGraph: async (_, graph) => (graph.length === largeGraph.length ? [] : ['wrong graph']),
    });
    return findings.map(({ severity, where, problem }) => `${severity} ${where} ${problem}`);
  };
  const sound = await verify();
  t.equal(sound.length, 2, 'the subsumed checkpoint and the orphan are warnings');
  t.match(sound, [/^warning .*gc.*waits/, /^warning \/orphan/]);

  const put = (key: string, value: object): Promise<unknown> =>
    kv.txn({
      compare: [],
      then: [{ op: 'put', key, value: encodeText(JSON.stringify(value)) }],
    });
  const pointer = {
    metadataPath: '/x',
    sha256: 'f',
    timestamp: 1,
    sizeBytes: 1,
    kind: 'checkpoint',
  };
  await put(keys.checkpoint(jobId, 900), { ...pointer, checkpointId: 9 });
  await put(keys.garbage(jobId, 2), { ...pointer, checkpointId: 2 });
  await put(keys.execution(jobId), { generation: 1 });
  await put(keys.graph('c'.repeat(32) as JobId), {});
  await put(keys.result('d'.repeat(32) as JobId), { state: 'ODD' });
  await put(keys.spec(jobId), { submissionId: 's', desired: 'RUNNING', w: '0.1.1' });
  const folder = join(storageDir, ha.clusterUid, 'ha', 'jobs', jobId);
  await writeFile(join(folder, 'stray'), 'x');
  const [graphFile] = (await readdir(folder)).filter((name) => name !== 'stray');
  await writeFile(join(folder, graphFile!), 'damaged');
  const problems = (await verify()).filter((line) => !sound.includes(line)).join('\n');
  for (const expected of [
    /names checkpoint 9/,
    /nine/,
    /marks a checkpoint for deletion that is in use/,
    /exec.*attempts/,
    /no job|has no .*spec/,
    /ODD/,
    /was written by 0\.1\.1 after/,
    /stray is named by no value/,
    /does not have its digest/,
  ]) {
    t.match(problems, expected);
  }
});

t.test(
  'results are forgotten by number and age, and files that nothing names by age',
  async (t) => {
    const from = await source(t);
    const { leadership, storageDir, cluster } = from;
    const root = join(storageDir, from.candidate.ha.clusterUid, 'ha');
    const now = cluster.clock.wallTime();
    const end = (id: string, finishedAt: number, isClean = true): Promise<void> => {
      const result = { jobId: id as JobId, name: id, state: 'FINISHED', archive: '{}', finishedAt };
      return leadership.results
        .createDirty(result as Parameters<typeof leadership.results.createDirty>[0])
        .then(() => (isClean ? leadership.results.markClean(id as JobId) : undefined));
    };
    const ids = [1, 2, 3, 4].map((i) => String(i).repeat(32));
    for (const [i, id] of ids.entries()) await end(id, now - i * 1_000, i !== 3);
    const expire = (maxCount: number, maxAgeMs: number): Promise<string[]> =>
      leadership.results.expire({ maxCount, maxAgeMs, now });
    t.same(await expire(100, now), []);
    t.same(
      await expire(2, now),
      [ids[2], endedId],
      'the oldest ones, but not what is not clean yet',
    );
    t.same(await readdir(join(root, 'results')), [], 'with their archives');
    t.same(await expire(100, 500), [ids[1]]);
    t.same((await leadership.results.listIds()).sort(), [ids[0], ids[3]]);

    const folder = join(root, 'jobs', jobId);
    const attempts = Object.fromEntries(
      Array.from({ length: 2_000 }, () => [
        random.hex(64),
        { taskManagerId: random.hex(64) as TaskManagerId, allocationId: '', attemptNumber: 0 },
      ]),
    );
    await leadership.jobs.putExecution(jobId, { generation: 4, attempts });
    await leadership.jobs.putExecution(jobId, { generation: 5, attempts: {} });
    const before = await readdir(folder);
    t.equal(before.length, 2, 'the graph, and attempts that were replaced');
    for (const name of before) await utimes(join(folder, name), 1, 1);
    const swept = await leadership.sweepValues(jobId, 1_000);
    t.equal(swept.length, 1);
    t.ok(await leadership.jobs.get(jobId), 'the graph is still there');
    await writeFile(join(folder, 'young'), '');
    await utimes(join(folder, 'young'), now / 1_000, now / 1_000);
    t.same(await leadership.sweepValues(jobId, 1_000), []);
  },
);
