import { MillraceError } from '../lib/base/errors.js';

/** Stored data that cannot be understood. The object it belongs to is not recovered; others go on. */
export function damaged(what: string, how: string, cause?: unknown): MillraceError {
  const message = `${what} ${how}: it is damaged or written by an incompatible version`;
  return new MillraceError('RECOVERY_FAILED', message, { cause });
}
