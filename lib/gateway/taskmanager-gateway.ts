/**
 * Everything a JobManager and a TaskManager say to each other. Both directions travel on one ordered,
 * bidirectional stream that the TaskManager opens to the leader; every message carries the leader's
 * epoch, and a TaskManager refuses one older than the newest it has seen (STALE_EPOCH).
 */
import type {
  AllocationId,
  AttemptId,
  Digest,
  JobId,
  OperatorId,
  TaskManagerId,
} from '../base/ids.js';
import type { Failure } from '../base/errors.js';
import type { MetricSample } from '../base/metrics.js';
import type { OperatorEvent } from '../operators/stream-operator.js';
import type { TaskStateSnapshot } from '../state/state-handle.js';
import type { ExecutionState } from './execution-state.js';
import type { SlotDeployment } from './task-deployment-descriptor.js';

/** Raised when messages change incompatibly; unknown fields are tolerated within one version. */
export const protocolVersion = 1;

// ---- Registration ------------------------------------------------------------------------------

export interface TaskManagerRegistrationRequest {
  readonly protocolVersion: number;
  readonly taskManagerId: TaskManagerId;
  readonly host: string;
  readonly pid: number;
  readonly dataAddress: string;
  readonly slots: SlotReport;
  readonly hardware: { readonly cpuCores: number; readonly memoryBytes: number };
  /** Bytes of heap a slot may use. */
  readonly slotMemoryBytes: number;
}

export interface TaskManagerRegistrationResponse {
  readonly heartbeatIntervalMs: number;
  readonly heartbeatTimeoutMs: number;
}

/** The truth about a TaskManager's slots: sent with registration and every heartbeat. */
export interface SlotReport {
  readonly slots: readonly {
    readonly slotIndex: number;
    readonly allocationId?: AllocationId;
    readonly jobId?: JobId;
    readonly attempts: readonly { readonly attemptId: AttemptId; readonly state: ExecutionState }[];
  }[];
}

/** What the reader of one source operator was given, as its TaskManager saw it pass by. */
export interface ReaderInventory {
  readonly isRegistered: boolean;
  /** It asked for a split and got no answer yet. */
  readonly awaitsSplit: boolean;
  readonly noMoreSplits: boolean;
  /**
   * Splits it was given, in order. `after`: the last checkpoint triggered at the attempt before they came (0, or the
   * one it was restored from): a checkpoint above `after` covers them, one at or below it does not.
   */
  readonly given: readonly { readonly after: number; readonly splits: readonly unknown[] }[];
}

/** One attempt a TaskManager holds: what a new leader needs to go on with it instead of restarting it. */
export interface AttemptInventory {
  readonly attemptId: AttemptId;
  readonly allocationId: AllocationId;
  readonly slotIndex: number;
  readonly state: ExecutionState;
  /** With FAILED. */
  readonly failure?: Failure;
  /** The highest checkpoint it acknowledged or was restored from; 0 when there is none. */
  readonly lastCheckpointId: number;
  /** The highest checkpoint it was told is complete or was restored from: splits that one covers are not told any more. */
  readonly completedCheckpointId: number;
  /** It has processed all its input and waits for a final checkpoint. */
  readonly endOfData: boolean;
  /** By source operator of the attempt. */
  readonly readers: Readonly<Record<OperatorId, ReaderInventory>>;
}

// ---- JobManager -> TaskManager -----------------------------------------------------------------

