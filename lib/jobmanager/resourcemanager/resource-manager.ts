/**
 * The ResourceManager of one leadership: TaskManagers that registered, their heartbeats, and the slots
 * jobs get from them. This is the standalone one: it hands out what is there and cannot start TaskManagers.
 *
 * Death is noticed by the closed session at once, a hang by the heartbeat timeout. Slots a TaskManager
 * holds of an earlier leader are kept until their job has decided whether it goes on with its tasks; what it holds
 * for nobody is freed.
 */
import { setPeriodicTimer } from '../../base/clock.js';
import { Deferred } from '../../base/deferred.js';
import type { Env } from '../../base/env.js';
import { childEnv } from '../../base/env.js';
import { MillraceError, toFailure, type Failure } from '../../base/errors.js';
import {
  newAllocationId,
  type AllocationId,
  type JobId,
  type TaskManagerId,
} from '../../base/ids.js';
import { CloseableRegistry, type Closeable } from '../../base/lifecycle.js';
import type { TaskManagerView } from '../../gateway/client-gateway.js';
import type {
  HeartbeatPayload,
  TaskManagerGateway,
  TaskManagerRegistrationRequest,
  TaskManagerRegistrationResponse,
} from '../../gateway/taskmanager-gateway.js';
import type { TaskManagerInfo } from '../../../ha/services.js';
import type { RpcSession } from '../../rpc/rpc-service.js';
import type { SlotLocation } from '../executiongraph/execution.js';
import { ExpectedTaskManagers, type IsGone } from './expected-task-managers.js';
import {
  SlotManager,
  type SlotManagerEffect,
  type SlotManagerInput,
} from './slot-manager.machine.js';
import type { TaskManagerPresence } from './task-manager-presence.js';

/** What a job is told about its slots. */
export interface SlotOwner {
  onSlotAllocated(location: SlotLocation, sequence: number): void;
  onSlotsLost(allocationIds: readonly AllocationId[], failure: Failure): void;
}

export interface ResourceManagerOptions {
  readonly heartbeatIntervalMs: number;
  readonly heartbeatTimeoutMs: number;
  /** After a takeover: how long the expected TaskManagers are waited for before slots are handed out. Default 300. */
  readonly takeoverWaitMs?: number;
  /** What becomes of running tasks of an earlier leader (high-availability.job-recovery). Default `adopt`. */
  readonly jobRecovery?: 'adopt' | 'restore';
  /** How long TaskManagers that etcd knows are waited for before jobs are restored without them. Default 5000. */
  readonly reconnectWindowMs?: number;
  /** Looks whether a TaskManager that does not register has died. Unset: only the window says so. */
  readonly isGone?: IsGone;
}

interface TaskManagerConnection {
  readonly id: TaskManagerId;
  /** Counts registrations of this leadership. */
  readonly sequence: number;
  readonly registration: TaskManagerRegistrationRequest;
  readonly gateway: TaskManagerGateway;
  readonly session: RpcSession;
  lastHeartbeat: number;
  payload: HeartbeatPayload | undefined;
}

const quietWaitMs = 250;

/** Until the first heartbeat. */
const unknownProcess: HeartbeatPayload['process'] = {
  rssBytes: 0,
  heapUsedBytes: 0,
  eventLoopLagMs: 0,
  networkMemoryBytes: 0,
};

export class ResourceManager implements Closeable {
  readonly #env: Env;
  readonly #options: ResourceManagerOptions;
  readonly #registry: CloseableRegistry;
  readonly #slots: SlotManager;
  readonly #taskManagers = new Map<TaskManagerId, TaskManagerConnection>();
  readonly #owners = new Map<JobId, SlotOwner>();
  /** Those etcd knew when this leadership began. */
  readonly #expected: ExpectedTaskManagers;
  readonly #presenceListeners = new Set<() => void>();
  /** Jobs that find out what of them runs. */
  #takeovers = 0;
  #whenQuiet: Deferred<void>[] = [];
  #registrations = 0;
  #isOpen = false;
  #lastCheck: number;

