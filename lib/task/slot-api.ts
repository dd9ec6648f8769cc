/**
 * The surface between a slot's runtime (which runs tasks cooperatively on one thread) and whatever
 * hosts the thread: a worker of a TaskManager, or the calling thread (local environment, tests).
 */
import type { AttemptId, OperatorId } from '../base/ids.js';
import type { Failure } from '../base/errors.js';
import type { OperatorEvent } from '../operators/stream-operator.js';
import type { TaskStateSnapshot } from '../state/state-handle.js';
import type { ExecutionState } from '../gateway/execution-state.js';
import type { TaskMetrics } from '../gateway/taskmanager-gateway.js';

/** Host -> slot. Plain data: crosses a MessagePort. */
export type SlotCommand =
  | {
      readonly kind: 'triggerCheckpoint';
      readonly attemptIds: readonly AttemptId[];
      readonly checkpointId: number;
      readonly timestamp: number;
    }
  | {
      readonly kind: 'checkpointComplete';
      readonly attemptIds: readonly AttemptId[];
      readonly checkpointId: number;
    }
  | {
      readonly kind: 'checkpointAborted';
      readonly attemptIds: readonly AttemptId[];
      readonly checkpointId: number;
    }
  /** Answered by `taken` with the same `ticket`. */
  | {
      readonly kind: 'operatorEvent';
      readonly ticket: number;
      readonly attemptId: AttemptId;
      readonly operatorId: OperatorId;
      readonly event: OperatorEvent;
    }
  /** A new leader goes on with the tasks (see TaskManagerGateway.adoptTasks). Answered by `taken` with the same `ticket`. */
  | {
      readonly kind: 'adopt';
      readonly ticket: number;
      readonly epochLabel: string;
      readonly completedCheckpointId: number;
      readonly abortedCheckpointId: number;
    }
  /** Ask every task to stop; `closed` follows when all are. */
  | { readonly kind: 'cancel' };

/** Slot -> host. Plain data. */
export type SlotReportMessage =
  | {
      readonly kind: 'taskState';
      readonly attemptId: AttemptId;
      readonly state: ExecutionState;
      readonly failure?: Failure;
    }
  | {
      readonly kind: 'checkpointAck';
      readonly attemptId: AttemptId;
      readonly checkpointId: number;
      readonly snapshot: TaskStateSnapshot;
      readonly alignmentMs: number;
      readonly syncMs: number;
      readonly asyncMs: number;
      readonly startDelayMs: number;
    }
  | {
      readonly kind: 'checkpointDecline';
      readonly attemptId: AttemptId;
      readonly checkpointId: number;
      readonly failure: Failure;
    }
  | { readonly kind: 'endOfData'; readonly attemptId: AttemptId }
  | {
      readonly kind: 'operatorEvent';
      readonly attemptId: AttemptId;
      readonly operatorId: OperatorId;
      readonly event: OperatorEvent;
    }
  | { readonly kind: 'taken'; readonly ticket: number }
  | { readonly kind: 'metrics'; readonly tasks: readonly TaskMetrics[] }
  /** Every task ended; the thread may go. */
  | { readonly kind: 'closed' };
