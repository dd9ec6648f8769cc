/**
 * The contract between operators and the task that runs them. Everything is synchronous on the record
 * path; an operator runs on one thread, never re-entered, and never waits.
 */
import type { Clock } from '../base/clock.js';
import type { Logger } from '../base/logger.js';
import type { MetricRegistry } from '../base/metrics.js';
import type { JobId, OperatorId } from '../base/ids.js';
import type { OperatorRestore, OperatorSubtaskState } from '../state/state-handle.js';
import type { SnapshotStorage } from '../state/snapshot-storage.js';
import type { Source } from '../api/source.js';

/** Where an operator's results go: the chained operators and the network channels behind it. Never waits. */
export interface Output {
  collect(value: unknown, timestamp: number): void;
  collectSide(tag: string, value: unknown, timestamp: number): void;
  emitWatermark(timestamp: number): void;
  emitWatermarkStatus(active: boolean): void;
}

/** Timers of the task's thread in processing time (wall-clock ms). Callbacks run as mail, never inside a record. */
export interface ProcessingTimeService {
  now(): number;
  /** Returns the canceller. */
  registerTimer(timestamp: number, callback: () => void): () => void;
}

/** What a subtask's operator is given. */
export interface OperatorContext {
  readonly jobId: JobId;
  readonly jobName: string;
  readonly operatorId: OperatorId;
  readonly operatorName: string;
  readonly subtaskIndex: number;
  readonly parallelism: number;
  readonly maxParallelism: number;
  /** (Re)start of the job this attempt belongs to, from 0. */
  readonly generation: number;
  /** Unique over all attempts of the job: names of pending files and transactions carry it. */
  readonly attemptId: string;
  readonly output: Output;
  readonly processingTime: ProcessingTimeService;
  readonly clock: Clock;
  readonly metrics: MetricRegistry;
  readonly log: Logger;
  /** Event-time watermarks of sources: interval of emission. */
  readonly autoWatermarkIntervalMs: number;
  /** Present when the task is restored. */
  readonly restore?: OperatorRestore;
  /** The checkpoint the job was restored from, also for an operator without state in it. */
  readonly restoredCheckpointId?: number;
  /** What relative handle paths of `restore` refer to (TaskRestore.baseDirectory). */
  readonly restoreBaseDirectory?: string;
  /** Writes and reads snapshot data. */
  readonly storage: SnapshotStorage;
  /**
   * True when the quantum is used up or an output is full. Loops that can be long (timers) check it
   * between steps and hand the rest to `continueLater`.
   */
  shouldYield(): boolean;
  /**
   * Runs `step` in later quanta, when outputs have room, until it returns true. The task takes no new
   * input and no barrier meanwhile.
   */
  continueLater(step: () => boolean): void;
  /**
   * Runs `step` beside the records, between quanta, each call about 1 ms, until it returns true: cuts long work
   * (writing a snapshot) that must not hold up the task. Rejects with what `step` throws, and with CLOSED when
   * the task ends before.
   */
  inBackground(step: () => boolean): Promise<void>;
  /** The quantum of the slot, for loops that emit: see `ReaderOutput.isFull`. */
  readonly quantum: { readonly isOver: boolean; step(): boolean };
  /** Wakes the task when something outside it (a reader's data) became available. */
  wakeUp(): void;
  /** Sends an event to the operator's coordinator on the JobMaster; ordered. */
  sendOperatorEvent(event: OperatorEvent): void;
}

/** Plain data between a source coordinator and its readers. */
export type OperatorEvent =
  /** Reader -> coordinator: the reader is there (sent once per attempt, with the splits it restored). */
  | { readonly kind: 'readerRegistered'; readonly host: string }
  | { readonly kind: 'requestSplit' }
  /** Reader -> coordinator: splits the reader finished or restored, for people and adoption. */
  | { readonly kind: 'sourceEvent'; readonly payload: unknown }
  /** Coordinator -> reader. Splits are plain data. */
  | { readonly kind: 'addSplits'; readonly splits: readonly unknown[] }
  | { readonly kind: 'noMoreSplits' };

/** The synchronous part is done when this is returned; `finish` is the asynchronous one (uploads, fsync). */
export interface OperatorSnapshotInProgress {
  finish(): Promise<OperatorSubtaskState>;
}

/**
 * Life: setup -> open -> (process... snapshot...)* -> finish (only at the end of input) -> close.
 * `open` restores state from `context.restore`.
 */
export interface StreamOperator {
  setup(context: OperatorContext): void;
  open(): void | Promise<void>;
  processElement(value: unknown, timestamp: number): void;
  /** Forwards the watermark itself, when all timers up to it have fired. */
  processWatermark(timestamp: number): void;
  processWatermarkStatus(active: boolean): void;
  /** Called before the barrier is forwarded: what is emitted here still belongs to the checkpoint. */
  prepareSnapshotPreBarrier(checkpointId: number): void;
  /** After the barrier was forwarded; must capture state synchronously. */
  snapshotState(checkpointId: number): OperatorSnapshotInProgress;
  /** The checkpoint is committed: side effects up to it may become visible. A rejection fails the task. */
  notifyCheckpointComplete(checkpointId: number): void | Promise<void>;
  notifyCheckpointAborted(checkpointId: number): void;
  /** End of input, after MAX_WATERMARK and its timers: emit what is left. */
  finish(): void;
  /** Releases resources, after success, failure or cancellation; must not emit. */
  close(): void | Promise<void>;
  /**
   * In place of `open` when the subtask had ended before the checkpoint it is restored from: publishes what
   * that checkpoint lists as not yet committed. Only `close` follows.
   */
  commitRestored?(): Promise<void>;
}

/** A source operator is pulled by its task instead of being given elements. */
export interface SourceStreamOperator extends StreamOperator {
  /**
   * Emits at most one record. `more`: call again; `nothing`: wait for `context.wakeUp()`;
   * `end`: bounded input is exhausted.
   */
  emitNext(): 'more' | 'nothing' | 'end';
  /** Emits records until the quantum is over, each counted as a step of it. Same answers. */
  emitBatch?(): 'more' | 'nothing' | 'end';
  handleOperatorEvent(event: OperatorEvent): void;
}

export type OperatorFactory = () => StreamOperator;

/** Tells apart the sources of a chain's head. */
export function isSourceOperator(operator: StreamOperator): operator is SourceStreamOperator {
  return 'emitNext' in operator;
}

/**
 * The functions of a job, found by id: by rebuild (re-running main in a slot) or by reference (local).
 * Unknown ids throw JOB_FINGERPRINT.
 */
export interface FunctionSource {
  readonly fingerprint: string;
  operatorFactory(operator: OperatorId): OperatorFactory;
  /** Key selector of a HASH edge. */
  keySelector(edgeId: string): (value: unknown) => unknown;
  /** The Source behind a source operator: its enumerator runs beside the JobMaster. */
  source(operator: OperatorId): Source<unknown, unknown, unknown>;
}
