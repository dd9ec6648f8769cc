/**
 * The etcd3 clients of one member. Three of a single host each: an error on one of them closes etcd3's connections of
 * that client, and must not take watches or lease renewals along. etcd3's own retries, circuit breaker, leases,
 * watchers, elections and password authentication are not used (docs/adr/0002 has the reasons).
 */
import { InterceptingCall, type CallOptions as GrpcCallOptions } from '@grpc/grpc-js';
import { Etcd3, type IOptions } from 'etcd3';
import type { EtcdTls } from './etcd-credentials.js';

type FaultHandling = NonNullable<IOptions['faultHandling']>;
type Policy = NonNullable<FaultHandling['global']>;
type Interceptor = NonNullable<GrpcCallOptions['interceptors']>[number];

const subscribeToNothing = (): { dispose: () => void } => ({ dispose: () => undefined });

/** Runs the call once: a repeated transaction reports its own first attempt as a conflict. */
const noFaultHandling = {
  onSuccess: subscribeToNothing,
  onFailure: subscribeToNothing,
  execute: async <T>(fn: (context: { signal: AbortSignal }) => T | PromiseLike<T>): Promise<T> =>
    fn({ signal: new AbortController().signal }),
} as unknown as Policy;

/** Texts by which etcd says that a token is not (or no longer) good: expired, unknown after a restart, older than the roles. */
const tokenRefusals = [
  'etcdserver: invalid auth token',
  'etcdserver: user name is empty',
  'etcdserver: revision of auth store is old',
];

/** Instead of etcd's text: on that one etcd3 repeats the call with the same token, without end. */
export const tokenRefused = 'the token for etcd is not valid any more';

/**
 * Asks etcd to refuse (streams: to end) when the member has no leader, instead of staying silent, and says who is
 * asking. An interceptor, since etcd3 has no way to give metadata.
 */
export function stamp(token: string | undefined): Interceptor {
  return (options, nextCall) =>
    new InterceptingCall(nextCall(options), {
      start: (metadata, _listener, next) => {
        metadata.set('hasleader', 'true');
        if (token !== undefined) metadata.set('token', token);
        next(metadata, {
          onReceiveStatus: (status, pass) => {
            const isRefused = tokenRefusals.some((text) => status.details.includes(text));
            pass(isRefused ? { ...status, details: tokenRefused } : status);
          },
        });
      },
    });
}

export interface EtcdClientOptions {
  /** `http://host:port` or `https://host:port`. */
  readonly endpoint: string;
  readonly tls?: EtcdTls;
  /** Name that the member's certificate must have, instead of the endpoint's host. */
  readonly serverName?: string;
}

/** Open as long as it is used: replaced clients end their calls and watches first. */
export class EtcdClients {
  readonly kv: Etcd3;
  readonly lease: Etcd3;
  readonly watch: Etcd3;
  #uses = 0;
  #isRetired = false;

  constructor(options: EtcdClientOptions) {
    this.kv = createClient(options);
    this.lease = createClient(options);
    this.watch = createClient(options);
  }

  /** Keeps the clients open until what is returned was called. */
  use(): () => void {
    this.#uses += 1;
    let isUsed = true;
    return () => {
      if (!isUsed) return;
      isUsed = false;
      this.#uses -= 1;
      this.#closeIfIdle();
    };
  }

  /** No new use follows. */
  retire(): void {
    this.#isRetired = true;
    this.#closeIfIdle();
  }

  close(): void {
    this.kv.close();
    this.lease.close();
    this.watch.close();
  }

  #closeIfIdle(): void {
    if (this.#isRetired && this.#uses === 0) this.close();
  }
}

function createClient({ endpoint, tls, serverName }: EtcdClientOptions): Etcd3 {
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
      ...(serverName !== undefined && {
        'grpc.ssl_target_name_override': serverName,
        'grpc.default_authority': serverName,
      }),
    },
  });
}
