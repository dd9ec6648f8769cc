/** A TaskManager that runs no code: it takes slots and tasks as a real one does, and a test says what the tasks do. */
import type { Env } from '../../lib/base/env.js';
import type {
  AllocationId,
  AttemptId,
  JobId,
  OperatorId,
  TaskManagerId,
} from '../../lib/base/ids.js';
import { MillraceError, type Failure } from '../../lib/base/errors.js';
import type { LeaderInfo } from '../../ha/services.js';
import type { ExecutionState } from '../../lib/gateway/execution-state.js';
import type {
  SlotDeployment,
  TaskDeploymentDescriptor,
} from '../../lib/gateway/task-deployment-descriptor.js';
import {
  protocolVersion,
  type AttemptInventory,
  type HeartbeatPayload,
  type JobManagerGateway,
  type SlotReport,
  type TaskManagerGateway,
} from '../../lib/gateway/taskmanager-gateway.js';
import type { OperatorEvent } from '../../lib/operators/stream-operator.js';
import type { JobManagerConnector, RpcSession } from '../../lib/rpc/rpc-service.js';

export interface ScriptedTask {
  readonly descriptor: TaskDeploymentDescriptor;
  readonly jobId: JobId;
  state: ExecutionState;
  failure?: Failure;
  readonly events: { readonly operatorId: OperatorId; readonly event: OperatorEvent }[];
  /** What its TaskManager notes for a new leader. */
  lastCheckpointId: number;
  completedCheckpointId: number;
  lastTriggeredId: number;
  endOfData: boolean;
  readonly readers: Map<OperatorId, ScriptedReader>;
}

interface ScriptedReader {
  isRegistered: boolean;
  awaitsSplit: boolean;
  noMoreSplits: boolean;
  readonly given: { readonly after: number; readonly splits: readonly unknown[] }[];
}

export type AdoptRequest = Parameters<TaskManagerGateway['adoptTasks']>[0];

interface ScriptedSlot {
  readonly allocationId: AllocationId;
  readonly jobId: JobId;
  deployment: SlotDeployment | undefined;
  tasks: ScriptedTask[];
}

/** What the whole cluster's tasks do; shared by its TaskManagers. */
export interface TaskScript {
  /** Default: INITIALIZING, then RUNNING. */
  onDeployed?(taskManager: ScriptedTaskManager, task: ScriptedTask): void;
  onTrigger?(checkpointId: number, attemptIds: readonly AttemptId[]): void;
  onComplete?(checkpointId: number): void;
  /** Default: takes it. */
  onAdopt?(taskManager: ScriptedTaskManager, request: AdoptRequest): Promise<void>;
}

export class ScriptedTaskManager implements TaskManagerGateway {
  readonly id: TaskManagerId;
  readonly slots: (ScriptedSlot | undefined)[];
  readonly deployments: SlotDeployment[] = [];
  readonly adoptions: AdoptRequest[] = [];
  readonly #env: Env;
  readonly #connector: JobManagerConnector;
  readonly #script: TaskScript;
  leader: JobManagerGateway | undefined;
  session: RpcSession | undefined;

  constructor(
    env: Env,
    name: string,
    slots: number,
    connector: JobManagerConnector,
    script: TaskScript = {},
  ) {
    this.#env = env;
    this.id = name as TaskManagerId;
    this.slots = new Array<undefined>(slots).fill(undefined);
    this.#connector = connector;
    this.#script = script;
  }

