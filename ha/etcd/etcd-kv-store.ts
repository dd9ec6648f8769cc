/**
 * KvStore over etcd. It chooses the member for every call itself: the one that answered last, another
 * one after a failure, those that failed lately last. Reads that get no answer soon are sent to the next
 * member as well. Writes are sent once; they move to another member only when they certainly did not happen.
 */
import { sleep } from '../../lib/base/clock.js';
import { childEnv, type Env } from '../../lib/base/env.js';
import { hasCode, MillraceError } from '../../lib/base/errors.js';
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
import { describeRequest, excessOf } from './etcd-codec.js';
import { EtcdCertificates, type EtcdAuth, type EtcdSslFiles } from './etcd-credentials.js';
import { classify, refused, unavailable, unknownOutcome } from './etcd-errors.js';
import { EtcdMember } from './etcd-member.js';
import { EtcdWatch } from './etcd-watch.js';
import { raceRead } from './hedged-read.js';
import { MemberRanking } from './member-ranking.js';
import { describeMember, silentMember } from './store-health.js';

export interface EtcdKvStoreOptions {
  /** Client URLs of the members, all `http://` or all `https://`. */
  readonly endpoints: readonly string[];
  /** Certificates; for `https://` only. Default: the authorities Node trusts, and none of our own. */
  readonly ssl?: EtcdSslFiles;
  /** How often changed certificate files are looked for. Default 10 s. */
  readonly sslReloadMs?: number;
  readonly auth?: EtcdAuth;
  /** Bound on one try at one member. Default 1,000 ms. */
  readonly tryTimeoutMs?: number;
  /** Bound on a call, all tries included. Default 5,000 ms. */
  readonly callTimeoutMs?: number;
  /** A read without an answer for so long is sent to another member too. Default 150 ms. */
  readonly hedgeAfterMs?: number;
}

/** One try at one member. */
type Try<T> = (member: EtcdMember, timeoutMs: number) => Promise<T>;

interface CallContext extends CallOptions {
  /** For the error when etcd refuses. */
  readonly what?: () => string;
}

const pauseBetweenRoundsMs = 100;
const watchOpenTimeoutMs = 2_000;
const healthTimeoutMs = 2_000;
/** Read to see whether a member reads linearizably; need not exist. */
const healthKey = 'health';

export class EtcdKvStore implements KvStore {
  readonly description: string;
  readonly #env: Env;
  readonly #endpoints: readonly string[];
  readonly #ranking: MemberRanking;
  readonly #certificates: EtcdCertificates | undefined;
  readonly #user: string | undefined;
  readonly #tryTimeoutMs: number;
  readonly #callTimeoutMs: number;
  readonly #hedgeAfterMs: number;
  readonly #closing = new AbortController();
  readonly #watches = new Set<EtcdWatch>();
  readonly #calls = new Set<Promise<unknown>>();
  #isFull = false;
  #closed: Promise<void> | undefined;

