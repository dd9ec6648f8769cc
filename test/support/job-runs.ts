/** Jobs on scripted TaskManagers: what tests of the JobManager say again and again. */
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import type { HighAvailabilityOptions } from '../../ha/index.js';
import { MemoryKvStore } from '../../ha/memory/memory-kv-store.js';
import type { Source, SplitEnumerator } from '../../lib/api/source.js';
import type { JobId } from '../../lib/base/ids.js';
import type { JobGraph } from '../../lib/graph/job-graph.js';
import type { JobManagerOptions } from '../../lib/jobmanager/job-manager.js';
import type { ScriptedTask, ScriptedTaskManager, TaskScript } from './scripted-task-manager.js';
import { JobManagerCluster, type TestJobManager } from './job-manager-cluster.js';
import type { TeardownHost } from './etcd.js';
import { testGraph, testJobConfig } from './job-graphs.js';

/** Hands out the numbers below `count`, one a request, in order. */
export function numbers(count: number): Source<unknown, unknown, unknown> {
  const enumerator = (
    context: {
      assignSplits(subtask: number, splits: readonly unknown[]): void;
      signalNoMoreSplits(subtask: number): void;
    },
    left: number[],
  ): SplitEnumerator<unknown, unknown> => ({
    start: () => undefined,
    addReader: () => undefined,
    handleSplitRequest: (subtask) => {
      const next = left.shift();
      if (next === undefined) context.signalNoMoreSplits(subtask);
      else context.assignSplits(subtask, [next]);
    },
    addSplitsBack: (splits) => {
      left.unshift(...(splits as number[]));
    },
    adoptSplits: (splits) => {
      left.splice(0, left.length, ...left.filter((one) => !splits.includes(one)));
    },
    snapshotState: () => [...left],
    close: () => undefined,
  });
  return {
    boundedness: 'bounded',
    createEnumerator: (context) =>
      enumerator(
        context,
        Array.from({ length: count }, (_, index) => index),
      ),
    restoreEnumerator: (context, state) => enumerator(context, [...(state as number[])]),
    createReader: () => {
      throw new Error('not here');
    },
  };
}

export const pipeline = (config: Partial<JobGraph['config']> = {}, jobId = 'job'): JobGraph =>
  testGraph({
    jobId,
    vertices: [
      { name: `src-${jobId}`.slice(0, 16), parallelism: 2 },
      { name: `win-${jobId}`.slice(0, 16), parallelism: 2 },
    ],
    edges: [[`src-${jobId}`.slice(0, 16), `win-${jobId}`.slice(0, 16), 'HASH']],
    config,
  });

export const checkpointing = { ...testJobConfig.checkpointing, intervalMs: 1_000 };

export interface Setup {
  readonly cluster: JobManagerCluster;
  readonly jm: TestJobManager;
  readonly taskManagers: ScriptedTaskManager[];
  readonly completed: number[];
}

/** Every task acknowledges every checkpoint. `script` adds to that. */
export async function setUp(
  t: TeardownHost,
  slotsPerTaskManager: number,
  count = 2,
  options: Partial<JobManagerOptions> & {
    readonly script?: TaskScript;
    readonly ha?: Partial<HighAvailabilityOptions>;
  } = {},
): Promise<Setup> {
  const cluster = new JobManagerCluster(t, options, options.ha);
  const jm = await cluster.jobManager('jm1');
  const leader = await cluster.leader(jm);
  const taskManagers: ScriptedTaskManager[] = [];
  const completed: number[] = [];
  const script: TaskScript = {
    onTrigger: (checkpointId, attemptIds) => {
      const first = taskManagers
        .flatMap((one) => one.tasks())
        .find(({ descriptor }) => attemptIds.includes(descriptor.attemptId));
      for (const one of taskManagers)
        for (const task of one.tasks())
          if (task.jobId === first?.jobId) acknowledge(one, task, checkpointId);
    },
    onComplete: (checkpointId) => completed.push(checkpointId),
    ...options.script,
  };
  for (let i = 1; i <= count; i++) {
    const taskManager = await cluster.taskManager(`tm${String(i)}`, slotsPerTaskManager, script);
    await taskManager.register(leader);
    taskManagers.push(taskManager);
  }
  return { cluster, jm, taskManagers, completed };
}

