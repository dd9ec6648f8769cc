/** From the plan of an adoption to what the execution graph, the slot pool and the source coordinators take (pure). */
import type { OperatorId } from '../../base/ids.js';
import type { AdoptedExecution } from '../executiongraph/execution-graph.machine.js';
import type { SlotLocation } from '../executiongraph/execution.js';
import type { ExecutionTopology } from '../executiongraph/execution-topology.js';
import type { AdoptionPlan } from './job-adoption.machine.js';
import type { AdoptedReader } from './source-coordinator.js';

export interface AdoptedAttempts {
  /** By position. */
  readonly attempts: ReadonlyMap<number, AdoptedExecution>;
  /** By slot key. */
  readonly slots: ReadonlyMap<string, SlotLocation>;
  readonly readers: ReadonlyMap<OperatorId, readonly AdoptedReader[]>;
}

export function adoptedAttempts(
  plan: AdoptionPlan,
  topology: ExecutionTopology,
  dataAddressOf: (taskManagerId: SlotLocation['taskManagerId']) => string,
): AdoptedAttempts {
  const attempts = new Map<number, AdoptedExecution>();
  const slots = new Map<string, SlotLocation>();
  const readers = new Map<OperatorId, AdoptedReader[]>();
  for (const { slotKey, taskManagerId, allocationId, attempts: planned } of plan) {
    const location = { taskManagerId, allocationId, dataAddress: dataAddressOf(taskManagerId) };
    slots.set(slotKey, location);
    for (const { position, readers: inventories, ...attempt } of planned) {
      attempts.set(position, { ...attempt, location });
      const { subtaskIndex } = topology.subtask(position);
      for (const [operatorId, inventory] of Object.entries(inventories)) {
        const reader = {
          subtask: subtaskIndex,
          attemptId: attempt.attemptId,
          isFinished: attempt.state === 'FINISHED',
          inventory,
        };
        const known = readers.get(operatorId as OperatorId);
        if (known === undefined) readers.set(operatorId as OperatorId, [reader]);
        else known.push(reader);
      }
    }
  }
  return { attempts, slots, readers };
}
