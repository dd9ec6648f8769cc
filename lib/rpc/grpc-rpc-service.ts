/**
 * Sessions over gRPC: one bidirectional streaming method whose messages are opaque bytes (rpc-peer.ts gives them
 * meaning). The only import of @grpc/grpc-js. Keepalive pings notice a machine that vanished; a process that
 * dies closes its sockets and is noticed at once.
 */
import {
  Client,
  credentials,
  logVerbosity,
  Metadata,
  Server,
  ServerCredentials,
  setLogVerbosity,
  type ChannelOptions,
  type ClientDuplexStream,
  type ServerDuplexStream,
  type ServiceDefinition,
} from '@grpc/grpc-js';
import type { CancelTimer } from '../base/clock.js';
import type { Env } from '../base/env.js';
import { MillraceError } from '../base/errors.js';
import { maxMessageBytes } from './message-codec.js';
import { defaultRpcPeerOptions, type ByteChannel, type RpcPeerOptions } from './rpc-peer.js';
import type { JobManagerConnector, JobManagerRpcServer, LeaderService } from './rpc-service.js';
import { SessionAcceptor } from './session-acceptor.js';
import { SessionConnector } from './session-connector.js';

export interface GrpcServerOptions {
  /** Address others reach this JobManager under; also the one it binds. */
  readonly host: string;
  /** 0 takes a free port. */
  readonly port: number;
  /** The port it listens on, where others reach it under `port`. Default: `port`. */
  readonly bindPort?: number;
}

// It writes to standard error by itself; what matters reaches us as errors.
setLogVerbosity(logVerbosity.NONE);

const sessionPath = '/millrace.v1.ControlPlane/Session';
const toBuffer = (bytes: Uint8Array): Buffer =>
  Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
const fromBuffer = (bytes: Buffer): Uint8Array => bytes;

const serviceDefinition = {
  session: {
    path: sessionPath,
    requestStream: true,
    responseStream: true,
    requestSerialize: toBuffer,
    requestDeserialize: fromBuffer,
    responseSerialize: toBuffer,
    responseDeserialize: fromBuffer,
  },
} satisfies ServiceDefinition;

const channelOptions: ChannelOptions = {
  'grpc.max_receive_message_length': maxMessageBytes,
  'grpc.max_send_message_length': maxMessageBytes,
  'grpc.keepalive_time_ms': 10_000,
  'grpc.keepalive_timeout_ms': 5_000,
};

/** How long a stream may take to end in good order after it was closed. */
const closeTimeoutMs = 1_000;

export class GrpcJobManagerServer implements JobManagerRpcServer {
  readonly #env: Env;
  readonly #options: GrpcServerOptions;
  readonly #acceptor: SessionAcceptor;
  readonly #server = new Server(channelOptions);
  #closing: Promise<void> | undefined;

  constructor(
    env: Env,
    options: GrpcServerOptions,
    peerOptions: RpcPeerOptions = defaultRpcPeerOptions,
  ) {
    this.#env = env;
    this.#options = options;
    this.#acceptor = new SessionAcceptor(env, peerOptions);
    this.#server.addService(serviceDefinition, {
      session: (call: ServerDuplexStream<Uint8Array, Uint8Array>) => {
        this.#acceptor.accept(new ServerChannel(call), `TaskManager at ${call.getPeer()}`);
      },
    });
  }

  async listen(): Promise<string> {
    const { host, port, bindPort = port } = this.#options;
    const bound = await new Promise<number>((resolve, reject) => {
      this.#server.bindAsync(
        formatAddress(host, bindPort),
        ServerCredentials.createInsecure(),
        (error, boundPort) => {
          if (error === null) resolve(boundPort);
          else reject(bindError(error, host, bindPort));
        },
      );
    });
    return formatAddress(host, bindPort === port ? bound : port);
  }

  lead(service: LeaderService): void {
    this.#acceptor.lead(service);
  }

  unlead(reason: string): void {
    this.#acceptor.unlead(reason);
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  /** Streams end in good order when their peers are alive; those that are not are cut off. */
  async #close(): Promise<void> {
    this.#acceptor.unlead('the JobManager stopped');
    let cancelTimer: CancelTimer = () => undefined;
    await new Promise<void>((resolve) => {
      this.#server.tryShutdown(() => {
        resolve();
      });
      cancelTimer = this.#env.clock.setTimer(closeTimeoutMs, resolve);
    });
    cancelTimer();
    this.#server.forceShutdown();
  }
}

