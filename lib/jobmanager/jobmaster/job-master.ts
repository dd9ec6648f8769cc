/**
 * The JobMaster: runs one job under one leadership. It drives the execution graph and the slot pool, is
 * the gateway of the checkpoint coordinator, and hosts the source coordinators.
 *
 * Everything that changes its state runs in its mailbox, and waits there while the leader is suspended
 * (`mayAct` is asked before every batch of effects). It writes no result: the Dispatcher does, when told.
 */
import type { CheckpointCoordinator } from '../../../checkpoint/coordinator/checkpoint-coordinator.js';
import type { CheckpointStorage } from '../../../checkpoint/storage/checkpoint-storage.js';
import { formatEpoch, type ExecutionRecord, type Leadership } from '../../../ha/services.js';
import type { CancelTimer } from '../../base/clock.js';
import { childEnv, type Env } from '../../base/env.js';
import { hasCode, MillraceError, toFailure, type Failure } from '../../base/errors.js';
import {
  newAttemptId,
  type AllocationId,
  type AttemptId,
  type OperatorId,
} from '../../base/ids.js';
import { CloseableRegistry, type Closeable } from '../../base/lifecycle.js';
import { Mailbox } from '../../base/mailbox.js';
import type {
  CheckpointStatistics,
  CheckpointSummary,
  JobDetails,
  JobExceptions,
  JobSummary,
} from '../../gateway/client-gateway.js';
import { isGloballyTerminal, type JobStatus } from '../../gateway/job-status.js';
import type { SlotDeployment } from '../../gateway/task-deployment-descriptor.js';
import type {
  CheckpointAck,
  TaskManagerGateway,
  TaskMetrics,
  TaskStateUpdate,
} from '../../gateway/taskmanager-gateway.js';
import type { JobGraph } from '../../graph/job-graph.js';
import type { OperatorEvent } from '../../operators/stream-operator.js';
import {
  ExecutionGraph,
  type ExecutionGraphEffect,
  type ExecutionGraphInput,
} from '../executiongraph/execution-graph.machine.js';
import { ExecutionTopology } from '../executiongraph/execution-topology.js';
import type { ExecutionVertex } from '../executiongraph/execution-vertex.js';
import { isExecutionTerminal, type SlotLocation } from '../executiongraph/execution.js';
import { FailoverStrategy } from '../executiongraph/failover-strategy.js';
import { createRestartStrategy } from '../executiongraph/restart-strategy.js';
import { shareSlots } from '../executiongraph/slot-sharing.js';
import type { ResourceManager, SlotOwner } from '../resourcemanager/resource-manager.js';
import type { CoordinatorHostFactory } from './coordinator-host.js';
import { slotDeployment } from './deployment.js';
import { createCheckpointCoordinator } from './job-checkpointing.js';
import { JobHistory } from './job-history.js';
import { JobRecovery } from './job-recovery.js';
import { jobDetails, jobSummary, type JobViewSource } from './job-views.js';
import { SlotPool, type SlotPoolEffect, type SlotPoolInput } from './slot-pool.machine.js';
import { SourceCoordinators } from './source-coordinators.js';

/** How a job ended under this JobMaster. */
export interface JobEnd {
  readonly status: 'FAILED' | 'CANCELED' | 'FINISHED';
  readonly failure?: Failure;
  /**
   * It could not be recovered, which says nothing about the job: no result is written, what HA and
   * storage hold of it is kept.
   */
  readonly isRecoveryFailure: boolean;
}

export interface JobMasterDeps {
  readonly leadership: Leadership;
  readonly resources: ResourceManager;
  /** Of this job, under this leadership. */
  readonly storage: CheckpointStorage;
  readonly coordinatorHosts: CoordinatorHostFactory;
  onEnded(end: JobEnd): void;
}

export interface JobMasterOptions {
  readonly submittedAt: number;
  /** The last recorded attempts: it has run before. */
  readonly lastExecution: ExecutionRecord | undefined;
  /** Statistics and exceptions under earlier leaders, as JobHistoryStore keeps them. */
  readonly pastHistory: string | undefined;
  readonly checkpointDirectory: string;
  readonly epochLabel: string;
  readonly slotRequestTimeoutMs: number;
  readonly smallStateThresholdBytes: number;
  readonly exceptionHistorySize: number;
  readonly checkpointHistorySize: number;
}

