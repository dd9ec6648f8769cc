/**
 * The JobMaster: runs one job under one leadership. It drives the execution graph and the slot pool, is
 * the gateway of the checkpoint coordinator, and hosts the source coordinators.
 *
 * Everything that changes its state runs in its mailbox, and waits there while the leader is suspended
 * (`mayAct` is asked before every batch of effects). It writes no result: the Dispatcher does, when told.
 */
import type { CheckpointCoordinator } from '../../../checkpoint/coordinator/checkpoint-coordinator.js';
import { formatEpoch, type CheckpointIdCounter } from '../../../ha/services.js';
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
import { shareSlots, type SharedSlot } from '../executiongraph/slot-sharing.js';
import type { SlotOwner } from '../resourcemanager/resource-manager.js';
import { ActingMailbox } from './acting-mailbox.js';
import { slotDeployment } from './deployment.js';
import { createCheckpointCoordinator } from './job-checkpointing.js';
import { JobHistory } from './job-history.js';
import type {
  JobEnd,
  JobMasterDeps,
  JobMasterOptions,
  JobRecovered,
} from './job-master-options.js';
import { JobRecovery } from './job-recovery.js';
import { JobSlots } from './job-slots.js';
import { JobStart } from './job-start.js';
import type { TaskReport } from './job-takeover.js';
import { jobDetails, jobSummary, type JobViewSource } from './job-views.js';
import { SlotCommands } from './slot-commands.js';
import { SourceCoordinators } from './source-coordinators.js';

