/** One etcd member: calls with a deadline, each tried once, under a token of that member when there is a password. */
import type { CallOptions as GrpcCallOptions } from '@grpc/grpc-js';
import type { IDuplexStream, IStatusResponse, IWatchRequest, IWatchResponse } from 'etcd3';
import { withTimeout } from '../../lib/base/abort.js';
import type { Clock } from '../../lib/base/clock.js';
import { MillraceError } from '../../lib/base/errors.js';
import type {
  LeaseGrant,
  LeaseId,
  RangeRequest,
  RangeResult,
  TxnRequest,
  TxnResult,
} from '../kv-store.js';
import { EtcdClients, stamp, tokenRefused, type EtcdClientOptions } from './etcd-clients.js';
import {
  fromRangeResponse,
  fromTxnResponse,
  toRangeRequest,
  toSafeInteger,
  toTxnRequest,
} from './etcd-codec.js';
import type { EtcdAuth, EtcdTls } from './etcd-credentials.js';
import { classify } from './etcd-errors.js';

export interface EtcdMemberOptions extends EtcdClientOptions {
  readonly auth?: EtcdAuth;
}

export type WatchStream = IDuplexStream<IWatchRequest, IWatchResponse>;

export interface OpenWatch {
  readonly stream: WatchStream;
  /** Ends the stream; idempotent. */
  end(): void;
}

/** A password is hashed slowly on purpose, and the token is agreed upon by the members. */
const authenticateTimeoutMs = 5_000;

export class EtcdMember {
  readonly endpoint: string;
  readonly #clock: Clock;
  readonly #options: EtcdMemberOptions;
  #clients: EtcdClients;
  /** Of this member alone: tokens live and expire on each member by themselves. */
  #token: Promise<string | undefined> | undefined;

  constructor(clock: Clock, options: EtcdMemberOptions) {
    this.endpoint = options.endpoint;
    this.#clock = clock;
    this.#options = options;
    this.#clients = new EtcdClients(options);
  }

  /** New calls use the new certificates; calls and watches under way end as they began. */
  replaceTls(tls: EtcdTls): void {
    const before = this.#clients;
    this.#clients = new EtcdClients({ ...this.#options, tls });
    before.retire();
  }