export class JobMaster implements Closeable, SlotOwner {
  readonly graph: JobGraph;
  readonly #env: Env;
  readonly #deps: JobMasterDeps;
  readonly #options: JobMasterOptions;
  readonly #registry: CloseableRegistry;
  readonly #mailbox = new Mailbox();
  readonly #closing = new AbortController();
  readonly #history: JobHistory;
  readonly #execution: ExecutionGraph;
  readonly #pool = new SlotPool();
  readonly #sources: SourceCoordinators;
  readonly #recovery: JobRecovery;
  readonly #metrics = new Map<AttemptId, TaskMetrics>();
  /** Tasks of the mailbox that wait until the leader may act. */
  #held: (() => void)[] = [];
  #cancelHeldPoll: CancelTimer | undefined;
  #cancelSlotTimer: CancelTimer | undefined;
  #cancelRestartTimer: CancelTimer | undefined;
  #checkpoints: CheckpointCoordinator | undefined;
  /** The graph and topology with the effective number of key groups. */
  #topology: ExecutionTopology;
  #runningSince = -1;

  constructor(env: Env, graph: JobGraph, deps: JobMasterDeps, options: JobMasterOptions) {
    this.graph = graph;
    this.#env = childEnv(env, 'job-master', { jobId: graph.jobId });
    this.#deps = deps;
    this.#options = options;
    this.#registry = new CloseableRegistry(this.#env.log);
    this.#history = new JobHistory(
      this.#env,
      { store: deps.leadership.history, mayAct: () => deps.leadership.mayAct() },
      { jobId: graph.jobId, ...options },
    );
    this.#topology = new ExecutionTopology(graph);
    const slots = shareSlots(this.#topology);
    this.#execution = new ExecutionGraph(
      {
        topology: this.#topology,
        slots,
        failover: new FailoverStrategy(this.#topology, slots),
        restartStrategy: createRestartStrategy(graph.config.restartStrategy, env.random),
        history: this.#history.exceptions,
        newAttemptId: ({ subtask }, generation) =>
          newAttemptId(env.random, subtask.vertex.id, subtask.subtaskIndex, generation),
        firstGeneration: (options.lastExecution?.generation ?? -1) + 1,
        isRecovered: options.lastExecution !== undefined,
      },
      this.#instant(),
    );
    this.#sources = new SourceCoordinators(this.#env, graph, {
      hosts: deps.coordinatorHosts,
      sendEvent: (attemptId, operatorId, event) =>
        this.#sendOperatorEvent(attemptId, operatorId, event),
      onSendFailed: (attemptId, error) => {
        this.#onEventNotTaken(attemptId, error);
      },
      onFailed: (failure) => {
        this.#apply({ kind: 'failedGlobally', failure });
      },
    });
    this.#recovery = new JobRecovery(
      this.#env,
      graph,
      {
        leadership: deps.leadership,
        storage: deps.storage,
        sources: this.#sources,
        execution: this.#execution,
        checkpoints: () => {
          if (this.#checkpoints !== undefined) return this.#checkpoints;
          throw new MillraceError('CLOSED', 'the job has not been started');
        },
      },
      {
        hasRun: options.lastExecution !== undefined,
        smallStateThresholdBytes: options.smallStateThresholdBytes,
        signal: this.#closing.signal,
      },
    );
  }

  // ---- Lifetime --------------------------------------------------------------------------------

  /** Reads the checkpoint to start from, then schedules. */
  start(): void {
    // Slots and the coordinator's thread come while the checkpoint is read.
    this.#sources.warmUp();
    this.#history.start();
    this.#deps.resources.declareRequirements(this.graph.jobId, this.#execution.slotCount, this);
    this.#registry.run('start the job', this.#start());
  }

  /** This leadership is over: nothing is cancelled, nothing deleted. */
  async close(): Promise<void> {
    if (!this.#closing.signal.aborted) {
      this.#closing.abort();
      this.#execution.step({ kind: 'suspended' }, this.#instant());
      this.#held = [];
      for (const cancel of [this.#cancelHeldPoll, this.#cancelSlotTimer, this.#cancelRestartTimer])
        cancel?.();
    }
    this.#history.close();
    await this.#sources.close();
    await this.#checkpoints?.close();
    await this.#mailbox.close();
    await this.#registry.close();
  }

  async #start(): Promise<void> {
    // Reads the checkpoint first: its numbers of key groups are part of every later checkpoint.
    const reader = this.#createCheckpointCoordinator();
    this.#checkpoints = reader;
    try {
      await this.#recovery.initialize();
    } catch (error) {
      if (!this.#isOver(error)) {
        this.#apply({ kind: 'failedGlobally', failure: toFailure(error) });
      }
      return;
    }
    await reader.close();
    if (this.#closing.signal.aborted) return;
    this.#topology = new ExecutionTopology(this.#recovery.graph);
    this.#checkpoints = this.#createCheckpointCoordinator();
    this.#apply({ kind: 'started' });
  }

  #createCheckpointCoordinator(): CheckpointCoordinator {
    const { leadership, resources, storage } = this.#deps;
    return createCheckpointCoordinator(
      this.#env,
      {
        leadership,
        resources,
        storage,
        execution: this.#execution,
        topology: this.#topology,
        sources: this.#sources,
        failJob: (failure) => {
          this.#apply({ kind: 'failedGlobally', failure });
        },
      },
      {
        jobId: this.graph.jobId,
        jobName: this.graph.name,
        epochLabel: this.#options.epochLabel,
        config: this.graph.config.checkpointing,
        vertices: this.#topology.graph.vertices,
        statistics: this.#history.checkpoints,
      },
    );
  }

  // ---- Asked by the Dispatcher -----------------------------------------------------------------

  get status(): JobStatus {
    return this.#execution.status;
  }

  get failure(): Failure | undefined {
    return this.#execution.failure;
  }

  cancel(): void {
    this.#apply({ kind: 'cancelRequested' });
  }

  summary(): JobSummary {
    return jobSummary(this.#viewSource(), this.#env.clock.wallTime());
  }

  details(): JobDetails {
    return jobDetails(this.#viewSource(), this.#env.clock.wallTime());
  }

  exceptions(maxExceptions: number): JobExceptions {
    return this.#history.exceptions.view(maxExceptions);
  }

  checkpointStatistics(): CheckpointStatistics {
    return this.#history.checkpoints.snapshot();
  }

  checkpointDetails(checkpointId: number): CheckpointSummary | undefined {
    return this.#history.checkpoints.details(checkpointId);
  }

  /** Latest metrics of each current attempt. */
  taskMetrics(): { readonly vertex: ExecutionVertex; readonly metrics: TaskMetrics }[] {
    return this.#execution.vertices.flatMap((vertex) => {
      const metrics = vertex.current && this.#metrics.get(vertex.current.attemptId);
      return metrics === undefined ? [] : [{ vertex, metrics }];
    });
  }

  /** Wall-clock ms since which all tasks run; -1 while they do not. */
  get runningSince(): number {
    return this.#execution.areAllRunning ? this.#runningSince : -1;
  }

  /** Restarts since this JobMaster was created. */
  get restartCount(): number {
    const first = (this.#options.lastExecution?.generation ?? -1) + 1;
    return Math.max(0, this.#execution.generation - first);
  }

  #viewSource(): JobViewSource {
    return {
      graph: this.#topology.graph,
      execution: this.#execution,
      metrics: this.#metrics,
      epoch: formatEpoch(this.#deps.leadership.epoch),
      startTime: this.#options.submittedAt,
      statusReason: this.#statusReason(),
      host: ({ current }) => {
        const id = current?.location?.taskManagerId;
        return (id === undefined ? undefined : this.#deps.resources.host(id)) ?? '(unassigned)';
      },
    };
  }

  #statusReason(): string | undefined {
    const { status, pending, failure } = this.#execution;
    if (status === 'INITIALIZING') return 'reads the checkpoint to start from';
    if (status === 'FAILED' || status === 'FAILING') return failure?.message;
    const shortage = this.#deps.resources.shortage(this.graph.jobId);
    if (pending?.phase === 'allocating') return shortage ?? 'waits for its slots';
    if (status !== 'RESTARTING') return undefined;
    const waitMs = Math.round((pending?.restartAt ?? 0) - this.#env.clock.now());
    const when = waitMs > 0 ? `restarts in ${String(waitMs)} ms` : 'restarts';
    return failure === undefined ? when : `${when} after: ${failure.message}`;
  }

  // ---- Told by TaskManagers --------------------------------------------------------------------

  onTaskState({ attemptId, state, failure, metrics }: TaskStateUpdate): void {
    if (metrics !== undefined) this.onTaskMetrics(metrics);
    const change = { kind: 'taskStateChanged', attemptId, state } as const;
    this.#apply(failure === undefined ? change : { ...change, failure });
  }

  onCheckpointAck(ack: CheckpointAck): void {
    this.#checkpoints?.acknowledge(ack);
  }

  onCheckpointDecline(decline: {
    attemptId: AttemptId;
    checkpointId: number;
    failure: Failure;
  }): void {
    this.#checkpoints?.decline(decline);
  }

  onEndOfData(attemptId: AttemptId): void {
    this.#do(() => {
      this.#step({ kind: 'endOfDataReported', attemptId });
      this.#checkpoints?.endOfData(attemptId);
    });
  }

  /** The leader may act again after this time, ms, in which it could not. */
  onResumed(suspendedMs: number): void {
    this.#checkpoints?.onResumed(suspendedMs);
  }

  onOperatorEvent(attemptId: AttemptId, operatorId: OperatorId, event: OperatorEvent): void {
    this.#do(() => {
      const vertex = this.#execution.vertexOf(attemptId);
      if (vertex?.current === undefined || isExecutionTerminal(vertex.current.state)) return;
      this.#sources.onReaderEvent(operatorId, vertex.subtask.subtaskIndex, attemptId, event);
    });
  }

  onTaskMetrics(metrics: TaskMetrics): void {
    if (this.#execution.vertexOf(metrics.attemptId) !== undefined)
      this.#metrics.set(metrics.attemptId, metrics);
  }

  // ---- Told by the ResourceManager -------------------------------------------------------------

  onSlotAllocated(location: SlotLocation, sequence: number): void {
    this.#do(() => {
      this.#stepPool({ kind: 'slotOffered', location, sequence });
    });
  }

  onSlotsLost(allocationIds: readonly AllocationId[], failure: Failure): void {
    this.#do(() => {
      this.#stepPool({ kind: 'slotsLost', allocationIds });
      this.#step({ kind: 'slotsLost', allocationIds: new Set(allocationIds), failure });
    });
  }

  // ---- The mailbox -----------------------------------------------------------------------------

  #apply(input: ExecutionGraphInput): void {
    this.#do(() => {
      this.#step(input);
    });
  }

  /** Runs `task` in order, when this process may act as the leader. */
  #do(task: () => void): void {
    if (this.#closing.signal.aborted) return;
    this.#held.push(task);
    this.#mailbox
      .run(() => {
        this.#runHeld();
      })
      .catch((err: unknown) => {
        if (!hasCode(err, 'CLOSED')) this.#onBroken(err);
      });
  }

  #runHeld(): void {
    while (this.#held.length > 0 && !this.#closing.signal.aborted) {
      if (!this.#deps.leadership.mayAct()) {
        this.#cancelHeldPoll?.();
        this.#cancelHeldPoll = this.#env.clock.setTimer(100, () => {
          this.#do(() => undefined);
        });
        return;
      }
      this.#held.shift()?.();
    }
  }

  /** A broken promise of ours: this job stops being run, nothing of it is deleted. */
  #onBroken(err: unknown): void {
    this.#env.log.error({ err, event: 'job.broken' }, 'job master failed');
    this.#end('FAILED', toFailure(err), true);
  }

  #step(input: ExecutionGraphInput): void {
    for (const effect of this.#execution.step(input, this.#instant())) this.#execute(effect);
  }

  #instant(): { now: number; wall: number } {
    return { now: this.#env.clock.now(), wall: this.#env.clock.wallTime() };
  }

  #execute(effect: ExecutionGraphEffect): void {
    switch (effect.kind) {
      case 'requestSlots':
        return this.#stepPool({
          kind: 'slotsRequired',
          round: effect.round,
          slotKeys: effect.slotKeys,
        });
      case 'prepareDeployment':
        return this.#registry.run('prepare a deployment', this.#prepare(effect));
      case 'deploySlots':
        for (const slotKey of effect.slotKeys) this.#deploySlot(slotKey);
        return;
      case 'cancelSlot':
        return this.#cancelSlot(effect.slotKey, effect.allocationId);
      case 'armRestartTimer':
        this.#cancelRestartTimer?.();
        this.#cancelRestartTimer = this.#env.clock.setTimer(effect.delayMs, () => {
          this.#apply({ kind: 'restartDelayElapsed', round: effect.round });
        });
        return;
      case 'stopCheckpoints':
        this.#checkpoints?.stop('tasks of the job are being restarted or the job is ending');
        return;
      case 'startCheckpoints':
        this.#checkpoints?.start();
        return;
      case 'allTasksRunning':
        this.#runningSince = this.#env.clock.wallTime();
        this.#env.log.info(
          {
            event: 'job.running',
            generation: this.#execution.generation,
            wallTime: this.#runningSince,
          },
          'all tasks run',
        );
        return;
      case 'taskFailed':
        this.#env.log.warn(
          {
            event: 'task.failed',
            attempt: effect.attemptId,
            code: effect.failure.code,
            failure: effect.failure.message,
          },
          'task failed',
        );
        return;
      case 'taskFinished':
        this.#checkpoints?.subtaskFinished(effect.attemptId);
        return;
      case 'statusChanged':
        this.#env.log.info(
          { event: 'job.status', from: effect.from, to: effect.to },
          'job status changed',
        );
        return;
      case 'jobEnded':
        return this.#end(effect.status, effect.failure, effect.failure?.code === 'RECOVERY_FAILED');
    }
  }

  #end(status: JobEnd['status'], failure: Failure | undefined, isRecoveryFailure: boolean): void {
    this.#stepPool({ kind: 'jobEnded', cause: `the job is ${status}` });
    void this.#sources.close();
    this.#deps.onEnded({ status, isRecoveryFailure, ...(failure !== undefined && { failure }) });
  }

  // ---- Slots -----------------------------------------------------------------------------------

  #stepPool(input: SlotPoolInput): void {
    for (const effect of this.#pool.step(input)) this.#executePool(effect);
  }

  #executePool(effect: SlotPoolEffect): void {
    const { resources } = this.#deps;
    switch (effect.kind) {
      case 'declareRequirements':
        resources.declareRequirements(this.graph.jobId, effect.slots, this);
        return;
      case 'armRequestTimer':
        this.#cancelSlotTimer?.();
        this.#cancelSlotTimer = this.#env.clock.setTimer(this.#options.slotRequestTimeoutMs, () => {
          this.#do(() => {
            this.#stepPool({ kind: 'requestTimedOut', round: effect.round });
          });
        });
        return;
      case 'cancelRequestTimer':
        this.#cancelSlotTimer?.();
        return;
      case 'slotsReserved':
        return this.#apply({ kind: 'slotsAllocated', round: effect.round, slots: effect.slots });
      case 'slotsUnavailable':
        return this.#apply({
          kind: 'slotsUnavailable',
          round: effect.round,
          failure: this.#shortageFailure(),
        });
      case 'releaseSlot':
        resources.releaseSlot(effect.allocationId, effect.cause);
    }
  }

  #shortageFailure(): Failure {
    const shortage =
      this.#deps.resources.shortage(this.graph.jobId) ?? 'needs more slots than it got';
    const waited = `${String(this.#options.slotRequestTimeoutMs)} ms (slot.request.timeout)`;
    const message = `the job ${shortage}, and no more came within ${waited}: start TaskManagers, free slots, or lower the parallelism`;
    return toFailure(new MillraceError('NO_RESOURCE_AVAILABLE', message));
  }

  // ---- Deployment ------------------------------------------------------------------------------

  /** Assigns state and records the attempts; both before anything is deployed. */
  async #prepare(
    effect: Extract<ExecutionGraphEffect, { kind: 'prepareDeployment' }>,
  ): Promise<void> {
    const { round } = effect;
    try {
      await this.#recovery.prepare(effect.slotKeys, effect.isFull);
    } catch (error) {
      if (!this.#isOver(error)) {
        this.#apply({ kind: 'deploymentFailed', round, failure: toFailure(error) });
      }
      return;
    }
    for (const attemptId of this.#metrics.keys()) {
      if (this.#execution.vertexOf(attemptId) === undefined) this.#metrics.delete(attemptId);
    }
    this.#apply({ kind: 'deploymentPrepared', round });
  }

  #deploySlot(slotKey: string): void {
    const { slot, location } = this.#execution.slot(slotKey);
    if (location === undefined) return;
    const deployment = slotDeployment(
      {
        graph: this.graph,
        topology: this.#topology,
        vertices: this.#execution.vertices,
        checkpointDirectory: this.#options.checkpointDirectory,
        epochLabel: this.#options.epochLabel,
        restoreOf: (vertex) => this.#recovery.restoreOf(vertex),
      },
      location,
      slot.positions,
    );
    this.#registry.run('deploy a slot', this.#submit(slotKey, location, deployment));
  }

  async #submit(
    slotKey: string,
    location: SlotLocation,
    deployment: SlotDeployment,
  ): Promise<void> {
    const { allocationId } = location;
    try {
      await this.#gatewayOrThrow(location).submitTasks(deployment);
    } catch (error) {
      if (this.#closing.signal.aborted) return;
      // Suspended between decision and message: asked again when it may act.
      if (hasCode(error, 'LEADERSHIP_LOST')) {
        this.#do(() => {
          if (this.#execution.isDeploying(slotKey, allocationId)) this.#deploySlot(slotKey);
        });
        return;
      }
      const failure = deploymentFailure(error, location);
      this.#apply({ kind: 'deploymentRejected', slotKey, allocationId, failure });
    }
  }

  #cancelSlot(slotKey: string, allocationId: AllocationId): void {
    const { location } = this.#execution.slot(slotKey);
    if (location === undefined) return;
    const cancel = async (): Promise<void> => {
      try {
        await this.#gatewayOrThrow(location).cancelTasks({ allocationId });
      } catch (error) {
        if (this.#closing.signal.aborted) return;
        if (!this.#deps.leadership.mayAct()) {
          // Suspended between decision and message: asked again when it may act.
          this.#do(() => {
            this.#cancelSlot(slotKey, allocationId);
          });
          return;
        }
        this.#env.log.warn(
          { err: error, resourceId: location.taskManagerId, allocationId },
          'slot could not be cancelled',
        );
        this.#deps.resources.disconnect(
          location.taskManagerId,
          'the TaskManager did not cancel its tasks',
        );
        return;
      }
      this.#apply({ kind: 'slotCanceled', slotKey, allocationId });
    };
    this.#registry.run('cancel a slot', cancel());
  }

  #gatewayOrThrow(location: SlotLocation): TaskManagerGateway {
    const gateway = this.#deps.resources.gateway(location.taskManagerId);
    if (gateway !== undefined) return gateway;
    throw new MillraceError(
      'RPC_DISCONNECTED',
      `TaskManager ${location.taskManagerId} is not connected`,
    );
  }

  // ---- Sources ---------------------------------------------------------------------------------

  /** In order; what comes while the leader is suspended waits until it may act. */
  #sendOperatorEvent(
    attemptId: AttemptId,
    operatorId: OperatorId,
    event: OperatorEvent,
  ): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#do(() => {
        this.#sendNow(attemptId, operatorId, event).then(resolve, reject);
      });
    });
  }

  async #sendNow(
    attemptId: AttemptId,
    operatorId: OperatorId,
    event: OperatorEvent,
  ): Promise<void> {
    const location = this.#execution.vertexOf(attemptId)?.current?.location;
    // Of an older attempt: what it should have got is given back by its reset.
    if (location === undefined) return;
    await this.#gatewayOrThrow(location).sendOperatorEvent({
      jobId: this.graph.jobId,
      attemptId,
      operatorId,
      event,
    });
  }

  /** A reader that misses an event would miss splits: its task starts again. */
  #onEventNotTaken(attemptId: AttemptId, error: unknown): void {
    if (this.#closing.signal.aborted) return;
    const cause = toFailure(error);
    const failure = toFailure(
      new MillraceError('SLOT_LOST', `a source task did not take an event: ${cause.message}`, {
        cause: error,
      }),
    );
    this.#apply({ kind: 'taskStateChanged', attemptId, state: 'FAILED', failure });
  }

  /** The leadership or the job is over: whatever failed is no failure of the job. */
  #isOver(error: unknown): boolean {
    return (
      this.#closing.signal.aborted ||
      isGloballyTerminal(this.#execution.status) ||
      hasCode(error, 'LEADERSHIP_LOST') ||
      hasCode(error, 'STALE_EPOCH')
    );
  }
}

/** A refusal that concerns the job's own code is told as it is; all others are about the slot. */
function deploymentFailure(error: unknown, location: SlotLocation): Failure {
  const failure = toFailure(error);
  if (failure.domain === 'user') return failure;
  const message = `TaskManager ${location.taskManagerId} did not take the tasks: ${failure.message}`;
  return toFailure(new MillraceError('SLOT_LOST', message, { cause: error }));
}
