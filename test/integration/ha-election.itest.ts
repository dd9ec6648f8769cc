import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';
import { hasCode, MillraceError } from '../../lib/base/errors.js';
import type { JobId, JobManagerId } from '../../lib/base/ids.js';
import { EtcdKvStore } from '../../ha/etcd/etcd-kv-store.js';
import { createHighAvailability } from '../../ha/index.js';
import { Keys } from '../../ha/keys.js';
import {
  encodeText,
  isReadOnly,
  prefixEnd,
  type KvStore,
  type TxnRequest,
  type TxnResult,
} from '../../ha/kv-store.js';
import { KvLeaderElection } from '../../ha/leader-election.js';
import { compareEpochs, formatEpoch, type LeaderEpoch, type StoredJob } from '../../ha/services.js';
import { writeIdOf } from '../../ha/values.js';
import { TestEtcd } from '../support/etcd.js';
import { RecordingContender } from '../support/recording-contender.js';
import { testEnv } from '../support/test-env.js';

const etcd = await TestEtcd.start(t);
const jobId = 'a'.repeat(32) as JobId;
let clusters = 0;

const job = (id: JobId): StoredJob => ({
  jobId: id,
  submissionId: 's',
  name: 'a job',
  graph: encodeText('graph'),
  desired: 'RUNNING',
  submittedAt: 1,
});

/** An etcd whose answers to writes can be dropped after the write was committed. */
class LossyKvStore extends EtcdKvStore {
  loseAnswers = 0;

  override async txn(request: TxnRequest): Promise<TxnResult> {
    const result = await super.txn(request);
    if (this.loseAnswers > 0 && result.succeeded && !isReadOnly(request)) {
      this.loseAnswers -= 1;
      throw new MillraceError('UNKNOWN_OUTCOME', 'the answer was dropped');
    }
    return result;
  }
}

interface Cluster {
  readonly clusterId: string;
  readonly storageDir: string;
  readonly keys: Keys;
}

async function cluster(t: Test): Promise<Cluster> {
  const storageDir = await mkdtemp(join(tmpdir(), 'millrace-ha-'));
  t.teardown(() => rm(storageDir, { recursive: true, force: true }));
  clusters += 1;
  const clusterId = `c${String(clusters)}`;
  return { clusterId, storageDir, keys: new Keys(clusterId) };
}

async function candidate(t: Test, { clusterId, storageDir }: Cluster, name: string) {
  const env = testEnv();
  const kv = new LossyKvStore(env, { endpoints: etcd.endpoints });
  t.teardown(() => kv.close());
  const ha = await createHighAvailability(env, kv, { clusterId, storageDir });
  t.teardown(() => ha.close());
  const election = ha.createElection({
    jobManagerId: name as JobManagerId,
    rpcAddress: `${name}:1`,
    restAddress: `http://${name}:2`,
  });
  const contender = new RecordingContender();
  election.start(contender);
  t.teardown(() => election.close());
  if (!(election instanceof KvLeaderElection)) throw new Error('another election');
  return { kv, election, contender, env };
}

/** Every write of leaders since the beginning, in order: the epoch of its write id. */
async function writtenEpochs(kv: KvStore, keys: Keys): Promise<LeaderEpoch[]> {
  const end = (await kv.range({ key: keys.cluster })).revision;
  const epochs: LeaderEpoch[] = [];
  // A last write to know that everything before was delivered.
  const marker = `${keys.root}zzz`;
  await kv.txn({ compare: [], then: [{ op: 'put', key: marker, value: encodeText('end') }] });
  await new Promise<void>((resolve, reject) => {
    const watch = kv.watch(
      { key: keys.root, rangeEnd: prefixEnd(keys.root), startRevision: 1 },
      {
        onEvents: (events) => {
          for (const { type, entry } of events) {
            const [era, revision] = (writeIdOf(entry) ?? '').split('.').map(Number);
            if (type === 'put' && era !== undefined && revision !== undefined) {
              epochs.push({ era, revision });
            }
            if (entry.modRevision > end) {
              watch.close();
              resolve();
            }
          }
        },
        onEnd: reject,
      },
    );
  });
  return epochs;
}

