import type { Env } from '../../lib/base/env.js';
import { createHighAvailability, type HighAvailabilityOptions } from '../index.js';
import type { HighAvailability } from '../services.js';
import { EtcdKvStore, type EtcdKvStoreOptions } from './etcd-kv-store.js';

/**
 * High availability over etcd with a connection of its own, closed with it.
 *
 * @throws as createHighAvailability; nothing is left open then.
 */
export async function createEtcdHighAvailability(
  env: Env,
  options: HighAvailabilityOptions & Omit<EtcdKvStoreOptions, 'tryTimeoutMs'>,
): Promise<HighAvailability> {
  const { endpoints, tls, callTimeoutMs } = options;
  const kv = new EtcdKvStore(env, {
    endpoints,
    ...(tls !== undefined && { tls }),
    ...(callTimeoutMs !== undefined && { callTimeoutMs }),
  });
  try {
    const ha = await createHighAvailability(env, kv, options);
    return {
      ...ha,
      storeHealth: () => kv.members(),
      close: async () => {
        await ha.close();
        await kv.close();
      },
    };
  } catch (error) {
    await kv.close();
    throw error;
  }
}
