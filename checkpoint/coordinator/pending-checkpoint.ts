import { InvariantError } from '../../lib/base/assert.js';
import type { AttemptId, JobId, OperatorId } from '../../lib/base/ids.js';
import { defineTransitions, checkTransition } from '../../lib/base/transitions.js';
import { handleSize, snapshotSize, type TaskStateSnapshot } from '../../lib/state/state-handle.js';
import type {
  CheckpointedVertex,
  CheckpointMetadata,
  CheckpointPointer,
  CheckpointSubtask,
} from '../types.js';
import type { CheckpointPlan } from './checkpoint-plan.js';

/**
 * PREPARING: event gates closed, enumerators being snapshotted. TRIGGERED: acknowledgements awaited.
 * STORING: metadata being written. STORED: waits for an earlier pointer's outcome. COMMITTING: the
 * pointer is being added; from here on only the store decides. ABANDONED: the outcome is for a
 * successor to see, so nothing may be deleted.
 */
export type PendingState =
  | 'PREPARING'
  | 'TRIGGERED'
  | 'STORING'
  | 'STORED'
  | 'COMMITTING'
  | 'COMPLETED'
  | 'ABORTED'
  | 'ABANDONED';

export const pendingTransitions = defineTransitions<PendingState>({
  PREPARING: ['TRIGGERED', 'ABORTED'],
  TRIGGERED: ['STORING', 'ABORTED'],
  STORING: ['STORED', 'ABORTED'],
  STORED: ['COMMITTING', 'ABORTED'],
  COMMITTING: ['COMPLETED', 'ABORTED', 'ABANDONED'],
  COMPLETED: [],
  ABORTED: [],
  ABANDONED: [],
});

export interface PendingJob {
  readonly jobId: JobId;
  readonly jobName: string;
  readonly epochLabel: string;
  readonly vertices: readonly CheckpointedVertex[];
}

/** One attempt at a checkpoint, from its id to its outcome. */
export class PendingCheckpoint {
  readonly checkpointId: number;
  /** Wall-clock ms of the trigger. */
  readonly timestamp: number;
  /** Monotonic ms. */
  readonly startedAt: number;
  deadline: number;
  /** Callers of triggerNow that wait for it. */
  readonly tokens: readonly number[];
  coordinators: Readonly<Record<OperatorId, Uint8Array>> = {};
  metadata: CheckpointMetadata | undefined;
  pointer: CheckpointPointer | undefined;
  addAttempts = 0;
  /** Set while an add is to be repeated: monotonic ms. */
  addAgainAt: number | undefined;
  gatesClosed = true;
  #state: PendingState = 'PREPARING';
  #plan: CheckpointPlan;
  #awaited = new Map<AttemptId, CheckpointSubtask>();
  readonly #snapshots = new Map<AttemptId, TaskStateSnapshot>();
  #sourcesOutstanding = new Set<AttemptId>();

  constructor(
    plan: CheckpointPlan,
    init: {
      readonly checkpointId: number;
      readonly timestamp: number;
      readonly startedAt: number;
      readonly deadline: number;
      readonly tokens: readonly number[];
    },
  ) {
    this.checkpointId = init.checkpointId;
    this.timestamp = init.timestamp;
    this.startedAt = init.startedAt;
    this.deadline = init.deadline;
    this.tokens = init.tokens;
    this.#plan = plan;
  }

  get state(): PendingState {
    return this.#state;
  }

  get toTrigger(): readonly AttemptId[] {
    return this.#plan.toTrigger;
  }

  /** Attempts that take part: they are told of completion or abort. */
  get participants(): AttemptId[] {
    return this.#plan.toAwait.map((subtask) => subtask.attemptId);
  }

  get isAcknowledged(): boolean {
    return this.#awaited.size === 0;
  }

  /** The gates may open: every source has drawn its line. */
  get sourcesAcknowledged(): boolean {
    return this.#sourcesOutstanding.size === 0;
  }

  get acknowledgedCount(): number {
    return this.#snapshots.size;
  }

