/**
 * Vocabulary of checkpointing. `checkpoint/` knows nothing of etcd: it declares the pointer store and
 * the id counter it needs, and ha/ satisfies them by shape. Completing a checkpoint is: every task
 * acknowledged -> metadata written and synced -> pointer added in one fenced transaction (the commit
 * point) -> tasks told.
 */
import type { AttemptId, JobId, OperatorId, VertexId } from '../lib/base/ids.js';
import type { Failure } from '../lib/base/errors.js';
import type { OperatorSubtaskState, StateHandle } from '../lib/state/state-handle.js';

export interface CheckpointPointer {
  readonly checkpointId: number;
  readonly metadataPath: string;
  readonly sha256: string;
  readonly timestamp: number;
  readonly sizeBytes: number;
  readonly kind: 'checkpoint' | 'savepoint';
}

export interface PointerStore {
  add(pointer: CheckpointPointer, subsumed: readonly number[]): Promise<void>;
  list(): Promise<CheckpointPointer[]>;
  listGarbage(): Promise<CheckpointPointer[]>;
  removeGarbage(checkpointId: number): Promise<void>;
}

export interface CheckpointIdCounter {
  next(): Promise<number>;
  raiseTo(checkpointId: number): Promise<void>;
}

/** Content of the metadata file, version 1. */
export interface CheckpointMetadata {
  readonly version: 1;
  readonly checkpointId: number;
  readonly jobId: JobId;
  readonly jobName: string;
  /** Wall-clock ms of the trigger. */
  readonly timestamp: number;
  readonly epoch: string;
  readonly kind: 'checkpoint' | 'savepoint';
  readonly vertices: readonly VertexCheckpoint[];
  /** State of source coordinators (enumerators), by operator. */
  readonly coordinators: Readonly<Record<OperatorId, StateHandle>>;
}

export interface VertexCheckpoint {
  readonly vertexId: VertexId;
  readonly name: string;
  readonly parallelism: number;
  readonly maxParallelism: number;
  readonly operators: readonly {
    readonly id: OperatorId;
    readonly uid?: string;
    readonly name: string;
    readonly maxParallelism: number;
  }[];
  /** By subtask index. */
  readonly subtasks: readonly {
    readonly finished: boolean;
    readonly operators: Readonly<Record<OperatorId, OperatorSubtaskState>>;
  }[];
}

/** A completed checkpoint with what recovery needs. */
export interface CompletedCheckpoint {
  readonly pointer: CheckpointPointer;
  readonly metadata: CheckpointMetadata;
  /** Directory that relative paths in the metadata refer to. */
  readonly baseDirectory: string;
}

/** One attempt the coordinator may have to trigger or await. */
export interface CheckpointSubtask {
  readonly vertexId: VertexId;
  readonly subtaskIndex: number;
  readonly attemptId: AttemptId;
  readonly state: 'running' | 'notRunning' | 'finished';
  /** Subtask indices per vertex that feed this one over any channel are all finished (or there are none). */
  readonly isRoot: boolean;
  /** It has processed all its input and waits for a final checkpoint. */
  readonly endOfData: boolean;
}

/** What the coordinator asks of its JobMaster. */
export interface CheckpointGateway {
  /** Current attempts of all subtasks. */
  subtasks(): readonly CheckpointSubtask[];
  trigger(attempts: readonly AttemptId[], checkpointId: number, timestamp: number): void;
  notifyComplete(attempts: readonly AttemptId[], checkpointId: number): void;
  notifyAborted(attempts: readonly AttemptId[], checkpointId: number): void;
  /** Closes the event gates, awaits assignments in flight, snapshots the enumerators (FLIP-27 ordering). */
  snapshotCoordinators(checkpointId: number): Promise<Readonly<Record<OperatorId, Uint8Array>>>;
  /** Reopens the event gates: the sources acknowledged, or the checkpoint was aborted. */
  releaseCoordinators(checkpointId: number): void;
  /** More consecutive failures than tolerated: fail over. */
  failJob(failure: Failure): void;
}

/** What checkpointing reads of a job vertex; a JobVertex satisfies it by shape. */
export interface CheckpointedVertex {
  readonly id: VertexId;
  readonly name: string;
  readonly parallelism: number;
  readonly maxParallelism: number;
  readonly operators: readonly {
    readonly id: OperatorId;
    readonly uid?: string;
    readonly name: string;
    readonly maxParallelism: number;
  }[];
}

/** When checkpoints are taken and how many are kept; a job's CheckpointConfig satisfies it by shape. */
export interface CheckpointSettings {
  /** 0: no periodic checkpoints. */
  readonly intervalMs: number;
  readonly timeoutMs: number;
  readonly minPauseMs: number;
  readonly maxConcurrent: number;
  readonly tolerableFailures: number;
  readonly numRetained: number;
}