  async register(leader: Pick<LeaderInfo, 'rpcAddress' | 'epoch'>): Promise<void> {
    const { gateway, session } = await this.#connector.connect(
      leader,
      {
        protocolVersion,
        taskManagerId: this.id,
        host: 'localhost',
        pid: 1,
        dataAddress: `${this.id}:7`,
        slots: this.report(),
        hardware: { cpuCores: 1, memoryBytes: 1 },
        slotMemoryBytes: 1,
      },
      this,
    );
    this.leader = gateway;
    this.session = session;
  }

  /** As when the process is killed. */
  die(): void {
    this.session?.close('the process is gone');
    this.slots.fill(undefined);
  }

  async heartbeat(): Promise<void> {
    const payload: HeartbeatPayload = {
      slots: this.report(),
      taskMetrics: this.tasks().map(({ descriptor }) => ({
        attemptId: descriptor.attemptId,
        numRecordsIn: 7,
        numRecordsOut: 5,
        numBytesIn: 70,
        numBytesOut: 50,
        busyMs: 1,
        backPressuredMs: 0,
        idleMs: 0,
        numLateRecordsDropped: 0,
      })),
      process: { rssBytes: 1, heapUsedBytes: 1, eventLoopLagMs: 0, networkMemoryBytes: 0 },
    };
    await this.leader?.heartbeat(payload);
  }

  tasks(): ScriptedTask[] {
    return this.slots.flatMap((slot) => slot?.tasks ?? []);
  }

  setState(task: ScriptedTask, state: ExecutionState, failure?: Failure): void {
    task.state = state;
    if (failure !== undefined) task.failure = failure;
    const { attemptId } = task.descriptor;
    this.leader?.updateTaskState({
      jobId: task.jobId,
      attemptId,
      state,
      ...(failure !== undefined && { failure }),
    });
  }

  report(): SlotReport {
    return {
      slots: this.slots.map((slot, slotIndex) => ({
        slotIndex,
        ...(slot !== undefined && { allocationId: slot.allocationId, jobId: slot.jobId }),
        attempts: (slot?.tasks ?? []).map(({ descriptor, state }) => ({
          attemptId: descriptor.attemptId,
          state,
        })),
      })),
    };
  }

  // ---- TaskManagerGateway ----------------------------------------------------------------------

  async requestSlot(request: {
    jobId: JobId;
    allocationId: AllocationId;
    slotIndex: number;
  }): Promise<void> {
    if (this.slots[request.slotIndex] !== undefined)
      throw new MillraceError('CONFLICT', 'the slot is taken');
    this.slots[request.slotIndex] = { ...request, deployment: undefined, tasks: [] };
  }

  async freeSlot({ allocationId }: { allocationId: AllocationId }): Promise<void> {
    const index = this.slots.findIndex((slot) => slot?.allocationId === allocationId);
    if (index >= 0) this.slots[index] = undefined;
  }

  async submitTasks(deployment: SlotDeployment): Promise<void> {
    const slot = this.#slot(deployment.allocationId);
    if (slot.tasks.length > 0) throw new MillraceError('CONFLICT', 'the slot has a thread');
    this.deployments.push(deployment);
    slot.deployment = deployment;
    slot.tasks = deployment.tasks.map((descriptor) => ({
      descriptor,
      jobId: deployment.jobId,
      state: 'DEPLOYING' as const,
      events: [],
      lastCheckpointId: descriptor.restore?.checkpointId ?? 0,
      completedCheckpointId: descriptor.restore?.checkpointId ?? 0,
      lastTriggeredId: descriptor.restore?.checkpointId ?? 0,
      endOfData: false,
      readers: new Map(
        descriptor.vertex.operators
          .filter(({ kind }) => kind === 'source')
          .map(({ id }) => [
            id,
            { isRegistered: false, awaitsSplit: false, noMoreSplits: false, given: [] },
          ]),
      ),
    }));
    for (const task of slot.tasks) {
      if (this.#script.onDeployed !== undefined) this.#script.onDeployed(this, task);
      else this.run(task);
    }
  }

  run(task: ScriptedTask): void {
    this.setState(task, 'INITIALIZING');
    this.setState(task, 'RUNNING');
    for (const { id, kind } of task.descriptor.vertex.operators) {
      if (kind === 'source')
        this.sendEvent(task, id, { kind: 'readerRegistered', host: 'localhost' });
    }
  }

  sendEvent(task: ScriptedTask, operatorId: OperatorId, event: OperatorEvent): void {
    const { attemptId } = task.descriptor;
    const reader = task.readers.get(operatorId);
    if (reader !== undefined && event.kind === 'readerRegistered') reader.isRegistered = true;
    if (reader !== undefined && event.kind === 'requestSplit') reader.awaitsSplit = true;
    this.leader?.sendOperatorEvent({ jobId: task.jobId, attemptId, operatorId, event });
  }

  endData(task: ScriptedTask): void {
    task.endOfData = true;
    const { attemptId } = task.descriptor;
    this.leader?.reportEndOfData({ jobId: task.jobId, attemptId });
  }

  async cancelTasks({ allocationId }: { allocationId: AllocationId }): Promise<void> {
    const slot = this.slots.find((one) => one?.allocationId === allocationId);
    for (const task of slot?.tasks ?? []) {
      if (task.state !== 'FAILED' && task.state !== 'FINISHED') this.setState(task, 'CANCELED');
    }
    if (slot !== undefined) slot.tasks = [];
  }

  triggerCheckpoint({
    checkpointId,
    attemptIds,
  }: {
    checkpointId: number;
    attemptIds: readonly AttemptId[];
  }): void {
    for (const task of this.tasks())
      if (attemptIds.includes(task.descriptor.attemptId)) task.lastTriggeredId = checkpointId;
    this.#script.onTrigger?.(checkpointId, attemptIds);
  }

  notifyCheckpointComplete({
    attemptIds,
    checkpointId,
  }: {
    attemptIds: readonly AttemptId[];
    checkpointId: number;
  }): void {
    for (const task of this.slots.flatMap((slot) => slot?.tasks ?? [])) {
      if (attemptIds.includes(task.descriptor.attemptId)) task.completedCheckpointId = checkpointId;
    }
    this.#script.onComplete?.(checkpointId);
  }

  notifyCheckpointAborted(): void {
    this.#env.log.debug({}, 'checkpoint aborted');
  }

  async sendOperatorEvent(request: {
    attemptId: AttemptId;
    operatorId: OperatorId;
    event: OperatorEvent;
  }): Promise<void> {
    const task = this.tasks().find(({ descriptor }) => descriptor.attemptId === request.attemptId);
    if (task === undefined) throw new MillraceError('STALE_EPOCH', 'no such attempt');
    task.events.push({ operatorId: request.operatorId, event: request.event });
    const reader = task.readers.get(request.operatorId);
    if (reader === undefined) return;
    reader.awaitsSplit = false;
    if (request.event.kind === 'noMoreSplits') reader.noMoreSplits = true;
    if (request.event.kind === 'addSplits')
      reader.given.push({ after: task.lastTriggeredId, splits: request.event.splits });
  }

  async requestInventory({
    jobId,
  }: {
    jobId: JobId;
  }): Promise<{ readonly attempts: readonly AttemptInventory[] }> {
    const attempts = this.slots.flatMap((slot, slotIndex) =>
      (slot?.jobId === jobId ? slot.tasks : []).map((task): AttemptInventory => ({
        attemptId: task.descriptor.attemptId,
        allocationId: slot?.allocationId ?? ('' as AllocationId),
        slotIndex,
        state: task.state,
        ...(task.failure !== undefined && { failure: task.failure }),
        lastCheckpointId: task.lastCheckpointId,
        completedCheckpointId: task.completedCheckpointId,
        endOfData: task.endOfData,
        readers: Object.fromEntries(
          [...task.readers].map(([id, reader]) => [id, { ...reader, given: [...reader.given] }]),
        ),
      })),
    );
    return { attempts };
  }

  async adoptTasks(request: AdoptRequest): Promise<void> {
    const slot = this.#slot(request.allocationId);
    const ids = slot.tasks.map(({ descriptor }) => descriptor.attemptId);
    if (ids.join() !== request.attemptIds.join())
      throw new MillraceError('CONFLICT', 'the slot runs other attempts');
    this.adoptions.push(request);
    await this.#script.onAdopt?.(this, request);
  }

  async requestLog(): Promise<{ lines: readonly string[] }> {
    return { lines: [`log of ${this.id}`] };
  }

  #slot(allocationId: AllocationId): ScriptedSlot {
    const slot = this.slots.find((one) => one?.allocationId === allocationId);
    if (slot === undefined) throw new MillraceError('CONFLICT', 'the slot is not allocated');
    return slot;
  }
}
