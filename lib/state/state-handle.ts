/** Handles to snapshot data: plain data that crosses processes and is written into checkpoint metadata. */
import type { OperatorId } from '../base/ids.js';

/** Where the bytes are. Small states travel inline (state.storage.small-state-threshold). */
export type StateHandle =
  | { readonly kind: 'inline'; readonly bytes: Uint8Array }
  | {
      readonly kind: 'file';
      /** Path relative to the checkpoint's directory (checkpoints are relocatable), or absolute. */
      readonly path: string;
      readonly sizeBytes: number;
      /** CRC-32 of the whole file, checked when it is read. */
      readonly crc32: number;
    };

/** Inclusive range of key groups. */
export interface KeyGroupRange {
  readonly start: number;
  readonly end: number;
}

/** Keyed state and timers of one operator subtask: one self-contained section per key group. */
export interface KeyedStateHandle {
  readonly range: KeyGroupRange;
  /** Byte offset and length in the data of the section of each key group that has state. */
  readonly sections: readonly {
    readonly keyGroup: number;
    readonly offset: number;
    readonly length: number;
  }[];
  readonly data: StateHandle;
}

/** Snapshot of one operator of one subtask. */
export interface OperatorSubtaskState {
  readonly keyed?: KeyedStateHandle;
  /** Encoded operator (list / union list) state: see lib/state/operator-state-backend.ts. */
  readonly operator?: StateHandle;
  /** The operator's current watermark (event-time ms); absent before the first. */
  readonly watermark?: number;
}

/** Snapshot of one subtask: what a task acknowledges a checkpoint with. */
export interface TaskStateSnapshot {
  readonly operators: Readonly<Record<OperatorId, OperatorSubtaskState>>;
  /** The subtask had processed all its input and finished its operators. */
  readonly finished: boolean;
}

/** What a subtask is restored from, after assignment to the (possibly new) parallelism. */
export interface OperatorRestore {
  /** Handles that intersect this subtask's key-group range. */
  readonly keyed: readonly KeyedStateHandle[];
  /** With unchanged parallelism just this subtask's; else of all old subtasks, in order: the backend takes its share. */
  readonly operator: readonly StateHandle[];
  /** True when `operator` is this subtask's own, to be taken whole. */
  readonly unchangedParallelism: boolean;
  /** Minimum over the old subtasks. */
  readonly watermark?: number;
}

export interface TaskRestore {
  readonly checkpointId: number;
  readonly operators: Readonly<Record<OperatorId, OperatorRestore>>;
  /** Every old subtask of the vertex was finished: the new one finishes at once; of user code only committers run. */
  readonly finished: boolean;
  /** Base directory that relative handle paths refer to. */
  readonly baseDirectory: string;
}

/** Every handle of a snapshot. */
export function stateHandles(snapshot: TaskStateSnapshot): StateHandle[] {
  return Object.values(snapshot.operators).flatMap(({ keyed, operator }: OperatorSubtaskState) => [
    ...(keyed === undefined ? [] : [keyed.data]),
    ...(operator === undefined ? [] : [operator]),
  ]);
}

/** Total size of a snapshot's bytes. */
export function snapshotSize(snapshot: TaskStateSnapshot): number {
  let size = 0;
  for (const state of Object.values(snapshot.operators)) {
    if (state.keyed !== undefined) size += handleSize(state.keyed.data);
    if (state.operator !== undefined) size += handleSize(state.operator);
  }
  return size;
}

export function handleSize(handle: StateHandle): number {
  return handle.kind === 'inline' ? handle.bytes.byteLength : handle.sizeBytes;
}
