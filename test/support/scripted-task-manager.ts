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
  readonly events: { readonly operatorId: OperatorId; readonly event: OperatorEvent }[];
}

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
}

export class ScriptedTaskManager implements TaskManagerGateway {
  readonly id: TaskManagerId;
  readonly slots: (ScriptedSlot | undefined)[];
  readonly deployments: SlotDeployment[] = [];
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
    this.leader?.sendOperatorEvent({ jobId: task.jobId, attemptId, operatorId, event });
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
    this.#script.onTrigger?.(checkpointId, attemptIds);
  }

  notifyCheckpointComplete({ checkpointId }: { checkpointId: number }): void {
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
