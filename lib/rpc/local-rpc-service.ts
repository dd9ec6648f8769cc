/**
 * The control plane inside one process: the same sessions over an in-memory transport. Messages are encoded
 * and decoded, so that nothing is shared, and arrive later, in order, never inside the sender's call.
 */
import type { Env } from '../base/env.js';
import { defaultRpcPeerOptions, type ByteChannel, type RpcPeerOptions } from './rpc-peer.js';
import type { JobManagerConnector, JobManagerRpcServer, LeaderService } from './rpc-service.js';
import { SessionAcceptor } from './session-acceptor.js';
import { SessionConnector } from './session-connector.js';

/** Knows the servers of the process by their address. */
export class LocalRpcService {
  readonly #servers = new Map<string, SessionAcceptor>();
  #lastPort = 0;

  createServer(env: Env, options: RpcPeerOptions = defaultRpcPeerOptions): JobManagerRpcServer {
    const acceptor = new SessionAcceptor(env, options);
    const address = `local:${String(++this.#lastPort)}`;
    return {
      listen: () => {
        this.#servers.set(address, acceptor);
        return Promise.resolve(address);
      },
      lead: (service: LeaderService) => {
        acceptor.lead(service);
      },
      unlead: (reason) => {
        acceptor.unlead(reason);
      },
      close: () => {
        this.#servers.delete(address);
        acceptor.unlead('the JobManager stopped');
        return Promise.resolve();
      },
    };
  }

  createConnector(env: Env, options: RpcPeerOptions = defaultRpcPeerOptions): JobManagerConnector {
    return new SessionConnector(env, (address) => this.#open(address), options);
  }

  #open(address: string): ByteChannel {
    const [ours, theirs] = localChannelPair();
    const acceptor = this.#servers.get(address);
    if (acceptor === undefined) theirs.close(`nobody listens on ${address}`);
    else acceptor.accept(theirs, `TaskManager on ${address}`);
    return ours;
  }
}

class LocalChannel implements ByteChannel {
  readonly unsentBytes = 0;
  other: LocalChannel | undefined;
  #onMessage: ((bytes: Uint8Array) => void) | undefined;
  #onClose: ((reason: string) => void) | undefined;
  /** Until `start`, and between turns. */
  #inbox: Uint8Array[] = [];
  #ended: string | undefined;
  #scheduled = false;

  start(onMessage: (bytes: Uint8Array) => void, onClose: (reason: string) => void): void {
    this.#onMessage = onMessage;
    this.#onClose = onClose;
    this.#schedule();
  }

  send(bytes: Uint8Array): void {
    this.other?.deliver(bytes);
  }

  close(reason = 'the peer closed the connection'): void {
    const { other } = this;
    if (other === undefined) return;
    this.other = undefined;
    other.end(reason);
  }

  deliver(bytes: Uint8Array): void {
    if (this.#ended !== undefined) return;
    this.#inbox.push(bytes);
    this.#schedule();
  }

  end(reason: string): void {
    this.#ended ??= reason;
    this.#schedule();
  }

  #schedule(): void {
    if (this.#scheduled || this.#onMessage === undefined) return;
    this.#scheduled = true;
    queueMicrotask(() => {
      this.#scheduled = false;
      const batch = this.#inbox;
      this.#inbox = [];
      for (const bytes of batch) this.#onMessage?.(bytes);
      if (this.#inbox.length > 0) return;
      if (this.#ended !== undefined) {
        const onClose = this.#onClose;
        this.#onClose = undefined;
        onClose?.(this.#ended);
      }
    });
  }
}

function localChannelPair(): [LocalChannel, LocalChannel] {
  const [a, b] = [new LocalChannel(), new LocalChannel()];
  a.other = b;
  b.other = a;
  return [a, b];
}
