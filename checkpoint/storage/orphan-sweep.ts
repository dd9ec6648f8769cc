/**
 * Removes checkpoint directories that nothing names: what a leader began and did not complete before it died. Only
 * directories of leaders that are certainly gone, or of ids that were passed, are looked at; a pointer to any of them
 * would have had to be written before this leader was elected, and so was read by it.
 */
import { readdir, stat } from 'node:fs/promises';
import type { CheckpointPointer } from '../types.js';
import { errnoOf, storageError } from './durable-file.js';
import { FileCheckpointStorage } from './file-checkpoint-storage.js';
import { findOrphans } from './inspect-checkpoint.js';
import { baseName, joinPath, parseCheckpointDirectoryName, retainedMarkerName } from './paths.js';

interface Epoch {
  readonly era: number;
  readonly revision: number;
}

export interface OrphanSweepOptions {
  /** The job's checkpoint directory (jobCheckpointDirectory), absolute. */
  readonly directory: string;
  /** Of the leader that sweeps: directories of later ones are left alone. */
  readonly epoch: Epoch;
  /** Pointers and garbage markers, read through this leadership. */
  readonly known: readonly CheckpointPointer[];
  /** Directories in which anything changed within this time are left alone. */
  readonly minAgeMs: number;
  /** Wall-clock ms. */
  readonly now: number;
  /** Asked before each deletion. */
  readonly mayAct: () => boolean;
}

/** Resolves with the deleted directories. Rejects with CHECKPOINT_STORAGE. */
export async function sweepOrphans(options: OrphanSweepOptions): Promise<string[]> {
  const { directory, minAgeMs, now, mayAct } = options;
  const storage = new FileCheckpointStorage(directory, 'none');
  const deleted: string[] = [];
  for (const path of await findOrphans(directory, options.known)) {
    if (!isOver(baseName(path), options)) continue;
    const changedAt = await lastChange(path);
    if (changedAt === undefined || now - changedAt < minAgeMs) continue;
    if (!mayAct()) break;
    await storage.deleteCheckpoint(path);
    deleted.push(path);
  }
  return deleted;
}

/** Whether nobody can still be writing this checkpoint or about to add its pointer. */
function isOver(name: string, { epoch, known }: OrphanSweepOptions): boolean {
  const parsed = parseCheckpointDirectoryName(name);
  const match = /^e(\d+)\.(\d+)$/.exec(parsed?.epochLabel ?? '');
  if (parsed === undefined || match === null) return false;
  const age = Number(match[1]) - epoch.era || Number(match[2]) - epoch.revision;
  if (age !== 0) return age < 0;
  // Of our own: a pointer with a higher id is there, so this one was given up.
  return known.some(({ checkpointId }) => checkpointId > parsed.checkpointId);
}

/** Wall-clock ms of the newest change in a directory; `undefined` when it is retained or gone. */
async function lastChange(path: string): Promise<number | undefined> {
  try {
    const names = await readdir(path);
    if (names.includes(retainedMarkerName)) return undefined;
    const stats = [path, ...names.map((name) => joinPath(path, name))].map(
      async (file) => (await stat(file)).mtimeMs,
    );
    return Math.max(...(await Promise.all(stats)));
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return undefined;
    throw storageError('read', path, error);
  }
}
