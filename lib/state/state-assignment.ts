/**
 * Assigns the state of a checkpoint to the subtasks of a job at its (possibly new) parallelism: keyed
 * state by key-group range, operator state whole when the parallelism is unchanged and otherwise all of
 * it in order (the backend takes its share). State belongs to operators, not to vertices: chains may
 * have changed. Pure; Flink's StateAssignmentOperation.
 */
import { MillraceError } from '../base/errors.js';
import type { OperatorId, VertexId } from '../base/ids.js';
import { computeKeyGroupRange, defaultMaxParallelism, intersectRanges } from './key-group-range.js';
import type {
  KeyedStateHandle,
  OperatorRestore,
  OperatorSubtaskState,
  StateHandle,
  TaskRestore,
} from './state-handle.js';

/** The shape of CheckpointMetadata (checkpoint/types.ts) as far as assignment needs it. */
export interface AssignableCheckpoint {
  readonly checkpointId: number;
  readonly vertices: readonly {
    readonly name: string;
    readonly parallelism: number;
    readonly operators: readonly {
      readonly id: OperatorId;
      readonly uid?: string;
      readonly name: string;
      readonly maxParallelism: number;
    }[];
    readonly subtasks: readonly {
      readonly finished: boolean;
      readonly operators: Readonly<Record<OperatorId, OperatorSubtaskState>>;
    }[];
  }[];
  readonly coordinators: Readonly<Record<OperatorId, StateHandle>>;
}

/** The shape of JobVertex. */
export interface AssignableVertex {
  readonly id: VertexId;
  readonly name: string;
  readonly parallelism: number;
  readonly operators: readonly {
    readonly id: OperatorId;
    readonly uid?: string;
    readonly name: string;
    readonly maxParallelism: number;
  }[];
}

export interface AssignmentOptions {
  /** Drop state of operators the job does not have (`execution.state-recovery.ignore-unclaimed-state`). */
  readonly allowNonRestoredState: boolean;
  /** What relative handle paths refer to. */
  readonly baseDirectory: string;
}

export interface AssignedState {
  readonly checkpointId: number;
  /** By vertex, then subtask index. Every vertex of the job is there. */
  readonly tasks: ReadonlyMap<VertexId, readonly TaskRestore[]>;
  /** Enumerator state of the job's sources. */
  readonly coordinators: ReadonlyMap<OperatorId, StateHandle>;
  /** Number of key groups of each operator with state: the checkpoint's, which replaces the graph's. */
  readonly maxParallelism: ReadonlyMap<OperatorId, number>;
  /** Operators whose state was dropped. */
  readonly dropped: readonly string[];
}

interface OldOperator {
  readonly label: string;
  readonly maxParallelism: number;
  readonly parallelism: number;
  readonly finished: readonly boolean[];
  /** By subtask index. */
  readonly states: readonly OperatorSubtaskState[];
}

const nothing: OperatorSubtaskState = {};

/** @throws CHECKPOINT_INCOMPATIBLE naming the operators and what to change. */
export function assignState(
  checkpoint: AssignableCheckpoint,
  vertices: readonly AssignableVertex[],
  options: AssignmentOptions,
): AssignedState {
  const old = collectOperators(checkpoint);
  const dropped = findUnclaimed(checkpoint, old, vertices);
  if (dropped.length > 0 && !options.allowNonRestoredState) {
    throw incompatible(
      `checkpoint ${String(checkpoint.checkpointId)} has state of operators the job does not have: ${dropped.join(', ')}. ` +
        'Give operators that were renamed or moved their old uid, or allow the state to be dropped (--allowNonRestoredState)',
      { dropped },
    );
  }
  const maxParallelism = new Map<OperatorId, number>();
  const tasks = new Map<VertexId, TaskRestore[]>();
  const coordinators = new Map<OperatorId, StateHandle>();
  for (const vertex of vertices) {
    for (const operator of vertex.operators) {
      const known = old.get(operator.id);
      if (known !== undefined) {
        maxParallelism.set(operator.id, fittingMaxParallelism(vertex, operator, known));
      }
      const coordinator = checkpoint.coordinators[operator.id];
      if (coordinator !== undefined) coordinators.set(operator.id, coordinator);
    }
    tasks.set(
      vertex.id,
      Array.from({ length: vertex.parallelism }, (_, index) => ({
        checkpointId: checkpoint.checkpointId,
        operators: restoresOf(vertex, index, old),
        finished: isFinished(vertex, old),
        baseDirectory: options.baseDirectory,
      })),
    );
  }
  return { checkpointId: checkpoint.checkpointId, tasks, coordinators, maxParallelism, dropped };
}

