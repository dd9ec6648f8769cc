/** Checks of completed checkpoints and of what lies beside them, for people (`millrace ha verify`). */
import { createHash } from 'node:crypto';
import { readFile, stat } from 'node:fs/promises';
import { MillraceError } from '../../lib/base/errors.js';
import type { JobId } from '../../lib/base/ids.js';
import type { StateHandle } from '../../lib/state/state-handle.js';
import { decodeMetadata } from '../format/metadata-v1.js';
import type { CheckpointMetadata, CheckpointPointer } from '../types.js';
import { errnoOf } from './durable-file.js';
import { FileCheckpointStorage, listCheckpoints } from './file-checkpoint-storage.js';
import { baseName, joinPath, parentPath } from './paths.js';
import { isAbsolute, verifyStateFile, type FileHandleData } from './state-data.js';

/**
 * Whether a restore would find what the pointer names; problems are sentences, none when all is well.
 *
 * @param readStates reads every state file and checks its CRC, too; else only existence and size are.
 */
export async function inspectCheckpoint(
  jobId: JobId,
  pointer: CheckpointPointer,
  { readStates = false }: { readonly readStates?: boolean } = {},
): Promise<string[]> {
  const storage = new FileCheckpointStorage(parentPath(parentPath(pointer.metadataPath)), 'none');
  let metadata: CheckpointMetadata;
  let base: string;
  try {
    const { bytes, metadataPath, baseDirectory } = await storage.readMetadata(pointer.metadataPath);
    const sha256 = createHash('sha256').update(bytes).digest('hex');
    if (sha256 !== pointer.sha256) {
      return [`${metadataPath} has the SHA-256 ${sha256}, recorded was ${pointer.sha256}`];
    }
    metadata = decodeMetadata(bytes, metadataPath);
    base = baseDirectory;
  } catch (error) {
    return [messageOf(error)];
  }
  const problems: string[] = [];
  if (metadata.checkpointId !== pointer.checkpointId || metadata.jobId !== jobId) {
    problems.push(
      `${pointer.metadataPath} is checkpoint ${String(metadata.checkpointId)} of job ${metadata.jobId}`,
    );
  }
  for (const handle of stateHandles(metadata)) {
    if (handle.kind === 'inline') continue;
    const path = isAbsolute(handle.path) ? handle.path : joinPath(base, handle.path);
    const problem = await inspectState(path, handle, readStates);
    if (problem !== undefined) problems.push(problem);
  }
  return problems;
}

async function inspectState(
  path: string,
  handle: FileHandleData,
  readStates: boolean,
): Promise<string | undefined> {
  try {
    if (readStates) {
      verifyStateFile(handle, path, await readFile(path));
      return undefined;
    }
    const { size } = await stat(path);
    return size === handle.sizeBytes
      ? undefined
      : `${path} has ${String(size)} bytes instead of ${String(handle.sizeBytes)}`;
  } catch (error) {
    return errnoOf(error) === 'ENOENT' ? `${path} is missing` : messageOf(error);
  }
}

/** Every handle in a checkpoint's metadata. */
export function* stateHandles(metadata: CheckpointMetadata): Generator<StateHandle> {
  yield* Object.values(metadata.coordinators);
  for (const { subtasks } of metadata.vertices) {
    for (const subtask of subtasks) {
      for (const { keyed, operator } of Object.values(subtask.operators)) {
        if (keyed !== undefined) yield keyed.data;
        if (operator !== undefined) yield operator;
      }
    }
  }
}

/**
 * Directories of a job's checkpoints that none of the pointers names. A pointer keeps the path its checkpoint was
 * written under; the directory may be reached by another one now (a link, a mount), so it is known by its own name.
 */
export async function findOrphans(
  directory: string,
  pointers: readonly CheckpointPointer[],
): Promise<string[]> {
  const known = new Set(pointers.map(({ metadataPath }) => baseName(parentPath(metadataPath))));
  return (await listCheckpoints(directory)).filter((path) => !known.has(baseName(path)));
}

function messageOf(error: unknown): string {
  return error instanceof MillraceError || error instanceof Error ? error.message : String(error);
}
