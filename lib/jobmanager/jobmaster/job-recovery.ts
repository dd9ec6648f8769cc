/**
 * What a (re)start of tasks needs before it: the checkpoint they restore, the state assigned to each,
 * enumerators that fit it, and the attempts recorded in HA.
 */
import type { CheckpointCoordinator } from '../../../checkpoint/coordinator/checkpoint-coordinator.js';
import type { CheckpointStorage } from '../../../checkpoint/storage/checkpoint-storage.js';
import type { CompletedCheckpoint } from '../../../checkpoint/types.js';
import type { CheckpointIdCounter, ExecutionRecord, Leadership } from '../../../ha/services.js';
import { sleep } from '../../base/clock.js';
import type { Env } from '../../base/env.js';
import { hasCode, MillraceError } from '../../base/errors.js';
import type { OperatorId } from '../../base/ids.js';
import type { JobGraph } from '../../graph/job-graph.js';
import { assignState, type AssignedState } from '../../state/state-assignment.js';
import type { TaskRestore } from '../../state/state-handle.js';
import type { ExecutionGraph } from '../executiongraph/execution-graph.machine.js';
import type { ExecutionVertex } from '../executiongraph/execution-vertex.js';
import { withMaxParallelism } from './deployment.js';
import type { SourceCoordinators } from './source-coordinators.js';

export interface JobRecoveryDeps {
  readonly leadership: Leadership;
  readonly storage: CheckpointStorage;
  readonly sources: SourceCoordinators;
  readonly execution: ExecutionGraph;
  readonly checkpoints: () => CheckpointCoordinator;
  /** Enumerators did not start, when tasks may run already. */
  onSourcesFailed(error: unknown): void;
}

/** What a job of an earlier leader, or a new one, begins from. */
export interface StartingPoint {
  /** Undefined: from nothing. */
  readonly checkpoint: CompletedCheckpoint | undefined;
  /** The checkpoint is one of this job, not one somebody named. */
  readonly isOwn: boolean;
}

/** Between tries of what only needs etcd or the storage to come back. */
const retryDelayMs = 500;
/**
 * Tries to read the checkpoint a new job is to start from. A job that has run, or whose pointers only etcd has,
 * is tried for as long as this leader leads: an outage must not end it.
 */
const firstReadTriesMax = 20;

export class JobRecovery {
  readonly #env: Env;
  readonly #deps: JobRecoveryDeps;
  readonly #smallStateThresholdBytes: number;
  readonly #signal: AbortSignal;
  #graph: JobGraph;
  /** Counts calls of `prepare`: an older one that comes back late must not touch what a newer one set up. */
  #turn = 0;
  /** The job has attempts on record: damage to its checkpoints is then damage to its progress. */
  #hasRun: boolean;
  #assigned: AssignedState | undefined;

  constructor(
    env: Env,
    graph: JobGraph,
    deps: JobRecoveryDeps,
    options: {
      readonly hasRun: boolean;
      readonly smallStateThresholdBytes: number;
      readonly signal: AbortSignal;
    },
  ) {
    this.#env = env;
    this.#graph = graph;
    this.#deps = deps;
    this.#hasRun = options.hasRun;
    this.#smallStateThresholdBytes = options.smallStateThresholdBytes;
    this.#signal = options.signal;
  }

  /** With the number of key groups of the restored checkpoint. */
  get graph(): JobGraph {
    return this.#graph;
  }

  restoreOf({ subtask }: ExecutionVertex): TaskRestore | undefined {
    return this.#assigned?.tasks.get(subtask.vertex.id)?.[subtask.subtaskIndex];
  }

  /** Before the first scheduling: tries again while storage or etcd are away; what is missing or damaged is final. */
  async initialize(): Promise<StartingPoint> {
    for (let tries = 1; ; tries++) {
      try {
        return await this.#restore();
      } catch (error) {
        const mayPass = error instanceof MillraceError && error.retry !== 'never';
        const isBounded = !this.#hasRun && !hasCode(error, 'ETCD_UNAVAILABLE');
        if (!mayPass || this.#signal.aborted || (isBounded && tries >= firstReadTriesMax))
          throw error;
        this.#env.log.warn(
          { event: 'checkpoint.not-readable', err: error, attempt: tries },
          'checkpoint to start from not readable yet',
        );
        await sleep(this.#env.clock, retryDelayMs, this.#signal);
      }
    }
  }

  /**
   * The highest id that earlier leaders may have given to checkpoints; those that follow are above. Undefined when the
   * leadership or the job is over.
   */
  async takeAbortBound(ids: CheckpointIdCounter): Promise<number | undefined> {
    return this.#untilThere('read the id up to which checkpoints are aborted', () =>
      ids.highestGiven(),
    );
  }

