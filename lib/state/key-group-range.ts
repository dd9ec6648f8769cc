/** Arithmetic on key groups: Flink's KeyGroupRangeAssignment. Fixed for ever: snapshots depend on it. */
import { invariant } from '../base/assert.js';
import type { KeyGroupRange } from './state-handle.js';

/** Flink's bounds of the default maxParallelism, and its upper limit. */
const defaultLowerBound = 128;
export const maxParallelismLimit = 32_768;

/** Inclusive range of subtask `index`. Empty (end < start) never occurs, as parallelism <= maxParallelism. */
export function computeKeyGroupRange(
  maxParallelism: number,
  parallelism: number,
  index: number,
): KeyGroupRange {
  invariant(
    parallelism >= 1 && parallelism <= maxParallelism && index >= 0 && index < parallelism,
    'no key-group range for this subtask',
    { maxParallelism, parallelism, index },
  );
  return {
    start: Math.floor((index * maxParallelism + parallelism - 1) / parallelism),
    end: Math.floor(((index + 1) * maxParallelism - 1) / parallelism),
  };
}

/** Subtask that owns a key group. */
export function subtaskOfKeyGroup(
  keyGroup: number,
  maxParallelism: number,
  parallelism: number,
): number {
  return Math.floor((keyGroup * parallelism) / maxParallelism);
}

/** `undefined` when they share no key group. */
export function intersectRanges(a: KeyGroupRange, b: KeyGroupRange): KeyGroupRange | undefined {
  const start = Math.max(a.start, b.start);
  const end = Math.min(a.end, b.end);
  return start <= end ? { start, end } : undefined;
}

/**
 * Half again the parallelism, up to the next power of two, at least 128, at most 32,768: Flink's formula
 * (KeyGroupRangeAssignment.computeDefaultMaxParallelism).
 */
export function defaultMaxParallelism(parallelism: number): number {
  let power = 1;
  while (power < parallelism + Math.floor(parallelism / 2)) power *= 2;
  return Math.min(Math.max(power, defaultLowerBound), maxParallelismLimit);
}
