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

/** Throws, naming both writes, when an older leader wrote after a newer one. Returns the number of leaders seen. */
export function checkWriteHistory(writes: readonly FencedWrite[]): number {
  let newest: FencedWrite | undefined;
  const leaders = new Set<number>();
  for (const write of [...writes].sort((a, b) => a.revision - b.revision)) {
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
