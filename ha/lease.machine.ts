/**
 * Decides when a lease is granted, renewed, overdue and lost. One machine per lease: whoever needs
 * another lease after a loss begins with another machine.
 *
 * The local deadline counts from the moment the last answered renewal was *sent*, plus what the store
 * granted, minus a margin for clocks that run at different rates; the store can only keep the lease
 * longer. It is monotonic time. Overdue is not lost: the store may be out with the lease alive, so
 * renewal goes on until the store says that the lease is gone.
 */
import { checkTransition, defineTransitions } from '../lib/base/transitions.js';

export type LeaseState = 'IDLE' | 'GRANTING' | 'HELD' | 'OVERDUE' | 'LOST' | 'CLOSED';

export const leaseTransitions = defineTransitions<LeaseState>({
  IDLE: ['GRANTING', 'CLOSED'],
  GRANTING: ['HELD', 'CLOSED'],
  HELD: ['OVERDUE', 'LOST', 'CLOSED'],
  OVERDUE: ['HELD', 'LOST', 'CLOSED'],
  LOST: ['CLOSED'],
  CLOSED: [],
});

export type LeaseInput =
  | { readonly type: 'started' }
  /** `sentAt`: monotonic ms at which the request that this answers was sent. */
  | {
      readonly type: 'granted';
      readonly leaseId: string;
      readonly ttlMs: number;
      readonly sentAt: number;
    }
  | { readonly type: 'grantFailed' }
  /** `ttlMs` 0: the lease does not exist any more. */
  | { readonly type: 'renewed'; readonly ttlMs: number; readonly sentAt: number }
  | { readonly type: 'renewalFailed' }
  | { readonly type: 'timerFired' }
  | { readonly type: 'closed' };

export type LeaseEffect =
  | { readonly type: 'grant' }
  | { readonly type: 'renew'; readonly leaseId: string }
  /** Replaces the timer set before. */
  | { readonly type: 'armTimer'; readonly at: number }
  | { readonly type: 'cancelTimer' }
  | { readonly type: 'announceHeld'; readonly leaseId: string }
  | { readonly type: 'announceOverdue' }
  /** Held again after it was overdue. */
  | { readonly type: 'announceRecovered' }
  | { readonly type: 'announceLost' }
  | { readonly type: 'revoke'; readonly leaseId: string };

export interface LeaseMachineOptions {
  /** Least wait between a failed try and the next one, ms. */
  readonly retryMs: number;
  /** Part of the granted time that is not used: max(marginMs, marginRatio * ttl), at most half of it. */
  readonly marginMs: number;
  readonly marginRatio: number;
}

export const defaultLeaseMachineOptions: LeaseMachineOptions = {
  retryMs: 50,
  marginMs: 500,
  marginRatio: 0.1,
};

/** Renewals per time to live: several members can fail one after the other before the deadline. */
const renewalsPerTtl = 6;
/** Grants are not urgent, and each one that fails may leave a lease behind for its time to live. */
const grantRetryMs = 500;

export class LeaseMachine {
  readonly #options: LeaseMachineOptions;
  #state: LeaseState = 'IDLE';
  #leaseId: string | undefined;
  #validUntil = -Infinity;
  #nextTryAt = Infinity;
  #inFlight = false;

  constructor(options: LeaseMachineOptions = defaultLeaseMachineOptions) {
    this.#options = options;
  }

  get state(): LeaseState {
    return this.#state;
  }

  get leaseId(): string | undefined {
    return this.#leaseId;
  }

  /** Monotonic ms up to which the store certainly keeps the lease; -Infinity while there is none. */
  get validUntil(): number {
    return this.#state === 'HELD' || this.#state === 'OVERDUE' ? this.#validUntil : -Infinity;
  }