  get stateSize(): number {
    let size = 0;
    for (const snapshot of this.#snapshots.values()) size += snapshotSize(snapshot);
    for (const bytes of Object.values(this.coordinators)) size += bytes.byteLength;
    return size;
  }

  /** Bytes of state files, beside the metadata. */
  get fileBytes(): number {
    let size = 0;
    for (const snapshot of this.#snapshots.values()) {
      for (const { keyed, operator } of Object.values(snapshot.operators)) {
        if (keyed?.data.kind === 'file') size += handleSize(keyed.data);
        if (operator?.kind === 'file') size += handleSize(operator);
      }
    }
    return size;
  }

  /** Whether it takes the last word of every task: none has to be awaited by a later one. */
  get coversTheEnd(): boolean {
    return this.isAcknowledged && [...this.#snapshots.values()].every((taken) => taken.finished);
  }

  go(to: PendingState): void {
    checkTransition(`checkpoint ${String(this.checkpointId)}`, pendingTransitions, this.#state, to);
    this.#state = to;
  }

  /** The plan as of the moment the barrier is sent. */
  trigger(plan: CheckpointPlan, coordinators: Readonly<Record<OperatorId, Uint8Array>>): void {
    this.go('TRIGGERED');
    this.#plan = plan;
    this.coordinators = coordinators;
    this.#awaited = new Map(plan.toAwait.map((subtask) => [subtask.attemptId, subtask]));
    this.#sourcesOutstanding = new Set(plan.toTrigger);
  }

  isAwaiting(attemptId: AttemptId): boolean {
    return this.#state === 'TRIGGERED' && this.#awaited.has(attemptId);
  }

  hasSnapshotOf(attemptId: AttemptId): boolean {
    return this.#snapshots.has(attemptId);
  }

  acknowledge(attemptId: AttemptId, snapshot: TaskStateSnapshot): void {
    this.#awaited.delete(attemptId);
    this.#sourcesOutstanding.delete(attemptId);
    this.#snapshots.set(attemptId, snapshot);
  }

  toMetadata(job: PendingJob): CheckpointMetadata {
    const snapshots = new Map<string, TaskStateSnapshot>();
    for (const { vertexId, subtaskIndex, attemptId } of this.#plan.toAwait) {
      const snapshot = this.#snapshots.get(attemptId);
      if (snapshot !== undefined) snapshots.set(`${vertexId}_${String(subtaskIndex)}`, snapshot);
    }
    for (const { vertexId, subtaskIndex } of this.#plan.finished) {
      snapshots.set(`${vertexId}_${String(subtaskIndex)}`, { operators: {}, finished: true });
    }
    return {
      version: 1,
      checkpointId: this.checkpointId,
      jobId: job.jobId,
      jobName: job.jobName,
      timestamp: this.timestamp,
      epoch: job.epochLabel,
      kind: 'checkpoint',
      vertices: job.vertices.map((vertex) => ({
        vertexId: vertex.id,
        name: vertex.name,
        parallelism: vertex.parallelism,
        maxParallelism: vertex.maxParallelism,
        operators: vertex.operators.map(({ id, uid, name, maxParallelism }) => ({
          id,
          name,
          maxParallelism,
          ...(uid !== undefined && { uid }),
        })),
        subtasks: Array.from({ length: vertex.parallelism }, (_, index) => {
          const snapshot = snapshots.get(`${vertex.id}_${String(index)}`);
          if (snapshot === undefined) throw missing(this.checkpointId, vertex.id, index);
          return { finished: snapshot.finished, operators: snapshot.operators };
        }),
      })),
      coordinators: Object.fromEntries(
        Object.entries(this.coordinators).map(([id, bytes]) => [
          id,
          { kind: 'inline' as const, bytes: bytes },
        ]),
      ),
    };
  }
}

function missing(checkpointId: number, vertexId: string, subtask: number): InvariantError {
  return new InvariantError(
    `checkpoint ${String(checkpointId)} has no snapshot of subtask ${String(subtask)} of vertex ${vertexId}`,
  );
}