  /** @throws CONFIG when there is no endpoint, one is no URL, or the certificates are not usable. */
  constructor(env: Env, options: EtcdKvStoreOptions) {
    this.#env = childEnv(env, 'etcd');
    this.#endpoints = checkEndpoints(options);
    this.description = `etcd at ${this.#endpoints.join(', ')}`;
    this.#tryTimeoutMs = options.tryTimeoutMs ?? 1_000;
    this.#callTimeoutMs = options.callTimeoutMs ?? 5_000;
    this.#hedgeAfterMs = options.hedgeAfterMs ?? 150;
    this.#user = options.auth?.username;
    const { ssl, sslReloadMs, auth } = options;
    if (ssl !== undefined) {
      this.#certificates = new EtcdCertificates(this.#env, ssl, {
        ...(sslReloadMs !== undefined && { reloadMs: sslReloadMs }),
        onChange: (tls) => {
          for (const member of this.#ranking.members) member.replaceTls(tls);
        },
      });
    }
    const tls = this.#certificates?.current;
    const members = this.#endpoints.map(
      (endpoint) =>
        new EtcdMember(env.clock, {
          endpoint,
          ...(tls && { tls }),
          ...(ssl?.serverName !== undefined && { serverName: ssl.serverName }),
          ...(auth && { auth }),
        }),
    );
    // Processes do not all begin with the same member.
    const first = Math.floor(env.random.next() * members.length);
    members.push(...members.splice(0, first));
    this.#ranking = new MemberRanking(env.clock, this.#env.metrics, members);
  }

  range(request: RangeRequest, options?: CallOptions): Promise<RangeResult> {
    const context = { ...options, what: () => describeRequest(request) };
    return this.#read(context, (member, ms) => member.range(request, ms));
  }

  async get(key: string, options?: CallOptions): Promise<KvEntry | undefined> {
    const { entries } = await this.range({ key }, options);
    return entries[0];
  }

  async txn(request: TxnRequest, options?: CallOptions): Promise<TxnResult> {
    const context = { ...options, what: () => describeRequest(request) };
    const excess = excessOf(request);
    if (excess !== undefined) {
      throw new MillraceError('ETCD_REJECTED', `cannot ${context.what()}: ${excess}`);
    }
    const run: Try<TxnResult> = (member, ms) => member.txn(request, ms);
    if (isReadOnly(request)) return this.#read(context, run);
    const result = await this.#write(context, run);
    const branch = result.succeeded ? request.then : (request.else ?? []);
    if (this.#isFull && branch.some(({ op }) => op === 'put')) this.#noteSpace(false);
    return result;
  }

  watch(request: WatchRequest, listener: WatchListener): Watch {
    const ranked = this.#ranking.best();
    const watch: EtcdWatch = new EtcdWatch(this.#env.clock, ranked.member, {
      request,
      listener,
      openTimeoutMs: watchOpenTimeoutMs,
      onDone: (failed) => {
        this.#watches.delete(watch);
        if (failed && !this.#closing.signal.aborted) this.#ranking.noteFailure(ranked);
      },
    });
    this.#watches.add(watch);
    return watch;
  }

  grantLease(ttlMs: number, options?: CallOptions): Promise<LeaseGrant> {
    const context = { ...options, what: () => 'grant a lease' };
    return this.#write(context, (member, ms) => member.grantLease(ttlMs, ms));
  }

  keepAliveOnce(leaseId: LeaseId, options?: CallOptions): Promise<number> {
    return this.#track(async () => {
      const ranked = this.#ranking.best();
      const timeoutMs = options?.timeoutMs ?? this.#tryTimeoutMs;
      try {
        const ttlMs = await ranked.member.keepAlive(leaseId, timeoutMs);
        this.#ranking.noteSuccess(ranked);
        this.#env.metrics.counter('leaseRenewals', { endpoint: ranked.member.endpoint }).inc();
        return ttlMs;
      } catch (error) {
        const failure = classify(error);
        if (failure === 'lease-not-found') return 0;
        if (failure === 'rejected') throw this.#refused(failure, error, {});
        const { endpoint } = ranked.member;
        this.#env.metrics.counter('leaseRenewalFailures', { endpoint }).inc();
        this.#ranking.noteFailure(ranked);
        throw unavailable([ranked.member.endpoint], error);
      }
    });
  }

  async revokeLease(leaseId: LeaseId, options?: CallOptions): Promise<void> {
    const context = { ...options, what: () => 'revoke a lease' };
    try {
      // Revoking twice is harmless, and the second time says that there is no such lease.
      await this.#read(context, (member, ms) => member.revokeLease(leaseId, ms));
    } catch (error) {
      if (!hasCode(error, 'LEASE_NOT_FOUND')) throw error;
    }
  }

  timeToLive(leaseId: LeaseId, options?: CallOptions): Promise<number | undefined> {
    return this.#read({ ...options }, (member, ms) => member.timeToLive(leaseId, ms));
  }

  /** How each member answers now, in the order of the endpoints, each within 2 s; never rejects. */
  members(): Promise<StoreMember[]> {
    const asked = this.#endpoints.map((endpoint) => {
      const member = this.#ranking.members.find((candidate) => candidate.endpoint === endpoint)!;
      return this.#track(() => this.#ask(member));
    });
    return Promise.all(asked);
  }

  close(): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  async #close(): Promise<void> {
    this.#closing.abort();
    await this.#certificates?.close();
    for (const watch of [...this.#watches]) watch.close();
    for (const member of this.#ranking.members) member.close();
    // Calls under way end by their deadlines at the latest.
    await Promise.allSettled(this.#calls);
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

  /** Tries members until one answers or the time is over, several at once when the first ones are slow. */
  #read<T>(context: CallContext, run: Try<T>): Promise<T> {
    const { clock, metrics } = this.#env;
    const deadline = clock.now() + (context.timeoutMs ?? this.#callTimeoutMs);
    return this.#track(async () => {
      for (;;) {
        const round = await raceRead<T>({
          clock,
          metrics,
          ranking: this.#ranking,
          hedgeAfterMs: this.#hedgeAfterMs,
          run: (member) => this.#track(() => run(member, this.#tryTimeout(deadline))),
          isOver: () => this.#closing.signal.aborted,
        });
        if ('value' in round) return round.value;
        if (this.#closing.signal.aborted) throw closed(round.error);
        if (round.refusal !== undefined) throw this.#refused(round.refusal, round.error, context);
        await sleep(clock, pauseBetweenRoundsMs, this.#closing.signal);
        if (clock.now() >= deadline) throw unavailable(this.#endpoints, round.error);
      }
    });
  }

  #write<T>(context: CallContext, run: Try<T>): Promise<T> {
    const { clock } = this.#env;
    const deadline = clock.now() + (context.timeoutMs ?? this.#callTimeoutMs);
    return this.#track(async () => {
      for (let attempt = 1; ; attempt += 1) {
        const ranked = this.#ranking.best();
        try {
          const result = await run(ranked.member, this.#tryTimeout(deadline));
          this.#ranking.noteSuccess(ranked);
          return result;
        } catch (error) {
          if (this.#closing.signal.aborted) throw closed(error);
          const failure = classify(error);
          if (failure === 'rejected' || failure === 'lease-not-found') {
            this.#ranking.noteSuccess(ranked);
            throw this.#refused(failure, error, context);
          }
          this.#ranking.noteFailure(ranked);
          if (failure === 'unknown') throw unknownOutcome(ranked.member.endpoint, error);
          const isRoundOver = attempt % this.#endpoints.length === 0;
          if (isRoundOver) await sleep(clock, pauseBetweenRoundsMs, this.#closing.signal);
          if (clock.now() >= deadline) throw unavailable(this.#endpoints, error);
        }
      }
    });
  }

  #tryTimeout(deadline: number): number {
    return Math.max(1, Math.min(this.#tryTimeoutMs, deadline - this.#env.clock.now()));
  }

  #refused(
    failure: 'rejected' | 'lease-not-found',
    cause: unknown,
    { what }: CallContext,
  ): MillraceError {
    const error = refused(failure, cause, {
      ...(what && { what: what() }),
      ...(this.#user !== undefined && { user: this.#user }),
    });
    if (error.code === 'ETCD_NO_SPACE') this.#noteSpace(true, error);
    return error;
  }

  /** One line per episode. */
  #noteSpace(isFull: boolean, err?: Error): void {
    const { log, metrics } = this.#env;
    metrics.gauge('etcdNoSpace').set(isFull ? 1 : 0);
    if (isFull === this.#isFull) return;
    this.#isFull = isFull;
    if (isFull) log.error({ event: 'etcd.no-space', err }, 'etcd takes no writes');
    else log.info({ event: 'etcd.space-again' }, 'etcd takes writes again');
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
}

function checkEndpoints({ endpoints, ssl }: EtcdKvStoreOptions): readonly string[] {
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
    if (ssl !== undefined && !endpoint.startsWith('https:')) {
      throw new MillraceError(
        'CONFIG',
        `"${endpoint}" in high-availability.etcd.endpoints is not encrypted, but high-availability.etcd.ssl.* is set: write https://`,
      );
    }
  }
  if (new Set(endpoints.map((endpoint) => endpoint.startsWith('https:'))).size > 1) {
    throw new MillraceError(
      'CONFIG',
      'high-availability.etcd.endpoints has endpoints with http:// and with https://: use one of them for all',
    );
  }
  return [...endpoints];
}

function closed(cause?: unknown): MillraceError {
  return new MillraceError('CLOSED', 'the connection to etcd is closed', { cause });
}
