/** What bench/jobs/takeover wrote: whether it is exactly what it should be, and when records reached its sink. */
import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { MillraceError } from '../../lib/base/errors.js';

/**
 * Number of committed lines. A key's records are a prefix of all its records, each once, each with the count its
 * state must have had; throws INVARIANT, naming the first that is not so.
 */
export function verifyOutput(directory: string, keys: number): number {
  const counts = new Map<number, Set<number>>();
  let lines = 0;
  for (const name of existsSync(directory) ? readdirSync(directory) : []) {
    if (name.startsWith('.')) continue;
    for (const line of readFileSync(join(directory, name), 'utf8').split('\n')) {
      if (line === '') continue;
      const [index = NaN, count = NaN] = line.split(' ').map(Number);
      const key = index % keys;
      const known = counts.get(key) ?? new Set<number>();
      counts.set(key, known);
      if (count !== Math.floor(index / keys) + 1)
        throw wrong(`'${line}' in ${name}: state was lost or counted twice`);
      if (known.has(count)) throw wrong(`'${line}' in ${name}: written twice`);
      known.add(count);
      lines += 1;
    }
  }
  for (const [key, known] of counts)
    for (let count = 1; count <= known.size; count += 1)
      if (!known.has(count)) throw wrong(`record ${String(key + (count - 1) * keys)} is missing`);
  return lines;
}

function wrong(what: string): MillraceError {
  return new MillraceError('INVARIANT', `the output is not exactly once: ${what}`);
}

/** Wall-clock ms at which records reached each subtask of the sink, in order. */
export function readStamps(directory: string): number[][] {
  const bySubtask = new Map<string, number[]>();
  for (const name of existsSync(directory) ? readdirSync(directory) : []) {
    const subtask = name.slice(0, name.indexOf('-'));
    const stamps = readFileSync(join(directory, name), 'utf8')
      .split('\n')
      .map(Number)
      .filter((stamp) => stamp > 0);
    bySubtask.set(subtask, [...(bySubtask.get(subtask) ?? []), ...stamps]);
  }
  return [...bySubtask.values()].map((stamps) => stamps.sort((a, b) => a - b));
}

/** Longest time between two records at any subtask of the sink that lies, if only in part, in the window. */
export function longestGap(
  stamps: readonly (readonly number[])[],
  window: { readonly from: number; readonly to: number },
): number {
  let longest = 0;
  for (const of of stamps) {
    for (let i = 1; i < of.length; i += 1) {
      const [a = 0, b = 0] = [of[i - 1], of[i]];
      if (b >= window.from && a <= window.to) longest = Math.max(longest, b - a);
    }
  }
  return longest;
}
