/**
 * The JobMaster: runs one job under one leadership. It drives the execution graph and the slot pool, is
 * the gateway of the checkpoint coordinator, and hosts the source coordinators.
 *
 * Everything that changes its state runs in its mailbox, and waits there while the leader is suspended
 * (`mayAct` is asked before every batch of effects). It writes no result: the Dispatcher does, when told.
 */
import type { CheckpointCoordinator } from '../../../checkpoint/coordinator/checkpoint-coordinator.js';
import type { CheckpointStorage } from '../../../checkpoint/storage/checkpoint-storage.js';
import {
  formatEpoch,
  type CheckpointIdCounter,
  type CheckpointPointer,
  type ExecutionRecord,
  type Leadership,
} from '../../../ha/services.js';
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
import { exceptionInfo } from '../executiongraph/exception-history.js';
import { ExecutionTopology } from '../executiongraph/execution-topology.js';
import type { ExecutionVertex } from '../executiongraph/execution-vertex.js';
import { isExecutionTerminal, type SlotLocation } from '../executiongraph/execution.js';
import { FailoverStrategy } from '../executiongraph/failover-strategy.js';
import { createRestartStrategy } from '../executiongraph/restart-strategy.js';
import { shareSlots, type SharedSlot } from '../executiongraph/slot-sharing.js';
import type { ResourceManager, SlotOwner } from '../resourcemanager/resource-manager.js';
import type { CoordinatorHostFactory } from './coordinator-host.js';
import { adoptedAttempts } from './adopted-attempts.js';
import { slotDeployment } from './deployment.js';
import type { AdoptionPlan } from './job-adoption.machine.js';
import { createCheckpointCoordinator } from './job-checkpointing.js';
import { JobHistory } from './job-history.js';
import { JobRecovery, type StartingPoint } from './job-recovery.js';
import { JobTakeover, type TakeoverVerdict, type TaskReport } from './job-takeover.js';
import { jobDetails, jobSummary, type JobViewSource } from './job-views.js';
import { SlotCommands, type HandOver } from './slot-commands.js';
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
  /** Once: as soon as `recovered` is known. */
  onSettled?(how: JobRecovered): void;
}

/**
 * adopted: it goes on with tasks that run since an earlier leader; restored: it has run before, and all its tasks run
 * again; new: it runs for the first time; failed: it ended before.
 */
export type JobRecovered = 'adopted' | 'restored' | 'new' | 'failed';