export function acknowledge(
  taskManager: ScriptedTaskManager,
  task: ScriptedTask,
  checkpointId: number,
): void {
  if (task.state !== 'RUNNING') return;
  const { attemptId, vertex, subtaskIndex } = task.descriptor;
  const state = {
    kind: 'inline' as const,
    bytes: Buffer.from(`${vertex.name}/${String(subtaskIndex)}`),
  };
  const [operator] = vertex.operators;
  task.lastCheckpointId = checkpointId;
  taskManager.leader?.acknowledgeCheckpoint({
    jobId: task.jobId,
    attemptId,
    checkpointId,
    snapshot: {
      operators: operator === undefined ? {} : { [operator.id]: { operator: state } },
      finished: false,
    },
    alignmentMs: 0,
    syncMs: 0,
    asyncMs: 0,
    startDelayMs: 0,
  });
}

export async function runJob({ cluster, jm }: Setup, graph: JobGraph): Promise<JobId> {
  cluster.sources.set(graph.vertices[0]?.operators[0]?.id ?? '', numbers(10));
  const { jobId } = await jm
    .gateway()
    .submitJob({ submissionId: `s-${graph.jobId}`, jobGraph: graph });
  await untilRunning(cluster, jm, jobId);
  return jobId;
}

export async function untilRunning(
  cluster: JobManagerCluster,
  jm: TestJobManager,
  jobId: JobId,
): Promise<void> {
  await cluster.until('all tasks run', async () => {
    const { state, vertices } = await jm.gateway().jobDetails(jobId);
    return (
      state === 'RUNNING' && vertices.every((vertex) => vertex.tasks.RUNNING === vertex.parallelism)
    );
  });
}

export async function untilState(
  cluster: JobManagerCluster,
  jm: TestJobManager,
  jobId: JobId,
  state: string,
): Promise<void> {
  await cluster.until(
    `the job is ${state}`,
    async () => (await jm.gateway().listJobs()).find(({ jid }) => jid === jobId)?.state === state,
  );
}

export async function checkpoint({ cluster, completed }: Setup): Promise<void> {
  const before = completed.length;
  await cluster.clock.advance(1_000);
  await cluster.until('a checkpoint completes', () => completed.length > before);
}

export const tasksOf = (
  taskManagers: readonly ScriptedTaskManager[],
  prefix: string,
): { taskManager: ScriptedTaskManager; task: ScriptedTask }[] =>
  taskManagers
    .flatMap((taskManager) => taskManager.tasks().map((task) => ({ taskManager, task })))
    .filter(({ task }) => task.descriptor.vertex.name.startsWith(prefix))
    .sort((a, b) => a.task.descriptor.subtaskIndex - b.task.descriptor.subtaskIndex);

export const splitsOf = (task: ScriptedTask | undefined): unknown[] =>
  (task?.events ?? []).flatMap(({ event }) => (event.kind === 'addSplits' ? event.splits : []));

export async function keysOfJob({ jm }: Setup, jobId: JobId): Promise<string[]> {
  const key = '/millrace/v1/test/jobs/';
  const reader = new MemoryKvStore(jm.env.clock, jm.kv.server);
  const { entries } = await reader.range({ key, rangeEnd: `${key}~` });
  await reader.close();
  return entries.map((entry) => entry.key).filter((one) => one.includes(jobId));
}

export function checkpointDirectories(cluster: JobManagerCluster, jobId: JobId): string[] {
  return readdirSync(cluster.storageDir).flatMap((uid) => {
    const directory = join(cluster.storageDir, uid, 'jobs', jobId, 'checkpoints');
    return existsSync(directory) ? readdirSync(directory).map((name) => join(directory, name)) : [];
  });
}
