/**
 * A TaskManager's registration under its own lease: who should be there at a takeover, and a quick
 * notice of death. RPC heartbeats remain the primary detector.
 */
import { sleep } from '../lib/base/clock.js';
import type { Env } from '../lib/base/env.js';
import { hasCode } from '../lib/base/errors.js';
import type { TaskManagerId } from '../lib/base/ids.js';
import type { Keys } from './keys.js';
import type { KvEntry, KvStore, LeaseId } from './kv-store.js';
import { LeaseKeeper } from './lease-keeper.js';
import type { TaskManagerInfo, TaskManagerRegistration } from './services.js';
import { decodeValue, encodeValue } from './values.js';

export interface RegistrationOptions {
  readonly leaseTtlMs: number;
  readonly tryTimeoutMs: number;
}

const retryMs = 500;

export class LeasedRegistration implements TaskManagerRegistration {
  readonly #env: Env;
  readonly #kv: KvStore;
  readonly #key: string;
  readonly #value: Uint8Array;
  readonly #options: RegistrationOptions;
  readonly #closing = new AbortController();
  #keeper: LeaseKeeper | undefined;
  #work: Promise<unknown> = Promise.resolve();
  #isPut = false;

  constructor(
    env: Env,
    deps: { readonly kv: KvStore; readonly keys: Keys },
    info: TaskManagerInfo,
    options: RegistrationOptions,
  ) {
    this.#env = env;
    this.#kv = deps.kv;
    this.#key = deps.keys.taskManager(info.taskManagerId);
    this.#value = encodeValue({ ...info });
    this.#options = options;
  }

  get registered(): boolean {
    return this.#isPut && this.#keeper?.isValid() === true;
  }

  /** Resolves when registered for the first time; goes on trying while the store does not answer. */
  start(): Promise<void> {
    return new Promise((resolve) => {
      this.#register(resolve);
      this.#closing.signal.addEventListener('abort', () => {
        resolve();
      });
    });
  }

  /** Removes the registration; the lease expires by itself when the store does not answer. */
  async close(): Promise<void> {
    this.#closing.abort();
    await this.#keeper?.close();
    await this.#work;
  }

  #register(onRegistered: () => void): void {
    const keeper = new LeaseKeeper(
      this.#env,
      this.#kv,
      { ttlMs: this.#options.leaseTtlMs, tryTimeoutMs: this.#options.tryTimeoutMs },
      {
        onHeld: (leaseId) => {
          this.#work = this.#put(keeper, leaseId, onRegistered);
        },
        onLost: () => {
          this.#again(keeper, onRegistered);
        },
      },
    );
    this.#keeper = keeper;
    keeper.start();
  }

  /** The lease is gone, and the key with it: begins with a new one. */
  #again(keeper: LeaseKeeper, onRegistered: () => void): void {
    if (this.#closing.signal.aborted || this.#keeper !== keeper) return;
    this.#isPut = false;
    void keeper.close();
    this.#register(onRegistered);
  }

  async #put(keeper: LeaseKeeper, leaseId: LeaseId, onRegistered: () => void): Promise<void> {
    const { signal } = this.#closing;
    while (!signal.aborted && this.#keeper === keeper) {
      try {
        // The key is this process's alone: putting it again is harmless.
        const value = this.#value;
        await this.#kv.txn({ compare: [], then: [{ op: 'put', key: this.#key, value, leaseId }] });
        if (this.#keeper === keeper) this.#isPut = true;
        onRegistered();
        return;
      } catch (error) {
        if (hasCode(error, 'LEASE_NOT_FOUND')) {
          this.#again(keeper, onRegistered);
          return;
        }
        this.#env.log.warn({ err: error }, 'registering in the store failed');
        await sleep(this.#env.clock, retryMs, signal);
      }
    }
  }
}

export function decodeTaskManager(entry: KvEntry): TaskManagerInfo {
  const fields = decodeValue(entry);
  return {
    taskManagerId: fields.text('taskManagerId') as TaskManagerId,
    dataAddress: fields.text('dataAddress'),
    slots: fields.integer('slots'),
    pid: fields.integer('pid'),
  };
}