interface ReadCheckpoint extends StartingPoint {
  readonly pointers: readonly CheckpointPointer[];
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
  readonly #commands: SlotCommands;
  readonly #checkpointIds: CheckpointIdCounter;
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
  readonly #slots: readonly SharedSlot[];
  /** While it is found out whether running tasks go on. */
  #takeover: JobTakeover | undefined;
  #recovered: JobRecovered | undefined;
  #firstGeneration: number;
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
    this.#slots = slots;
    this.#firstGeneration = (options.lastExecution?.generation ?? -1) + 1;
    this.#checkpointIds = deps.leadership.checkpointIds(graph.jobId);
    this.#execution = new ExecutionGraph(
      {
        topology: this.#topology,
        slots,
        failover: new FailoverStrategy(this.#topology, slots),
        restartStrategy: createRestartStrategy(graph.config.restartStrategy, env.random),
        history: this.#history.exceptions,
        newAttemptId: ({ subtask }, generation) =>
          newAttemptId(env.random, subtask.vertex.id, subtask.subtaskIndex, generation),
        firstGeneration: this.#firstGeneration,
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
      onAdoptionFailed: (failure) => {
        this.#env.log.warn(
          { event: 'job.adoption-refused', reason: failure.message },
          'the job is restored, as its sources cannot go on',
        );
        this.#apply({ kind: 'adoptionFailed', failure });
      },
    });
    this.#commands = new SlotCommands(this.#env, {
      jobId: graph.jobId,
      leadership: deps.leadership,
      resources: deps.resources,
      execution: this.#execution,
      signal: this.#closing.signal,
      run: (task) => {
        this.#do(task);
      },
      apply: (input) => {
        this.#apply(input);
      },
      deploymentOf: (slotKey, location) => this.#deploymentOf(slotKey, location),
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

  /** Reads the checkpoint to start from, then schedules; or goes on with tasks that run since an earlier leader. */
  start(): void {
    const { resources } = this.#deps;
    const { jobId } = this.graph;
    const record = this.#options.lastExecution;
    this.#history.start();
    if (record === undefined || !resources.mayAdopt) {
      this.#needSlots('the job starts anew');
      this.#registry.run('start the job', this.#start(this.#readCheckpoint()));
      return;
    }
    const options = { jobId, record, topology: this.#topology, slots: this.#slots };
    const takeover = new JobTakeover(this.#env, resources, options);
    this.#takeover = takeover;
    takeover.start();
    this.#registry.run('take over the job', this.#takeOver(takeover));
  }

  /** Slots and the coordinator's thread come while the checkpoint is read. */
  #needSlots(cause: string): void {
    this.#deps.resources.discardHeld(this.graph.jobId, cause);
    this.#sources.warmUp();
    this.#deps.resources.declareRequirements(this.graph.jobId, this.#execution.slotCount, this);
  }

  /** This leadership is over: nothing is cancelled, nothing deleted. */
  async close(): Promise<void> {
    if (!this.#closing.signal.aborted) {
      this.#closing.abort();
      this.#execution.step({ kind: 'suspended' }, this.#instant());
      this.#held = [];
      void this.#takeover?.close();
      for (const cancel of [this.#cancelHeldPoll, this.#cancelSlotTimer, this.#cancelRestartTimer])
        cancel?.();
    }
    this.#history.close();
    await this.#sources.close();
    await this.#checkpoints?.close();
    await this.#mailbox.close();
    await this.#registry.close();
  }

  async #start(reading: Promise<ReadCheckpoint | undefined>): Promise<void> {
    if ((await reading) === undefined || this.#closing.signal.aborted) return;
    this.#topology = new ExecutionTopology(this.#recovery.graph);
    this.#checkpoints = this.#createCheckpointCoordinator();
    this.#apply({ kind: 'started' });
  }

  /** Comes first: its numbers of key groups are part of every later checkpoint. Undefined when the job is over. */
  async #readCheckpoint(): Promise<ReadCheckpoint | undefined> {
    const reader = this.#createCheckpointCoordinator();
    this.#checkpoints = reader;
    try {
      const point = await this.#recovery.initialize();
      return { ...point, pointers: reader.pointers };
    } catch (error) {
      if (!this.#isOver(error)) {
        this.#apply({ kind: 'failedGlobally', failure: toFailure(error) });
      }
      return undefined;
    } finally {
      await reader.close();
    }
  }

  // ---- Taking over -----------------------------------------------------------------------------

  async #takeOver(takeover: JobTakeover): Promise<void> {
    const isSettled = this.#deps.resources.beginTakeover();
    try {
      const reading = this.#readCheckpoint();
      const bound = this.#recovery.takeAbortBound(this.#checkpointIds);
      void reading.then((read) => {
        if (read !== undefined) takeover.checkpointRead(read.checkpoint?.pointer.checkpointId ?? 0);
      });
      const verdict = await takeover.verdict;
      if (verdict === undefined) return;
      if (verdict.kind === 'restore') {
        this.#do(() => {
          this.#restoreInstead(verdict, reading);
        });
        return;
      }
      const [read, abortBound] = await Promise.all([reading, bound]);
      if (read === undefined || abortBound === undefined) return;
      this.#do(() => {
        this.#adopt(takeover, verdict.plan, read, abortBound);
      });
    } finally {
      isSettled();
    }
  }

  #restoreInstead(
    { reason, failure }: Omit<Extract<TakeoverVerdict, { kind: 'restore' }>, 'kind'>,
    reading: Promise<ReadCheckpoint | undefined>,
  ): void {
    this.#takeover = undefined;
    if (this.#execution.status !== 'INITIALIZING') return;
    this.#env.log.info(
      { event: 'job.adoption-refused', reason, failure: failure?.message },
      'the job is restored, as its tasks cannot go on',
    );
    if (failure !== undefined)
      this.#history.exceptions.addRoot(exceptionInfo(failure, this.#env.clock.wallTime()));
    this.#needSlots(`the job is restored: ${reason}`);
    this.#registry.run('start the job', this.#start(reading));
  }

  /** All that must not be seen half done: from here on the job is as if this JobMaster had deployed it. */
  #adopt(
    takeover: JobTakeover,
    plan: AdoptionPlan,
    read: ReadCheckpoint,
    abortBound: number,
  ): void {
    if (this.#execution.status !== 'INITIALIZING') return;
    if (!takeover.isCurrent(plan)) {
      const reason = 'a TaskManager was lost while the job was taken over';
      this.#restoreInstead({ reason }, Promise.resolve(read));
      return;
    }
    const { resources } = this.#deps;
    this.#takeover = undefined;
    this.#firstGeneration = this.#execution.generation;
    this.#topology = new ExecutionTopology(this.#recovery.graph);
    this.#checkpoints = this.#createCheckpointCoordinator();
    this.#checkpoints.goOn(read.pointers);
    const { attempts, slots, readers } = adoptedAttempts(
      plan,
      this.#topology,
      (id) => resources.dataAddress(id) ?? '',
    );
    const allocationIds = plan.map(({ allocationId }) => allocationId);
    resources.claimHeld(this.graph.jobId, allocationIds, this);
    this.#stepPool({ kind: 'slotsAdopted', slots });
    this.#step({ kind: 'adopted', attempts });
    this.#sources.adopt({
      checkpointId: read.checkpoint?.pointer.checkpointId ?? 0,
      readers,
      states: () => this.#recovery.adoptedEnumeratorStates(read.checkpoint),
      mayStart: resources.takeoversOver(),
    });
    for (const report of takeover.takeReports(plan)) this.#onReport(report);
    const handOver = {
      epochLabel: this.#options.epochLabel,
      completedCheckpointId: read.isOwn ? (read.checkpoint?.pointer.checkpointId ?? 0) : 0,
      abortedCheckpointId: abortBound,
    };
    this.#registry.run('take over tasks', this.#handOver(plan, handOver, takeover.waitedMs));
  }

  async #handOver(plan: AdoptionPlan, handOver: HandOver, waitedMs: number): Promise<void> {
    const running = plan.filter((slot) => slot.attempts.some(({ state }) => state === 'RUNNING'));
    await Promise.all(running.map(({ slotKey }) => this.#commands.adopt(slotKey, handOver)));
    this.#do(() => {
      if (this.#execution.status !== 'RECONCILING') return;
      this.#env.log.info(
        {
          event: 'job.adopted',
          generation: this.#execution.generation,
          attempts: this.#execution.vertices.length,
          waitedMs,
          checkpointId: handOver.completedCheckpointId,
          wallTime: this.#env.clock.wallTime(),
        },
        'the job goes on with its running tasks',
      );
      this.#settle('adopted');
      this.#step({ kind: 'adoptionCompleted' });
    });
  }

  #settle(how: JobRecovered): void {
    if (this.#recovered !== undefined) return;
    this.#recovered = how;
    this.#deps.onSettled?.(how);
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
    return this.#recovered;
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
    return Math.max(0, this.#execution.generation - this.#firstGeneration);
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
      return this.#takeover === undefined
        ? 'reads the checkpoint to start from'
        : 'finds out which of its tasks run';
    if (status === 'RECONCILING') return 'takes its running tasks over';
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
    if (this.#takeover !== undefined) this.#takeover.keep(report);
    else this.#onReport(report);
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
        this.#settle(this.#options.lastExecution === undefined ? 'new' : 'restored');
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
    void this.#takeover?.close();
    this.#takeover = undefined;
    this.#deps.resources.discardHeld(this.graph.jobId, `the job is ${status}`);
    this.#stepPool({ kind: 'jobEnded', cause: `the job is ${status}` });
    this.#settle('failed');
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
