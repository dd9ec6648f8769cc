/** The coordinator over the stores of high availability and real files: what a change of leader leaves. */
import { existsSync } from 'node:fs';
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { CheckpointStatisticsTracker } from '../../../checkpoint/coordinator/checkpoint-statistics.js';
import { CheckpointCoordinator } from '../../../checkpoint/coordinator/checkpoint-coordinator.js';
import { FileCheckpointStorage } from '../../../checkpoint/storage/file-checkpoint-storage.js';
import { epochLabel, stateName } from '../../../checkpoint/storage/paths.js';
import { encodeText } from '../../../ha/kv-store.js';
import type { Leadership } from '../../../ha/services.js';
import type { Env } from '../../../lib/base/env.js';
import type { AttemptId, JobId, OperatorId, VertexId } from '../../../lib/base/ids.js';
import { MemoryCluster } from '../../support/memory-cluster.js';

const jobId = 'a'.repeat(32) as JobId;
const operator = 'b'.repeat(32) as OperatorId;
const vertexId = operator as unknown as VertexId;

class Job {
  readonly coordinator: CheckpointCoordinator;
  readonly told: number[] = [];
  readonly #storage: FileCheckpointStorage;

  constructor(env: Env, leadership: Leadership, directory: string) {
    const label = epochLabel(leadership.epoch);
    const attemptId = `${vertexId}_0_0_${label}` as AttemptId;
    this.#storage = new FileCheckpointStorage(directory, label);
    this.coordinator = new CheckpointCoordinator(
      env,
      {
        pointers: leadership.checkpointPointers(jobId),
        ids: leadership.checkpointIds(jobId),
        storage: this.#storage,
        mayAct: () => leadership.mayAct(),
        gateway: {
          subtasks: () => [
            {
              vertexId,
              subtaskIndex: 0,
              attemptId,
              state: 'running',
              isRoot: true,
              endOfData: false,
            },
          ],
          trigger: (_, checkpointId) => void this.#acknowledge(attemptId, checkpointId),
          notifyComplete: (_, checkpointId) => this.told.push(checkpointId),
          notifyAborted: () => undefined,
          snapshotCoordinators: async () => ({}),
          releaseCoordinators: () => undefined,
          failJob: () => undefined,
        },
      },
      {
        jobId,
        jobName: 'a job',
        epochLabel: label,
        statistics: new CheckpointStatisticsTracker(10),
        config: {
          intervalMs: 0,
          timeoutMs: 60_000,
          minPauseMs: 0,
          maxConcurrent: 1,
          tolerableFailures: 0,
          numRetained: 2,
        },
        vertices: [
          {
            id: vertexId,
            name: 'v',
            parallelism: 1,
            maxParallelism: 128,
            operators: [{ id: operator, name: 'o', maxParallelism: 128 }],
          },
        ],
      },
    );
  }

  async #acknowledge(attemptId: AttemptId, checkpointId: number): Promise<void> {
    const name = stateName(attemptId, operator);
    const data = await this.#storage
      .snapshotStorage(0)
      .write(checkpointId, name, Uint8Array.of(checkpointId));
    this.coordinator.acknowledge({
      jobId,
      attemptId,
      checkpointId,
      snapshot: { finished: false, operators: { [operator]: { operator: data } } },
      alignmentMs: 0,
      syncMs: 0,
      asyncMs: 0,
      startDelayMs: 0,
    });
  }
}

/** Leader `a` with a stored job, and `b` standing by. */
async function twoCandidates(t: Test) {
  const directory = await mkdtemp(join(tmpdir(), 'millrace-checkpoints-'));
  t.teardown(() => rm(directory, { recursive: true, force: true }));
  const cluster = new MemoryCluster(t);
  const a = await cluster.candidate('a');
  const leadership = await a.contender.leads();
  await leadership.jobs.put({
    jobId,
    submissionId: 's',
    name: 'a job',
    graph: encodeText('g'),
    desired: 'RUNNING',
    submittedAt: 1,
  });
  const b = await cluster.candidate('b');
  const first = new Job(a.env, leadership, directory);
  t.equal(await first.coordinator.restoreLatest(), undefined);
  first.coordinator.start();
  return { cluster, a, b, first, directory };
}

t.test(
  'a new leader goes on from the latest checkpoint, with greater ids and its own directories',
  async (t) => {
    const { a, b, first, directory } = await twoCandidates(t);
    for (let i = 0; i < 3; i += 1) await first.coordinator.triggerNow();
    t.strictSame(first.told, [1, 2, 3]);
    await first.coordinator.close();
    await a.election.close();

    const second = new Job(b.env, await b.contender.leads(), directory);
    const restored = await second.coordinator.restoreLatest();
    t.equal(restored?.metadata.checkpointId, 3);
    second.coordinator.start();
    const next = await second.coordinator.triggerNow();
    t.ok(next.pointer.checkpointId > 3);
    t.not(next.metadata.epoch, restored?.metadata.epoch);
    // Whatever the first did not get to delete is among what the second deletes.
    await until(async () => (await readdir(directory)).length === 2);
    await second.coordinator.close();
  },
);

t.test(
  'a deposed leader cannot complete a checkpoint, tells nobody, and deletes nothing',
  async (t) => {
    const { cluster, a, b, first, directory } = await twoCandidates(t);
    await first.coordinator.triggerNow();
    // Its requests are lost from here on: the lease runs out while the pointer is on its way.
    let isAdding = false;
    a.kv.faults.onWrite = () => {
      isAdding = true;
      return 'lose-request';
    };
    const late = first.coordinator.triggerNow();
    late.catch(() => undefined);
    await until(() => isAdding);
    a.kv.faults.unavailable = true;
    await cluster.clock.advance(10_000);
    const second = new Job(b.env, await b.contender.leads(), directory);
    t.equal((await second.coordinator.restoreLatest())?.metadata.checkpointId, 1);
    a.kv.faults.unavailable = false;
    a.kv.faults.onWrite = () => 'none';
    await cluster.clock.advance(10_000);
    await first.coordinator.close();
    await t.rejects(late, { code: 'CHECKPOINT_FAILED' });
    t.strictSame(first.told, [1]);
    const files = await readdir(directory);
    t.ok(
      files.some((name) => name.startsWith('chk-2-')),
      'its files stay for the sweep',
    );
    t.equal((await second.coordinator.restoreLatest())?.metadata.checkpointId, 1);
    await second.coordinator.close();
  },
);

t.test(
  'a pointer whose answer was lost is found out to be there: the checkpoint is complete',
  async (t) => {
    const { cluster, a, first, directory } = await twoCandidates(t);
    await first.coordinator.triggerNow();
    let lose = 1;
    a.kv.faults.onWrite = () => (lose-- > 0 ? 'lose-response' : 'none');
    const taken = first.coordinator.triggerNow();
    await until(() => lose < 1);
    await cluster.clock.advance(500);
    t.equal((await taken).pointer.checkpointId, 2);
    t.strictSame(first.told, [1, 2]);
    t.ok(existsSync((await taken).pointer.metadataPath));
    t.equal((await readdir(directory)).length, 2);
    await first.coordinator.close();
  },
);

/** File work is real, so a manual clock does not tell when it is done. */
async function until(condition: () => boolean | Promise<boolean>): Promise<void> {
  for (let i = 0; i < 10_000; i += 1) {
    if (await condition()) return;
    await new Promise((resolve) => setImmediate(resolve));
  }
  throw new Error('what was awaited did not happen');
}
