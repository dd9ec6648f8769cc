/**
 * The TaskManager's endpoint: serves the leader's calls, owns the slots, reports. State is touched only
 * synchronously (slot table); whatever waits is a ManagedSlot.
 *
 * On loss of the leader tasks go on, and through the change to a newer one: it adopts them by what is noted of them
 * here, or frees their slots. They are released when the time without a leader is up.
 */
import { withTimeout } from '../base/abort.js';
import { setPeriodicTimer } from '../base/clock.js';
import { Deferred } from '../base/deferred.js';
import { childEnv, type Env } from '../base/env.js';
import { MillraceError, toFailure, type Failure } from '../base/errors.js';
import type { AllocationId, AttemptId, JobId, TaskManagerId } from '../base/ids.js';
import { CloseableRegistry, type Closeable } from '../base/lifecycle.js';
import { isTerminal } from '../base/transitions.js';
import { executionTransitions, type ExecutionState } from '../gateway/execution-state.js';
import {
  protocolVersion,
  type CheckpointAck,
  type HeartbeatPayload,
  type JobManagerGateway,
  type TaskManagerGateway,
  type TaskManagerRegistrationRequest,
  type TaskMetrics,
} from '../gateway/taskmanager-gateway.js';
import type { SlotDeployment } from '../gateway/task-deployment-descriptor.js';
import type { JobManagerConnector } from '../rpc/rpc-service.js';
import type { SlotCommand, SlotReportMessage } from '../task/slot-api.js';
import type { HighAvailability, LeaderRetrieval } from '../../ha/services.js';
import { AttemptInventories } from './attempt-inventory.js';
import type { BlobCache, CachedBlob } from './blob-cache.js';
import { LeaderConnection } from './leader-connection.js';
import { advanceLeaderless, leaderlessExpiry, withLeader } from './leaderless-clock.js';
import { readLogTail } from './log-tail.js';
import { ManagedSlot } from './managed-slot.js';
import type { SlotRunner } from './slot-runner.js';
import {
  TaskSlotTable,
  type SlotTableEffect,
  type SlotTableInput,
} from './task-slot-table.machine.js';

export interface TaskExecutorOptions {
  readonly taskManagerId: TaskManagerId;
  /** Under which others reach this TaskManager. */
  readonly host: string;
  /** `host:port` of its data plane. */
  readonly dataAddress: string;
  readonly pid: number;
  readonly slots: number;
  readonly hardware: { readonly cpuCores: number; readonly memoryBytes: number };
  readonly slotMemoryBytes: number;
  readonly cancellationTimeoutMs: number;
  readonly registrationTimeoutMs: number;
  readonly leaderlessTimeoutMs: number;
  readonly outageGraceMs: number;
  /** A new leader restarts all tasks (high-availability.job-recovery: restore): their threads are made ready meanwhile. */
  readonly expectsRestart?: boolean;
  /** What requestLog reads; absent: the log goes to standard error and cannot be read. */
  readonly logPath?: string;
}

export interface TaskExecutorDeps {
  readonly retrieval: LeaderRetrieval;
  /** Announces this TaskManager under its own lease; absent without etcd. */
  readonly register?: HighAvailability['registerTaskManager'];
  /** Resolves when etcd answers a linearizable read; absent: always. */
  readonly probeHa?: () => Promise<unknown>;
  readonly connector: JobManagerConnector;
  readonly runner: SlotRunner;
  readonly blobs: BlobCache;
  readonly processStats: () => HeartbeatPayload['process'];
  /** The process must end: registration took too long, or a task cannot be ended. */
  readonly onFatal: (error: MillraceError) => void;
}

/** Time a cancelled task has before its thread is ended. */
const cancelGraceMs = 300;
const leaderlessTickMs = 1_000;
const probeTimeoutMs = 2_000;

export class TaskExecutor implements TaskManagerGateway, Closeable {
  readonly #env: Env;
  readonly #deps: TaskExecutorDeps;
  readonly #options: TaskExecutorOptions;
  readonly #table: TaskSlotTable;
  readonly #slots = new Map<AllocationId, ManagedSlot>();
  readonly #metrics = new Map<AttemptId, TaskMetrics>();
  readonly #inventories = new AttemptInventories();
  /** Their leader is gone and no other has adopted them yet. */
  readonly #orphans = new Set<AllocationId>();
  readonly #registry: CloseableRegistry;
  readonly #connection: LeaderConnection;
  #gateway: JobManagerGateway | undefined;
  /** Settled while `#gateway` is there. */
  #connected = new Deferred<void>();
  #closing: Promise<void> | undefined;

