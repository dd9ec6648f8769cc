/** Binding of user functions to a subtask, and the blame for what they throw. */
import type { FunctionOf, RichFunction } from '../api/functions.js';
import { MillraceError } from '../base/errors.js';

const privateMember = /private (member|field|method)|must be an instance of class/i;

/**
 * A function object of the subtask's own: subtasks of one thread would overwrite each other's fields
 * otherwise. Factories and classes are called; objects are copied with their fields and prototype.
 */
export function bindObject<F extends object>(fn: FunctionOf<F>): F {
  if (typeof fn !== 'function') {
    return Object.create(
      Object.getPrototypeOf(fn) as object | null,
      Object.getOwnPropertyDescriptors(fn),
    ) as F;
  }
  return isClass(fn) ? new (fn as new () => F)() : (fn as () => F)();
}

/** A plain function stays as it is; an object is bound to the subtask. */
export function bindFunction<Fn extends object>(fn: Fn): Fn {
  return typeof fn === 'function' ? fn : bindObject<Fn>(fn);
}

function isClass(fn: object): boolean {
  return /^class\b/.test(Function.prototype.toString.call(fn));
}

/** `open` and `close` of a function, if it has them. */
export function asRich(fn: object): RichFunction | undefined {
  return typeof fn === 'function' ? undefined : fn;
}

/**
 * What a user function of this operator threw, as USER_FUNCTION with the cause kept. An error that is
 * coded already belongs to whoever raised it, often an operator called from inside the function.
 */
export function userError(operatorName: string, cause: unknown): MillraceError {
  if (cause instanceof MillraceError) return cause;
  const reason = cause instanceof Error ? cause.message : String(cause);
  const isPrivate = cause instanceof TypeError && privateMember.test(reason);
  const hint = isPrivate
    ? '; a function object is copied for every subtask, which #private fields do not survive: pass its class or a factory instead of an instance'
    : '';
  return new MillraceError('USER_FUNCTION', `${operatorName}: ${reason}${hint}`, {
    cause,
    details: { operatorName },
  });
}
