import type { StateHandle } from './state-handle.js';

/**
 * What tasks need of checkpoint storage. A write is durable (file and directory synced) when its
 * promise resolves. Satisfied by the storages in checkpoint/ by shape.
 */
export interface SnapshotStorage {
  /** Bytes up to the small-state threshold stay inline; larger ones become a file of the checkpoint. `name` is unique per attempt and operator. */
  write(checkpointId: number, name: string, bytes: Uint8Array): Promise<StateHandle>;
  /** Checks size and CRC; CHECKPOINT_CORRUPT or CHECKPOINT_NOT_FOUND names the file. `baseDirectory` resolves relative paths. */
  read(handle: StateHandle, baseDirectory: string): Promise<Uint8Array>;
}