  constructor(env: Env, deps: TaskExecutorDeps, options: TaskExecutorOptions) {
    this.#env = childEnv(env, 'task-executor');
    this.#deps = deps;
    this.#options = options;
    this.#table = new TaskSlotTable(options.slots);
    this.#registry = new CloseableRegistry(this.#env.log);
    this.#connection = new LeaderConnection(env, {
      retrieval: deps.retrieval,
      connector: deps.connector,
      handler: this,
      registration: () => this.#registration(),
      heartbeat: () => this.#heartbeat(),
      onConnected: (gateway) => {
        this.#gateway = gateway;
        this.#connected.resolve();
      },
      onDisconnected: () => {
        this.#gateway = undefined;
        this.#connected = new Deferred();
        for (const allocationId of this.#table.allocations()) this.#orphans.add(allocationId);
        if (options.expectsRestart === true && this.#closing === undefined)
          deps.runner.prepare?.(this.#table.count('active'));
      },
    });
  }

  get isRegistered(): boolean {
    return this.#connection.isConnected;
  }

  start(): void {
    this.#connection.start();
    this.#watchLeaderlessTime();
    const { register } = this.#deps;
    // Not awaited by close: it goes on trying while etcd does not answer.
    if (register !== undefined) void this.#announce(register);
  }

  /** Drains: tells the leader, which fails over at once, ends every task, then the rest. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    await this.#connection.close('the TaskManager shuts down');
    await this.#releaseAll('the TaskManager shuts down');
    this.#deps.runner.close?.();
    await this.#registry.close();
  }

  // ---- The leader's calls ---------------------------------------------------------------------

  async requestSlot(request: {
    jobId: JobId;
    allocationId: AllocationId;
    slotIndex: number;
  }): Promise<void> {
    this.#checkOpen();
    this.#step({ kind: 'slotRequested', ...request });
    this.#deps.runner.prepare?.(this.#table.count('allocated'));
  }

  async freeSlot({
    allocationId,
    cause,
  }: {
    allocationId: AllocationId;
    cause: string;
  }): Promise<void> {
    this.#env.log.debug({ event: 'slot.freed', allocationId, cause }, 'slot freed');
    // Not adopted, so its job is started again: the threads can be ready by then.
    if (this.#orphans.has(allocationId) && this.#slots.has(allocationId)) {
      this.#deps.runner.prepare?.(this.#table.count('releasing') + 1);
    }
    await this.#free(allocationId);
  }

  async submitTasks(deployment: SlotDeployment): Promise<void> {
    this.#checkOpen();
    const { jobId, allocationId, tasks } = deployment;
    const attemptIds = tasks.map(({ attemptId }) => attemptId);
    const effects = this.#step({ kind: 'tasksSubmitted', jobId, allocationId, attemptIds });
    for (const effect of effects) {
      if (effect.kind === 'startThread') this.#startSlot(deployment, effect.slotIndex);
    }
  }

  async cancelTasks({ allocationId }: { allocationId: AllocationId }): Promise<void> {
    this.#inventories.canceling(allocationId);
    await this.#slots.get(allocationId)?.cancel();
  }

  /**
   * A leader may ask before its answer to the registration is here. Until then reports go nowhere: what an inventory
   * taken now lacked, nobody would be told.
   */
  async requestInventory({
    jobId,
  }: {
    jobId: JobId;
  }): ReturnType<TaskManagerGateway['requestInventory']> {
    await this.#connected.promise;
    return { attempts: this.#inventories.of(jobId) };
  }

  async adoptTasks(request: Parameters<TaskManagerGateway['adoptTasks']>[0]): Promise<void> {
    this.#checkOpen();
    const { jobId, allocationId, attemptIds, ...terms } = request;
    if (!this.#table.holds(allocationId, jobId, attemptIds)) {
      throw new MillraceError(
        'CONFLICT',
        `allocation ${allocationId} does not run exactly the tasks to adopt: restore the job`,
      );
    }
    this.#orphans.delete(allocationId);
    for (const attemptId of attemptIds) {
      this.#inventories.completed(attemptId, terms.completedCheckpointId);
    }
    try {
      await this.#slots.get(allocationId)?.adopt(terms);
    } catch (error) {
      // Over in the same moment, and in good order: nothing is left to go on with.
      if (!this.#table.hasFinished(allocationId)) throw error;
    }
    this.#env.log.info({ event: 'slot.adopted', jobId, allocationId, ...terms }, 'tasks adopted');
  }

  triggerCheckpoint(request: {
    jobId: JobId;
    attemptIds: readonly AttemptId[];
    checkpointId: number;
    timestamp: number;
  }): void {
    const { checkpointId, timestamp } = request;
    for (const attemptId of request.attemptIds)
      this.#inventories.triggered(attemptId, checkpointId);
    this.#toSlots(request.attemptIds, (attemptIds) => ({
      kind: 'triggerCheckpoint',
      attemptIds,
      checkpointId,
      timestamp,
    }));
  }

