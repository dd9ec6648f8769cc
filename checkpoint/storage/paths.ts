/**
 * The only builder of names in checkpoint storage:
 *
 *   <storageDir>/<cluster uid>/jobs/<job id>/checkpoints/     a job's directory
 *     chk-<id>-<epoch label>/                                 one checkpoint of one leadership
 *       _metadata                                             present: every state file is complete
 *       _retained                                             present: never deleted by Millrace
 *       <vertex8>-<subtask>-<attempt>-<operator>[-<part>].state
 *
 * The epoch label keeps two leaders from writing to one file; the attempt keeps two executions apart.
 */
import { MillraceError } from '../../lib/base/errors.js';
import type { AttemptId, OperatorId } from '../../lib/base/ids.js';

export const metadataFileName = '_metadata';
export const retainedMarkerName = '_retained';
const checkpointDirectoryPattern = /^chk-(\d+)-([A-Za-z0-9.]+)$/;
const safeName = /^[A-Za-z0-9][A-Za-z0-9._-]*$/;

/** Directory of a job in the storage directory: its bundle, and its checkpoints below. */
export function jobDirectory(storageDir: string, clusterUid: string, jobId: string): string {
  return joinPath(storageDir, clusterUid, 'jobs', jobId);
}

export function jobCheckpointDirectory(
  storageDir: string,
  clusterUid: string,
  jobId: string,
): string {
  return joinPath(jobDirectory(storageDir, clusterUid, jobId), 'checkpoints');
}

/** `e<era>.<revision>`: a LeaderEpoch as part of a directory name. */
export function epochLabel(epoch: { readonly era: number; readonly revision: number }): string {
  return `e${String(epoch.era)}.${String(epoch.revision)}`;
}

export function checkpointDirectoryName(checkpointId: number, label: string): string {
  const name = `chk-${String(checkpointId)}-${label}`;
  if (!checkpointDirectoryPattern.test(name)) {
    throw new MillraceError('INVARIANT', `not a name of a checkpoint directory: ${name}`);
  }
  return name;
}

/** `undefined` when it is no name of a checkpoint directory. */
export function parseCheckpointDirectoryName(
  name: string,
): { readonly checkpointId: number; readonly epochLabel: string } | undefined {
  const match = checkpointDirectoryPattern.exec(name);
  return match === null
    ? undefined
    : { checkpointId: Number(match[1]), epochLabel: match[2] ?? '' };
}

/**
 * Name of a state for SnapshotStorage.write: unique per attempt, operator and part, so that what two
 * executions write never collides. An attempt id ends in its nonce.
 */
export function stateName(attemptId: AttemptId, operatorId: OperatorId, part = ''): string {
  const [vertex = '', subtask = '', generation = '', nonce = ''] = attemptId.split('_');
  const attempt = `${generation}.${nonce}`;
  return [vertex.slice(0, 8), subtask, attempt, operatorId, part]
    .filter((piece) => piece !== '')
    .join('-');
}

export function stateFileName(name: string): string {
  if (!safeName.test(name)) throw new MillraceError('INVARIANT', `not a name of a state: ${name}`);
  return `${name}.state`;
}

/** Joins with `/`, which every platform Node runs on takes; keeps a URI's `//`. */
export function joinPath(first: string, ...rest: readonly string[]): string {
  return [first.replace(/\/+$/, ''), ...rest].join('/');
}

/** The path without its last segment. */
export function parentPath(path: string): string {
  const trimmed = path.replace(/\/+$/, '');
  const end = trimmed.lastIndexOf('/');
  return end <= 0 ? (end === 0 ? '/' : '.') : trimmed.slice(0, end);
}

/** The last segment. */
export function baseName(path: string): string {
  const trimmed = path.replace(/\/+$/, '');
  return trimmed.slice(trimmed.lastIndexOf('/') + 1);
}
