import type { SnapshotStorage } from '../../lib/state/snapshot-storage.js';
import type { StateHandle } from '../../lib/state/state-handle.js';

export interface StoredMetadata {
  /** Absolute path or URI of the metadata file. */
  readonly metadataPath: string;
  readonly bytes: Uint8Array;
  /** What relative paths in the metadata refer to. */
  readonly baseDirectory: string;
}

/**
 * Checkpoints of one job, written by one leadership. Its epoch label is part of the directory names, so
 * two leaders never write to the same file. Errors: DISK_FULL, CHECKPOINT_STORAGE (try again),
 * CHECKPOINT_NOT_FOUND, each naming the path.
 */
export interface CheckpointStorage {
  /** Directory of a checkpoint of this leadership; it need not exist. */
  checkpointDirectory(checkpointId: number): string;
  /** Resolves when file and directory are durable; before that nothing is visible under the final name. */
  writeMetadata(
    checkpointId: number,
    bytes: Uint8Array,
  ): Promise<{ readonly metadataPath: string }>;
  /** `path` is a checkpoint directory or a metadata file. Bytes are returned as they are: check them. */
  readMetadata(path: string): Promise<StoredMetadata>;
  /**
   * Deletes a checkpoint of this job by the path of its metadata file or its directory. Idempotent. A directory that is
   * marked as retained, or that is no checkpoint directory of this job, is left alone.
   */
  deleteCheckpoint(path: string): Promise<void>;
  /** Deletes state files that no metadata will name (of a late acknowledgement). Idempotent. */
  discardStates(checkpointId: number, handles: readonly StateHandle[]): Promise<void>;
  /** Marks a checkpoint to outlive its job: `deleteCheckpoint` leaves it alone. Durable when resolved. */
  markRetained(metadataPath: string): Promise<void>;
  /** Where tasks of this leadership write and read snapshot data. */
  snapshotStorage(smallStateThresholdBytes: number): SnapshotStorage;
}
