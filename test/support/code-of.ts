import type { MillraceError } from '../../lib/base/errors.js';

/** The code with which it is refused; `none` when it is not. */
export function codeOf(work: Promise<unknown>): Promise<string> {
  return work.then(
    () => 'none',
    (error: unknown) => (error as MillraceError).code,
  );
}
