/**
 * Sinks by writer and committer (FLIP-143/191). A sink without a committer gives at-least-once (or
 * exactly-once when writes are idempotent); with one, output becomes visible only after the
 * checkpoint that contains it is complete.
 */

export interface SinkContext {
  readonly jobId: string;
  /** A chain may have several sinks: with the attempt it makes names unique. */
  readonly operatorId: string;
  readonly subtaskIndex: number;
  readonly parallelism: number;
  readonly generation: number;
  /** The checkpoint the job was restored from; absent when it began from nothing: then no checkpoint had completed. */
  readonly restoredCheckpointId?: number;
  /** Unique over all attempts of the job; pending names carry it. */
  readonly attemptId: string;
  /** Wall-clock ms. */
  now(): number;
}

export interface Sink<T, CommT = never, WriterStateT = unknown> {
  createWriter(
    context: SinkContext,
    restored: readonly WriterStateT[],
  ): SinkWriter<T, CommT, WriterStateT>;
  createCommitter?(context: SinkContext): Committer<CommT>;
}

export interface SinkWriter<T, CommT = never, WriterStateT = unknown> {
  open?(): void | Promise<void>;
  /** Synchronous; buffers and writes as it likes. `timestamp` is -Infinity for a record without one. */
  write(value: T, timestamp: number): void;
  /** At a barrier: closes what was written since the last one and returns it (plain data), made durable by `sync`. */
  prepareCommit?(checkpointId: number): readonly CommT[];
  /** Asynchronous part: resolves when everything up to `prepareCommit` is durable (file and directory synced). */
  sync?(): Promise<void>;
  snapshotState?(checkpointId: number): readonly WriterStateT[];
  close(): void | Promise<void>;
}

/** `retry`: try again later (disk full, service away); throwing fails the task with that error. */
export type CommitOutcome = 'committed' | 'alreadyCommitted' | 'retry';

export interface Committer<CommT> {
  /** Must be idempotent: it is repeated after every recovery. */
  commit(committables: readonly CommT[]): Promise<readonly CommitOutcome[]>;
  close?(): void | Promise<void>;
}
