/** What an administrator does to a cluster's keys with etcdctl, over etcd's JSON gateway. */
import { Keys } from '../../ha/keys.js';
import { prefixEnd } from '../../ha/kv-store.js';
import { MillraceError } from '../../lib/base/errors.js';
import type { LocalCluster } from '../local/local-cluster.js';

export interface EtcdKey {
  readonly key: string;
  readonly value: string;
  readonly createRevision: number;
  /** As etcd writes it; '0' for none. */
  readonly lease: string;
}

const base64 = (text: string): string => Buffer.from(text, 'utf8').toString('base64');
const timeoutMs = 3_000;

/** Asks the members in turn. */
async function ask<T>(cluster: LocalCluster, path: string, body: object): Promise<T> {
  let last: unknown;
  for (const endpoint of cluster.endpoints) {
    try {
      const response = await fetch(`${endpoint}/v3/${path}`, {
        method: 'POST',
        body: JSON.stringify(body),
        signal: AbortSignal.timeout(timeoutMs),
      });
      const text = await response.text();
      if (response.ok) return JSON.parse(text) as T;
      last = new MillraceError('ETCD_REJECTED', `${path}: ${text}`);
    } catch (error) {
      last = error;
    }
  }
  throw new MillraceError('ETCD_UNAVAILABLE', `no etcd member answered ${path}`, { cause: last });
}

interface RawKey {
  readonly key: string;
  readonly value?: string;
  readonly create_revision?: string;
  readonly lease?: string;
}

export function keysOf(cluster: LocalCluster): Keys {
  return new Keys(cluster.clusterId);
}

/** Keys that begin so, in order of key. */
export async function readKeys(cluster: LocalCluster, prefix: string): Promise<EtcdKey[]> {
  const { kvs = [] } = await ask<{ kvs?: RawKey[] }>(cluster, 'kv/range', {
    key: base64(prefix),
    range_end: base64(prefixEnd(prefix)),
  });
  const text = (value = ''): string => Buffer.from(value, 'base64').toString('utf8');
  return kvs.map(({ key, value, create_revision, lease }) => ({
    key: text(key),
    value: text(value),
    createRevision: Number(create_revision ?? 0),
    lease: lease ?? '0',
  }));
}

/** JobManagers in the queue, the leader first. */
export async function candidates(cluster: LocalCluster): Promise<EtcdKey[]> {
  const found = await readKeys(cluster, keysOf(cluster).candidatesPrefix);
  return found.sort((a, b) => a.createRevision - b.createRevision);
}

export async function deleteKey(cluster: LocalCluster, key: string): Promise<void> {
  await ask(cluster, 'kv/deleterange', { key: base64(key) });
}

export async function putKey(cluster: LocalCluster, key: string, value: string): Promise<void> {
  await ask(cluster, 'kv/put', { key: base64(key), value: base64(value) });
}

export async function revokeLease(cluster: LocalCluster, lease: string): Promise<void> {
  await ask(cluster, 'kv/lease/revoke', { ID: lease });
}
