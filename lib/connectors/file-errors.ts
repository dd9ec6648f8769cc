import { MillraceError } from '../base/errors.js';

/** The `code` of Node's system errors. */
export function systemCode(error: unknown): string | undefined {
  return error instanceof Error && 'code' in error && typeof error.code === 'string'
    ? error.code
    : undefined;
}

/** No room: on the device, in the quota, or for a file of that size. */
export function isDiskFull(error: unknown): boolean {
  return ['ENOSPC', 'EDQUOT', 'EFBIG'].includes(systemCode(error) ?? '');
}

/** A system error as ours: FILE_NOT_FOUND, DISK_FULL or IO, naming the path. */
export function fileError(error: unknown, path: string, verb: string): MillraceError {
  const details = { path };
  const reason = error instanceof Error ? error.message : String(error);
  if (systemCode(error) === 'ENOENT') {
    return new MillraceError('FILE_NOT_FOUND', `${path} does not exist`, { cause: error, details });
  }
  if (isDiskFull(error)) {
    return new MillraceError('DISK_FULL', `no space left to ${verb} ${path}`, {
      cause: error,
      details,
    });
  }
  return new MillraceError('IO', `cannot ${verb} ${path}: ${reason}`, { cause: error, details });
}
