/**
 * Keeps one lease alive: the driver of lease.machine.ts. `isValid()` is what safety of liveness rests
 * on locally; it reads the clock each time, since timers run late after a blocked loop.
 */
import type { CancelTimer } from '../lib/base/clock.js';
import type { Env } from '../lib/base/env.js';
import { toFailure } from '../lib/base/errors.js';
import { withTimeout } from '../lib/base/abort.js';
import type { Closeable } from '../lib/base/lifecycle.js';
import type { KvStore, LeaseId } from './kv-store.js';
import {
  defaultLeaseMachineOptions,
  LeaseMachine,
  type LeaseEffect,
  type LeaseInput,
  type LeaseMachineOptions,
} from './lease.machine.js';

export interface LeaseListener {
  onHeld(leaseId: LeaseId): void;
  /** The local deadline passed; the store may still keep the lease. */
  onOverdue?(): void;
  onRecovered?(): void;
  /** The store says the lease is gone. Final. */
  onLost(): void;
}

export interface LeaseKeeperOptions {
  readonly ttlMs: number;
  /** Bound on one renewal at one member. Default 400 ms. */
  readonly tryTimeoutMs?: number;
  readonly machine?: LeaseMachineOptions;
}

/** A grant is not repeated, so it may take longer than a renewal. */
const grantTimeoutMs = 2_000;
/** Ms; of a lease of 3 s about 2 s are left at each renewal. */
const slackBounds = [0, 100, 250, 500, 1_000, 1_500, 2_000, 3_000, 5_000];

export class LeaseKeeper implements Closeable {
  readonly #env: Env;
  readonly #kv: KvStore;
  readonly #ttlMs: number;
  readonly #tryTimeoutMs: number;
  readonly #listener: LeaseListener;
  readonly #machine: LeaseMachine;
  readonly #calls = new Set<Promise<void>>();
  #cancelTimer: CancelTimer = () => undefined;
  #failures = 0;
  #leastSlackMs = Infinity;
  #paused = false;

  constructor(env: Env, kv: KvStore, options: LeaseKeeperOptions, listener: LeaseListener) {
    this.#env = env;
    this.#kv = kv;
    this.#ttlMs = options.ttlMs;
    this.#tryTimeoutMs = options.tryTimeoutMs ?? 400;
    this.#listener = listener;
    this.#machine = new LeaseMachine(options.machine ?? defaultLeaseMachineOptions);
  }

  start(): void {
    this.#step({ type: 'started' });
  }

  get leaseId(): LeaseId | undefined {
    return this.#machine.leaseId;
  }

  /** Monotonic ms up to which the store certainly keeps the lease. */
  get validUntil(): number {
    return this.#machine.validUntil;
  }

  isValid(): boolean {
    return this.#env.clock.now() < this.#machine.validUntil;
  }

  /** Stops renewing without giving the lease up, as a stopped process does; for tests. */
  pause(): void {
    this.#paused = true;
    this.#cancelTimer();
  }

  /** Revokes the lease, which deletes its keys; gives up on that when the store does not answer. */
  async close(): Promise<void> {
    this.#step({ type: 'closed' });
    await Promise.all(this.#calls);
  }

  #step(input: LeaseInput): void {
    for (const effect of this.#machine.step(input, this.#env.clock.now())) this.#execute(effect);
  }

  #execute(effect: LeaseEffect): void {
    switch (effect.type) {
      case 'grant':
        this.#call(this.#grant());
        break;
      case 'renew':
        this.#call(this.#renew(effect.leaseId));
        break;
      case 'revoke':
        this.#call(this.#revoke(effect.leaseId));
        break;
      case 'armTimer':
        this.#cancelTimer();
        if (this.#paused) break;
        this.#cancelTimer = this.#env.clock.setTimer(effect.at - this.#env.clock.now(), () => {
          this.#step({ type: 'timerFired' });
        });
        break;
      case 'cancelTimer':
        this.#cancelTimer();
        break;
      case 'announceHeld':
        this.#listener.onHeld(effect.leaseId);
        break;
      case 'announceOverdue':
        this.#env.log.warn({ event: 'lease.overdue' }, 'lease not renewed in time');
        this.#listener.onOverdue?.();
        break;
      case 'announceRecovered':
        this.#env.log.info({ event: 'lease.recovered' }, 'lease renewed again');
        this.#listener.onRecovered?.();
        break;
      case 'announceLost':
        this.#env.log.warn({ event: 'lease.lost' }, 'lease expired or was revoked');
        this.#listener.onLost();
        break;
    }
  }

  #call(work: Promise<void>): void {
    this.#calls.add(work);
    void work.finally(() => this.#calls.delete(work));
  }

  async #grant(): Promise<void> {
    const sentAt = this.#env.clock.now();
    try {
      const options = { timeoutMs: grantTimeoutMs };
      const { leaseId, ttlMs } = await this.#kv.grantLease(this.#ttlMs, options);
      this.#step({ type: 'granted', leaseId, ttlMs, sentAt });
    } catch (error) {
      this.#noteFailure('lease grant failed', error);
      this.#step({ type: 'grantFailed' });
    }
  }

  async #renew(leaseId: LeaseId): Promise<void> {
    const sentAt = this.#env.clock.now();
    const timeoutMs = this.#tryTimeoutMs;
    try {
      // The store keeps to the bound itself; the second one is against a store that does not.
      const call = this.#kv.keepAliveOnce(leaseId, { timeoutMs });
      const ttlMs = await withTimeout(this.#env.clock, 2 * timeoutMs, 'a lease renewal', call);
      this.#failures = 0;
      // How far from suspension the lease was: negative when overdue.
      const slackMs = this.#machine.validUntil - this.#env.clock.now();
      if (Number.isFinite(slackMs)) this.#noteSlack(slackMs);
      this.#step({ type: 'renewed', ttlMs, sentAt });
    } catch (error) {
      this.#noteFailure('lease renewal failed', error);
      this.#step({ type: 'renewalFailed' });
    }
  }

  async #revoke(leaseId: LeaseId): Promise<void> {
    try {
      await this.#kv.revokeLease(leaseId, { timeoutMs: grantTimeoutMs });
    } catch (error) {
      this.#env.log.debug({ err: toFailure(error) }, 'lease left to expire');
    }
  }

  #noteSlack(slackMs: number): void {
    const { metrics } = this.#env;
    metrics.gauge('leaseSlackMs').set(slackMs);
    metrics.histogram('leaseSlackAtRenewalMs', slackBounds).observe(slackMs);
    this.#leastSlackMs = Math.min(this.#leastSlackMs, slackMs);
    metrics.gauge('leaseSlackMinMs').set(this.#leastSlackMs);
  }

  /** One line per episode, not per try. */
  #noteFailure(message: string, error: unknown): void {
    this.#failures += 1;
    this.#env.metrics.counter('leaseFailures').inc();
    if (this.#failures === 1) this.#env.log.warn({ err: error }, message);
    else this.#env.log.debug({ err: error, attempt: this.#failures }, message);
  }
}
