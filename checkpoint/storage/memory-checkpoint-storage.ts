/**
 * Checkpoints in memory, for tests. Shared by reference: every
 * storage over the same MemoryFiles sees the same files, as processes do that share a directory.
 */
import { MillraceError } from '../../lib/base/errors.js';
import type { SnapshotStorage } from '../../lib/state/snapshot-storage.js';
import type { StateHandle } from '../../lib/state/state-handle.js';
import type { CheckpointStorage, StoredMetadata } from './checkpoint-storage.js';
import {
  baseName,
  checkpointDirectoryName,
  joinPath,
  metadataFileName,
  parentPath,
  parseCheckpointDirectoryName,
  retainedMarkerName,
  stateFileName,
} from './paths.js';
import { describeStateFile, isAbsolute, verifyStateFile } from './state-data.js';

/**
 * What may go wrong with the next write of a file whose path ends in `suffix`: `full` and `failing` reject;
 * `torn` keeps only the first half but resolves, as a disk does that lies about fsync; `lost` resolves and keeps nothing.
 */
export type MemoryFault = 'full' | 'failing' | 'torn' | 'lost';

export class MemoryFiles {
  readonly #files = new Map<string, Uint8Array>();
  readonly #faults: { readonly suffix: string; readonly fault: MemoryFault }[] = [];

  injectFault(suffix: string, fault: MemoryFault): void {
    this.#faults.push({ suffix, fault });
  }

  get paths(): string[] {
    return [...this.#files.keys()].sort();
  }

  write(path: string, bytes: Uint8Array): void {
    const index = this.#faults.findIndex(({ suffix }) => path.endsWith(suffix));
    const [injected] = index < 0 ? [] : this.#faults.splice(index, 1);
    switch (injected?.fault) {
      case 'full':
        throw new MillraceError(
          'DISK_FULL',
          `no space is left to write ${path}: free some, then it goes on`,
          { details: { path } },
        );
      case 'failing':
        throw new MillraceError('CHECKPOINT_STORAGE', `${path} cannot be written: injected fault`, {
          details: { path },
        });
      case 'torn':
        this.#files.set(path, bytes.slice(0, bytes.byteLength >> 1));
        return;
      case 'lost':
        return;
      case undefined:
        this.#files.set(path, bytes.slice());
    }
  }

  /** A copy, as a file's reader gets one. */
  read(path: string): Uint8Array | undefined {
    return this.#files.get(path)?.slice();
  }

  has(path: string): boolean {
    return this.#files.has(path);
  }

  delete(path: string): void {
    this.#files.delete(path);
  }

  deleteDirectory(directory: string): void {
    for (const path of this.#files.keys()) {
      if (path.startsWith(`${directory}/`)) this.#files.delete(path);
    }
  }
}

export class MemoryCheckpointStorage implements CheckpointStorage {
  readonly #files: MemoryFiles;
  readonly #directory: string;
  readonly #epochLabel: string;

  /** @param directory the job's, for example `memory://local/jobs/<job id>/checkpoints`. */
  constructor(files: MemoryFiles, directory: string, epochLabel: string) {
    this.#files = files;
    this.#directory = directory;
    this.#epochLabel = epochLabel;
  }

  checkpointDirectory(checkpointId: number): string {
    return joinPath(this.#directory, checkpointDirectoryName(checkpointId, this.#epochLabel));
  }

  async writeMetadata(checkpointId: number, bytes: Uint8Array): Promise<{ metadataPath: string }> {
    const metadataPath = joinPath(this.checkpointDirectory(checkpointId), metadataFileName);
    this.#files.write(metadataPath, bytes);
    return { metadataPath };
  }

  async readMetadata(path: string): Promise<StoredMetadata> {
    const metadataPath = this.#files.has(path) ? path : joinPath(path, metadataFileName);
    const bytes = this.#files.read(metadataPath);
    if (bytes === undefined) {
      const message = `no checkpoint is stored at ${path}: there is no file ${metadataPath}`;
      throw new MillraceError('CHECKPOINT_NOT_FOUND', message, { details: { path: metadataPath } });
    }
    return { metadataPath, bytes, baseDirectory: parentPath(metadataPath) };
  }

  async deleteCheckpoint(path: string): Promise<void> {
    const directory = baseName(path) === metadataFileName ? parentPath(path) : path;
    if (parentPath(directory) !== this.#directory) return;
    if (parseCheckpointDirectoryName(baseName(directory)) === undefined) return;
    if (this.#files.has(joinPath(directory, retainedMarkerName))) return;
    this.#files.deleteDirectory(directory);
  }

  async discardStates(checkpointId: number, handles: readonly StateHandle[]): Promise<void> {
    for (const handle of handles) {
      if (handle.kind !== 'file' || isAbsolute(handle.path) || handle.path.includes('/')) continue;
      this.#files.delete(joinPath(this.checkpointDirectory(checkpointId), handle.path));
    }
  }

  async markRetained(metadataPath: string): Promise<void> {
    this.#files.write(joinPath(parentPath(metadataPath), retainedMarkerName), new Uint8Array());
  }

  snapshotStorage(smallStateThresholdBytes: number): SnapshotStorage {
    const files = this.#files;
    return {
      write: async (checkpointId, name, bytes) => {
        // Copied, as it would be by a file: the task may go on changing its buffers.
        if (bytes.byteLength <= smallStateThresholdBytes)
          return { kind: 'inline', bytes: bytes.slice() };
        const file = stateFileName(name);
        files.write(joinPath(this.checkpointDirectory(checkpointId), file), bytes);
        return describeStateFile(file, bytes);
      },
      read: async (handle, baseDirectory) => {
        if (handle.kind === 'inline') return handle.bytes;
        const path = isAbsolute(handle.path) ? handle.path : joinPath(baseDirectory, handle.path);
        const bytes = files.read(path);
        if (bytes === undefined) {
          throw new MillraceError('CHECKPOINT_NOT_FOUND', `${path} does not exist`, {
            details: { path },
          });
        }
        verifyStateFile(handle, path, bytes);
        return bytes;
      },
    };
  }
}