  range(request: RangeRequest, timeoutMs: number): Promise<RangeResult> {
    return this.#call(timeoutMs, async ({ kv }, options) =>
      fromRangeResponse(await kv.kv.range(toRangeRequest(request), options)),
    );
  }

  txn(request: TxnRequest, timeoutMs: number): Promise<TxnResult> {
    return this.#call(timeoutMs, async ({ kv }, options) =>
      fromTxnResponse(await kv.kv.txn(toTxnRequest(request), options), request),
    );
  }

  grantLease(ttlMs: number, timeoutMs: number): Promise<LeaseGrant> {
    const request = { TTL: Math.ceil(ttlMs / 1_000) };
    return this.#call(timeoutMs, async ({ lease }, options) => {
      const { ID, TTL } = await lease.leaseClient.leaseGrant(request, options);
      return { leaseId: ID, ttlMs: toSafeInteger(TTL) * 1_000 };
    });
  }

  async revokeLease(leaseId: LeaseId, timeoutMs: number): Promise<void> {
    await this.#call(timeoutMs, ({ lease }, options) =>
      lease.leaseClient.leaseRevoke({ ID: leaseId }, options),
    );
  }

  /** `undefined` when the lease does not exist. */
  timeToLive(leaseId: LeaseId, timeoutMs: number): Promise<number | undefined> {
    return this.#call(timeoutMs, async ({ lease }, options) => {
      const { TTL } = await lease.leaseClient.leaseTimeToLive({ ID: leaseId }, options);
      const seconds = toSafeInteger(TTL);
      return seconds < 0 ? undefined : seconds * 1_000;
    });
  }

  /** A stream for one renewal: a stream kept open would stay on a connection that died silently. */
  keepAlive(leaseId: LeaseId, timeoutMs: number): Promise<number> {
    return this.#call(timeoutMs, async ({ lease }, options) => {
      const stream = await lease.leaseClient.leaseKeepAlive(options);
      try {
        const ttl = await new Promise<string>((resolve, reject) => {
          stream.on('data', (response) => {
            resolve(response.TTL);
          });
          stream.on('error', reject);
          stream.on('end', () => {
            reject(new MillraceError('ETCD_UNAVAILABLE', 'the renewal stream ended'));
          });
          stream.write({ ID: leaseId });
        });
        return toSafeInteger(ttl) * 1_000;
      } finally {
        endStream(stream);
      }
    });
  }

  status(timeoutMs: number): Promise<IStatusResponse> {
    return this.#call(timeoutMs, ({ lease }, options) => lease.maintenance.status(options));
  }

  /** Opens a stream for one watch; the caller ends it. */
  async openWatch(timeoutMs: number): Promise<OpenWatch> {
    const token = await this.#tokenWithin(timeoutMs);
    const clients = this.#clients;
    const release = clients.use();
    try {
      const stream = await clients.watch.watchClient.watch({ interceptors: [stamp(token)] });
      const end = (): void => {
        endStream(stream);
        release();
      };
      return { stream, end };
    } catch (error) {
      release();
      throw error;
    }
  }

  /** The next call asks for a new token. */
  forgetToken(): void {
    this.#token = undefined;
  }

  close(): void {
    this.#clients.close();
  }

  /** Once more with a new token when the one in use is refused: etcd has done nothing then. */
  async #call<T>(
    timeoutMs: number,
    run: (clients: EtcdClients, options: GrpcCallOptions) => Promise<T>,
  ): Promise<T> {
    const deadline = this.#clock.wallTime() + timeoutMs;
    for (let attempt = 0; ; attempt += 1) {
      const token = await this.#tokenWithin(Math.max(1, deadline - this.#clock.wallTime()));
      const used = this.#token;
      const clients = this.#clients;
      const release = clients.use();
      try {
        return await run(clients, { deadline, interceptors: [stamp(token)] });
      } catch (error) {
        if (attempt > 0 || this.#options.auth === undefined || !isTokenRefused(error)) throw error;
        if (this.#token === used) this.forgetToken();
      } finally {
        release();
      }
    }
  }

  /** `undefined` without a password. Rejects as not applied: what the token was for was not sent. */
  async #tokenWithin(timeoutMs: number): Promise<string | undefined> {
    const { auth } = this.#options;
    if (auth === undefined) return undefined;
    if (this.#token === undefined) {
      const asked = this.#authenticate(auth);
      this.#token = asked;
      asked.catch(() => {
        if (this.#token === asked) this.#token = undefined;
      });
    }
    try {
      return await withTimeout(this.#clock, timeoutMs, 'authentication at etcd', this.#token);
    } catch (cause) {
      if (classify(cause) === 'rejected') throw cause;
      const message = `${this.endpoint} gave no token`;
      throw new MillraceError('ETCD_UNAVAILABLE', message, { cause });
    }
  }

  async #authenticate({ username, password }: EtcdAuth): Promise<string | undefined> {
    const clients = this.#clients;
    const release = clients.use();
    try {
      const { token } = await clients.lease.auth.authenticate(
        { name: username, password },
        {
          deadline: this.#clock.wallTime() + authenticateTimeoutMs,
          interceptors: [stamp(undefined)],
        },
      );
      return token;
    } catch (error) {
      // Switched on later, etcd refuses calls without a token, and one is asked for again.
      if (String(error).includes('authentication is not enabled')) return undefined;
      throw error;
    } finally {
      release();
    }
  }
}

/** Ends both directions. `end` first: etcd3 takes a cancelled stream that is still writable for a failed member. */
function endStream(stream: { end(): void; cancel(): void }): void {
  stream.end();
  stream.cancel();
}

function isTokenRefused(error: unknown): boolean {
  return error instanceof Error && error.message.includes(tokenRefused);
}
