/** From pointers and paths to verified checkpoints, and from a checkpoint to what every new subtask restores. */
import { createHash } from 'node:crypto';
import { MillraceError } from '../lib/base/errors.js';
import type { JobId } from '../lib/base/ids.js';
import { decodeMetadata } from './format/metadata-v1.js';
import type { CheckpointStorage } from './storage/checkpoint-storage.js';
import type { CheckpointPointer, CompletedCheckpoint } from './types.js';

export { assignState, type AssignedState } from '../lib/state/state-assignment.js';

/** By the path of its directory or of its metadata file. */
export async function loadCheckpoint(
  storage: CheckpointStorage,
  path: string,
): Promise<CompletedCheckpoint> {
  const { bytes, metadataPath, baseDirectory } = await storage.readMetadata(path);
  const metadata = decodeMetadata(bytes, metadataPath);
  const { checkpointId, timestamp, kind } = metadata;
  const sha256 = createHash('sha256').update(bytes).digest('hex');
  const pointer = {
    checkpointId,
    metadataPath,
    sha256,
    timestamp,
    sizeBytes: bytes.byteLength,
    kind,
  };
  return { pointer, metadata, baseDirectory };
}

/** The one with the highest id; there is no fallback to an older one. */
export async function loadLatest(
  storage: CheckpointStorage,
  pointers: readonly CheckpointPointer[],
  jobId: JobId,
): Promise<CompletedCheckpoint | undefined> {
  const latest = pointers.reduce<CheckpointPointer | undefined>(
    (best, pointer) =>
      best === undefined || pointer.checkpointId > best.checkpointId ? pointer : best,
    undefined,
  );
  if (latest === undefined) return undefined;
  try {
    return await loadPointer(storage, latest, jobId);
  } catch (error) {
    throw explain(error, latest, pointers);
  }
}

async function loadPointer(
  storage: CheckpointStorage,
  pointer: CheckpointPointer,
  jobId: JobId,
): Promise<CompletedCheckpoint> {
  const loaded = await loadCheckpoint(storage, pointer.metadataPath);
  const problem =
    loaded.pointer.sha256 !== pointer.sha256
      ? `its SHA-256 is ${loaded.pointer.sha256}, recorded was ${pointer.sha256}`
      : loaded.metadata.checkpointId !== pointer.checkpointId || loaded.metadata.jobId !== jobId
        ? `it is checkpoint ${String(loaded.metadata.checkpointId)} of job ${loaded.metadata.jobId}`
        : undefined;
  if (problem !== undefined) {
    const message = `checkpoint metadata ${pointer.metadataPath} was changed: ${problem}`;
    throw new MillraceError('CHECKPOINT_CORRUPT', message, {
      details: { path: pointer.metadataPath },
    });
  }
  return { ...loaded, pointer };
}

/** What is wrong, with what, and what whoever runs the cluster can do. */
function explain(
  error: unknown,
  latest: CheckpointPointer,
  pointers: readonly CheckpointPointer[],
): unknown {
  if (!(error instanceof MillraceError)) return error;
  // Storage that is away may come back: that is no reason to give up the latest checkpoint.
  if (error.code !== 'CHECKPOINT_CORRUPT' && error.code !== 'CHECKPOINT_NOT_FOUND') return error;
  const older = pointers
    .filter((pointer) => pointer.checkpointId < latest.checkpointId)
    .sort((a, b) => b.checkpointId - a.checkpointId);
  const advice =
    older[0] === undefined
      ? 'no older one is retained: bring the file back from a copy, or submit the job anew without state'
      : `bring the file back from a copy, or submit the job anew from an older one, which repeats what came after it: millrace run -s ${older[0].metadataPath}`;
  return new MillraceError(
    error.code,
    `the latest checkpoint, ${String(latest.checkpointId)}, cannot be restored: ${error.message}. Nothing older is used silently; ${advice}`,
    {
      cause: error,
      details: {
        checkpointId: latest.checkpointId,
        path: latest.metadataPath,
        older: older.map((pointer) => pointer.metadataPath),
      },
    },
  );
}