function assertNeverBack(t: Test, epochs: readonly LeaderEpoch[]): void {
  let interleaved = 0;
  for (let i = 1; i < epochs.length; i += 1) {
    if (compareEpochs(epochs[i - 1]!, epochs[i]!) > 0) interleaved += 1;
  }
  t.equal(interleaved, 0, 'no write of an older leader after one of a newer');
}

t.test(
  'a resigning leader is followed within a moment, a silent one after its lease',
  async (t) => {
    const c = await cluster(t);
    const a = await candidate(t, c, 'a');
    const first = await a.contender.leads();
    await first.publishActive();
    const b = await candidate(t, c, 'b');
    await b.contender.until(() => b.contender.leader?.state === 'ACTIVE');
    let since = Date.now();
    await a.election.close();
    const second = await b.contender.leads();
    t.ok(Date.now() - since < 1_000, `resigned: ${String(Date.now() - since)} ms`);
    t.ok(compareEpochs(second.epoch, first.epoch) > 0);

    const d = await candidate(t, c, 'd');
    await d.contender.until(() => d.contender.leader?.jobManagerId === 'b');
    since = Date.now();
    b.election.pauseLease();
    await d.contender.leads();
    const took = Date.now() - since;
    t.ok(took < 5_000, `silent: ${String(took)} ms`);
    // A paused keeper knows nothing by itself; its deadline passed all the same.
    t.equal(second.mayAct(), false);
    await b.contender.until(() => b.contender.current === undefined);
  },
);

t.test(
  'a leader stopped for longer than its lease writes nothing after its successor',
  async (t) => {
    const c = await cluster(t);
    const setup = await candidate(t, c, 'setup');
    await (await setup.contender.leads()).jobs.put(job(jobId));
    const script = fileURLToPath(new URL('../support/ha-leader-process.js', import.meta.url));
    const args = [script, etcd.endpoints[0]!, c.clusterId, c.storageDir, 'child', jobId];
    const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] });
    t.teardown(async () => {
      if (child.exitCode !== null || child.signalCode !== null) return;
      child.kill('SIGKILL');
      await once(child, 'exit');
    });
    const lines: { event: string; epoch?: string; code?: string }[] = [];
    let wake: () => void = () => undefined;
    createInterface(child.stdout).on('line', (line) => {
      lines.push(JSON.parse(line));
      wake();
    });
    const until = async (done: () => boolean): Promise<void> => {
      while (!done()) {
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
      }
    };
    await setup.election.close();
    await until(() => lines.some((line) => line.event === 'wrote'));

    const successor = await candidate(t, c, 'successor');
    await successor.contender.until(() => successor.contender.leader !== undefined);
    child.kill('SIGSTOP');
    const since = Date.now();
    const leadership = await successor.contender.leads();
    t.comment(`taken over after ${String(Date.now() - since)} ms`);
    let writing = true;
    const writes = (async () => {
      while (writing) await leadership.jobs.setDesired(jobId, 'RUNNING');
    })();
    const before = lines.length;
    child.kill('SIGCONT');
    await until(() => lines.slice(before).some((line) => line.event === 'revoked'));
    await until(() => lines.slice(before).some((line) => line.event === 'refused'));
    writing = false;
    await writes;
    const after = lines.slice(before);
    t.ok(after.some((line) => line.event === 'refused' && line.code === 'LEADERSHIP_LOST'));
    t.equal(after.filter((line) => line.event === 'wrote').length, 0);
    assertNeverBack(t, await writtenEpochs(successor.kv, c.keys));
  },
);