  notifyCheckpointComplete(request: {
    jobId: JobId;
    attemptIds: readonly AttemptId[];
    checkpointId: number;
  }): void {
    const { checkpointId } = request;
    for (const attemptId of request.attemptIds)
      this.#inventories.completed(attemptId, checkpointId);
    this.#toSlots(request.attemptIds, (attemptIds) => ({
      kind: 'checkpointComplete',
      attemptIds,
      checkpointId,
    }));
  }

  notifyCheckpointAborted(request: {
    jobId: JobId;
    attemptIds: readonly AttemptId[];
    checkpointId: number;
  }): void {
    const { checkpointId } = request;
    this.#toSlots(request.attemptIds, (attemptIds) => ({
      kind: 'checkpointAborted',
      attemptIds,
      checkpointId,
    }));
  }

  async sendOperatorEvent(
    request: Parameters<TaskManagerGateway['sendOperatorEvent']>[0],
  ): Promise<void> {
    const { attemptId, operatorId, event } = request;
    const slot = this.#slotOf(attemptId);
    if (slot === undefined) {
      throw new MillraceError('STALE_EPOCH', `attempt ${attemptId} does not run here`);
    }
    if (slot.takesEvents) this.#inventories.toReader(attemptId, operatorId, event);
    await slot.sendOperatorEvent(request);
  }

  async requestLog(
    request: Parameters<TaskManagerGateway['requestLog']>[0],
  ): Promise<{ lines: readonly string[] }> {
    const { logPath } = this.#options;
    if (logPath === undefined) {
      throw new MillraceError('CONFIG', 'the TaskManager logs to standard error: set env.log.dir');
    }
    return { lines: await readLogTail(logPath, request) };
  }

  // ---- Slots ----------------------------------------------------------------------------------

  #startSlot(deployment: SlotDeployment, slotIndex: number): void {
    const { allocationId, jobId } = deployment;
    const { cancellationTimeoutMs } = this.#options;
    this.#forgetMetrics(allocationId);
    this.#inventories.deployed(deployment, slotIndex);
    const slot = new ManagedSlot(
      this.#env,
      {
        runner: this.#deps.runner,
        bundle: () => this.#acquireBundle(deployment),
        onReport: (report) => {
          this.#onReport(jobId, allocationId, report);
        },
        onEnded: (failure) => {
          this.#onSlotEnded(jobId, allocationId, failure);
        },
        onFatal: this.#deps.onFatal,
      },
      { cancelGraceMs: Math.min(cancelGraceMs, cancellationTimeoutMs), cancellationTimeoutMs },
    );
    this.#slots.set(allocationId, slot);
    this.#env.log.info(
      { event: 'slot.started', jobId, allocationId, slotIndex, tasks: deployment.tasks.length },
      'slot started',
    );
    this.#registry.run('slot', slot.start(deployment, slotIndex));
  }

  async #acquireBundle({ jobGraph }: SlotDeployment): Promise<CachedBlob | undefined> {
    const { bundle, jobId } = jobGraph;
    if (bundle === undefined) return undefined;
    return this.#deps.blobs.acquire(bundle.digest, (offset) => {
      const gateway = this.#gateway;
      if (gateway === undefined) {
        throw new MillraceError(
          'RPC_DISCONNECTED',
          'the leader was lost while fetching the bundle',
        );
      }
      return gateway.fetchBlob({ jobId, digest: bundle.digest, offset });
    });
  }

  #onReport(jobId: JobId, allocationId: AllocationId, report: SlotReportMessage): void {
    switch (report.kind) {
      case 'taskState':
        this.#reportState(allocationId, report.attemptId, report.state, report.failure);
        return;
      case 'checkpointAck': {
        const { kind: _, ...ack } = report;
        this.#acknowledge({ jobId, ...ack });
        return;
      }
      case 'checkpointDecline': {
        const { kind: _, ...decline } = report;
        this.#gateway?.declineCheckpoint({ jobId, ...decline });
        return;
      }
      case 'endOfData':
        this.#inventories.endOfData(report.attemptId);
        this.#gateway?.reportEndOfData({ jobId, attemptId: report.attemptId });
        return;
      case 'operatorEvent': {
        const { kind: _, ...event } = report;
        this.#inventories.fromReader(event.attemptId, event.operatorId, event.event);
        this.#gateway?.sendOperatorEvent({ jobId, ...event });
        return;
      }
      case 'metrics':
        for (const metrics of report.tasks) this.#metrics.set(metrics.attemptId, metrics);
        return;
      case 'taken':
      case 'closed':
        return; // ManagedSlot and the runner deal with these.
    }
  }

  #reportState(
    allocationId: AllocationId,
    attemptId: AttemptId,
    state: ExecutionState,
    failure: Failure | undefined,
  ): void {
    const effects = this.#table.step({
      kind: 'taskStateReported',
      allocationId,
      attemptId,
      state,
    });
    for (const effect of effects) {
      if (effect.kind !== 'reportState') continue;
      const { kind: _, ...update } = effect;
      this.#inventories.stateChanged(attemptId, state, failure);
      this.#env.log.info(
        { event: `task.${state.toLowerCase()}`, ...update, ...(failure && { err: failure }) },
        'task state changed',
      );
      const metrics = isTerminal(executionTransitions, state)
        ? this.#metrics.get(attemptId)
        : undefined;
      this.#gateway?.updateTaskState({
        ...update,
        ...(failure && { failure }),
        ...(metrics && { metrics }),
      });
    }
  }

  /** A snapshot that does not fit into a message fails the checkpoint, not the connection. */
  #acknowledge(ack: CheckpointAck): void {
    try {
      this.#gateway?.acknowledgeCheckpoint(ack);
      this.#inventories.acknowledged(ack.attemptId, ack.checkpointId);
    } catch (error) {
      const { jobId, attemptId, checkpointId } = ack;
      this.#gateway?.declineCheckpoint({
        jobId,
        attemptId,
        checkpointId,
        failure: toFailure(error),
      });
    }
  }

  #onSlotEnded(jobId: JobId, allocationId: AllocationId, failure: Failure | undefined): void {
    this.#slots.delete(allocationId);
    const lost = this.#table.liveAttempts(allocationId);
    for (const attemptId of lost) {
      // Ended by us: the cancelled tasks did not get to say so themselves.
      if (failure === undefined) this.#reportState(allocationId, attemptId, 'CANCELED', undefined);
      else this.#reportState(allocationId, attemptId, 'FAILED', failure);
    }
    this.#env.log.info(
      { event: 'slot.ended', jobId, allocationId, ...(failure && { err: failure }) },
      'slot ended',
    );
    this.#table.step({ kind: 'threadEnded', allocationId });
  }

  async #free(allocationId: AllocationId): Promise<void> {
    this.#table.step({ kind: 'slotFreed', allocationId });
    this.#orphans.delete(allocationId);
    this.#inventories.forget(allocationId);
    await this.#slots.get(allocationId)?.cancel();
    this.#forgetMetrics(allocationId);
  }

  async #releaseAll(cause: string): Promise<void> {
    const allocations = this.#table.allocations();
    if (allocations.length === 0) return;
    this.#env.log.info(
      { event: 'slots.released', cause, slots: allocations.length },
      'releasing all slots',
    );
    await Promise.all(allocations.map((allocationId) => this.#free(allocationId)));
  }

  #step(input: SlotTableInput): SlotTableEffect[] {
    const effects = this.#table.step(input);
    for (const effect of effects) {
      if (effect.kind === 'refuse') throw new MillraceError(effect.code, effect.message);
    }
    return effects;
  }

  #toSlots(
    attemptIds: readonly AttemptId[],
    command: (attemptIds: readonly AttemptId[]) => SlotCommand,
  ): void {
    const bySlot = new Map<ManagedSlot, AttemptId[]>();
    for (const attemptId of attemptIds) {
      const slot = this.#slotOf(attemptId);
      if (slot === undefined) continue; // It ended meanwhile; the leader knows or will know.
      const group = bySlot.get(slot);
      if (group === undefined) bySlot.set(slot, [attemptId]);
      else group.push(attemptId);
    }
    for (const [slot, group] of bySlot) slot.send(command(group));
  }

  #slotOf(attemptId: AttemptId): ManagedSlot | undefined {
    const allocationId = this.#table.allocationOf(attemptId);
    return allocationId === undefined ? undefined : this.#slots.get(allocationId);
  }

  #forgetMetrics(allocationId: AllocationId): void {
    for (const attemptId of this.#metrics.keys()) {
      const owner = this.#table.allocationOf(attemptId);
      if (owner === undefined || owner === allocationId) this.#metrics.delete(attemptId);
    }
  }

  // ---- The leader ------------------------------------------------------------------------------

  #registration(): TaskManagerRegistrationRequest {
    const { taskManagerId, host, pid, dataAddress, hardware, slotMemoryBytes } = this.#options;
    return {
      protocolVersion,
      taskManagerId,
      host,
      pid,
      dataAddress,
      slots: this.#table.report(),
      hardware,
      slotMemoryBytes,
    };
  }

  #heartbeat(): HeartbeatPayload {
    return {
      slots: this.#table.report(),
      taskMetrics: [...this.#metrics.values()],
      process: this.#deps.processStats(),
    };
  }

  /** Two clocks run while there is no leader: that of the tasks and that of the process. */
  #watchLeaderlessTime(): void {
    const { clock } = this.#env;
    let state = withLeader;
    let lastTick = clock.now();
    let lostAt: number | undefined = lastTick;
    let isProbing = false;
    const tick = async (): Promise<void> => {
      const isHaReadable = this.#connection.contact === 'ACTIVE' || (await this.#canReadHa());
      const now = clock.now();
      // Time in which this process stood still was not observed.
      const elapsedMs = Math.min(now - lastTick, 2 * leaderlessTickMs + probeTimeoutMs);
      lastTick = now;
      const { isConnected, contact: leader } = this.#connection;
      state = advanceLeaderless(state, { leader, isHaReadable, elapsedMs });
      const isIdle = this.#table.allocations().length === 0;
      lostAt = isConnected ? undefined : (lostAt ?? now);
      const expiry = leaderlessExpiry(state, this.#options);
      if (expiry !== undefined && !isIdle) await this.#releaseAll(expiry);
      else if (
        isIdle &&
        lostAt !== undefined &&
        now - lostAt > this.#options.registrationTimeoutMs
      ) {
        this.#deps.onFatal(this.#registrationTimeout(isHaReadable));
      }
    };
    this.#registry.own(
      'leaderless clock',
      setPeriodicTimer(clock, leaderlessTickMs, () => {
        if (isProbing) return;
        isProbing = true;
        this.#registry.run(
          'leaderless clock',
          tick().finally(() => {
            isProbing = false;
          }),
        );
      }),
      (cancel) => {
        cancel();
      },
    );
  }

  async #canReadHa(): Promise<boolean> {
    const { probeHa } = this.#deps;
    if (probeHa === undefined) return true;
    try {
      await withTimeout(this.#env.clock, probeTimeoutMs, 'reading etcd', probeHa());
      return true;
    } catch {
      // The clock counts it; whoever keeps the connection logs it.
      return false;
    }
  }

  #registrationTimeout(isHaReadable: boolean): MillraceError {
    const timeout = `${String(this.#options.registrationTimeoutMs)} ms (taskmanager.registration.timeout)`;
    const { leader } = this.#connection;
    if (!isHaReadable) {
      return new MillraceError('ETCD_UNAVAILABLE', `etcd did not answer within ${timeout}`);
    }
    return new MillraceError(
      'NO_LEADER',
      leader === undefined
        ? `no JobManager led within ${timeout}`
        : `the leader ${leader.rpcAddress} did not accept this TaskManager within ${timeout}`,
    );
  }

  async #announce(register: HighAvailability['registerTaskManager']): Promise<void> {
    const { taskManagerId, dataAddress, slots, pid } = this.#options;
    try {
      const registration = await register({ taskManagerId, dataAddress, slots, pid });
      this.#registry.own('announcement', registration, (owned) => owned.close());
    } catch (err) {
      this.#env.log.error({ err }, 'this TaskManager could not be announced in etcd');
    }
  }

  #checkOpen(): void {
    if (this.#closing !== undefined)
      throw new MillraceError('CLOSED', 'the TaskManager shuts down');
  }
}
