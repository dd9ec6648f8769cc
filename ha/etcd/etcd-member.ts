/**
 * One etcd member, through three etcd3 clients of a single host each: an error on one of them closes
 * etcd3's connections of that client, and must not take watches or lease renewals along. etcd3's own
 * retries, circuit breaker, leases, watchers and elections are not used (ha.md section 3 has the reasons).
 */
import type { CallOptions as GrpcCallOptions } from '@grpc/grpc-js';
import {
  Etcd3,
  type IDuplexStream,
  type IOptions,
  type IStatusResponse,
  type IWatchRequest,
  type IWatchResponse,
} from 'etcd3';
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
import {
  fromRangeResponse,
  fromTxnResponse,
  toRangeRequest,
  toSafeInteger,
  toTxnRequest,
} from './etcd-codec.js';

export interface EtcdTls {
  readonly rootCertificate: Buffer;
  readonly privateKey?: Buffer;
  readonly certChain?: Buffer;
}

export interface EtcdMemberOptions {
  /** `http://host:port` or `https://host:port`. */
  readonly endpoint: string;
  readonly tls?: EtcdTls;
}

export type WatchStream = IDuplexStream<IWatchRequest, IWatchResponse>;

type FaultHandling = NonNullable<IOptions['faultHandling']>;
type Policy = NonNullable<FaultHandling['global']>;

const subscribeToNothing = (): { dispose: () => void } => ({ dispose: () => undefined });

/** Runs the call once: a repeated transaction reports its own first attempt as a conflict. */
const noFaultHandling = {
  onSuccess: subscribeToNothing,
  onFailure: subscribeToNothing,
  execute: async <T>(fn: (context: { signal: AbortSignal }) => T | PromiseLike<T>): Promise<T> =>
    fn({ signal: new AbortController().signal }),
} as unknown as Policy;

/**
 * Asks etcd to refuse (streams: to end) when the member has no leader, instead of staying silent.
 * An interceptor, since etcd3 has no way to give metadata.
 */
const requireLeader: NonNullable<GrpcCallOptions['interceptors']>[number] = (options, nextCall) => {
  const call = nextCall(options);
  const start = call.start.bind(call);
  call.start = (metadata, listener) => {
    metadata.set('hasleader', 'true');
    start(metadata, listener);
  };
  return call as never;
};

export class EtcdMember {
  readonly endpoint: string;
  readonly #clock: Clock;
  readonly #kv: Etcd3;
  readonly #lease: Etcd3;
  readonly #watch: Etcd3;

  constructor(clock: Clock, options: EtcdMemberOptions) {
    this.endpoint = options.endpoint;
    this.#clock = clock;
    this.#kv = createClient(options);
    this.#lease = createClient(options);
    this.#watch = createClient(options);
  }

  async range(request: RangeRequest, timeoutMs: number): Promise<RangeResult> {
    const response = await this.#kv.kv.range(toRangeRequest(request), this.#within(timeoutMs));
    return fromRangeResponse(response);
  }

  async txn(request: TxnRequest, timeoutMs: number): Promise<TxnResult> {
    const response = await this.#kv.kv.txn(toTxnRequest(request), this.#within(timeoutMs));
    return fromTxnResponse(response, request);
  }

  async grantLease(ttlMs: number, timeoutMs: number): Promise<LeaseGrant> {
    const request = { TTL: Math.ceil(ttlMs / 1_000) };
    const { ID, TTL } = await this.#lease.leaseClient.leaseGrant(request, this.#within(timeoutMs));
    return { leaseId: ID, ttlMs: toSafeInteger(TTL) * 1_000 };
  }

  async revokeLease(leaseId: LeaseId, timeoutMs: number): Promise<void> {
    await this.#lease.leaseClient.leaseRevoke({ ID: leaseId }, this.#within(timeoutMs));
  }

  /** `undefined` when the lease does not exist. */
  async timeToLive(leaseId: LeaseId, timeoutMs: number): Promise<number | undefined> {
    const request = { ID: leaseId };
    const { TTL } = await this.#lease.leaseClient.leaseTimeToLive(request, this.#within(timeoutMs));
    const seconds = toSafeInteger(TTL);
    return seconds < 0 ? undefined : seconds * 1_000;
  }

  /** A stream for one renewal: a stream kept open would stay on a connection that died silently. */
  async keepAlive(leaseId: LeaseId, timeoutMs: number): Promise<number> {
    const stream = await this.#lease.leaseClient.leaseKeepAlive(this.#within(timeoutMs));
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
  }

  status(timeoutMs: number): Promise<IStatusResponse> {
    return this.#lease.maintenance.status(this.#within(timeoutMs));
  }

  /** Opens a stream for one watch; the caller ends it with `endStream`. */
  openWatch(): Promise<WatchStream> {
    return this.#watch.watchClient.watch({ interceptors: [requireLeader] });
  }

  close(): void {
    this.#kv.close();
    this.#lease.close();
    this.#watch.close();
  }

  #within(timeoutMs: number): GrpcCallOptions {
    return { deadline: this.#clock.wallTime() + timeoutMs, interceptors: [requireLeader] };
  }
}

/** Ends both directions. `end` first: etcd3 takes a cancelled stream that is still writable for a failed member. */
export function endStream(stream: { end(): void; cancel(): void }): void {
  stream.end();
  stream.cancel();
}

function createClient({ endpoint, tls }: EtcdMemberOptions): Etcd3 {
  return new Etcd3({
    hosts: endpoint,
    ...(tls && { credentials: tls }),
    faultHandling: { global: noFaultHandling, host: () => noFaultHandling },
    grpcOptions: {
      // etcd closes connections that are pinged more often than every 5 s.
      'grpc.keepalive_time_ms': 5_000,
      'grpc.keepalive_timeout_ms': 2_000,
      'grpc.keepalive_permit_without_calls': 0,
      'grpc.max_receive_message_length': 64 * 1_024 * 1_024,
      'grpc.use_local_subchannel_pool': 1,
      'grpc.enable_retries': 0,
      'grpc.initial_reconnect_backoff_ms': 100,
      'grpc.max_reconnect_backoff_ms': 1_000,
    },
  });
}