export interface TaskManagerGateway {
  /** Reserves a slot for a job. CONFLICT when it is taken. */
  requestSlot(request: {
    jobId: JobId;
    allocationId: AllocationId;
    slotIndex: number;
  }): Promise<void>;
  /** Ends the slot's thread, if any, and frees the slot. Resolves when its tasks are gone. Idempotent. */
  freeSlot(request: { allocationId: AllocationId; cause: string }): Promise<void>;
  /** Starts a slot thread with these tasks; resolves once accepted. States follow by `updateTaskState`. */
  submitTasks(deployment: SlotDeployment): Promise<void>;
  /**
   * Cancels every task of the slot: asks, then ends the thread. Resolves when they are gone, at the latest after
   * task.cancellation.timeout, when the TaskManager process exits instead.
   */
  cancelTasks(request: { allocationId: AllocationId }): Promise<void>;
  /** One-way, ordered with the other one-way messages below. */
  triggerCheckpoint(request: {
    jobId: JobId;
    attemptIds: readonly AttemptId[];
    checkpointId: number;
    timestamp: number;
  }): void;
  notifyCheckpointComplete(request: {
    jobId: JobId;
    attemptIds: readonly AttemptId[];
    checkpointId: number;
  }): void;
  notifyCheckpointAborted(request: {
    jobId: JobId;
    attemptIds: readonly AttemptId[];
    checkpointId: number;
  }): void;
  /** Resolves when the task has taken the event (its acknowledgement gates checkpoint triggers). */
  sendOperatorEvent(request: {
    jobId: JobId;
    attemptId: AttemptId;
    operatorId: OperatorId;
    event: OperatorEvent;
  }): Promise<void>;
  /**
   * What this TaskManager holds of a job, all of it taken at one moment: what it reports on the same stream after the
   * answer happened later.
   */
  requestInventory(request: {
    jobId: JobId;
  }): Promise<{ readonly attempts: readonly AttemptInventory[] }>;
  /**
   * The tasks of a slot go on under this leader. Resolves when the slot's thread has taken it, so that it comes before
   * whatever is sent later: snapshots above `abortedCheckpointId` go to directories of `epochLabel`; checkpoints up to it
   * are aborted, their barriers dropped when they arrive; `completedCheckpointId` (0: none) is complete, which repeats a
   * notification that may have been lost. A task that is held back does its part when it can. CONFLICT when the slot does not run exactly these attempts (ended ones included).
   */
  adoptTasks(request: {
    jobId: JobId;
    allocationId: AllocationId;
    attemptIds: readonly AttemptId[];
    epochLabel: string;
    completedCheckpointId: number;
    abortedCheckpointId: number;
  }): Promise<void>;
  /** Lines of the TaskManager's log, newest last; `jobId` filters to a job's lines. */
  requestLog(request: {
    jobId?: JobId;
    maxLines: number;
    stream: 'log' | 'stdout';
  }): Promise<{ lines: readonly string[] }>;
}

// ---- TaskManager -> JobManager -----------------------------------------------------------------

export interface TaskStateUpdate {
  readonly jobId: JobId;
  readonly attemptId: AttemptId;
  readonly state: ExecutionState;
  /** With FAILED. */
  readonly failure?: Failure;
  /** With a terminal state: the task's last figures. */
  readonly metrics?: TaskMetrics;
}

export interface CheckpointAck {
  readonly jobId: JobId;
  readonly attemptId: AttemptId;
  readonly checkpointId: number;
  readonly snapshot: TaskStateSnapshot;
  /** ms: from the first to the last barrier; of the synchronous part; of the asynchronous part; from trigger to the first barrier. */
  readonly alignmentMs: number;
  readonly syncMs: number;
  readonly asyncMs: number;
  readonly startDelayMs: number;
}

export interface TaskMetrics {
  readonly attemptId: AttemptId;
  readonly numRecordsIn: number;
  readonly numRecordsOut: number;
  readonly numBytesIn: number;
  readonly numBytesOut: number;
  /** Accumulated ms; their growth per second gives Flink's ...TimeMsPerSecond. */
  readonly busyMs: number;
  readonly backPressuredMs: number;
  readonly idleMs: number;
  /** Event-time ms; absent before the first watermark. */
  readonly currentInputWatermark?: number;
  readonly currentOutputWatermark?: number;
  readonly numLateRecordsDropped: number;
  /** Metrics user functions registered. */
  readonly user?: readonly MetricSample[];
}

export interface HeartbeatPayload {
  readonly slots: SlotReport;
  readonly taskMetrics: readonly TaskMetrics[];
  readonly process: {
    readonly rssBytes: number;
    readonly heapUsedBytes: number;
    /** Worst lag of the main thread, which owns the sockets, since the last heartbeat. */
    readonly eventLoopLagMs: number;
    /** Buffers of the channels of all slots. */
    readonly networkMemoryBytes: number;
  };
}

export interface HeartbeatResponse {
  /** SUSPENDED: it cannot reach etcd, commands nothing, and holds what it is told until it can. Tasks go on. */
  readonly leaderState: 'ACTIVE' | 'SUSPENDED';
}

export interface JobManagerGateway {
  heartbeat(payload: HeartbeatPayload): Promise<HeartbeatResponse>;
  /** One-way and ordered with the others below; the stream is the delivery guarantee, registration resynchronises. */
  updateTaskState(update: TaskStateUpdate): void;
  acknowledgeCheckpoint(ack: CheckpointAck): void;
  declineCheckpoint(decline: {
    jobId: JobId;
    attemptId: AttemptId;
    checkpointId: number;
    failure: Failure;
  }): void;
  /** The task has processed all its input and waits for a final checkpoint. */
  reportEndOfData(report: { jobId: JobId; attemptId: AttemptId }): void;
  sendOperatorEvent(event: {
    jobId: JobId;
    attemptId: AttemptId;
    operatorId: OperatorId;
    event: OperatorEvent;
  }): void;
  /** A chunk of a job's bundle (at most 1 MiB); `end` marks the last. */
  fetchBlob(request: {
    jobId: JobId;
    digest: Digest;
    offset: number;
  }): Promise<{ bytes: Uint8Array; end: boolean }>;
}
