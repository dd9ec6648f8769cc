/**
 * One end of a session: numbered requests with answers, ordered one-way messages, every message checked at the
 * border. The same code serves gRPC and the local transport; a transport only moves bytes.
 *
 * Bounds: a request waits for its answer no longer than its patience, at most `maxPendingRequests` wait at
 * once, and a peer that does not take its messages (`maxUnsentBytes`) loses the session.
 */
import { Deferred } from '../base/deferred.js';
import type { Env } from '../base/env.js';
import { fromFailure, MillraceError, toFailure } from '../base/errors.js';
import type { MethodSpec, MethodTable } from '../gateway/codecs.js';
import { isFailure } from '../gateway/schema.js';
import type { LeaderEpoch } from '../../ha/services.js';
import { MessageCodec, type RpcFrame } from './message-codec.js';
import type { RpcSession } from './rpc-service.js';

/** An ordered, reliable, bidirectional stream of messages. Nothing of it throws. */
export interface ByteChannel {
  /** Begins delivery; called once. `onClose` comes once, after the last message, with one sentence. */
  start(onMessage: (bytes: Uint8Array) => void, onClose: (reason: string) => void): void;
  send(bytes: Uint8Array): void;
  /** Sends what is queued, then ends. */
  close(): void;
  /** Bytes given to `send` that the transport still holds. */
  readonly unsentBytes: number;
}

export interface RpcPeerOptions {
  /** Longest wait for an answer, ms; and for answers that wait for user code to end. */
  readonly requestTimeoutMs: number;
  readonly cancellationTimeoutMs: number;
  readonly maxPendingRequests: number;
  readonly maxUnsentBytes: number;
}

export const defaultRpcPeerOptions: RpcPeerOptions = {
  requestTimeoutMs: 30_000,
  cancellationTimeoutMs: 60_000,
  maxPendingRequests: 4096,
  maxUnsentBytes: 256 * 1024 * 1024,
};

type AnyTable = Readonly<Record<string, MethodSpec<unknown, unknown>>>;
type AnyHandler = Readonly<Record<string, (request: unknown) => unknown>>;

export interface RpcPeerDeps {
  readonly channel: ByteChannel;
  /** Name of the other side in messages for people. */
  readonly peerName: string;
  /** Stamped on every message of this side. */
  readonly epoch: LeaderEpoch;
  /** Throws when a message of this epoch must not be served (STALE_EPOCH). */
  readonly checkEpoch: (epoch: LeaderEpoch, method: string) => void;
  /** Asked before every request and one-way message; answers always go out. Default: always. */
  readonly maySend?: () => boolean;
}

interface Pending {
  readonly deferred: Deferred<unknown>;
  readonly spec: MethodSpec<unknown, unknown>;
  readonly cancelTimer: () => void;
}

export class RpcPeer implements RpcSession {
  readonly #env: Env;
  readonly #deps: RpcPeerDeps;
  readonly #options: RpcPeerOptions;
  readonly #codec = new MessageCodec();
  readonly #closed = new Deferred<string>();
  readonly #pending = new Map<number, Pending>();
  #methods: AnyTable = {};
  #handler: AnyHandler = {};
  #lastId = 0;
  #closeReason: string | undefined;

  constructor(env: Env, deps: RpcPeerDeps, options: RpcPeerOptions = defaultRpcPeerOptions) {
    this.#env = env;
    this.#deps = deps;
    this.#options = options;
  }

  get closed(): Promise<string> {
    return this.#closed.promise;
  }

  get isClosed(): boolean {
    return this.#closeReason !== undefined;
  }

  /** What the other side may call. May be replaced while the session lives (registration comes first). */
  serve<G extends object>(methods: MethodTable<G>, handler: G): void {
    this.#methods = methods;
    this.#handler = handler as unknown as AnyHandler;
  }