function collectOperators(checkpoint: AssignableCheckpoint): Map<OperatorId, OldOperator> {
  const operators = new Map<OperatorId, OldOperator>();
  for (const vertex of checkpoint.vertices) {
    for (const { id, uid, name, maxParallelism } of vertex.operators) {
      operators.set(id, {
        label: label({ id, name, ...(uid !== undefined && { uid }) }),
        maxParallelism,
        parallelism: vertex.parallelism,
        finished: vertex.subtasks.map((subtask) => subtask.finished),
        states: vertex.subtasks.map((subtask) => subtask.operators[id] ?? nothing),
      });
    }
  }
  return operators;
}

function findUnclaimed(
  checkpoint: AssignableCheckpoint,
  old: ReadonlyMap<OperatorId, OldOperator>,
  vertices: readonly AssignableVertex[],
): string[] {
  const wanted = new Set(vertices.flatMap((vertex) => vertex.operators.map(({ id }) => id)));
  const unclaimed = [...old].filter(
    ([id, { states }]) =>
      !wanted.has(id) &&
      (checkpoint.coordinators[id] !== undefined ||
        states.some(({ keyed, operator }) => keyed !== undefined || operator !== undefined)),
  );
  return unclaimed.map(([, operator]) => operator.label);
}

/** The checkpoint's number of key groups rules; the graph's is refused only where it was asked for explicitly. */
function fittingMaxParallelism(
  vertex: AssignableVertex,
  operator: AssignableVertex['operators'][number],
  old: OldOperator,
): number {
  if (vertex.parallelism > old.maxParallelism) {
    throw incompatible(
      `${label(operator)} has parallelism ${String(vertex.parallelism)}, but its state has ${String(old.maxParallelism)} key groups: run it with a parallelism of at most that`,
    );
  }
  // A graph without an explicit maximum carries the default for its parallelism, which means "whatever the state has".
  const isExplicit = operator.maxParallelism !== defaultMaxParallelism(vertex.parallelism);
  if (isExplicit && operator.maxParallelism !== old.maxParallelism) {
    throw incompatible(
      `${label(operator)} asks for maxParallelism ${String(operator.maxParallelism)}, but its state has ${String(old.maxParallelism)} key groups, which cannot change: remove the setting or set it to that`,
    );
  }
  return old.maxParallelism;
}

function restoresOf(
  vertex: AssignableVertex,
  index: number,
  old: ReadonlyMap<OperatorId, OldOperator>,
): Record<OperatorId, OperatorRestore> {
  const restores: Record<OperatorId, OperatorRestore> = {};
  for (const { id } of vertex.operators) {
    const known = old.get(id);
    if (known !== undefined) restores[id] = restoreOf(known, vertex.parallelism, index);
  }
  return restores;
}

function restoreOf(old: OldOperator, parallelism: number, index: number): OperatorRestore {
  const unchangedParallelism = old.parallelism === parallelism;
  const range = computeKeyGroupRange(old.maxParallelism, parallelism, index);
  const keyed = old.states
    .map((state) => state.keyed)
    .filter((handle): handle is KeyedStateHandle => handle !== undefined)
    .filter((handle) => intersectRanges(handle.range, range) !== undefined);
  const sources = unchangedParallelism ? [old.states[index] ?? nothing] : old.states;
  const operator = sources
    .map((state) => state.operator)
    .filter((handle): handle is StateHandle => handle !== undefined);
  const watermark = minimumWatermark(old);
  return { keyed, operator, unchangedParallelism, ...(watermark !== undefined && { watermark }) };
}

/** Over the old subtasks that had not finished: a finished one holds nothing back. */
function minimumWatermark(old: OldOperator): number | undefined {
  const relevant = old.states.filter(
    (state, index) => old.finished[index] !== true || state.watermark !== undefined,
  );
  if (relevant.length === 0) return undefined;
  let minimum = Infinity;
  for (const { watermark } of relevant) {
    if (watermark === undefined) return undefined;
    minimum = Math.min(minimum, watermark);
  }
  return minimum;
}

/** A new subtask has nothing to do only when every old subtask of every one of its operators had finished. */
function isFinished(vertex: AssignableVertex, old: ReadonlyMap<OperatorId, OldOperator>): boolean {
  return vertex.operators.every(({ id }) => {
    const known = old.get(id);
    return known !== undefined && known.finished.length > 0 && known.finished.every(Boolean);
  });
}

function label(operator: {
  readonly id: string;
  readonly uid?: string;
  readonly name: string;
}): string {
  return operator.uid === undefined
    ? `${operator.name} (no uid, id ${operator.id})`
    : `${operator.name} (uid ${operator.uid})`;
}

function incompatible(
  message: string,
  details: Readonly<Record<string, unknown>> = {},
): MillraceError {
  return new MillraceError('CHECKPOINT_INCOMPATIBLE', message, { details });
}
