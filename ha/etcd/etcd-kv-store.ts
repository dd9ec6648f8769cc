/**
 * KvStore over etcd. It chooses the member for every call itself: the one that answered last, another
 * one after a failure, those that failed lately last. Writes are sent once; they move to another member
 * only when they certainly did not happen.
 */
import { sleep } from '../../lib/base/clock.js';
import { childEnv, type Env } from '../../lib/base/env.js';
import { MillraceError } from '../../lib/base/errors.js';
import {
  isReadOnly,
  type CallOptions,
  type KvEntry,
  type KvStore,
  type LeaseGrant,
  type LeaseId,
  type RangeRequest,
  type RangeResult,
  type TxnRequest,
  type TxnResult,
  type Watch,
  type WatchListener,
  type WatchRequest,
} from '../kv-store.js';
import type { StoreMember } from '../services.js';
import { classify, refused, unavailable, unknownOutcome } from './etcd-errors.js';
import { EtcdMember, type EtcdTls } from './etcd-member.js';
import { EtcdWatch } from './etcd-watch.js';
import { describeMember, silentMember } from './store-health.js';

export interface EtcdKvStoreOptions {
  /** Client URLs of the members, all `http://` or all `https://`. */
  readonly endpoints: readonly string[];
  readonly tls?: EtcdTls;
  /** Bound on one try at one member. Default 1,000 ms. */
  readonly tryTimeoutMs?: number;
  /** Bound on a call, all tries included. Default 5,000 ms. */
  readonly callTimeoutMs?: number;
}

interface RankedMember {
  readonly member: EtcdMember;
  failures: number;
  /** Monotonic ms until which others are preferred. */
  avoidUntil: number;
}

/** What a call does to the store: decides what may be repeated. */
type Effect = 'read' | 'write';

const pauseBetweenRoundsMs = 100;
const watchOpenTimeoutMs = 2_000;
const healthTimeoutMs = 2_000;
/** Read to see whether a member reads linearizably; need not exist. */
const healthKey = 'health';

export class EtcdKvStore implements KvStore {
  readonly description: string;
  readonly #env: Env;
  readonly #endpoints: readonly string[];
  readonly #members: RankedMember[];
  readonly #tryTimeoutMs: number;
  readonly #callTimeoutMs: number;
  readonly #closing = new AbortController();
  readonly #watches = new Set<EtcdWatch>();
  readonly #calls = new Set<Promise<unknown>>();
  #closed: Promise<void> | undefined;