  /** Begins to receive; after `serve`. */
  start(): void {
    this.#deps.channel.start(
      (bytes) => {
        this.#receive(bytes);
      },
      (reason) => {
        this.#end(reason);
      },
    );
  }

  /** A gateway whose calls travel to the other side. */
  proxy<G extends object>(methods: MethodTable<G>): G {
    const table = methods as unknown as AnyTable;
    const gateway: Record<string, (request: unknown) => unknown> = {};
    for (const [method, spec] of Object.entries(table)) {
      gateway[method] =
        spec.kind === 'oneway'
          ? (request) => {
              this.#oneway(method, request);
            }
          : (request) => this.call(method, spec, request);
    }
    return gateway as unknown as G;
  }

  /** Rejects with the peer's error, LEADERSHIP_LOST, RPC_DISCONNECTED, RPC_OVERLOADED, RPC_PROTOCOL or TIMEOUT. */
  async call<Req, Res>(method: string, spec: MethodSpec<Req, Res>, request: Req): Promise<Res> {
    this.#checkMaySend(method);
    if (this.#closeReason !== undefined) throw this.#disconnected(method);
    if (this.#pending.size >= this.#options.maxPendingRequests) throw this.#overloaded(method);
    const id = ++this.#lastId;
    const bytes = this.#encode({ kind: 'request', id, method, payload: request });
    const deferred = new Deferred<unknown>();
    const cancelTimer = this.#armTimeout(id, method, spec.patience);
    this.#pending.set(id, { deferred, spec, cancelTimer });
    this.#send(bytes);
    return deferred.promise as Promise<Res>;
  }

  close(reason: string): void {
    if (this.#closeReason !== undefined) return;
    this.#send(this.#encode({ kind: 'close', id: 0, method: 'close', payload: { reason } }));
    this.#end(reason);
  }

  /** Dropped, with a trace in the log, when the session is over or the leader may not act; too large ones throw. */
  #oneway(method: string, request: unknown): void {
    if (this.#closeReason !== undefined || this.#deps.maySend?.() === false) {
      this.#env.log.debug({ event: 'rpc.dropped', method }, 'one-way message dropped');
      return;
    }
    this.#send(this.#encode({ kind: 'oneway', id: 0, method, payload: request }));
  }

  #encode(frame: Omit<RpcFrame, 'epoch'>): Uint8Array {
    return this.#codec.encode({ epoch: this.#deps.epoch, ...frame });
  }

  #send(bytes: Uint8Array): void {
    if (this.#closeReason !== undefined) return;
    if (this.#deps.channel.unsentBytes > this.#options.maxUnsentBytes) {
      this.#end(
        `${this.#deps.peerName} does not take its messages: ${String(this.#deps.channel.unsentBytes)} bytes wait`,
      );
      return;
    }
    this.#deps.channel.send(bytes);
  }

  #armTimeout(id: number, method: string, patience: 'normal' | 'cancellation'): () => void {
    const timeoutMs =
      patience === 'normal' ? this.#options.requestTimeoutMs : this.#options.cancellationTimeoutMs;
    return this.#env.clock.setTimer(timeoutMs, () => {
      const pending = this.#pending.get(id);
      this.#pending.delete(id);
      pending?.deferred.reject(
        new MillraceError(
          'TIMEOUT',
          `${this.#deps.peerName} did not answer ${method} within ${String(timeoutMs)} ms`,
        ),
      );
    });
  }

  #checkMaySend(method: string): void {
    if (this.#deps.maySend?.() === false) {
      throw new MillraceError(
        'LEADERSHIP_LOST',
        `${method} was not sent: the leader's lease deadline has passed`,
      );
    }
  }

  #disconnected(method: string): MillraceError {
    return new MillraceError(
      'RPC_DISCONNECTED',
      `the session with ${this.#deps.peerName} is over (${this.#closeReason ?? ''}); ${method} may or may not have been served`,
    );
  }

  #overloaded(method: string): MillraceError {
    return new MillraceError(
      'RPC_OVERLOADED',
      `${String(this.#pending.size)} requests wait for ${this.#deps.peerName}; ${method} was not sent`,
    );
  }

  #receive(bytes: Uint8Array): void {
    if (this.#closeReason !== undefined) return;
    let frame: RpcFrame;
    try {
      frame = this.#codec.decode(bytes);
    } catch (error) {
      // Nothing after it can be trusted.
      this.#env.log.error({ err: error, peer: this.#deps.peerName }, 'malformed message');
      this.close(`protocol error: ${(error as Error).message}`);
      return;
    }
    if (frame.kind === 'response') this.#onResponse(frame);
    else if (frame.kind === 'close') this.#end(closeReasonOf(frame));
    else this.#onCall(frame);
  }

  #onResponse(frame: RpcFrame): void {
    const pending = this.#pending.get(frame.id);
    if (pending === undefined) return; // It timed out before.
    this.#pending.delete(frame.id);
    pending.cancelTimer();
    try {
      if (frame.failure !== undefined) {
        throw isFailure(frame.failure)
          ? fromFailure(frame.failure)
          : new MillraceError('RPC_PROTOCOL', `${frame.method} failed in an unreadable way`);
      }
      pending.deferred.resolve(pending.spec.response(frame.payload));
    } catch (error) {
      pending.deferred.reject(error);
    }
  }

  #onCall(frame: RpcFrame): void {
    let result: unknown;
    try {
      this.#deps.checkEpoch(frame.epoch, frame.method);
      const spec = Object.hasOwn(this.#methods, frame.method)
        ? this.#methods[frame.method]
        : undefined;
      if (spec?.kind !== frame.kind) {
        throw new MillraceError('RPC_PROTOCOL', `there is no ${frame.kind} ${frame.method} here`);
      }
      const request = spec.request(frame.payload);
      result = this.#handler[frame.method]?.(request);
    } catch (error) {
      this.#onCallFailed(frame, error);
      return;
    }
    if (frame.kind === 'oneway') return;
    Promise.resolve(result).then(
      (payload) => {
        this.#answer(frame, { payload });
      },
      (error: unknown) => {
        this.#answer(frame, { failure: toFailure(error) });
      },
    );
  }

  #onCallFailed(frame: RpcFrame, error: unknown): void {
    if (frame.kind === 'request') this.#answer(frame, { failure: toFailure(error) });
    else {
      this.#env.log.warn(
        { event: 'rpc.refused', err: error, method: frame.method, peer: this.#deps.peerName },
        'one-way message refused',
      );
    }
  }

  #answer(frame: RpcFrame, outcome: { payload?: unknown; failure?: unknown }): void {
    const { id, method } = frame;
    let bytes: Uint8Array;
    try {
      bytes = this.#encode({ kind: 'response', id, method, ...outcome });
    } catch (error) {
      bytes = this.#encode({ kind: 'response', id, method, failure: toFailure(error) });
    }
    this.#send(bytes);
  }

  #end(reason: string): void {
    if (this.#closeReason !== undefined) return;
    this.#closeReason = reason;
    for (const pending of this.#pending.values()) {
      pending.cancelTimer();
      pending.deferred.reject(this.#disconnected('the request'));
    }
    this.#pending.clear();
    this.#deps.channel.close();
    this.#closed.resolve(reason);
  }
}

function closeReasonOf(frame: RpcFrame): string {
  const { payload } = frame;
  const reason =
    typeof payload === 'object' && payload !== null && 'reason' in payload
      ? payload.reason
      : undefined;
  return typeof reason === 'string' ? reason : 'the peer closed the session';
}