export class GrpcJobManagerConnector extends SessionConnector implements JobManagerConnector {
  constructor(env: Env, peerOptions: RpcPeerOptions = defaultRpcPeerOptions) {
    super(env, (address) => new ClientChannel(env, address), peerOptions);
  }
}

/** Counts bytes that are not yet written to the socket. */
class WriteMeter {
  unsentBytes = 0;

  write(
    stream: { write(chunk: Uint8Array, callback: () => void): unknown },
    bytes: Uint8Array,
  ): void {
    this.unsentBytes += bytes.byteLength;
    stream.write(bytes, () => {
      this.unsentBytes -= bytes.byteLength;
    });
  }
}

class ServerChannel implements ByteChannel {
  readonly #call: ServerDuplexStream<Uint8Array, Uint8Array>;
  readonly #meter = new WriteMeter();
  #closed = false;

  constructor(call: ServerDuplexStream<Uint8Array, Uint8Array>) {
    this.#call = call;
  }

  get unsentBytes(): number {
    return this.#meter.unsentBytes;
  }

  start(onMessage: (bytes: Uint8Array) => void, onClose: (reason: string) => void): void {
    this.#call.on('data', onMessage);
    this.#call.on('end', () => {
      onClose('the TaskManager ended the connection');
    });
    this.#call.on('cancelled', () => {
      onClose('the connection of the TaskManager broke');
    });
    this.#call.on('error', (error: Error) => {
      onClose(`the connection of the TaskManager failed: ${error.message}`);
    });
  }

  send(bytes: Uint8Array): void {
    if (!this.#closed && !this.#call.cancelled) this.#meter.write(this.#call, bytes);
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    if (!this.#call.cancelled) this.#call.end();
  }
}

class ClientChannel implements ByteChannel {
  readonly #env: Env;
  readonly #client: Client;
  readonly #call: ClientDuplexStream<Uint8Array, Uint8Array>;
  readonly #meter = new WriteMeter();
  #closed = false;
  #cancelTimer: CancelTimer = () => undefined;

  constructor(env: Env, address: string) {
    this.#env = env;
    this.#client = new Client(address, credentials.createInsecure(), {
      ...channelOptions,
      // Each session has a connection of its own, which ends with it; and no proxy stands between.
      'grpc.use_local_subchannel_pool': 1,
      'grpc.enable_http_proxy': 0,
      'grpc.service_config_disable_resolution': 1,
    });
    this.#call = this.#client.makeBidiStreamRequest(
      sessionPath,
      toBuffer,
      fromBuffer,
      new Metadata(),
      {},
    );
  }

  get unsentBytes(): number {
    return this.#meter.unsentBytes;
  }

  start(onMessage: (bytes: Uint8Array) => void, onClose: (reason: string) => void): void {
    this.#call.on('data', onMessage);
    this.#call.on('error', (error: Error) => {
      this.#finish();
      onClose(`the connection to the JobManager broke: ${error.message}`);
    });
    this.#call.on('end', () => {
      onClose('the JobManager ended the connection');
    });
    this.#call.on('status', () => {
      this.#finish();
    });
  }

  send(bytes: Uint8Array): void {
    if (!this.#closed) this.#meter.write(this.#call, bytes);
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#call.end();
    // A peer that does not end its side is cut off.
    this.#cancelTimer = this.#env.clock.setTimer(closeTimeoutMs, () => {
      this.#call.cancel();
      this.#client.close();
    });
  }

  #finish(): void {
    this.#closed = true;
    this.#cancelTimer();
    this.#client.close();
  }
}

function formatAddress(host: string, port: number): string {
  return host.includes(':') ? `[${host}]:${String(port)}` : `${host}:${String(port)}`;
}

function bindError(error: Error, host: string, port: number): MillraceError {
  const inUse = error.message.includes('EADDRINUSE');
  return new MillraceError(
    inUse ? 'PORT_IN_USE' : 'CONFIG',
    inUse
      ? `port ${String(port)} of ${host} is in use: stop its owner or set jobmanager.rpc.port`
      : `cannot listen on ${host}:${String(port)} (jobmanager.rpc.address, jobmanager.rpc.port): ${error.message}`,
    { cause: error, details: { host, port, key: 'jobmanager.rpc.port' } },
  );
}
