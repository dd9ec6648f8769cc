import type { CancelTimer } from '../../lib/base/clock.js';
import { childEnv, type Env } from '../../lib/base/env.js';
import type { Closeable } from '../../lib/base/lifecycle.js';
import type { StoreMember } from '../services.js';

export interface QuotaMonitorOptions {
  readonly members: () => Promise<StoreMember[]>;
  /** Without it only sizes are reported. */
  readonly quotaBytes?: number;
  /** Default 30 s. */
  readonly periodMs?: number;
}

/** Of the quota; above it there is still time to compact and defragment. */
const warnAt = 0.8;

/** Reports the size of each member's database, and warns while one is near the quota at which etcd takes no writes. */
export class QuotaMonitor implements Closeable {
  readonly #env: Env;
  readonly #options: QuotaMonitorOptions;
  readonly #warned = new Set<string>();
  #cancelTimer: CancelTimer | undefined;
  #looking: Promise<void> = Promise.resolve();
  #closed = false;

  constructor(env: Env, options: QuotaMonitorOptions) {
    this.#env = childEnv(env, 'etcd');
    this.#options = options;
  }

  /** Looks at once, and then periodically; a second start does nothing. */
  start(): void {
    if (this.#cancelTimer !== undefined || this.#closed) return;
    this.#arm(0);
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#cancelTimer?.();
    await this.#looking;
  }

  #arm(delayMs: number): void {
    this.#cancelTimer = this.#env.clock.setTimer(delayMs, () => {
      this.#looking = this.#look().finally(() => {
        if (!this.#closed) this.#arm(this.#options.periodMs ?? 30_000);
      });
    });
  }

  async #look(): Promise<void> {
    let members: StoreMember[];
    try {
      members = await this.#options.members();
    } catch {
      // The store was closed.
      return;
    }
    for (const member of members) if (member.version !== '') this.#report(member);
  }

  #report({ endpoint, dbSizeBytes }: StoreMember): void {
    const { metrics, log } = this.#env;
    metrics.gauge('etcdDbSizeBytes', { endpoint }).set(dbSizeBytes);
    const { quotaBytes } = this.#options;
    if (quotaBytes === undefined) return;
    if (dbSizeBytes < warnAt * quotaBytes) {
      this.#warned.delete(endpoint);
      return;
    }
    if (this.#warned.has(endpoint)) return;
    this.#warned.add(endpoint);
    log.warn(
      { event: 'etcd.near-quota', endpoint, dbSizeBytes, quotaBytes },
      'the database of an etcd member is near its quota: compact and defragment it, or raise the quota',
    );
  }
}