export class JobMaster implements Closeable, SlotOwner {
  readonly graph: JobGraph;
  readonly #env: Env;
  readonly #deps: JobMasterDeps;
  readonly #options: JobMasterOptions;
  readonly #registry: CloseableRegistry;
  readonly #mailbox: ActingMailbox;
  readonly #closing = new AbortController();
  readonly #history: JobHistory;
  readonly #execution: ExecutionGraph;
  readonly #slotPool: JobSlots;
  readonly #sources: SourceCoordinators;
  readonly #commands: SlotCommands;
  readonly #checkpointIds: CheckpointIdCounter;
  readonly #recovery: JobRecovery;
  readonly #start: JobStart;
  readonly #metrics = new Map<AttemptId, TaskMetrics>();
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
    const mayAct = (): boolean => deps.leadership.mayAct();
    this.#mailbox = new ActingMailbox(this.#env, {
      mayAct,
      onBroken: (error) => {
        this.#onBroken(error);
      },
    });
    const past = { jobId: graph.jobId, ...options };
    this.#history = new JobHistory(this.#env, { store: deps.leadership.history, mayAct }, past);
    this.#topology = new ExecutionTopology(graph);
    const slots = shareSlots(this.#topology);
    this.#checkpointIds = deps.leadership.checkpointIds(graph.jobId);
    this.#execution = this.#createExecution(slots);
    this.#sources = this.#createSources();
    const inputs = {
      jobId: graph.jobId,
      resources: deps.resources,
      run: (task: () => void): void => {
        this.#do(task);
      },
      apply: (input: ExecutionGraphInput): void => {
        this.#apply(input);
      },
    };
    this.#slotPool = new JobSlots(this.#env, {
      ...inputs,
      owner: this,
      requestTimeoutMs: options.slotRequestTimeoutMs,
    });
    this.#commands = new SlotCommands(this.#env, {
      ...inputs,
      leadership: deps.leadership,
      execution: this.#execution,
      signal: this.#closing.signal,
      deploymentOf: (slotKey, location) => this.#deploymentOf(slotKey, location),
    });
    this.#recovery = this.#createRecovery();
    this.#start = new JobStart(this.#env, {
      ...inputs,
      owner: this,
      execution: this.#execution,
      topology: this.#topology,
      slots,
      history: this.#history.exceptions,
      slotPool: this.#slotPool,
      commands: this.#commands,
      sources: this.#sources,
      recovery: this.#recovery,
      ids: this.#checkpointIds,
      registry: this.#registry,
      record: options.lastExecution,
      epochLabel: options.epochLabel,
      openCheckpoints: () => this.#openCheckpoints(),
      isOver: (error) => this.#isOver(error),
      step: (input) => {
        this.#step(input);
      },
      onReport: this.#onReport.bind(this),
      onSettled: (how) => deps.onSettled?.(how),
    });
  }

  #createExecution(slots: readonly SharedSlot[]): ExecutionGraph {
    const { config } = this.graph;
    const { lastExecution } = this.#options;
    const { random } = this.#env;
    return new ExecutionGraph(
      {
        topology: this.#topology,
        slots,
        failover: new FailoverStrategy(this.#topology, slots),
        restartStrategy: createRestartStrategy(config.restartStrategy, random),
        history: this.#history.exceptions,
        newAttemptId: ({ subtask }, generation) =>
          newAttemptId(random, subtask.vertex.id, subtask.subtaskIndex, generation),
        firstGeneration: (lastExecution?.generation ?? -1) + 1,
        isRecovered: lastExecution !== undefined,
      },
      this.#instant(),
    );
  }

  #createSources(): SourceCoordinators {
    return new SourceCoordinators(this.#env, this.graph, {
      hosts: this.#deps.coordinatorHosts,
      sendEvent: (attemptId, operatorId, event) =>
        this.#sendOperatorEvent(attemptId, operatorId, event),
      onSendFailed: (attemptId, error) => {
        this.#onEventNotTaken(attemptId, error);
      },
      onFailed: (failure) => {
        this.#apply({ kind: 'failedGlobally', failure });
      },
      onAdoptionFailed: (failure) => {
        this.#env.log.warn(
          { event: 'job.adoption-refused', reason: failure.message },
          'the job is restored, as its sources cannot go on',
        );
        this.#apply({ kind: 'adoptionFailed', failure });
      },
    });
  }

  #createRecovery(): JobRecovery {
    const { leadership, storage } = this.#deps;
    return new JobRecovery(
      this.#env,
      this.graph,
      {
        leadership,
        storage,
        sources: this.#sources,
        execution: this.#execution,
        checkpoints: () => {
          if (this.#checkpoints !== undefined) return this.#checkpoints;
          throw new MillraceError('CLOSED', 'the job has not been started');
        },
        onSourcesFailed: (error) => {
          if (this.#isOver(error)) return;
          this.#apply({ kind: 'failedGlobally', failure: toFailure(error) });
        },
      },
      {
        hasRun: this.#options.lastExecution !== undefined,
        smallStateThresholdBytes: this.#options.smallStateThresholdBytes,
        signal: this.#closing.signal,
      },
    );
  }

  // ---- Lifetime --------------------------------------------------------------------------------

  /** Reads the checkpoint to start from, then schedules; or goes on with tasks that run since an earlier leader. */
  start(): void {
    this.#history.start();
    this.#start.begin();
  }

  /** This leadership is over: nothing is cancelled, nothing deleted. */
  async close(): Promise<void> {
    if (!this.#closing.signal.aborted) {
      this.#closing.abort();
      this.#execution.step({ kind: 'suspended' }, this.#instant());
      this.#mailbox.stop();
      this.#slotPool.stop();
      this.#start.close();
      this.#cancelRestartTimer?.();
    }
    this.#history.close();
    await this.#sources.close();
    await this.#checkpoints?.close();
    await this.#mailbox.close();
    await this.#registry.close();
  }

  /** For the graph with the numbers of key groups of the checkpoint, once it was read. */
  #openCheckpoints(): CheckpointCoordinator {
    this.#topology = new ExecutionTopology(this.#recovery.graph);
    this.#checkpoints = this.#createCheckpointCoordinator();
    return this.#checkpoints;
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
        ids: this.#checkpointIds,
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

  /** How it came up; undefined until that is known. */
  get recovered(): JobRecovered | undefined {
    return this.#start.recovered;
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
    return Math.max(0, this.#execution.generation - this.#start.firstGeneration);
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
    if (status === 'INITIALIZING')
      return this.#start.isTakingOver
        ? 'finds out which of its tasks run'
        : 'reads the checkpoint to start from';
    if (status === 'RECONCILING') return 'adopts its running tasks';
    if (status === 'FAILED' || status === 'FAILING') return failure?.message;
    const shortage = this.#deps.resources.shortage(this.graph.jobId);
    if (pending?.phase === 'allocating') return shortage ?? 'waits for its slots';
    if (status !== 'RESTARTING') return undefined;
    const waitMs = Math.round((pending?.restartAt ?? 0) - this.#env.clock.now());
    const when = waitMs > 0 ? `restarts in ${String(waitMs)} ms` : 'restarts';
    return failure === undefined ? when : `${when} after: ${failure.message}`;
  }

  // ---- Told by TaskManagers --------------------------------------------------------------------

  onTaskState(update: TaskStateUpdate): void {
    const { attemptId, metrics } = update;
    if (metrics !== undefined) this.onTaskMetrics(metrics);
    this.#report({ kind: 'taskState', attemptId, update });
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
    this.#report({ kind: 'endOfData', attemptId });
  }

  onOperatorEvent(attemptId: AttemptId, operatorId: OperatorId, event: OperatorEvent): void {
    this.#report({ kind: 'operatorEvent', attemptId, operatorId, event });
  }

  #report(report: TaskReport): void {
    if (!this.#start.keep(report)) this.#onReport(report);
  }

  #onReport(report: TaskReport): void {
    const { attemptId } = report;
    this.#do(() => {
      switch (report.kind) {
        case 'taskState': {
          const { state, failure } = report.update;
          const change = { kind: 'taskStateChanged', attemptId, state } as const;
          return this.#step(failure === undefined ? change : { ...change, failure });
        }
        case 'endOfData':
          this.#step({ kind: 'endOfDataReported', attemptId });
          this.#checkpoints?.endOfData(attemptId);
          return;
        case 'operatorEvent': {
          const vertex = this.#execution.vertexOf(attemptId);
          if (vertex?.current === undefined || isExecutionTerminal(vertex.current.state)) return;
          const { operatorId, event } = report;
          const { subtaskIndex } = vertex.subtask;
          this.#sources.onReaderEvent(operatorId, subtaskIndex, attemptId, event);
        }
      }
    });
  }

  /** The leader may act again after this time, ms, in which it could not. */
  onResumed(suspendedMs: number): void {
    this.#checkpoints?.onResumed(suspendedMs);
  }

  onTaskMetrics(metrics: TaskMetrics): void {
    if (this.#execution.vertexOf(metrics.attemptId) !== undefined)
      this.#metrics.set(metrics.attemptId, metrics);
  }

  // ---- Told by the ResourceManager -------------------------------------------------------------

  onSlotAllocated(location: SlotLocation, sequence: number): void {
    this.#do(() => {
      this.#slotPool.step({ kind: 'slotOffered', location, sequence });
    });
  }

  onSlotsLost(allocationIds: readonly AllocationId[], failure: Failure): void {
    this.#do(() => {
      this.#slotPool.step({ kind: 'slotsLost', allocationIds });
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
    this.#mailbox.post(task);
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
        return this.#slotPool.step({
          kind: 'slotsRequired',
          round: effect.round,
          slotKeys: effect.slotKeys,
        });
      case 'prepareDeployment':
        return this.#registry.run('prepare a deployment', this.#prepare(effect));
      case 'deploySlots':
        for (const slotKey of effect.slotKeys)
          this.#registry.run('deploy a slot', this.#commands.deploy(slotKey));
        return;
      case 'cancelSlot':
        return this.#registry.run(
          'cancel a slot',
          this.#commands.cancel(effect.slotKey, effect.allocationId),
        );
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
        this.#start.allRunning();
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
    this.#start.close();
    this.#deps.resources.discardHeld(this.graph.jobId, `the job is ${status}`);
    this.#slotPool.step({ kind: 'jobEnded', cause: `the job is ${status}` });
    this.#start.settle('failed');
    void this.#sources.close();
    this.#deps.onEnded({ status, isRecoveryFailure, ...(failure !== undefined && { failure }) });
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

  #deploymentOf(slotKey: string, location: SlotLocation): SlotDeployment {
    const { slot } = this.#execution.slot(slotKey);
    return slotDeployment(
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
        this.#commands.sendOperatorEvent(attemptId, operatorId, event).then(resolve, reject);
      });
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