t.test('two candidates, 20 lost leases: one writes at a time, and epochs only grow', async (t) => {
  const c = await cluster(t);
  const both = [await candidate(t, c, 'a'), await candidate(t, c, 'b')] as const;
  await both[0].contender.leads();
  await both[0].contender.current!.jobs.put(job(jobId));
  let running = true;
  const refused: string[] = [];
  const writers = both.flatMap(({ contender }) => {
    const writer = (async () => {
      // Every leadership it ever had keeps trying: its holder may not have noticed.
      for (let i = 0; running; i += 1) {
        for (const leadership of contender.leaderships.slice(-2)) {
          await leadership.jobs
            .setDesired(jobId, i % 2 === 0 ? 'RUNNING' : 'CANCELED')
            .catch((error: unknown) => {
              if (!hasCode(error, 'LEADERSHIP_LOST')) throw error;
              refused.push(formatEpoch(leadership.epoch));
            });
        }
        await new Promise((resolve) => setImmediate(resolve));
      }
    })();
    return [writer];
  });
  const epochs: LeaderEpoch[] = [];
  for (let round = 0; round < 20; round += 1) {
    const { candidatesPrefix: key } = c.keys;
    const range = { key, rangeEnd: prefixEnd(key), sort: { by: 'create', order: 'ascending' } };
    const queue = await both[0].kv.range(range as Parameters<KvStore['range']>[0]);
    const first = queue.entries[0]!;
    const leads = both.find(
      (one) => one.contender.current?.epoch.revision === first.createRevision,
    );
    if (leads === undefined || queue.entries.length < both.length) {
      // Elected, or back in the queue, a moment later.
      await new Promise((resolve) => setTimeout(resolve, 20));
      round -= 1;
      continue;
    }
    epochs.push(leads.contender.current!.epoch);
    await leads.kv.revokeLease(first.leaseId!);
    const other = both.find((one) => one !== leads)!;
    await other.contender.leads();
    await leads.contender.until(() => leads.contender.current === undefined);
  }
  running = false;
  await Promise.all(writers);
  for (let i = 1; i < epochs.length; i += 1) {
    t.ok(compareEpochs(epochs[i - 1]!, epochs[i]!) < 0, `round ${String(i)}`);
  }
  t.ok(refused.length > 0, 'former leaders did try');
  const written = await writtenEpochs(both[0].kv, c.keys);
  t.ok(new Set(written.map(formatEpoch)).size >= 15, 'most leaders wrote');
  assertNeverBack(t, written);
});

t.test('answers lost after the commit are found out, by reading back', async (t) => {
  const c = await cluster(t);
  const a = await candidate(t, c, 'a');
  const leadership = await a.contender.leads();
  a.kv.loseAnswers = 1;
  await leadership.jobs.put(job(jobId));
  const pointers = leadership.checkpointPointers(jobId);
  const ids = leadership.checkpointIds(jobId);
  a.kv.loseAnswers = 2;
  t.equal(await ids.next(), 1);
  a.kv.loseAnswers = 1;
  const pointer = {
    checkpointId: 1,
    metadataPath: '/m',
    sha256: '0',
    timestamp: 1,
    sizeBytes: 1,
    kind: 'checkpoint',
  } as const;
  await pointers.add(pointer, []);
  t.same(await pointers.list(), [pointer]);
  a.kv.loseAnswers = 1;
  const result = { jobId, name: 'a job', state: 'FINISHED', archive: '{}', finishedAt: 1 } as const;
  await leadership.results.createDirty(result);
  t.ok(a.env.metrics.counter('unknownOutcomesCommitted').count >= 4);
  const spec = await a.kv.get(c.keys.spec(jobId));
  t.equal(spec?.version, 1, 'nothing was written twice');
});

t.test(
  'a second cluster on the same prefix with another storage directory is refused',
  async (t) => {
    const c = await cluster(t);
    await candidate(t, c, 'a');
    const other = await mkdtemp(join(tmpdir(), 'millrace-ha-'));
    t.teardown(() => rm(other, { recursive: true, force: true }));
    const env = testEnv();
    const kv = new EtcdKvStore(env, { endpoints: etcd.endpoints });
    t.teardown(() => kv.close());
    const error: unknown = await createHighAvailability(env, kv, {
      clusterId: c.clusterId,
      storageDir: other,
    }).catch((reason: unknown) => reason);
    t.equal((error as MillraceError).code, 'CLUSTER_MISMATCH');
  },
);
