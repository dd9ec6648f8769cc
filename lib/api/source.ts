/**
 * Sources by the split model (FLIP-27): an enumerator, one per source beside the JobMaster, finds
 * splits and hands them to readers, one per subtask. Splits and enumerator state are plain data.
 */

export type Boundedness = 'bounded' | 'unbounded';

export interface Source<T, SplitT, EnumStateT> {
  readonly boundedness: Boundedness;
  createEnumerator(context: SplitEnumeratorContext<SplitT>): SplitEnumerator<SplitT, EnumStateT>;
  restoreEnumerator(
    context: SplitEnumeratorContext<SplitT>,
    state: EnumStateT,
  ): SplitEnumerator<SplitT, EnumStateT>;
  createReader(context: SourceReaderContext): SourceReader<T, SplitT>;
}

export interface SplitEnumeratorContext<SplitT> {
  readonly parallelism: number;
  /** Subtasks whose readers are registered, ascending. */
  registeredReaders(): readonly number[];
  /** Ordered per reader; part of the next checkpoint of that reader once delivered. */
  assignSplits(subtask: number, splits: readonly SplitT[]): void;
  /** No further split will come for this reader. */
  signalNoMoreSplits(subtask: number): void;
  /** Periodic discovery: `fn` runs on the enumerator's thread every `periodMs` (once when 0). A rejection fails the job. */
  callAsync(fn: () => Promise<void>, periodMs?: number): void;
}

/** Runs on one thread; calls never overlap. Throwing fails the job over. */
export interface SplitEnumerator<SplitT, EnumStateT> {
  start(): void | Promise<void>;
  addReader(subtask: number): void;
  handleSplitRequest(subtask: number): void;
  /** Splits of a failed reader that no completed checkpoint covers, in the order they were assigned. */
  addSplitsBack(splits: readonly SplitT[], subtask: number): void;
  /**
   * A new leader goes on with running readers: `subtask` was given these splits, in this order, after the snapshot this
   * enumerator was restored from. They must not be handed out again. Called after `start`, before `addReader`. An
   * enumerator without it, one that throws, or one that assigned splits before has its job restored from the checkpoint.
   */
  adoptSplits?(splits: readonly SplitT[], subtask: number): void;
  snapshotState(checkpointId: number): EnumStateT;
  close(): void | Promise<void>;
}

export interface SourceReaderContext {
  readonly subtaskIndex: number;
  readonly parallelism: number;
  /** Wall-clock ms (processing time). */
  now(): number;
  /** Runs `fn` on the task's thread after `delayMs`; returns the canceller. */
  setTimer(delayMs: number, fn: () => void): () => void;
  /** Asks the enumerator for one more split. */
  requestSplit(): void;
  /** Data became available: poll again. May be called from any callback of the thread. */
  wakeUp(): void;
  /** Fails the task: for errors of background reads. */
  fail(error: unknown): void;
}

/**
 * `splitId` gives each split its own watermark. It survives restores when the split itself names the id, as a
 * string field `id` (or `splitId`).
 */
export interface ReaderOutput<T> {
  collect(value: T, timestamp?: number, splitId?: string): void;
  /** The split is exhausted and holds back no watermark any more. */
  releaseSplit(splitId: string): void;
  /** Nothing more should be collected in this call of `pollBatch`: other tasks are due, or an output is full. */
  readonly isFull: boolean;
}

/** Runs on the task's thread; never blocks. Background I/O calls `wakeUp` when data is there. */
export interface SourceReader<T, SplitT> {
  start(): void;
  /** Emits at most one record. */
  pollNext(output: ReaderOutput<T>): 'more' | 'nothing' | 'end';
  /**
   * Where it is there, called instead of `pollNext`: emits records until `output.isFull` (asked after each one), until
   * nothing is there, or to the end. For readers that hand out records faster than calls are made.
   */
  pollBatch?(output: ReaderOutput<T>): 'more' | 'nothing' | 'end';
  addSplits(splits: readonly SplitT[]): void;
  notifyNoMoreSplits(): void;
  /** Unfinished splits with their positions: restoring from them continues exactly here. */
  snapshotState(checkpointId: number): SplitT[];
  notifyCheckpointComplete?(checkpointId: number): void;
  close(): void | Promise<void>;
}
