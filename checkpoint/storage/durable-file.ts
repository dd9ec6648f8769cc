/** Files that are complete and durable once they are visible: temporary file, fsync, rename, fsync of the directory. */
import { mkdir, open, rename, rm } from 'node:fs/promises';
import { MillraceError } from '../../lib/base/errors.js';
import { baseName, joinPath, parentPath } from './paths.js';

export const temporaryPrefix = '.tmp-';

/** Overwrites what is there. Rejects with DISK_FULL or CHECKPOINT_STORAGE; nothing is visible then. */
export async function writeDurably(path: string, bytes: Uint8Array): Promise<void> {
  const directory = parentPath(path);
  const temporary = joinPath(directory, temporaryPrefix + baseName(path));
  try {
    await makeDirectoryDurably(directory);
    const file = await open(temporary, 'w');
    try {
      await file.writeFile(bytes);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(temporary, path);
    await syncDirectory(directory);
  } catch (error) {
    await rm(temporary, { force: true }).catch(() => undefined);
    throw storageError('written', path, error);
  }
}

/** Also the entries of the directories that had to be created. */
async function makeDirectoryDurably(directory: string): Promise<void> {
  const firstCreated = await mkdir(directory, { recursive: true });
  if (firstCreated === undefined) return;
  const stop = parentPath(firstCreated);
  for (let path = parentPath(directory); path.length >= stop.length; path = parentPath(path)) {
    await syncDirectory(path);
    if (path === stop) return;
  }
}

export async function syncDirectory(path: string): Promise<void> {
  const directory = await open(path, 'r');
  try {
    await directory.sync();
  } finally {
    await directory.close();
  }
}

export function errnoOf(error: unknown): string | undefined {
  return error instanceof Error && 'code' in error && typeof error.code === 'string'
    ? error.code
    : undefined;
}

/** @param done past participle, as in "cannot be written". */
export function storageError(done: string, path: string, cause: unknown): MillraceError {
  if (cause instanceof MillraceError) return cause;
  const errno = errnoOf(cause);
  const reason = cause instanceof Error ? cause.message : String(cause);
  if (errno === 'ENOSPC' || errno === 'EDQUOT') {
    return new MillraceError(
      'DISK_FULL',
      `no space is left to write ${path}: free some, then it goes on`,
      {
        cause,
        details: { path },
      },
    );
  }
  if (errno === 'ENOENT' || errno === 'ENOTDIR') {
    return new MillraceError('CHECKPOINT_NOT_FOUND', `${path} does not exist`, {
      cause,
      details: { path },
    });
  }
  return new MillraceError('CHECKPOINT_STORAGE', `${path} cannot be ${done}: ${reason}`, {
    cause,
    details: { path },
  });
}
