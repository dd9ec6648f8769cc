/**
 * Where split enumerators (user code) run: in a worker thread per job, or in the calling thread when
 * functions are there by reference. Both speak the same messages, ordered in both directions.
 */
import type { Failure } from '../../base/errors.js';
import type { OperatorId } from '../../base/ids.js';
import type { Closeable } from '../../base/lifecycle.js';
import type { JobGraph } from '../../graph/job-graph.js';

export interface EnumeratorSpec {
  readonly operatorId: OperatorId;
  readonly parallelism: number;
  /** Of the checkpoint to start from. */
  readonly state?: Uint8Array;
}

export type CoordinatorCommand =
  /** Replaces all enumerators; answers and assignments of an earlier reset no longer count. */
  | {
      readonly kind: 'reset';
      readonly resetNumber: number;
      readonly sources: readonly EnumeratorSpec[];
    }
  | { readonly kind: 'addReader'; readonly operatorId: OperatorId; readonly subtask: number }
  | { readonly kind: 'removeReader'; readonly operatorId: OperatorId; readonly subtask: number }
  | { readonly kind: 'requestSplit'; readonly operatorId: OperatorId; readonly subtask: number }
  | {
      readonly kind: 'addSplitsBack';
      readonly operatorId: OperatorId;
      readonly subtask: number;
      readonly splits: readonly unknown[];
    }
  /** Comes before `addReader` of that subtask; answered by `failed` when the enumerator cannot. */
  | {
      readonly kind: 'adoptSplits';
      readonly operatorId: OperatorId;
      readonly subtask: number;
      readonly splits: readonly unknown[];
    }
  | { readonly kind: 'snapshot'; readonly operatorId: OperatorId; readonly checkpointId: number };

/** In the order things happened in the enumerator: an assignment before a snapshot comes before it. */
export type CoordinatorReply =
  | { readonly kind: 'ready'; readonly resetNumber: number }
  | {
      readonly kind: 'assigned';
      readonly resetNumber: number;
      readonly operatorId: OperatorId;
      readonly subtask: number;
      readonly splits: readonly unknown[];
    }
  /** `addReader` was taken: what comes after it is meant for that reader, not for the one before it. */
  | {
      readonly kind: 'readerAdded';
      readonly resetNumber: number;
      readonly operatorId: OperatorId;
      readonly subtask: number;
    }
  | {
      readonly kind: 'noMoreSplits';
      readonly resetNumber: number;
      readonly operatorId: OperatorId;
      readonly subtask: number;
    }
  | {
      readonly kind: 'snapshotTaken';
      readonly resetNumber: number;
      readonly operatorId: OperatorId;
      readonly checkpointId: number;
      readonly state: Uint8Array;
    }
  /** User code threw, or the thread ended. */
  | { readonly kind: 'failed'; readonly resetNumber: number; readonly failure: Failure };

export interface CoordinatorHost extends Closeable {
  send(command: CoordinatorCommand): void;
}

/** `onReply` may be called before the factory returns from `send`. */
export type CoordinatorHostFactory = (
  graph: JobGraph,
  onReply: (reply: CoordinatorReply) => void,
) => CoordinatorHost;