  /** @throws CONFIG when there is no endpoint or one is no URL. */
  constructor(env: Env, options: EtcdKvStoreOptions) {
    this.#env = childEnv(env, 'etcd');
    this.#endpoints = checkEndpoints(options.endpoints);
    this.description = `etcd at ${this.#endpoints.join(', ')}`;
    this.#tryTimeoutMs = options.tryTimeoutMs ?? 1_000;
    this.#callTimeoutMs = options.callTimeoutMs ?? 5_000;
    this.#members = this.#endpoints.map((endpoint) => ({
      member: new EtcdMember(env.clock, { endpoint, ...(options.tls && { tls: options.tls }) }),
      failures: 0,
      avoidUntil: 0,
    }));
    // Processes do not all begin with the same member.
    const first = Math.floor(env.random.next() * this.#members.length);
    this.#members.push(...this.#members.splice(0, first));
  }

  range(request: RangeRequest, options?: CallOptions): Promise<RangeResult> {
    return this.#call('read', options, (member, ms) => member.range(request, ms));
  }

  async get(key: string, options?: CallOptions): Promise<KvEntry | undefined> {
    const { entries } = await this.range({ key }, options);
    return entries[0];
  }

  txn(request: TxnRequest, options?: CallOptions): Promise<TxnResult> {
    const effect = isReadOnly(request) ? 'read' : 'write';
    return this.#call(effect, options, (member, ms) => member.txn(request, ms));
  }

  watch(request: WatchRequest, listener: WatchListener): Watch {
    const ranked = this.#ranking()[0]!;
    const watch: EtcdWatch = new EtcdWatch(this.#env.clock, ranked.member, {
      request,
      listener,
      openTimeoutMs: watchOpenTimeoutMs,
      onDone: (failed) => {
        this.#watches.delete(watch);
        if (failed && !this.#closing.signal.aborted) this.#noteFailure(ranked);
      },
    });
    this.#watches.add(watch);
    return watch;
  }

  grantLease(ttlMs: number, options?: CallOptions): Promise<LeaseGrant> {
    return this.#call('write', options, (member, ms) => member.grantLease(ttlMs, ms));
  }

  keepAliveOnce(leaseId: LeaseId, options?: CallOptions): Promise<number> {
    return this.#track(async () => {
      const ranked = this.#ranking()[0]!;
      const timeoutMs = options?.timeoutMs ?? this.#tryTimeoutMs;
      try {
        const ttlMs = await ranked.member.keepAlive(leaseId, timeoutMs);
        this.#noteSuccess(ranked);
        return ttlMs;
      } catch (error) {
        const failure = classify(error);
        if (failure === 'lease-not-found') return 0;
        if (failure === 'rejected') throw refused(failure, error);
        this.#noteFailure(ranked);
        throw unavailable([ranked.member.endpoint], error);
      }
    });
  }

  async revokeLease(leaseId: LeaseId, options?: CallOptions): Promise<void> {
    try {
      // Revoking twice is harmless, and the second time says that there is no such lease.
      await this.#call('read', options, (member, ms) => member.revokeLease(leaseId, ms));
    } catch (error) {
      if (!(error instanceof MillraceError) || error.code !== 'LEASE_NOT_FOUND') throw error;
    }
  }

  timeToLive(leaseId: LeaseId, options?: CallOptions): Promise<number | undefined> {
    return this.#call('read', options, (member, ms) => member.timeToLive(leaseId, ms));
  }

  /** How each member answers now, in the order of the endpoints, each within 2 s; never rejects. */
  members(): Promise<StoreMember[]> {
    const asked = this.#endpoints.map((endpoint) => {
      const ranked = this.#members.find(({ member }) => member.endpoint === endpoint)!;
      return this.#track(() => this.#ask(ranked.member));
    });
    return Promise.all(asked);
  }

  async #ask(member: EtcdMember): Promise<StoreMember> {
    const { clock } = this.#env;
    const began = clock.now();
    const latency = (): number => Math.round((clock.now() - began) * 10) / 10;
    try {
      const [status] = await Promise.all([
        member.status(healthTimeoutMs),
        member.range({ key: healthKey }, healthTimeoutMs).catch((error: unknown) => {
          // Refused for want of permission, which is an answer of a working etcd.
          if (classify(error) !== 'rejected') throw error;
        }),
      ]);
      return describeMember(member.endpoint, status, latency());
    } catch (error) {
      return silentMember(member.endpoint, error, latency());
    }
  }

  close(): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  async #close(): Promise<void> {
    this.#closing.abort();
    for (const watch of [...this.#watches]) watch.close();
    for (const { member } of this.#members) member.close();
    // Calls under way end by their deadlines at the latest.
    await Promise.allSettled(this.#calls);
  }

  /** Tries members in turn for as long as the effect allows and time is left. */
  #call<T>(
    effect: Effect,
    options: CallOptions | undefined,
    run: (member: EtcdMember, timeoutMs: number) => Promise<T>,
  ): Promise<T> {
    const { clock } = this.#env;
    const deadline = clock.now() + (options?.timeoutMs ?? this.#callTimeoutMs);
    return this.#track(async () => {
      for (let attempt = 1; ; attempt += 1) {
        const ranked = this.#ranking()[0]!;
        const timeoutMs = Math.max(1, Math.min(this.#tryTimeoutMs, deadline - clock.now()));
        try {
          const result = await run(ranked.member, timeoutMs);
          this.#noteSuccess(ranked);
          return result;
        } catch (error) {
          if (this.#closing.signal.aborted) throw closed(error);
          const failure = classify(error);
          if (failure === 'rejected' || failure === 'lease-not-found') {
            this.#noteSuccess(ranked);
            throw refused(failure, error);
          }
          this.#noteFailure(ranked);
          if (failure === 'unknown' && effect === 'write') {
            throw unknownOutcome(ranked.member.endpoint, error);
          }
          const isRoundOver = attempt % this.#members.length === 0;
          if (isRoundOver) await sleep(clock, pauseBetweenRoundsMs, this.#closing.signal);
          if (clock.now() >= deadline) throw unavailable(this.#endpoints, error);
        }
      }
    });
  }

  async #track<T>(work: () => Promise<T>): Promise<T> {
    if (this.#closing.signal.aborted) throw closed();
    const running = work();
    this.#calls.add(running);
    try {
      return await running;
    } finally {
      this.#calls.delete(running);
    }
  }

  /** Best first. Members that failed lately come after all others, the longest known first. */
  #ranking(): RankedMember[] {
    const now = this.#env.clock.now();
    const penalty = (ranked: RankedMember): number =>
      ranked.avoidUntil > now ? ranked.avoidUntil : 0;
    // The sort is stable: among equals the one that answered last stays in front.
    return [...this.#members].sort((a, b) => penalty(a) - penalty(b));
  }

  #noteSuccess(ranked: RankedMember): void {
    ranked.failures = 0;
    ranked.avoidUntil = 0;
    if (this.#members[0] === ranked) return;
    this.#members.splice(this.#members.indexOf(ranked), 1);
    this.#members.unshift(ranked);
  }

  #noteFailure(ranked: RankedMember): void {
    ranked.failures += 1;
    const penaltyMs = Math.min(5_000, 250 * 2 ** Math.min(ranked.failures, 8));
    ranked.avoidUntil = this.#env.clock.now() + penaltyMs;
    this.#env.metrics.counter('etcdFailures', { endpoint: ranked.member.endpoint }).inc();
  }
}

function checkEndpoints(endpoints: readonly string[]): readonly string[] {
  if (endpoints.length === 0) {
    throw new MillraceError('CONFIG', 'high-availability.etcd.endpoints names no endpoint');
  }
  for (const endpoint of endpoints) {
    if (!/^https?:\/\/[^/\s]+$/.test(endpoint)) {
      throw new MillraceError(
        'CONFIG',
        `"${endpoint}" in high-availability.etcd.endpoints is not of the form http://host:port`,
      );
    }
  }
  return [...endpoints];
}

function closed(cause?: unknown): MillraceError {
  return new MillraceError('CLOSED', 'the connection to etcd is closed', { cause });
}
