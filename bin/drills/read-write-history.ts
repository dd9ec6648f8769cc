/** Every fenced write a cluster's leaders made, from etcd's history (kept for at least 30 minutes by our members). */
import { Keys } from '../../ha/keys.js';
import { prefixEnd } from '../../ha/kv-store.js';
import { parseEpoch } from '../../ha/services.js';
import { writeIdOf } from '../../ha/values.js';
import { MillraceError } from '../../lib/base/errors.js';
import { commandEnv } from '../commands/etcd-target.js';
import type { LocalCluster } from '../local/local-cluster.js';
import type { FencedWrite } from './write-history.js';

export async function readWriteHistory(cluster: LocalCluster): Promise<FencedWrite[]> {
  const env = commandEnv();
  // etcd's client is slow to load: `drill list` need not wait for it.
  const { EtcdKvStore } = await import('../../ha/etcd/etcd-kv-store.js');
  const kv = new EtcdKvStore(env, { endpoints: cluster.endpoints });
  try {
    const { root } = new Keys(cluster.clusterId);
    const { revision } = await kv.range({ key: root, rangeEnd: prefixEnd(root), limit: 1 });
    const marker = `${root}history-end-${env.random.hex(8)}`;
    const writes = await new Promise<FencedWrite[]>((resolve, reject) => {
      const found: FencedWrite[] = [];
      const watch = kv.watch(
        { key: root, rangeEnd: prefixEnd(root), startRevision: 1 },
        {
          onEvents: (events) => {
            for (const { type, entry } of events) {
              const epoch = parseEpoch(writeIdOf(entry));
              if (type === 'put' && epoch !== undefined) {
                const { key, modRevision: revision } = entry;
                found.push({ key, revision, epochRevision: epoch.revision });
              }
              if (entry.key !== marker || type !== 'put') continue;
              watch.close();
              resolve(found);
            }
          },
          onEnd: (cause) => {
            reject(
              new MillraceError(
                'ETCD_UNAVAILABLE',
                `the history of ${root} from revision 1 to ${String(revision)} cannot be read`,
                { cause },
              ),
            );
          },
        },
      );
      // A write of our own tells when everything before it has been delivered.
      const mark = { op: 'put', key: marker, value: new TextEncoder().encode('{}') } as const;
      kv.txn({ compare: [], then: [mark] }).catch(reject);
    });
    await kv.txn({ compare: [], then: [{ op: 'delete', key: marker }] });
    return writes;
  } finally {
    await kv.close();
  }
}
