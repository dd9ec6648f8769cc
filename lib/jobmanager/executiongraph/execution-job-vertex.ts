/** One vertex of the job at its parallelism: what its subtasks' states add up to. */
import type { ExecutionState } from '../../gateway/execution-state.js';
import type { ExecutionVertex } from './execution-vertex.js';

export const executionStates: readonly ExecutionState[] = [
  'CREATED',
  'SCHEDULED',
  'DEPLOYING',
  'INITIALIZING',
  'RUNNING',
  'FINISHED',
  'CANCELING',
  'CANCELED',
  'FAILED',
];

export function executionStateOf(vertex: ExecutionVertex): ExecutionState {
  return vertex.current?.state ?? 'CREATED';
}

export function countStates(vertices: readonly ExecutionVertex[]): Record<ExecutionState, number> {
  const counts = Object.fromEntries(executionStates.map((state) => [state, 0])) as Record<
    ExecutionState,
    number
  >;
  for (const vertex of vertices) counts[executionStateOf(vertex)] += 1;
  return counts;
}

/** State of the whole vertex (Flink's ExecutionJobVertex.getAggregateJobVertexState). */
export function aggregateState(vertices: readonly ExecutionVertex[]): ExecutionState {
  const counts = countStates(vertices);
  const severest = (['FAILED', 'CANCELING', 'CANCELED'] as const).find(
    (state) => counts[state] > 0,
  );
  if (severest !== undefined) return severest;
  if (counts.FINISHED === vertices.length) return 'FINISHED';
  const earliest = (['CREATED', 'SCHEDULED', 'DEPLOYING', 'INITIALIZING'] as const).find(
    (state) => counts[state] > 0,
  );
  return earliest ?? 'RUNNING';
}
