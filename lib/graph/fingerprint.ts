/**
 * The fingerprint of a job and, when a rebuild gives another one, which part differs in words.
 * It covers vertices and edges, the bundle and every operator's functions; not the name, the
 * configuration, nor where the job starts from.
 */
import { createHash } from 'node:crypto';
import type { JobEdge, JobGraph, JobOperator, JobVertex } from './job-graph.js';

export type FingerprintedParts = Pick<JobGraph, 'vertices' | 'edges' | 'bundle'>;

export function fingerprintOf({ vertices, edges, bundle }: FingerprintedParts): string {
  const text = canonicalJson({ vertices, edges, bundle: bundle?.digest ?? null });
  return createHash('sha256').update(text).digest('hex');
}

/** What differs between the submitted graph and the rebuilt one; undefined: nothing. */
export function describeDifference(
  submitted: FingerprintedParts,
  rebuilt: FingerprintedParts,
): string | undefined {
  if (submitted.bundle?.digest !== rebuilt.bundle?.digest) {
    return `the bundle differs: ${submitted.bundle?.digest ?? 'none'} was submitted, ${rebuilt.bundle?.digest ?? 'none'} was loaded`;
  }
  const before = operatorsOf(submitted);
  const after = operatorsOf(rebuilt);
  for (const [id, operator] of before) {
    if (!after.has(id)) return `the graph differs: operator ${label(operator)} is missing`;
  }
  for (const [id, operator] of after) {
    if (!before.has(id)) return `the graph differs: operator ${label(operator)} is new`;
  }
  for (const [id, operator] of before) {
    const other = after.get(id);
    if (other !== undefined && other.functionDigest !== operator.functionDigest) {
      return `the function of operator ${label(operator)} differs`;
    }
  }
  return (
    firstDifference('task', submitted.vertices, rebuilt.vertices) ??
    firstDifference('edge', submitted.edges, rebuilt.edges)
  );
}

function operatorsOf(graph: FingerprintedParts): Map<string, JobOperator> {
  const operators = graph.vertices.flatMap((vertex) => vertex.operators);
  return new Map(operators.map((operator) => [operator.id, operator]));
}

function firstDifference(
  what: string,
  submitted: readonly (JobVertex | JobEdge)[],
  rebuilt: readonly (JobVertex | JobEdge)[],
): string | undefined {
  for (let i = 0; i < Math.max(submitted.length, rebuilt.length); i += 1) {
    const before = submitted[i];
    const after = rebuilt[i];
    if (before === undefined || after === undefined) {
      return `the graph differs: ${submitted.length} ${what}s were submitted, ${rebuilt.length} rebuilt`;
    }
    for (const key of new Set([...Object.keys(before), ...Object.keys(after)])) {
      const [old, now] = [before, after].map((side) =>
        canonicalJson((side as unknown as Record<string, unknown>)[key] ?? null),
      );
      if (old !== now) {
        const shown = old !== undefined && old.length < 80 ? ` (${old} and ${now})` : '';
        return `the graph differs: ${key} of ${what} "${'name' in before ? before.name : before.id}"${shown}`;
      }
    }
  }
  return undefined;
}

function label(operator: JobOperator): string {
  return `"${operator.name}" (${operator.uid === undefined ? operator.id : `uid ${operator.uid}`})`;
}

/** Object keys sorted and undefined left out, so that a graph that travelled has the same text. */
function canonicalJson(value: unknown): string {
  return JSON.stringify(value, (_key, part: unknown) =>
    typeof part === 'object' && part !== null && !Array.isArray(part)
      ? Object.fromEntries(Object.entries(part).sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0)))
      : part,
  );
}
