/**
 * Ends the candidacy of somebody else, who died or is taken to be dead. A wrong verdict costs a takeover, never
 * more: all writes of whoever is deposed are refused from then on, and no other candidacy is touched.
 */
import { hasCode } from '../lib/base/errors.js';
import type { TaskManagerId } from '../lib/base/ids.js';
import type { Keys } from './keys.js';
import { prefixEnd, type CallOptions, type KvStore } from './kv-store.js';
import type { LeaderEpoch } from './services.js';
import { decodeTaskManager } from './task-manager-registry.js';

export interface DeposeOptions extends CallOptions {
  /** The candidate key, when it is known: saves reading the queue. */
  readonly key?: string;
}

/**
 * Ends the candidacy, or leadership, of exactly this epoch; a successor is not touched. One transaction when it led and
 * `key` is given. Resolves with whether it was still leading or waiting; rejects with ETCD_UNAVAILABLE.
 */
export async function deposeCandidate(
  kv: KvStore,
  keys: Keys,
  epoch: LeaderEpoch,
  { key, ...call }: DeposeOptions = {},
): Promise<boolean> {
  const candidate = key ?? (await findCandidate(kv, keys, epoch));
  if (candidate === undefined) return false;
  const own = { target: 'create', key: candidate, op: '=', value: epoch.revision } as const;
  const remove = { op: 'delete', key: candidate } as const;
  try {
    const { results } = await kv.txn(
      {
        // The first of the queue: the leader's record is its own, or older.
        compare: [
          own,
          {
            target: 'create',
            key: keys.candidatesPrefix,
            rangeEnd: prefixEnd(keys.candidatesPrefix),
            op: '>',
            value: epoch.revision - 1,
          },
        ],
        then: [remove, { op: 'delete', key: keys.leader }],
        else: [{ op: 'txn', compare: [own], then: [remove] }],
      },
      call,
    );
    const [first] = results;
    return first?.op === 'txn' ? first.succeeded : first?.op === 'delete' && first.deleted > 0;
  } catch (error) {
    if (!hasCode(error, 'UNKNOWN_OUTCOME')) throw error;
    return (await kv.get(candidate, call))?.createRevision !== epoch.revision;
  }
}

async function findCandidate(
  kv: KvStore,
  { candidatesPrefix: key }: Keys,
  epoch: LeaderEpoch,
): Promise<string | undefined> {
  const { entries } = await kv.range({ key, rangeEnd: prefixEnd(key) });
  return entries.find((entry) => entry.createRevision === epoch.revision)?.key;
}

/**
 * Removes the registration of a TaskManager's process that ended; one that another process put there since stays.
 * Resolves with whether there was one.
 */
export async function removeTaskManager(
  kv: KvStore,
  keys: Keys,
  taskManagerId: TaskManagerId,
  pid: number,
): Promise<boolean> {
  const key = keys.taskManager(taskManagerId);
  const entry = await kv.get(key);
  if (entry === undefined || decodeTaskManager(entry).pid !== pid) return false;
  try {
    const { succeeded } = await kv.txn({
      compare: [{ target: 'mod', key, op: '=', value: entry.modRevision }],
      then: [{ op: 'delete', key }],
    });
    return succeeded;
  } catch (error) {
    if (!hasCode(error, 'UNKNOWN_OUTCOME')) throw error;
    return (await kv.get(key))?.modRevision !== entry.modRevision;
  }
}
