import { readdir, readFile, rm, rmdir, stat } from 'node:fs/promises';
import { isAbsolute as isAbsolutePath, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { MillraceError } from '../../lib/base/errors.js';
import type { SnapshotStorage } from '../../lib/state/snapshot-storage.js';
import type { StateHandle } from '../../lib/state/state-handle.js';
import type { CheckpointStorage, StoredMetadata } from './checkpoint-storage.js';
import { errnoOf, storageError, syncDirectory, writeDurably } from './durable-file.js';
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

/** Files in a directory that every process reaches under the same absolute path. */
export class FileCheckpointStorage implements CheckpointStorage {
  readonly #directory: string;
  readonly #epochLabel: string;

  /** @param directory the job's checkpoint directory (jobCheckpointDirectory), absolute; created when first written to. */
  constructor(directory: string, epochLabel: string) {
    const path = withoutScheme(directory);
    if (!isAbsolutePath(path)) {
      throw new MillraceError(
        'CONFIG',
        `the checkpoint directory ${directory} must be an absolute path`,
      );
    }
    this.#directory = resolve(path);
    this.#epochLabel = epochLabel;
  }

  checkpointDirectory(checkpointId: number): string {
    return joinPath(this.#directory, checkpointDirectoryName(checkpointId, this.#epochLabel));
  }

  async writeMetadata(checkpointId: number, bytes: Uint8Array): Promise<{ metadataPath: string }> {
    const metadataPath = joinPath(this.checkpointDirectory(checkpointId), metadataFileName);
    await writeDurably(metadataPath, bytes);
    // A task made the directory; its entry must be as durable as the pointer that will name it.
    await syncDirectory(this.#directory).catch((error: unknown) => {
      throw storageError('written', this.#directory, error);
    });
    return { metadataPath };
  }

  async readMetadata(path: string): Promise<StoredMetadata> {
    const absolute = resolve(withoutScheme(path));
    const metadataPath = (await isDirectory(absolute))
      ? joinPath(absolute, metadataFileName)
      : absolute;
    try {
      const bytes = await readFile(metadataPath);
      return { metadataPath, bytes, baseDirectory: parentPath(metadataPath) };
    } catch (error) {
      if (errnoOf(error) !== 'ENOENT') throw storageError('read', metadataPath, error);
      const message = `no checkpoint is stored at ${path}: there is no file ${metadataPath}`;
      throw new MillraceError('CHECKPOINT_NOT_FOUND', message, {
        cause: error,
        details: { path: metadataPath },
      });
    }
  }

  async deleteCheckpoint(path: string): Promise<void> {
    const absolute = resolve(path);
    const directory = baseName(absolute) === metadataFileName ? parentPath(absolute) : absolute;
    if (parentPath(directory) !== this.#directory) return;
    if (parseCheckpointDirectoryName(baseName(directory)) === undefined) return;
    try {
      if (await exists(joinPath(directory, retainedMarkerName))) return;
      // Without its metadata it is no checkpoint any more, whatever happens to the rest.
      await rm(joinPath(directory, metadataFileName), { force: true });
      await rm(directory, { recursive: true, force: true });
    } catch (error) {
      throw storageError('deleted', directory, error);
    }
  }

  async discardStates(checkpointId: number, handles: readonly StateHandle[]): Promise<void> {
    const directory = this.checkpointDirectory(checkpointId);
    try {
      for (const handle of handles) {
        if (handle.kind !== 'file' || isAbsolute(handle.path) || handle.path.includes('/'))
          continue;
        await rm(joinPath(directory, handle.path), { force: true });
      }
      await rmdir(directory);
    } catch (error) {
      const errno = errnoOf(error);
      if (errno !== 'ENOENT' && errno !== 'ENOTEMPTY')
        throw storageError('deleted', directory, error);
    }
  }

  async markRetained(metadataPath: string): Promise<void> {
    await writeDurably(
      joinPath(parentPath(resolve(metadataPath)), retainedMarkerName),
      new Uint8Array(),
    );
  }

  snapshotStorage(smallStateThresholdBytes: number): SnapshotStorage {
    return createSnapshotStorage(this.#directory, this.#epochLabel, smallStateThresholdBytes);
  }
}

/**
 * Where the tasks of a slot write and read snapshot data.
 *
 * @param directory the job's checkpoint directory, as deployed.
 * @param epochLabel of the leader that deployed the slot.
 * @param smallStateThresholdBytes states up to this size travel inline.
 */
export function createSnapshotStorage(
  directory: string,
  epochLabel: string,
  smallStateThresholdBytes: number,
): SnapshotStorage {
  return {
    async write(checkpointId, name, bytes) {
      if (bytes.byteLength <= smallStateThresholdBytes)
        return { kind: 'inline', bytes: bytes.slice() };
      const file = stateFileName(name);
      const checkpoint = checkpointDirectoryName(checkpointId, epochLabel);
      await writeDurably(joinPath(withoutScheme(directory), checkpoint, file), bytes);
      return describeStateFile(file, bytes);
    },
    async read(handle, baseDirectory) {
      if (handle.kind === 'inline') return handle.bytes;
      const path = isAbsolute(handle.path) ? handle.path : joinPath(baseDirectory, handle.path);
      const bytes = await readFile(path).catch((error: unknown) => {
        throw storageError('read', path, error);
      });
      verifyStateFile(handle, path, bytes);
      return bytes;
    },
  };
}

/** Directories of the checkpoints in a job's directory, complete or not, ascending by id. */
export async function listCheckpoints(directory: string): Promise<string[]> {
  const names = await readdir(directory).catch((error: unknown) => {
    if (errnoOf(error) === 'ENOENT') return [];
    throw storageError('read', directory, error);
  });
  const found: { id: number; path: string }[] = [];
  for (const name of names) {
    const parsed = parseCheckpointDirectoryName(name);
    if (parsed !== undefined)
      found.push({ id: parsed.checkpointId, path: joinPath(directory, name) });
  }
  return found.sort((a, b) => a.id - b.id).map(({ path }) => path);
}

/** Flink's users write `file:///path`. */
function withoutScheme(path: string): string {
  return path.startsWith('file:') ? fileURLToPath(path) : path;
}

async function exists(path: string): Promise<boolean> {
  try {
    await stat(path);
    return true;
  } catch (error) {
    const errno = errnoOf(error);
    if (errno === 'ENOENT' || errno === 'ENOTDIR') return false;
    throw error;
  }
}

async function isDirectory(path: string): Promise<boolean> {
  try {
    return (await stat(path)).isDirectory();
  } catch {
    // Reading it gives the error that names what is wrong.
    return false;
  }
}
