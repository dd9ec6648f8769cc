/**
 * A job of one slot, run without a JobManager: prepared from its source text, deployed, its enumerators asked for
 * splits and its final checkpoint taken as the leader would.
 */
import { copyFile, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Env } from '../../lib/base/env.js';
import type { Failure } from '../../lib/base/errors.js';
import type { AllocationId, AttemptId, OperatorId, TaskManagerId } from '../../lib/base/ids.js';
import { prepareJob } from '../../lib/client/prepare-job.js';
import { rebuildFunctions } from '../../lib/api/rebuild.js';
import type { Source, SplitEnumerator } from '../../lib/api/source.js';
import { Deferred } from '../../lib/base/deferred.js';
import type {
  ChannelDescriptor,
  SlotDeployment,
} from '../../lib/gateway/task-deployment-descriptor.js';
import type { JobGraph } from '../../lib/graph/job-graph.js';
import type { OperatorEvent } from '../../lib/operators/stream-operator.js';
import type { SlotReportMessage } from '../../lib/task/slot-api.js';
import { BlobCache } from '../../lib/taskmanager/blob-cache.js';
import type { RunningSlot, SlotEvents, SlotRunner } from '../../lib/taskmanager/slot-runner.js';
import type { TeardownHost } from './etcd.js';

const allocationId = 'allocation' as AllocationId;

export interface TestJob {
  readonly directory: string;
  readonly jobGraph: JobGraph;
  readonly bundlePath: string;
  readonly deployment: SlotDeployment;
}

export async function prepareTestJob(
  t: TeardownHost,
  env: Env,
  source: string,
  settings: Readonly<Record<string, string>> = {},
): Promise<TestJob> {
  const directory = await mkdtemp(join(tmpdir(), 'millrace-slot-'));
  t.teardown(() => rm(directory, { recursive: true, force: true }));
  const file = join(directory, 'job.ts');
  await writeFile(file, source);
  const { jobGraph, bundle } = await prepareJob(file, {
    random: env.random,
    clock: env.clock,
    typeCheck: false,
    settings,
  });
  if (jobGraph.bundle === undefined) throw new Error('the job has no bundle');
  const cache = new BlobCache(env, { directory });
  const { path } = await cache.acquire(jobGraph.bundle.digest, async () => ({
    bytes: bundle,
    end: true,
  }));
  const checkpointDirectory = join(directory, 'checkpoints');
  await mkdir(checkpointDirectory);
  return {
    directory,
    jobGraph,
    bundlePath: path,
    deployment: oneSlotDeployment(jobGraph, checkpointDirectory),
  };
}

/** Every vertex at parallelism 1 in one slot. */
function oneSlotDeployment(jobGraph: JobGraph, checkpointDirectory: string): SlotDeployment {
  const attemptOf = (vertex: string): AttemptId => `${vertex}_0_0_test` as AttemptId;
  const channel = (edgeId: string, vertex: string): ChannelDescriptor => ({
    channelId: edgeId,
    peer: {
      taskManagerId: 'tm' as TaskManagerId,
      dataAddress: 'localhost:1',
      allocationId,
      attemptId: attemptOf(vertex),
      subtaskIndex: 0,
    },
  });
  return {
    jobId: jobGraph.jobId,
    allocationId,
    generation: 0,
    jobGraph,
    checkpointDirectory,
    epochLabel: 'e1.1',
    tasks: jobGraph.vertices.map((vertex) => ({
      attemptId: attemptOf(vertex.id),
      vertex,
      subtaskIndex: 0,
      attemptNumber: 0,
      generation: 0,
      outputs: jobGraph.edges
        .filter(({ source }) => source === vertex.id)
        .map((edge) => ({
          edge,
          targetParallelism: 1,
          targetMaxParallelism: vertex.maxParallelism,
          channels: [channel(edge.id, edge.target)],
        })),
      inputs: jobGraph.edges
        .filter(({ target }) => target === vertex.id)
        .map((edge) => ({ edge, channels: [channel(edge.id, edge.source)] })),
    })),
  };
}

/** Runs the slot and plays the leader: splits, final checkpoint. */
export class SlotHost implements SlotEvents {
  readonly reports: SlotReportMessage[] = [];
  readonly ended = new Deferred<Failure | undefined>();
  readonly #job: TestJob;
  readonly #enumerators = new Map<OperatorId, SplitEnumerator<unknown, unknown>>();
  readonly #waiting = new Set<{ condition: () => boolean; done: Deferred<void> }>();
  slot: RunningSlot | undefined;
  #tickets = 0;
  #acks = 0;