  step(input: LeaseInput, now: number): LeaseEffect[] {
    switch (input.type) {
      case 'started':
        this.#go('GRANTING');
        return this.#tryGrant();
      case 'granted':
        return this.#onGranted(input, now);
      case 'grantFailed':
        this.#inFlight = false;
        if (this.#state !== 'GRANTING') return [];
        this.#nextTryAt = now + grantRetryMs;
        return this.#arm();
      case 'renewed':
        return this.#onRenewed(input, now);
      case 'renewalFailed':
        this.#inFlight = false;
        if (!this.#isAlive()) return [];
        this.#nextTryAt = now + this.#options.retryMs;
        return [...this.#checkDeadline(now), ...this.#arm()];
      case 'timerFired':
        return this.#onTimer(now);
      case 'closed':
        return this.#onClosed();
    }
  }

  #onGranted(input: Extract<LeaseInput, { type: 'granted' }>, now: number): LeaseEffect[] {
    this.#inFlight = false;
    // Closed while the grant was under way: nobody else knows this lease.
    if (this.#state !== 'GRANTING') return [{ type: 'revoke', leaseId: input.leaseId }];
    this.#leaseId = input.leaseId;
    this.#extend(input.ttlMs, input.sentAt);
    this.#go('HELD');
    this.#nextTryAt = input.sentAt + input.ttlMs / renewalsPerTtl;
    return [
      { type: 'announceHeld', leaseId: input.leaseId },
      ...this.#checkDeadline(now),
      ...this.#arm(),
    ];
  }

  #onRenewed(input: Extract<LeaseInput, { type: 'renewed' }>, now: number): LeaseEffect[] {
    this.#inFlight = false;
    if (!this.#isAlive()) return [];
    if (input.ttlMs <= 0) {
      this.#go('LOST');
      return [{ type: 'cancelTimer' }, { type: 'announceLost' }];
    }
    this.#extend(input.ttlMs, input.sentAt);
    this.#nextTryAt = Math.max(now, input.sentAt + input.ttlMs / renewalsPerTtl);
    const effects = this.#checkDeadline(now);
    if (this.#state === 'OVERDUE' && now < this.#validUntil) {
      this.#go('HELD');
      effects.push({ type: 'announceRecovered' });
    }
    return [...effects, ...this.#arm()];
  }

  #onTimer(now: number): LeaseEffect[] {
    if (this.#state === 'GRANTING') {
      return this.#inFlight || now < this.#nextTryAt ? this.#arm() : this.#tryGrant();
    }
    if (!this.#isAlive()) return [];
    const effects = this.#checkDeadline(now);
    if (!this.#inFlight && now >= this.#nextTryAt && this.#leaseId !== undefined) {
      this.#inFlight = true;
      effects.push({ type: 'renew', leaseId: this.#leaseId });
    }
    return [...effects, ...this.#arm()];
  }

  #onClosed(): LeaseEffect[] {
    if (this.#state === 'CLOSED') return [];
    const leaseId = this.#isAlive() ? this.#leaseId : undefined;
    this.#go('CLOSED');
    return [
      { type: 'cancelTimer' },
      ...(leaseId === undefined ? [] : [{ type: 'revoke' as const, leaseId }]),
    ];
  }

  #tryGrant(): LeaseEffect[] {
    this.#inFlight = true;
    return [{ type: 'grant' }];
  }

  #checkDeadline(now: number): LeaseEffect[] {
    if (this.#state !== 'HELD' || now < this.#validUntil) return [];
    this.#go('OVERDUE');
    return [{ type: 'announceOverdue' }];
  }

  /** One timer for whatever comes first: the next try, or the deadline. */
  #arm(): LeaseEffect[] {
    const tryAt = this.#inFlight ? Infinity : this.#nextTryAt;
    const at = Math.min(tryAt, this.#state === 'HELD' ? this.#validUntil : Infinity);
    return at === Infinity ? [] : [{ type: 'armTimer', at }];
  }

  #extend(ttlMs: number, sentAt: number): void {
    const { marginMs, marginRatio } = this.#options;
    const margin = Math.min(ttlMs / 2, Math.max(marginMs, marginRatio * ttlMs));
    this.#validUntil = Math.max(this.#validUntil, sentAt + ttlMs - margin);
  }

  #isAlive(): boolean {
    return this.#state === 'HELD' || this.#state === 'OVERDUE';
  }

  #go(to: LeaseState): void {
    checkTransition('lease', leaseTransitions, this.#state, to);
    this.#state = to;
  }
}
