/**
 * What a JobMaster tells TaskManagers about its slots. Answers come back as inputs of the execution graph. A command
 * that met a suspended leader is given again when it may act.
 */
import type { Leadership } from '../../../ha/services.js';
import { sleep } from '../../base/clock.js';
import type { Env } from '../../base/env.js';
import { hasCode, MillraceError, toFailure, type Failure } from '../../base/errors.js';
import type { AllocationId, AttemptId, JobId, OperatorId } from '../../base/ids.js';
import type { SlotDeployment } from '../../gateway/task-deployment-descriptor.js';
import type { TaskManagerGateway } from '../../gateway/taskmanager-gateway.js';
import type { OperatorEvent } from '../../operators/stream-operator.js';
import type {
  ExecutionGraph,
  ExecutionGraphInput,
} from '../executiongraph/execution-graph.machine.js';
import type { SlotLocation } from '../executiongraph/execution.js';
import type { ResourceManager } from '../resourcemanager/resource-manager.js';

export interface SlotCommandsDeps {
  readonly jobId: JobId;
  readonly leadership: Leadership;
  readonly resources: ResourceManager;
  readonly execution: ExecutionGraph;
  /** Aborts when the JobMaster is closed. */
  readonly signal: AbortSignal;
  /** Runs `task` in the JobMaster's mailbox, when it may act. */
  readonly run: (task: () => void) => void;
  readonly apply: (input: ExecutionGraphInput) => void;
  /** From the current attempts and locations. */
  readonly deploymentOf: (slotKey: string, location: SlotLocation) => SlotDeployment;
}

export interface AdoptionTerms {
  readonly epochLabel: string;
  readonly completedCheckpointId: number;
  readonly abortedCheckpointId: number;
}

const suspendedPollMs = 100;

export class SlotCommands {
  readonly #env: Env;
  readonly #deps: SlotCommandsDeps;

  constructor(env: Env, deps: SlotCommandsDeps) {
    this.#env = env;
    this.#deps = deps;
  }

  // ---- Deploy ----------------------------------------------------------------------------------

  async deploy(slotKey: string): Promise<void> {
    const { execution, signal, run, apply } = this.#deps;
    const { location } = execution.slot(slotKey);
    if (location === undefined) return;
    const { allocationId } = location;
    const deployment = this.#deps.deploymentOf(slotKey, location);
    try {
      await this.#gatewayOrThrow(location).submitTasks(deployment);
    } catch (error) {
      if (signal.aborted) return;
      // Suspended between decision and message: asked again when it may act.
      if (hasCode(error, 'LEADERSHIP_LOST')) {
        run(() => {
          if (execution.isDeploying(slotKey, allocationId)) void this.deploy(slotKey);
        });
        return;
      }
      const failure = deploymentFailure(error, location);
      apply({ kind: 'deploymentRejected', slotKey, allocationId, failure });
    }
  }

  // ---- Cancel ----------------------------------------------------------------------------------

  async cancel(slotKey: string, allocationId: AllocationId): Promise<void> {
    const { execution, leadership, resources, signal, run, apply } = this.#deps;
    const { location } = execution.slot(slotKey);
    if (location === undefined) return;
    try {
      await this.#gatewayOrThrow(location).cancelTasks({ allocationId });
    } catch (error) {
      if (signal.aborted) return;
      if (!leadership.mayAct()) {
        // Suspended between decision and message: asked again when it may act.
        run(() => void this.cancel(slotKey, allocationId));
        return;
      }
      this.#env.log.warn(
        { err: error, resourceId: location.taskManagerId, allocationId },
        'slot could not be cancelled',
      );
      resources.disconnect(location.taskManagerId, 'the TaskManager did not cancel its tasks');
      return;
    }
    apply({ kind: 'slotCanceled', slotKey, allocationId });
  }

  // ---- Adoption --------------------------------------------------------------------------------

  /** Resolves when the slot's tasks go on under this leader, or do not any more for another reason. */
  async adopt(slotKey: string, terms: AdoptionTerms): Promise<void> {
    const { execution, jobId, signal } = this.#deps;
    const { location, slot } = execution.slot(slotKey);
    if (location === undefined) return;
    const { allocationId } = location;
    const attemptIds = slot.positions.flatMap((position): AttemptId[] => {
      const current = execution.vertices[position]?.current;
      return current === undefined ? [] : [current.attemptId];
    });
    for (;;) {
      try {
        const gateway = this.#gatewayOrThrow(location);
        await gateway.adoptTasks({ jobId, allocationId, attemptIds, ...terms });
        return;
      } catch (error) {
        if (signal.aborted || execution.status !== 'RECONCILING') return;
        if (!hasCode(error, 'LEADERSHIP_LOST')) {
          this.#adoptionFailed(slotKey, location, error);
          return;
        }
        await sleep(this.#env.clock, suspendedPollMs, signal);
      }
    }
  }

  #adoptionFailed(slotKey: string, location: SlotLocation, error: unknown): void {
    const { execution, run, apply } = this.#deps;
    run(() => {
      if (execution.status !== 'RECONCILING') return;
      // They finished on the way, and their thread is gone.
      if (execution.hasFinished(slotKey)) return;
      const cause = toFailure(error);
      const message = `TaskManager ${location.taskManagerId} did not hand its tasks over, and the job is restored: ${cause.message}`;
      const failure = toFailure(new MillraceError('ADOPTION_REFUSED', message, { cause: error }));
      apply({ kind: 'adoptionFailed', failure });
    });
  }

  // ---- Events ----------------------------------------------------------------------------------

  async sendOperatorEvent(
    attemptId: AttemptId,
    operatorId: OperatorId,
    event: OperatorEvent,
  ): Promise<void> {
    const { execution, jobId } = this.#deps;
    const location = execution.vertexOf(attemptId)?.current?.location;
    // Of an older attempt: what it should have got is given back by its reset.
    if (location === undefined) return;
    await this.#gatewayOrThrow(location).sendOperatorEvent({ jobId, attemptId, operatorId, event });
  }

  #gatewayOrThrow({ taskManagerId }: SlotLocation): TaskManagerGateway {
    const gateway = this.#deps.resources.gateway(taskManagerId);
    if (gateway !== undefined) return gateway;
    throw new MillraceError('RPC_DISCONNECTED', `TaskManager ${taskManagerId} is not connected`);
  }
}

/** A refusal that concerns the job's own code is told as it is; all others are about the slot. */
function deploymentFailure(error: unknown, location: SlotLocation): Failure {
  const failure = toFailure(error);
  if (failure.domain === 'user') return failure;
  const message = `TaskManager ${location.taskManagerId} did not take the tasks: ${failure.message}`;
  return toFailure(new MillraceError('SLOT_LOST', message, { cause: error }));
}
