import type { AttemptId, VertexId } from '../../lib/base/ids.js';
import type { CheckpointFailureReason } from '../failure-reason.js';
import type { CheckpointSubtask } from '../types.js';

/** Whom to trigger and whom to await. Subtasks that have finished belong to it as finished. */
export interface CheckpointPlan {
  readonly toTrigger: readonly AttemptId[];
  readonly toAwait: readonly CheckpointSubtask[];
  readonly finished: readonly { readonly vertexId: VertexId; readonly subtaskIndex: number }[];
}

export type PlanResult =
  | { readonly kind: 'possible'; readonly plan: CheckpointPlan }
  | { readonly kind: 'impossible'; readonly reason: CheckpointFailureReason };

/** Flink's DefaultCheckpointPlanCalculator with tasks that may have finished (FLIP-147). */
export function planCheckpoint(
  subtasks: readonly CheckpointSubtask[],
  taskCount: number,
): PlanResult {
  // Fewer than there should be: some have no attempt yet.
  if (subtasks.length !== taskCount || subtasks.some((subtask) => subtask.state === 'notRunning')) {
    return { kind: 'impossible', reason: 'TASKS_NOT_RUNNING' };
  }
  const toAwait = subtasks.filter((subtask) => subtask.state === 'running');
  if (toAwait.length === 0) return { kind: 'impossible', reason: 'NO_TASK_RUNNING' };
  return {
    kind: 'possible',
    plan: {
      toTrigger: toAwait.filter((subtask) => subtask.isRoot).map((subtask) => subtask.attemptId),
      toAwait,
      finished: subtasks
        .filter((subtask) => subtask.state === 'finished')
        .map(({ vertexId, subtaskIndex }) => ({ vertexId, subtaskIndex })),
    },
  };
}

/** Every running root has processed all its input: only a checkpoint lets them finish. */
export function isEndOfData(subtasks: readonly CheckpointSubtask[]): boolean {
  const roots = subtasks.filter((subtask) => subtask.isRoot && subtask.state !== 'finished');
  return roots.length > 0 && roots.every((root) => root.state === 'running' && root.endOfData);
}
