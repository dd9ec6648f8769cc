/**
 * The history of fenced writes, read from etcd: every value carries the write id `<epoch>.<sequence>` of its
 * writer. In order of revisions the epochs must never go back: no deposed leader's write came after its
 * successor's first.
 */
import { MillraceError } from '../../lib/base/errors.js';

export interface FencedWrite {
  readonly key: string;
  /** etcd revision of the write. */
  readonly revision: number;
  /** Create revision of the writer's candidate key. */
  readonly epochRevision: number;
}

const checkpointPointer = /\/jobs\/([^/]+)\/ckpt\/(\d+)$/;

/** The checkpoint whose pointer a key is; undefined for other keys and jobs. */
export function checkpointIdOf(key: string, jobId: string): number | undefined {
  const [, owner, id] = checkpointPointer.exec(key) ?? [];
  return owner === jobId ? Number(id) : undefined;
}

/** Throws when a checkpoint of a job completed after one with a higher id, whoever led. */
function checkPointerOrder(writes: readonly FencedWrite[]): void {
  const latest = new Map<string, number>();
  for (const { key, revision } of writes) {
    const [, jobId, id] = checkpointPointer.exec(key) ?? [];
    if (jobId === undefined) continue;
    const before = latest.get(jobId) ?? 0;
    if (Number(id) <= before)
      throw new MillraceError(
        'INVARIANT',
        `checkpoint ${String(Number(id))} of job ${jobId} completed at revision ${String(revision)}, after checkpoint ${String(before)}`,
      );
    latest.set(jobId, Number(id));
  }
}

/**
 * Throws, naming both writes, when an older leader wrote after a newer one, or when checkpoint ids went back.
 * Returns the number of leaders seen.
 */
export function checkWriteHistory(writes: readonly FencedWrite[]): number {
  let newest: FencedWrite | undefined;
  const leaders = new Set<number>();
  const ordered = [...writes].sort((a, b) => a.revision - b.revision);
  checkPointerOrder(ordered);
  for (const write of ordered) {
    leaders.add(write.epochRevision);
    if (newest !== undefined && write.epochRevision < newest.epochRevision) {
      throw new MillraceError(
        'INVARIANT',
        `the leader of epoch ${String(write.epochRevision)} wrote ${write.key} at revision ${String(write.revision)}, after epoch ${String(newest.epochRevision)} had written ${newest.key} at ${String(newest.revision)}`,
      );
    }
    if (newest === undefined || write.epochRevision >= newest.epochRevision) newest = write;
  }
  return leaders.size;
}
