/** High availability over any KvStore: the only entry for the rest of Millrace, with ha/services.ts. */
import { join } from 'node:path';
import { childEnv, type Env } from '../lib/base/env.js';
import { MillraceError } from '../lib/base/errors.js';
import { openClusterIdentity } from './cluster-identity.js';
import { decodeTakeovers } from './history-stores.js';
import { FileHaStorage, MemoryHaStorage } from './ha-storage.js';
import { Keys } from './keys.js';
import type { KvStore } from './kv-store.js';
import { KvLeaderElection } from './leader-election.js';
import { WatchedLeaderRetrieval } from './leader-retrieval.js';
import { LeadershipWatch } from './leadership-watch.js';
import type { PeerConnector } from './peer-connection.js';
import type { HighAvailability } from './services.js';
import { LeasedRegistration } from './task-manager-registry.js';

export interface HighAvailabilityOptions {
  /** Chosen by people; names the key prefix. 1-64 letters, digits, dots, dashes and underscores. */
  readonly clusterId: string;
  /**
   * Directory shared by all processes of the cluster: marker and large values. Absent: large values
   * stay in memory. Leave it out for an in-memory store, whose end would look like lost HA data later.
   */
  readonly storageDir?: string;
  /** A leader whose machine is lost is deposed after this time: nobody saw it die. Default 3,000 ms. */
  readonly leaseTtlMs?: number;
  /** etcd's own election timeout: the lease must outlast an election of etcd. Default 500 ms. */
  readonly electionTimeoutMs?: number;
  /** Time to live of a TaskManager's registration. Default 10,000 ms. */
  readonly taskManagerLeaseTtlMs?: number;
  /** Bound on one lease renewal at one member. Default 400 ms. */
  readonly tryTimeoutMs?: number;
  /** How long a leader's write may wait for an answer or the end of a suspension. Default 10,000 ms. */
  readonly outcomeTimeoutMs?: number;
  /** A leader that cannot confirm its leadership for so long gives it up. Default 10 min. */
  readonly outageGraceMs?: number;
  /** Period of reading watched state again. Default 1,000 ms. */
  readonly resyncMs?: number;
  /** How standbys hold a connection to the leader, to depose it when it dies. Default: they do not. */
  readonly peerConnector?: PeerConnector;
}

/**
 * Opens the cluster, creating it on the first start. The store stays the caller's, to be closed after.
 *
 * @throws CONFIG for unusable options, CLUSTER_MISMATCH when storage directory and store belong to
 * different clusters, ETCD_UNAVAILABLE when the store does not answer.
 */
export async function createHighAvailability(
  env: Env,
  kv: KvStore,
  options: HighAvailabilityOptions,
): Promise<HighAvailability> {
  const { leaseTtlMs = 3_000, electionTimeoutMs = 500, tryTimeoutMs = 400 } = options;
  const least = 3 * tryTimeoutMs + 2 * electionTimeoutMs;
  if (leaseTtlMs < least) {
    throw new MillraceError(
      'CONFIG',
      `high-availability.etcd.lease-ttl is ${String(leaseTtlMs)} ms, but ${String(least)} ms are needed to outlast one failed member and one election of etcd (3 tries of ${String(tryTimeoutMs)} ms + 2 election timeouts of ${String(electionTimeoutMs)} ms)`,
    );
  }
  const haEnv = childEnv(env, 'high-availability');
  const keys = new Keys(options.clusterId);
  const identity = await openClusterIdentity(haEnv, kv, keys, options.storageDir);
  const storage =
    options.storageDir === undefined
      ? new MemoryHaStorage()
      : new FileHaStorage(join(options.storageDir, identity.uid, 'ha'), env.random);
  const watch = new LeadershipWatch(haEnv, kv, keys, options.resyncMs ?? 1_000);
  return {
    clusterUid: identity.uid,
    createElection: (candidate) =>
      new KvLeaderElection(haEnv, { kv, keys, storage, watch }, candidate, {
        era: identity.era,
        leaseTtlMs,
        tryTimeoutMs,
        outcomeTimeoutMs: options.outcomeTimeoutMs ?? 10_000,
        outageGraceMs: options.outageGraceMs ?? 600_000,
        ...(options.peerConnector !== undefined && { peerConnector: options.peerConnector }),
      }),
    leaderRetrieval: () => new WatchedLeaderRetrieval(watch),
    registerTaskManager: async (info) => {
      const registration = new LeasedRegistration(haEnv, { kv, keys }, info, {
        leaseTtlMs: options.taskManagerLeaseTtlMs ?? 10_000,
        tryTimeoutMs,
      });
      await registration.start();
      return registration;
    },
    probe: async () => {
      await kv.get(keys.leader);
    },
    candidates: () =>
      (watch.state?.candidates ?? []).flatMap(({ info }) => (info === undefined ? [] : [info])),
    takeovers: async (call) => decodeTakeovers(haEnv.log, await kv.get(keys.takeovers, call)),
    close: () => watch.close(),
  };
}
