/** The supervisor's own way to etcd. */
import type { Configuration } from '../../config/configuration.js';
import { options } from '../../config/options.js';
import { deposeCandidate, removeTaskManager } from '../../ha/depose.js';
import { EtcdKvStore } from '../../ha/etcd/etcd-kv-store.js';
import { Keys } from '../../ha/keys.js';
import type { Candidacy } from '../../ha/services.js';
import { sleep } from '../../lib/base/clock.js';
import type { Env } from '../../lib/base/env.js';
import { hasCode } from '../../lib/base/errors.js';
import type { TaskManagerId } from '../../lib/base/ids.js';
import { etcdConnection } from '../etcd-connection.js';
import type { Deposer } from './supervisor.js';

/** A member that does not answer is found out before it is needed. */
const warmMs = 5_000;
const retryMs = 100;
const callMs = 1_000;

export class EtcdDeposer implements Deposer {
  readonly #env: Env;
  readonly #kv: EtcdKvStore;
  readonly #keys: Keys;
  readonly #patienceMs: number;

  constructor(env: Env, config: Configuration) {
    this.#env = env;
    this.#keys = new Keys(config.get(options.highAvailabilityClusterId));
    // Later the lease is over by itself.
    this.#patienceMs = config.get(options.highAvailabilityEtcdLeaseTtl) + 2_000;
    this.#kv = new EtcdKvStore(env, { ...etcdConnection(config), tryTimeoutMs: 300 });
  }

  /** Opens connections and keeps them tried; the first deposition is not the first of its kind. */
  keepWarm(): void {
    const watched = (work: Promise<unknown>): void => {
      work.catch((err: unknown) => {
        this.#env.log.debug({ err }, 'etcd does not answer');
      });
    };
    // Of nobody: no key is as old as the first revision.
    watched(this.depose({ epoch: { era: 0, revision: 1 }, key: this.#keys.candidatesPrefix }));
    setInterval(() => {
      watched(this.#kv.get(this.#keys.cluster, { timeoutMs: callMs }));
    }, warmMs).unref();
  }

  depose({ epoch, key }: Candidacy): Promise<boolean> {
    const call = { timeoutMs: callMs };
    return this.#persistently(async () => {
      const revision = epoch?.revision ?? (await this.#kv.get(key, call))?.createRevision;
      if (revision === undefined) return false;
      const known = { era: epoch?.era ?? 0, revision };
      return deposeCandidate(this.#kv, this.#keys, known, { key, ...call });
    });
  }

  removeTaskManager(taskManagerId: TaskManagerId, pid: number): Promise<boolean> {
    return this.#persistently(() => removeTaskManager(this.#kv, this.#keys, taskManagerId, pid));
  }

  async #persistently<T>(work: () => Promise<T>): Promise<T> {
    const { clock } = this.#env;
    const deadline = clock.now() + this.#patienceMs;
    for (;;) {
      try {
        return await work();
      } catch (error) {
        const mayPass = hasCode(error, 'ETCD_UNAVAILABLE') || hasCode(error, 'UNKNOWN_OUTCOME');
        if (!mayPass || clock.now() >= deadline) throw error;
        await sleep(clock, retryMs);
      }
    }
  }
}
