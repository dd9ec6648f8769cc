import type { Env } from '../../lib/base/env.js';
import { createHighAvailability, type HighAvailabilityOptions } from '../index.js';
import type { HighAvailability } from '../services.js';
import { EtcdKvStore, type EtcdKvStoreOptions } from './etcd-kv-store.js';
import { QuotaMonitor } from './quota-monitor.js';

export interface EtcdHighAvailabilityOptions
  extends HighAvailabilityOptions, Omit<EtcdKvStoreOptions, 'tryTimeoutMs'> {
  /** etcd's --quota-backend-bytes, to warn before it is reached. Absent: no warning. */
  readonly quotaBackendBytes?: number;
}

/**
 * High availability over etcd with a connection of its own, closed with it. Where an election is held, the size of
 * etcd's database is looked at, too.
 *
 * @throws as createHighAvailability; nothing is left open then.
 */
export async function createEtcdHighAvailability(
  env: Env,
  options: EtcdHighAvailabilityOptions,
): Promise<HighAvailability> {
  const kv = new EtcdKvStore(env, storeOptions(options));
  try {
    const ha = await createHighAvailability(env, kv, options);
    const monitor = new QuotaMonitor(env, {
      members: () => kv.members(),
      ...(options.quotaBackendBytes !== undefined && { quotaBytes: options.quotaBackendBytes }),
    });
    return {
      ...ha,
      storeHealth: () => kv.members(),
      createElection: (candidate) => {
        monitor.start();
        return ha.createElection(candidate);
      },
      close: async () => {
        await monitor.close();
        await ha.close();
        await kv.close();
      },
    };
  } catch (error) {
    await kv.close();
    throw error;
  }
}

function storeOptions(options: EtcdHighAvailabilityOptions): EtcdKvStoreOptions {
  const { endpoints, ssl, sslReloadMs, auth, callTimeoutMs, hedgeAfterMs } = options;
  return {
    endpoints,
    ...(ssl && { ssl }),
    ...(sslReloadMs !== undefined && { sslReloadMs }),
    ...(auth && { auth }),
    ...(callTimeoutMs !== undefined && { callTimeoutMs }),
    ...(hedgeAfterMs !== undefined && { hedgeAfterMs }),
  };
}
