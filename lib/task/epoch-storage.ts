/**
 * Snapshot storage of tasks that outlive leaders: a checkpoint is written into the directories of the leadership that
 * began it. Ids tell which that is, as every leader counts on above all ids of those before it.
 */
import type { SnapshotStorage } from '../state/snapshot-storage.js';
import type { StateHandle } from '../state/state-handle.js';

/** Storage that writes into directories of this leadership. */
export type OpenStorage = (epochLabel: string) => SnapshotStorage;

/** Leaders whose snapshots may still be being written; what older ones began is of no use any more. */
const maxOlder = 8;

export class EpochStorage implements SnapshotStorage {
  readonly #open: OpenStorage;
  #current: { readonly label: string; readonly storage: SnapshotStorage };
  /** Oldest first. */
  readonly #older: { readonly upTo: number; readonly storage: SnapshotStorage }[] = [];

  constructor(open: OpenStorage, epochLabel: string) {
    this.#open = open;
    this.#current = { label: epochLabel, storage: open(epochLabel) };
  }

  /** Checkpoints above `lastCheckpointId` belong to a new leadership. */
  enter(epochLabel: string, lastCheckpointId: number): void {
    if (epochLabel === this.#current.label) return;
    this.#older.push({ upTo: lastCheckpointId, storage: this.#current.storage });
    if (this.#older.length > maxOlder) this.#older.shift();
    this.#current = { label: epochLabel, storage: this.#open(epochLabel) };
  }

  write(checkpointId: number, name: string, bytes: Uint8Array): Promise<StateHandle> {
    const older = this.#older.find(({ upTo }) => checkpointId <= upTo);
    return (older ?? this.#current).storage.write(checkpointId, name, bytes);
  }

  read(handle: StateHandle, baseDirectory: string): Promise<Uint8Array> {
    return this.#current.storage.read(handle, baseDirectory);
  }
}