  /** Its tasks run: nothing but the splits to come waits until it can be read. */
  async adoptedEnumeratorStates(
    checkpoint: CompletedCheckpoint | undefined,
  ): Promise<ReadonlyMap<OperatorId, Uint8Array>> {
    const states = await this.#untilThere('read the state of split enumerators', () =>
      this.enumeratorStates(checkpoint),
    );
    return states ?? new Map<OperatorId, Uint8Array>();
  }

  /** Tries again for as long as that may help. */
  async #untilThere<T>(what: string, work: () => Promise<T>): Promise<T | undefined> {
    while (!this.#signal.aborted) {
      try {
        return await work();
      } catch (error) {
        if (this.#signal.aborted || hasCode(error, 'LEADERSHIP_LOST')) return undefined;
        if (!(error instanceof MillraceError) || error.retry === 'never') throw error;
        this.#env.log.warn({ err: error }, `could not ${what} yet`);
        await sleep(this.#env.clock, retryDelayMs, this.#signal);
      }
    }
    return undefined;
  }

  /** All of it done, the tasks of `slotKeys` may be deployed. */
  async prepare(slotKeys: readonly string[], isFull: boolean): Promise<void> {
    await Promise.all([this.#prepareState(slotKeys, isFull), this.#recordAttempts()]);
    this.#hasRun = true;
  }

  async #prepareState(slotKeys: readonly string[], isFull: boolean): Promise<void> {
    const turn = (this.#turn += 1);
    const { checkpoint } = await this.#restore();
    this.#checkTurn(turn);
    if (checkpoint !== undefined) this.#deps.checkpoints().reportRestored(checkpoint);
    if (isFull) {
      const states = await this.enumeratorStates(checkpoint);
      this.#checkTurn(turn);
      await this.#resetSources(states);
    } else this.#resetSubtasks(slotKeys, checkpoint);
  }

  /**
   * Awaited for a new job only: one that cannot list its input has nothing to run. Tasks that start again have splits
   * in their state, and need not wait for a thread that only hands out further ones.
   */
  async #resetSources(states: ReadonlyMap<OperatorId, Uint8Array>): Promise<void> {
    const started = this.#deps.sources.reset(states);
    if (!this.#hasRun) {
      await started;
      return;
    }
    started.catch((error: unknown) => {
      if (hasCode(error, 'ABORTED') || hasCode(error, 'CLOSED')) return;
      this.#deps.onSourcesFailed(recoveryFailure(this.#graph, error));
    });
  }

  #checkTurn(turn: number): void {
    if (turn !== this.#turn) throw new MillraceError('ABORTED', 'a newer restart takes its place');
  }

  async #restore(): Promise<StartingPoint> {
    try {
      const checkpoints = this.#deps.checkpoints();
      const path = this.#graph.restore?.path;
      const own = await checkpoints.restoreLatest();
      const checkpoint =
        own ?? (path === undefined ? undefined : await checkpoints.restoreFrom(path));
      if (checkpoint !== undefined) this.#assign(checkpoint);
      return { checkpoint, isOwn: own !== undefined };
    } catch (error) {
      throw this.#hasRun ? recoveryFailure(this.#graph, error) : error;
    }
  }

  #assign({ metadata, baseDirectory }: CompletedCheckpoint): void {
    const allowNonRestoredState = this.#graph.restore?.allowNonRestoredState ?? false;
    const assigned = assignState(metadata, this.#graph.vertices, {
      allowNonRestoredState,
      baseDirectory,
    });
    if (assigned.dropped.length > 0) {
      this.#env.log.warn(
        { dropped: assigned.dropped },
        'state of operators the job does not have is dropped',
      );
    }
    this.#graph = withMaxParallelism(this.#graph, assigned.maxParallelism);
    this.#assigned = assigned;
  }

  /** What the enumerators of this checkpoint saved. */
  async enumeratorStates(
    checkpoint: CompletedCheckpoint | undefined,
  ): Promise<Map<OperatorId, Uint8Array>> {
    const states = new Map<OperatorId, Uint8Array>();
    if (checkpoint === undefined) return states;
    const snapshots = this.#deps.storage.snapshotStorage(this.#smallStateThresholdBytes);
    for (const [operatorId, handle] of this.#assigned?.coordinators ?? []) {
      states.set(operatorId, await snapshots.read(handle, checkpoint.baseDirectory));
    }
    return states;
  }

  #resetSubtasks(slotKeys: readonly string[], checkpoint: CompletedCheckpoint | undefined): void {
    const keys = new Set(slotKeys);
    for (const { slotKey, subtask } of this.#deps.execution.vertices) {
      if (!keys.has(slotKey)) continue;
      this.#deps.sources.resetSubtask(
        subtask.vertex.id,
        subtask.subtaskIndex,
        checkpoint?.pointer.checkpointId,
      );
    }
  }

  async #recordAttempts(): Promise<void> {
    const { leadership, execution } = this.#deps;
    for (;;) {
      const attempts: Record<string, ExecutionRecord['attempts'][string]> = {};
      for (const { current } of execution.vertices) {
        if (current?.location === undefined) continue;
        const { taskManagerId, allocationId } = current.location;
        const { attemptNumber } = current;
        attempts[current.attemptId] = { taskManagerId, allocationId, attemptNumber };
      }
      const { generation } = execution;
      try {
        await leadership.jobs.putExecution(this.#graph.jobId, { generation, attempts });
        return;
      } catch (error) {
        // etcd is away or full: the job waits for it rather than fail over, which its restart strategy may not allow.
        const mayPass = hasCode(error, 'ETCD_UNAVAILABLE') || hasCode(error, 'ETCD_NO_SPACE');
        if (!mayPass || this.#signal.aborted) throw error;
        await sleep(this.#env.clock, retryDelayMs, this.#signal);
      }
    }
  }
}

/** Damage says nothing about the job, and somebody can repair it: its data is kept. */
function recoveryFailure(graph: JobGraph, error: unknown): unknown {
  if (!(error instanceof MillraceError)) return error;
  const isDamage =
    error.code === 'BLOB_CORRUPT' ||
    (error.retry === 'never' && error.code.startsWith('CHECKPOINT_'));
  if (!isDamage) return error;
  const message = `job ${graph.jobId} cannot be recovered: ${error.message}. Its data is kept; other jobs go on`;
  return new MillraceError('RECOVERY_FAILED', message, { cause: error, details: error.details });
}
