import type { Env } from '../../lib/base/env.js';
import { createHighAvailability, type HighAvailabilityOptions } from '../index.js';
import type { HighAvailability } from '../services.js';
import { MemoryKvStore } from './memory-kv-store.js';

/**
 * "No high availability": one process with an in-memory store of its own, closed with it. Nothing
 * outlives the process. Processes that share a store use createHighAvailability with a MemoryKvServer.
 */
export async function createMemoryHighAvailability(
  env: Env,
  options: HighAvailabilityOptions,
): Promise<HighAvailability> {
  const kv = new MemoryKvStore(env.clock);
  try {
    const ha = await createHighAvailability(env, kv, options);
    return {
      ...ha,
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
