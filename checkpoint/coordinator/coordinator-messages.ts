/** What the coordinator's machine is told (facts) and what it orders (effects, in order of execution). */
import type { Failure } from '../../lib/base/errors.js';
import type { AttemptId, OperatorId } from '../../lib/base/ids.js';
import type { StateHandle, TaskStateSnapshot } from '../../lib/state/state-handle.js';
import type { CheckpointFailureReason } from '../failure-reason.js';
import type { CheckpointMetadata, CheckpointPointer, CheckpointSubtask } from '../types.js';

type Subtasks = readonly CheckpointSubtask[];

export type CoordinatorInput =
  /** All tasks run. */
  | { readonly type: 'started'; readonly subtasks: Subtasks }
  /** Tasks are restarted, or the job ends. */
  | { readonly type: 'stopped'; readonly reason: string }
  | { readonly type: 'closed' }
  /** Pointers in the store, ascending. */
  | { readonly type: 'pointersLoaded'; readonly pointers: readonly CheckpointPointer[] }
  | { readonly type: 'checkpointRequested'; readonly token: number }
  | {
      readonly type: 'idTaken';
      readonly request: number;
      readonly checkpointId: number;
      /** Wall-clock ms. */
      readonly timestamp: number;
      readonly subtasks: Subtasks;
    }
  | { readonly type: 'idFailed'; readonly request: number; readonly failure: Failure }
  | {
      readonly type: 'coordinatorsSnapshotted';
      readonly checkpointId: number;
      readonly states: Readonly<Record<OperatorId, Uint8Array>>;
      readonly subtasks: Subtasks;
    }
  | {
      readonly type: 'coordinatorsFailed';
      readonly checkpointId: number;
      readonly failure: Failure;
    }
  | {
      readonly type: 'taskAcknowledged';
      readonly checkpointId: number;
      readonly attemptId: AttemptId;
      readonly snapshot: TaskStateSnapshot;
    }
  | {
      readonly type: 'taskDeclined';
      readonly checkpointId: number;
      readonly attemptId: AttemptId;
      readonly failure: Failure;
    }
  | { readonly type: 'subtaskFinished'; readonly attemptId: AttemptId }
  | { readonly type: 'endOfDataReported'; readonly subtasks: Subtasks }
  | {
      readonly type: 'metadataStored';
      readonly checkpointId: number;
      readonly metadataPath: string;
      readonly sha256: string;
      readonly metadataBytes: number;
    }
  | { readonly type: 'metadataFailed'; readonly checkpointId: number; readonly failure: Failure }
  | { readonly type: 'pointerAdded'; readonly checkpointId: number }
  | { readonly type: 'pointerFailed'; readonly checkpointId: number; readonly failure: Failure }
  | { readonly type: 'timerFired' }
  /** The leader may act again; for this time, ms, it could not. */
  | { readonly type: 'resumed'; readonly suspendedMs: number }
  /** The leader's deadline passed while tasks were being triggered: whether they were is not known. */
  | { readonly type: 'triggerUncertain'; readonly checkpointId: number };

export type CoordinatorEvent =
  | {
      readonly kind: 'triggered';
      readonly checkpointId: number;
      readonly timestamp: number;
      readonly tasks: number;
    }
  | {
      readonly kind: 'acknowledged';
      readonly checkpointId: number;
      readonly tasks: number;
      readonly stateSize: number;
    }
  | {
      readonly kind: 'completed';
      readonly pointer: CheckpointPointer;
      readonly durationMs: number;
      readonly stateSize: number;
    }
  | {
      readonly kind: 'aborted';
      /** Absent when it failed before it had an id. */
      readonly checkpointId?: number;
      readonly reason: CheckpointFailureReason;
      readonly failure: Failure;
    };

export type CoordinatorEffect =
  | { readonly type: 'takeId'; readonly request: number }
  | { readonly type: 'snapshotCoordinators'; readonly checkpointId: number }
  | { readonly type: 'releaseCoordinators'; readonly checkpointId: number }
  | {
      readonly type: 'triggerTasks';
      readonly attempts: readonly AttemptId[];
      readonly checkpointId: number;
      readonly timestamp: number;
    }
  | { readonly type: 'storeMetadata'; readonly metadata: CheckpointMetadata }
  /** The commit point. Repeated with the same pointer until the store says yes or no. */
  | {
      readonly type: 'addPointer';
      readonly pointer: CheckpointPointer;
      readonly subsumed: readonly number[];
    }
  /** Only after the pointer was added. */
  | {
      readonly type: 'notifyComplete';
      readonly attempts: readonly AttemptId[];
      readonly checkpointId: number;
    }
  | {
      readonly type: 'notifyAborted';
      readonly attempts: readonly AttemptId[];
      readonly checkpointId: number;
    }
  /** Files of a checkpoint no pointer refers to, for certain. */
  | { readonly type: 'deleteCheckpoint'; readonly checkpointId: number }
  | {
      readonly type: 'discardStates';
      readonly checkpointId: number;
      readonly handles: readonly StateHandle[];
    }
  | { readonly type: 'collectGarbage' }
  | { readonly type: 'armTimer'; readonly at: number }
  | { readonly type: 'cancelTimer' }
  | { readonly type: 'failJob'; readonly failure: Failure }
  | { readonly type: 'report'; readonly event: CoordinatorEvent }
  | {
      readonly type: 'settle';
      readonly tokens: readonly number[];
      readonly outcome:
        | {
            readonly kind: 'completed';
            readonly pointer: CheckpointPointer;
            readonly metadata: CheckpointMetadata;
          }
        | { readonly kind: 'failed'; readonly failure: Failure };
    };
