import { parseDuration } from '../../config/option-types.js';

/** Milliseconds, or a text such as `60s` or `5 min`. */
export type Duration = number | string;

/** Whole milliseconds; throws a RangeError that names what the duration is for. */
export function durationMs(duration: Duration, what: string): number {
  if (typeof duration === 'string') {
    try {
      return parseDuration(duration);
    } catch (cause) {
      const reason = cause instanceof Error ? cause.message : String(cause);
      throw new RangeError(`${what} is "${duration}": ${reason}`, { cause });
    }
  }
  if (!Number.isSafeInteger(duration) || duration < 0) {
    throw new RangeError(`${what} is ${String(duration)}: expected whole milliseconds, at least 0`);
  }
  return duration;
}
