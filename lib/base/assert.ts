import { MillraceError } from './errors.js';

/** A broken promise inside Millrace itself: a bug, never bad input. Ends the endpoint it happens in. */
export class InvariantError extends MillraceError {
  constructor(message: string, details?: Readonly<Record<string, unknown>>) {
    super('INVARIANT', message, details === undefined ? {} : { details });
  }
}

export function invariant(
  condition: boolean,
  message: string,
  details?: Readonly<Record<string, unknown>>,
): asserts condition {
  if (!condition) throw new InvariantError(message, details);
}

/** Exhaustiveness: reached only when a union has a member nobody handles. */
export function unreachable(value: never): never {
  throw new InvariantError(`unhandled case ${JSON.stringify(value)}`);
}
