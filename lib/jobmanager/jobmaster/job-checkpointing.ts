/** Joins the checkpoint coordinator with the tasks and source coordinators of one job. */
import {
  CheckpointCoordinator,
  type CheckpointCoordinatorOptions,
} from '../../../checkpoint/coordinator/checkpoint-coordinator.js';
import type { CheckpointStorage } from '../../../checkpoint/storage/checkpoint-storage.js';
import type { CheckpointSubtask } from '../../../checkpoint/types.js';
import type { CheckpointIdCounter, Leadership } from '../../../ha/services.js';
import type { Env } from '../../base/env.js';
import type { Failure } from '../../base/errors.js';
import type { AttemptId } from '../../base/ids.js';
import type { TaskManagerGateway } from '../../gateway/taskmanager-gateway.js';
import type { ExecutionState } from '../../gateway/execution-state.js';
import type { ExecutionGraph } from '../executiongraph/execution-graph.machine.js';
import type { ExecutionTopology } from '../executiongraph/execution-topology.js';
import type { ResourceManager } from '../resourcemanager/resource-manager.js';
import type { SourceCoordinators } from './source-coordinators.js';

export interface JobCheckpointingDeps {
  readonly leadership: Leadership;
  readonly resources: ResourceManager;
  readonly storage: CheckpointStorage;
  readonly execution: ExecutionGraph;
  readonly topology: ExecutionTopology;
  readonly sources: SourceCoordinators;
  /** One for the JobMaster's life: what is left of a block of ids is used. */
  readonly ids: CheckpointIdCounter;
  failJob(failure: Failure): void;
}

export function createCheckpointCoordinator(
  env: Env,
  deps: JobCheckpointingDeps,
  options: CheckpointCoordinatorOptions,
): CheckpointCoordinator {
  const { leadership, storage, execution, topology, sources } = deps;
  const { jobId } = options;
  return new CheckpointCoordinator(
    env,
    {
      pointers: leadership.checkpointPointers(jobId),
      ids: deps.ids,
      storage,
      mayAct: () => leadership.mayAct(),
      gateway: {
        subtasks: () => checkpointSubtasks(execution, topology),
        trigger: (attempts, checkpointId, timestamp) => {
          eachTaskManager(deps, attempts, (gateway, attemptIds) => {
            gateway.triggerCheckpoint({ jobId, attemptIds, checkpointId, timestamp });
          });
        },
        notifyComplete: (attempts, checkpointId) => {
          sources.onCheckpointComplete(checkpointId);
          eachTaskManager(deps, attempts, (gateway, attemptIds) => {
            gateway.notifyCheckpointComplete({ jobId, attemptIds, checkpointId });
          });
        },
        notifyAborted: (attempts, checkpointId) => {
          eachTaskManager(deps, attempts, (gateway, attemptIds) => {
            gateway.notifyCheckpointAborted({ jobId, attemptIds, checkpointId });
          });
        },
        snapshotCoordinators: (checkpointId) => sources.snapshot(checkpointId),
        releaseCoordinators: (checkpointId) => {
          sources.release(checkpointId);
        },
        failJob: (failure) => {
          deps.failJob(failure);
        },
      },
    },
    options,
  );
}

function checkpointSubtasks(
  execution: ExecutionGraph,
  topology: ExecutionTopology,
): CheckpointSubtask[] {
  const { vertices } = execution;
  const isFinished = (position: number): boolean =>
    vertices[position]?.current?.state === 'FINISHED';
  return vertices.flatMap(({ subtask, current }) => {
    if (current === undefined) return [];
    const producers = topology
      .inputsOf(subtask.position)
      .flatMap((edge) => topology.producers(edge, subtask.position));
    return {
      vertexId: subtask.vertex.id,
      subtaskIndex: subtask.subtaskIndex,
      attemptId: current.attemptId,
      state: checkpointState(current.state),
      isRoot: producers.every(isFinished),
      endOfData: current.endOfData,
    };
  });
}

function checkpointState(state: ExecutionState): CheckpointSubtask['state'] {
  if (state === 'RUNNING') return 'running';
  return state === 'FINISHED' ? 'finished' : 'notRunning';
}

/** One message per TaskManager, with its attempts. */
function eachTaskManager(
  { execution, resources }: JobCheckpointingDeps,
  attempts: readonly AttemptId[],
  send: (gateway: TaskManagerGateway, attemptIds: readonly AttemptId[]) => void,
): void {
  const byTaskManager = new Map<TaskManagerGateway, AttemptId[]>();
  for (const attemptId of attempts) {
    const location = execution.vertexOf(attemptId)?.current?.location;
    const gateway = location && resources.gateway(location.taskManagerId);
    if (gateway === undefined) continue;
    const known = byTaskManager.get(gateway);
    if (known === undefined) byTaskManager.set(gateway, [attemptId]);
    else known.push(attemptId);
  }
  for (const [gateway, attemptIds] of byTaskManager) send(gateway, attemptIds);
}