  /** Slots are handed out after `expect` was called and its wait is over. */
  constructor(env: Env, options: ResourceManagerOptions) {
    this.#env = childEnv(env, 'resource-manager');
    this.#options = options;
    this.#registry = new CloseableRegistry(this.#env.log);
    this.#slots = new SlotManager({
      newAllocationId: () => newAllocationId(env.random),
      isOpen: false,
      keepsHeld: this.mayAdopt,
    });
    this.#expected = new ExpectedTaskManagers(env, {
      isGone: options.isGone,
      windowMs: this.reconnectWindowMs,
      onGone: () => {
        this.#presenceChanged();
      },
    });
    this.#lastCheck = env.clock.now();
  }

  start(): void {
    const { clock } = this.#env;
    const period = Math.max(10, this.#options.heartbeatIntervalMs / 2);
    const stop = setPeriodicTimer(clock, period, () => {
      this.#checkHeartbeats(period);
    });
    this.#registry.own('heartbeat timer', stop, (cancel) => {
      cancel();
    });
  }

  /** Whether jobs go on with tasks that run since an earlier leader. */
  get mayAdopt(): boolean {
    return this.#options.jobRecovery !== 'restore';
  }

  get reconnectWindowMs(): number {
    return this.#options.reconnectWindowMs ?? 5_000;
  }

  /**
   * TaskManagers that were registered with etcd when this leadership began: slots are handed out when they are
   * there, so that jobs spread over all of them, or after takeoverWaitMs.
   */
  expect(expected: readonly TaskManagerInfo[]): void {
    this.#expected.set(expected);
    for (const { taskManagerId } of expected)
      if (!this.#taskManagers.has(taskManagerId)) this.#expected.look(taskManagerId);
    const wait = this.#options.takeoverWaitMs ?? 300;
    const cancelWait = this.#env.clock.setTimer(wait, () => {
      this.#openAllocation();
    });
    this.#registry.own('takeover timer', cancelWait, (cancel) => {
      cancel();
    });
    this.#openWhenComplete();
    this.#presenceChanged();
  }

  async close(): Promise<void> {
    this.#expected.close();
    for (const { session } of this.#taskManagers.values()) session.close('the leadership ended');
    this.#taskManagers.clear();
    this.#owners.clear();
    await this.#registry.close();
  }

  // ---- TaskManagers ----------------------------------------------------------------------------

  register(
    registration: TaskManagerRegistrationRequest,
    gateway: TaskManagerGateway,
    session: RpcSession,
  ): TaskManagerRegistrationResponse {
    const { taskManagerId: id, slots } = registration;
    if (slots.slots.length === 0) {
      throw new MillraceError(
        'CONFIG',
        'a TaskManager needs at least one slot: set taskmanager.numberOfTaskSlots',
      );
    }
    this.#taskManagers.get(id)?.session.close('the TaskManager registered again');
    this.#registrations += 1;
    const connection: TaskManagerConnection = {
      id,
      sequence: this.#registrations,
      registration,
      gateway,
      session,
      lastHeartbeat: this.#env.clock.now(),
      payload: undefined,
    };
    this.#taskManagers.set(id, connection);
    void session.closed.then((reason) => {
      this.#onDisconnected(connection, reason);
    });
    this.#env.log.info(
      { event: 'taskmanager.registered', resourceId: id, slots: slots.slots.length },
      'taskmanager registered',
    );
    this.#expected.stopLooking(id);
    this.#apply({ kind: 'taskManagerRegistered', taskManagerId: id, report: slots });
    this.#openWhenComplete();
    this.#presenceChanged();
    const { heartbeatIntervalMs, heartbeatTimeoutMs } = this.#options;
    return { heartbeatIntervalMs, heartbeatTimeoutMs };
  }

  /** `session` tells a heartbeat of this registration from a late one. */
  onHeartbeat(id: TaskManagerId, session: RpcSession, payload: HeartbeatPayload): void {
    const connection = this.#taskManagers.get(id);
    if (connection?.session !== session) return;
    connection.lastHeartbeat = this.#env.clock.now();
    connection.payload = payload;
    this.#apply({ kind: 'slotsReported', taskManagerId: id, report: payload.slots });
  }

  gateway(id: TaskManagerId): TaskManagerGateway | undefined {
    return this.#taskManagers.get(id)?.gateway;
  }

  dataAddress(id: TaskManagerId): string | undefined {
    return this.#taskManagers.get(id)?.registration.dataAddress;
  }

  presence(id: TaskManagerId): TaskManagerPresence {
    const connection = this.#taskManagers.get(id);
    if (connection !== undefined) return { kind: 'registered', registration: connection.sequence };
    const reason = this.#expected.whyGone(id);
    return reason === undefined ? { kind: 'awaited' } : { kind: 'gone', reason };
  }

  /** Calls `listener` whenever `presence` of a TaskManager may have changed; returns the unsubscriber. */
  onPresenceChanged(listener: () => void): () => void {
    this.#presenceListeners.add(listener);
    return () => this.#presenceListeners.delete(listener);
  }

  #presenceChanged(): void {
    for (const listener of [...this.#presenceListeners]) listener();
  }

  host(id: TaskManagerId): string | undefined {
    return this.#taskManagers.get(id)?.registration.host;
  }

  /** A TaskManager that does not do what it is told counts as lost; it registers again with empty slots. */
  disconnect(id: TaskManagerId, reason: string): void {
    this.#taskManagers.get(id)?.session.close(reason);
  }

  taskManagerCount(): number {
    return this.#taskManagers.size;
  }

  slotCounts(): { readonly total: number; readonly free: number } {
    return this.#slots.view();
  }

  views(): TaskManagerView[] {
    const now = this.#env.clock.now();
    const wall = this.#env.clock.wallTime();
    return [...this.#taskManagers.values()].map(({ id, registration, lastHeartbeat, payload }) => ({
      id,
      path: registration.host,
      dataPort: Number(
        registration.dataAddress.slice(registration.dataAddress.lastIndexOf(':') + 1),
      ),
      timeSinceLastHeartbeat: Math.round(wall - (now - lastHeartbeat)),
      slotsNumber: registration.slots.slots.length,
      freeSlots: this.#slots.view(id).free,
      pid: registration.pid,
      hardware: {
        cpuCores: registration.hardware.cpuCores,
        physicalMemory: registration.hardware.memoryBytes,
      },
      process: payload?.process ?? unknownProcess,
      allocatedSlots: this.#slots.allocations(id).map(({ index, jobId }) => ({ index, jobId })),
    }));
  }

  #onDisconnected(connection: TaskManagerConnection, reason: string): void {
    const { id } = connection;
    if (this.#taskManagers.get(id) !== connection) return;
    this.#taskManagers.delete(id);
    this.#env.log.warn({ event: 'taskmanager.lost', resourceId: id, reason }, 'taskmanager lost');
    this.#apply({
      kind: 'taskManagerLost',
      taskManagerId: id,
      reason: `TaskManager ${id} was lost: ${reason}`,
    });
    this.#expected.look(id);
    this.#presenceChanged();
  }

  #checkHeartbeats(periodMs: number): void {
    const now = this.#env.clock.now();
    const sinceCheck = now - this.#lastCheck;
    this.#lastCheck = now;
    // This process itself stood still: heartbeats that arrived meanwhile have not been read yet.
    if (sinceCheck > 2 * periodMs + 100) return;
    for (const { lastHeartbeat, session } of this.#taskManagers.values()) {
      if (now - lastHeartbeat <= this.#options.heartbeatTimeoutMs) continue;
      session.close(`no heartbeat for ${String(this.#options.heartbeatTimeoutMs)} ms`);
    }
  }

  #openWhenComplete(): void {
    if (this.#expected.ids?.every((id) => this.#taskManagers.has(id)) === true)
      this.#openAllocation();
  }

  #openAllocation(): void {
    if (this.#isOpen) return;
    this.#isOpen = true;
    this.#apply({ kind: 'allocationOpened' });
  }

  // ---- Jobs ------------------------------------------------------------------------------------

  /** Slots the job needs in all; 0 ends its membership. */
  declareRequirements(jobId: JobId, slots: number, owner: SlotOwner): void {
    if (slots > 0) this.#owners.set(jobId, owner);
    this.#apply({ kind: 'requirementsDeclared', jobId, slots });
    if (slots === 0) this.#owners.delete(jobId);
  }

  /** The job finds out what of it runs; the result ends that. */
  beginTakeover(): () => void {
    this.#takeovers += 1;
    let isOver = false;
    return () => {
      if (isOver) return;
      isOver = true;
      this.#takeovers -= 1;
      if (this.#takeovers === 0) for (const quiet of this.#whenQuiet.splice(0)) quiet.resolve();
    };
  }

  /** Resolves when no job is being taken over, at the latest after `quietWaitMs`: for what takes time from the others. */
  async takeoversOver(): Promise<void> {
    if (this.#takeovers === 0) return;
    const quiet = new Deferred<void>();
    this.#whenQuiet.push(quiet);
    const cancel = this.#env.clock.setTimer(quietWaitMs, () => {
      quiet.resolve();
    });
    await quiet.promise;
    cancel();
  }

  /** The job goes on with these slots, which it had under an earlier leader. */
  claimHeld(jobId: JobId, allocationIds: readonly AllocationId[], owner: SlotOwner): void {
    this.#owners.set(jobId, owner);
    this.#apply({ kind: 'heldClaimed', jobId, allocationIds });
  }

  /** The job does not go on with what it had under an earlier leader: its tasks there end. Idempotent. */
  discardHeld(jobId: JobId, cause: string): void {
    this.#apply({ kind: 'heldDiscarded', jobId, cause });
  }

  /** All jobs of earlier leaders have their JobMasters: what is held for others is freed, now and later. */
  jobsRecovered(jobIds: readonly JobId[]): void {
    this.#apply({ kind: 'jobsRecovered', jobIds });
  }

  releaseSlot(allocationId: AllocationId, cause: string): void {
    this.#apply({ kind: 'slotReleased', allocationId, cause });
  }

  /** Why the job lacks slots, for people. */
  shortage(jobId: JobId): string | undefined {
    return this.#slots.shortage(jobId);
  }

  // ---- Slots -----------------------------------------------------------------------------------

  #apply(input: SlotManagerInput): void {
    for (const effect of this.#slots.step(input)) this.#execute(effect);
  }

  #execute(effect: SlotManagerEffect): void {
    switch (effect.kind) {
      case 'requestSlot':
        this.#registry.run('request a slot', this.#requestSlot(effect));
        return;
      case 'freeSlot':
        this.#registry.run('free a slot', this.#freeSlot(effect));
        return;
      case 'slotAllocated': {
        const { allocationId, taskManagerId } = effect;
        const dataAddress = this.#taskManagers.get(taskManagerId)?.registration.dataAddress ?? '';
        const location = { allocationId, taskManagerId, dataAddress };
        this.#owners.get(effect.jobId)?.onSlotAllocated(location, effect.sequence);
        return;
      }
      case 'slotsLost': {
        const failure = toFailure(new MillraceError('SLOT_LOST', effect.reason));
        this.#owners.get(effect.jobId)?.onSlotsLost(effect.allocationIds, failure);
        return;
      }
    }
  }

  async #requestSlot(effect: Extract<SlotManagerEffect, { kind: 'requestSlot' }>): Promise<void> {
    const { taskManagerId, slotIndex, jobId, allocationId } = effect;
    try {
      const gateway = this.#gatewayOrThrow(taskManagerId);
      await gateway.requestSlot({ jobId, allocationId, slotIndex });
    } catch (err) {
      this.#env.log.warn(
        { err, resourceId: taskManagerId, allocationId, jobId },
        'slot request refused',
      );
      this.#apply({ kind: 'slotRefused', allocationId, reason: toFailure(err).message });
      return;
    }
    this.#apply({ kind: 'slotConfirmed', allocationId });
  }

  async #freeSlot(effect: Extract<SlotManagerEffect, { kind: 'freeSlot' }>): Promise<void> {
    const { taskManagerId, allocationId, cause } = effect;
    try {
      await this.#gatewayOrThrow(taskManagerId).freeSlot({ allocationId, cause });
    } catch (err) {
      this.#env.log.warn({ err, resourceId: taskManagerId, allocationId }, 'slot not freed');
      this.#apply({ kind: 'slotNotFreed', taskManagerId, allocationId });
      return;
    }
    this.#apply({ kind: 'slotFreed', taskManagerId, allocationId });
  }

  #gatewayOrThrow(id: TaskManagerId): TaskManagerGateway {
    const gateway = this.gateway(id);
    if (gateway === undefined)
      throw new MillraceError('RPC_DISCONNECTED', `TaskManager ${id} is not connected`);
    return gateway;
  }
}
