import type { Clock } from './clock.js';
import { MillraceError } from './errors.js';

export function throwIfAborted(signal: AbortSignal): void {
  if (signal.aborted)
    throw new MillraceError('ABORTED', 'the operation was cancelled', { cause: signal.reason });
}

/**
 * Rejects with TIMEOUT when `work` takes longer than `timeoutMs` (the work itself goes on, unless it
 * listens to a signal of its own).
 */
export function withTimeout<T>(
  clock: Clock,
  timeoutMs: number,
  what: string,
  work: Promise<T>,
): Promise<T> {
  return new Promise<T>((resolve, reject) => {
    const cancel = clock.setTimer(timeoutMs, () => {
      reject(new MillraceError('TIMEOUT', `${what} did not finish within ${String(timeoutMs)} ms`));
    });
    work.finally(cancel).then(resolve, reject);
  });
}