  constructor(job: TestJob) {
    this.#job = job;
  }

  async start(env: Env, runner: SlotRunner): Promise<void> {
    const { jobGraph, bundlePath, deployment } = this.#job;
    // The enumerators run here: main is run again in this thread, from a file of its own.
    const path = bundlePath.replace(/[^/]*$/, `${env.random.hex(8)}.mjs`);
    await copyFile(bundlePath, path);
    const functions = await rebuildFunctions({
      bundlePath: path,
      jobGraph,
      timeoutMs: 10_000,
      env,
    });
    for (const { operators } of jobGraph.vertices) {
      for (const { id, boundedness } of operators) {
        if (boundedness === undefined) continue;
        const enumerator = this.#createEnumerator(id, functions.source(id));
        this.#enumerators.set(id, enumerator);
        await enumerator.start();
      }
    }
    this.slot = runner.start({ deployment, slotIndex: 0, bundlePath }, this);
  }

  onReport(report: SlotReportMessage): void {
    this.reports.push(report);
    if (report.kind === 'operatorEvent') this.#onOperatorEvent(report.operatorId, report.event);
    else if (report.kind === 'endOfData') this.#onEndOfData();
    else if (report.kind === 'checkpointAck') this.#onAck();
    this.#check();
  }

  onEnded(failure: Failure | undefined): void {
    this.ended.resolve(failure);
    this.#check();
  }

  /** Resolves when `condition` holds, checked after every report. */
  until(condition: () => boolean): Promise<void> {
    const done = new Deferred<void>();
    this.#waiting.add({ condition, done });
    this.#check();
    return done.promise;
  }

  states(): string[] {
    return this.reports.flatMap((report) => (report.kind === 'taskState' ? report.state : []));
  }

  failures(): Failure[] {
    return this.reports.flatMap((report) =>
      report.kind === 'taskState' && report.failure !== undefined ? report.failure : [],
    );
  }

  #check(): void {
    for (const waiting of this.#waiting) {
      if (!waiting.condition()) continue;
      this.#waiting.delete(waiting);
      waiting.done.resolve();
    }
  }

  get #attempts(): AttemptId[] {
    return this.#job.deployment.tasks.map(({ attemptId }) => attemptId);
  }

  #createEnumerator(
    operatorId: OperatorId,
    source: Source<unknown, unknown, unknown>,
  ): SplitEnumerator<unknown, unknown> {
    return source.createEnumerator({
      parallelism: 1,
      registeredReaders: () => [0],
      assignSplits: (_, splits) => {
        this.#sendEvent(operatorId, { kind: 'addSplits', splits });
      },
      signalNoMoreSplits: () => {
        this.#sendEvent(operatorId, { kind: 'noMoreSplits' });
      },
      callAsync: (fn) => void fn(),
    });
  }

  #sendEvent(operatorId: OperatorId, event: OperatorEvent): void {
    const { tasks } = this.#job.deployment;
    const task = tasks.find(({ vertex }) => vertex.operators.some(({ id }) => id === operatorId));
    if (task === undefined) throw new Error('no task has the operator');
    const { attemptId } = task;
    this.#tickets += 1;
    this.slot?.send({ kind: 'operatorEvent', ticket: this.#tickets, attemptId, operatorId, event });
  }

  #onOperatorEvent(operatorId: OperatorId, event: OperatorEvent): void {
    const enumerator = this.#enumerators.get(operatorId);
    if (event.kind === 'readerRegistered') enumerator?.addReader(0);
    else if (event.kind === 'requestSplit') enumerator?.handleSplitRequest(0);
  }

  /** All input is processed: the final checkpoint, from the sources on. */
  #onEndOfData(): void {
    const { jobGraph, deployment } = this.#job;
    const ended = this.reports.filter(({ kind }) => kind === 'endOfData').length;
    if (ended < deployment.tasks.length) return;
    const targets = new Set(jobGraph.edges.map(({ target }) => target));
    const attemptIds = deployment.tasks
      .filter(({ vertex }) => !targets.has(vertex.id))
      .map(({ attemptId }) => attemptId);
    this.slot?.send({ kind: 'triggerCheckpoint', attemptIds, checkpointId: 1, timestamp: 0 });
  }

  #onAck(): void {
    this.#acks += 1;
    if (this.#acks < this.#job.deployment.tasks.length) return;
    this.slot?.send({ kind: 'checkpointComplete', attemptIds: this.#attempts, checkpointId: 1 });
  }
}
