/**
 * The producers' side of the sockets: TaskManagers that consume from here connect, one connection each,
 * and open channels on it. Frames go from the rings of the slot threads to the socket as they are.
 */
import { createServer, type AddressInfo, type Server, type Socket } from 'node:net';
import type { CancelTimer } from '../base/clock.js';
import type { Env } from '../base/env.js';
import { MillraceError } from '../base/errors.js';
import { SendCredit } from './credit.machine.js';
import { FrameWriter } from './frame-writer.js';
import type { Ring } from './ring.js';
import {
  encodeFrame,
  FrameReader,
  frameBytesMax,
  wireVersion,
  type Frame,
  type Hello,
} from './wire.js';

export interface PartitionServerOptions {
  readonly clusterUid: string;
  readonly bufferBytes: number;
  /** How long an opened channel waits for its producer, and what an ended producer left for its consumer, ms. */
  readonly channelOpenTimeoutMs: number;
  /** A socket or a credit makes it possible to send more. */
  readonly onRoom: () => void;
}

/** Entries one channel may send before its neighbours get their turn. */
const entriesPerTurn = 8;
/** Bytes a socket may hold before its channels wait. */
const socketBytesMax = 1024 * 1024;

interface Outgoing {
  readonly channelId: string;
  readonly ring: Ring;
  stream: OutStream | undefined;
  /** The slot ended: once the ring is empty nothing more comes. */
  isReleased: boolean;
  cancelLinger: CancelTimer | undefined;
}

interface OutStream {
  readonly connection: ServerConnection;
  readonly id: number;
  readonly outgoing: Outgoing;
  readonly credit: SendCredit;
}

interface Waiting {
  readonly connection: ServerConnection;
  readonly stream: number;
  readonly credits: number;
  readonly cancel: CancelTimer;
}

interface ServerConnection {
  readonly socket: Socket;
  readonly out: FrameWriter;
  readonly streams: Map<number, OutStream>;
  peer: string | undefined;
  /** Its hello did not fit; whatever follows is ignored. */
  isRefused: boolean;
}

export class PartitionServer {
  readonly #env: Env;
  readonly #options: PartitionServerOptions;
  readonly #channels = new Map<string, Outgoing>();
  readonly #waiting = new Map<string, Waiting>();
  readonly #connections = new Set<ServerConnection>();
  #server: Server | undefined;
  bytesOut = 0;

  constructor(env: Env, options: PartitionServerOptions) {
    this.#env = env;
    this.#options = options;
  }

  get connectionCount(): number {
    return this.#connections.size;
  }

  /** Resolves with the port. PORT_IN_USE, NETWORK. */
  async listen(host: string, port: number): Promise<number> {
    const server = createServer({ noDelay: true }, (socket) => this.#accept(socket));
    this.#server = server;
    await new Promise<void>((resolve, reject) => {
      server.once('error', (cause: NodeJS.ErrnoException) => {
        const code = cause.code === 'EADDRINUSE' ? 'PORT_IN_USE' : 'NETWORK';
        const what =
          code === 'PORT_IN_USE'
            ? 'is used by another process'
            : `cannot be opened: ${cause.message}`;
        reject(new MillraceError(code, `the data port ${host}:${String(port)} ${what}`, { cause }));
      });
      server.listen(port, host, resolve);
    });
    return (server.address() as AddressInfo).port;
  }

  register(channelId: string, ring: Ring): void {
    const outgoing: Outgoing = {
      channelId,
      ring,
      stream: undefined,
      isReleased: false,
      cancelLinger: undefined,
    };
    this.#channels.set(channelId, outgoing);
    const waiting = this.#waiting.get(channelId);
    if (waiting === undefined) return;
    this.#stopWaiting(channelId, waiting);
    this.#bind(waiting, outgoing);
  }

  /** The producer's slot ended. What it wrote is still sent, to a consumer that comes within the timeout. */
  release(channelId: string): void {
    const outgoing = this.#channels.get(channelId);
    if (outgoing === undefined || outgoing.isReleased) return;
    outgoing.isReleased = true;
    outgoing.cancelLinger = this.#env.clock.setTimer(this.#options.channelOpenTimeoutMs, () =>
      this.#channels.delete(channelId),
    );
  }

  /** Moves entries from rings to sockets; true when more could be moved at once. */
  pump(): boolean {
    let hasMore = false;
    for (const connection of this.#connections) {
      if (connection.streams.size === 0) continue;
      for (const stream of connection.streams.values()) {
        if (this.#pumpStream(stream)) hasMore = true;
      }
      this.#flush(connection);
    }
    return hasMore;
  }

  async close(): Promise<void> {
    for (const [channelId, waiting] of this.#waiting) this.#stopWaiting(channelId, waiting);
    for (const outgoing of this.#channels.values()) outgoing.cancelLinger?.();
    this.#channels.clear();
    for (const { socket } of this.#connections) socket.destroy();
    const server = this.#server;
    if (server === undefined) return;
    this.#server = undefined;
    await new Promise<void>((resolve) => {
      server.close(() => resolve());
    });
  }

  // ---- Sending --------------------------------------------------------------------------------

  #pumpStream(stream: OutStream): boolean {
    const { connection, outgoing } = stream;
    const { ring } = outgoing;
    for (let i = 0; i < entriesPerTurn; i += 1) {
      // 'drain' pumps again.
      if (connection.out.pendingBytes > socketBytesMax) return false;
      const entry = ring.peek();
      if (entry === undefined) {
        if (outgoing.isReleased || ring.producerState === 'closed') {
          if (ring.isEmpty) this.#endStream(stream, 'closed', 'the producer ended');
        }
        return false;
      }
      if (entry.kind === 'data') {
        // A credit frame pumps again.
        if (!stream.credit.hasCredit) return false;
        stream.credit.sent();
        connection.out.data(stream.id, entry.bytes, entry.continues);
        ring.release();
        continue;
      }
      connection.out.frame({ type: 'control', stream: stream.id, event: entry.event });
      ring.release();
      if (entry.event.kind === 'endOfPartition') {
        this.#forget(stream);
        return false;
      }
    }
    return true;
  }

  #flush({ out }: ServerConnection): void {
    this.bytesOut += out.flush();
  }

  #endStream(stream: OutStream, reason: 'closed' | 'lost', text: string): void {
    stream.connection.out.frame({ type: 'fail', stream: stream.id, reason, text });
    this.#forget(stream);
  }

  #forget(stream: OutStream): void {
    stream.connection.streams.delete(stream.id);
    stream.outgoing.cancelLinger?.();
    this.#channels.delete(stream.outgoing.channelId);
  }

  // ---- Connections ----------------------------------------------------------------------------

  #accept(socket: Socket): void {
    const connection: ServerConnection = {
      socket,
      out: new FrameWriter(socket, this.#options.bufferBytes),
      streams: new Map(),
      peer: undefined,
      isRefused: false,
    };
    this.#connections.add(connection);
    const reader = new FrameReader(frameBytesMax(this.#options.bufferBytes), (frame) =>
      this.#onFrame(connection, frame),
    );
    socket.on('data', (chunk: Buffer) => {
      try {
        reader.push(chunk);
      } catch (error) {
        this.#env.log.warn(
          { err: error, peer: connection.peer },
          'data connection broke the protocol',
        );
        socket.destroy();
        return;
      }
      this.#options.onRoom();
    });
    socket.on('drain', () => this.#options.onRoom());
    socket.on('error', (error) => {
      this.#env.log.debug({ err: error, peer: connection.peer }, 'data connection failed');
    });
    socket.on('close', () => this.#onClosed(connection));
  }

  #onClosed(connection: ServerConnection): void {
    this.#connections.delete(connection);
    for (const [channelId, waiting] of this.#waiting) {
      if (waiting.connection === connection) this.#stopWaiting(channelId, waiting);
    }
    for (const stream of [...connection.streams.values()]) {
      stream.outgoing.ring.end('consumer', 'failed');
      this.#forget(stream);
    }
  }

  #onFrame(connection: ServerConnection, frame: Frame): void {
    if (connection.isRefused) return;
    if (frame.type === 'hello') {
      this.#onHello(connection, frame.hello);
      return;
    }
    if (connection.peer === undefined) {
      throw new MillraceError('RPC_PROTOCOL', 'a data connection did not begin with a hello');
    }
    switch (frame.type) {
      case 'open':
        this.#onOpen(connection, frame.stream, frame.credits, frame.channelId);
        break;
      case 'credit':
        connection.streams.get(frame.stream)?.credit.granted(frame.credits);
        break;
      case 'close':
        this.#onClose(connection, frame.stream);
        break;
      case 'welcome':
      case 'refuse':
      case 'data':
      case 'control':
      case 'fail':
        throw new MillraceError('RPC_PROTOCOL', `a consumer sent a ${frame.type} frame`);
    }
  }

  #onHello(connection: ServerConnection, hello: Hello): void {
    const { clusterUid, bufferBytes } = this.#options;
    let reason: string | undefined;
    if (hello.version !== wireVersion) {
      reason = `it speaks version ${String(hello.version)} of the data protocol, this TaskManager ${String(wireVersion)}`;
    } else if (hello.clusterUid !== clusterUid) {
      reason = `it belongs to cluster ${hello.clusterUid}, this TaskManager to ${clusterUid}`;
    } else if (hello.bufferBytes !== bufferBytes) {
      reason = `its buffers have ${String(hello.bufferBytes)} bytes, this TaskManager's ${String(bufferBytes)}; set taskmanager.network.memory.buffer-size alike`;
    }
    if (reason === undefined) {
      connection.peer = hello.taskManagerId;
      connection.out.frame({ type: 'welcome' });
      this.#flush(connection);
      return;
    }
    this.#env.log.warn({ peer: hello.taskManagerId, reason }, 'data connection refused');
    connection.isRefused = true;
    connection.socket.end(encodeFrame({ type: 'refuse', reason }));
  }

  #onClose(connection: ServerConnection, id: number): void {
    for (const [channelId, waiting] of this.#waiting) {
      if (waiting.connection === connection && waiting.stream === id) {
        this.#stopWaiting(channelId, waiting);
      }
    }
    const stream = connection.streams.get(id);
    if (stream === undefined) return;
    stream.outgoing.ring.end('consumer', 'closed');
    this.#forget(stream);
  }

  #onOpen(connection: ServerConnection, stream: number, credits: number, channelId: string): void {
    const outgoing = this.#channels.get(channelId);
    const cancel = (): void => undefined;
    // Its name has both attempts in it: whoever asks as well is an attempt that lives twice, cut off from its leader.
    if (outgoing?.stream !== undefined || this.#waiting.has(channelId)) {
      this.#fail(connection, stream, 'the channel has its consumer already');
      return;
    }
    if (outgoing !== undefined) {
      this.#bind({ connection, stream, credits, cancel }, outgoing);
      return;
    }
    const { channelOpenTimeoutMs } = this.#options;
    const expire = this.#env.clock.setTimer(channelOpenTimeoutMs, () => {
      this.#waiting.delete(channelId);
      const text = `its producer did not start within ${String(channelOpenTimeoutMs)} ms`;
      this.#fail(connection, stream, text);
    });
    this.#waiting.set(channelId, { connection, stream, credits, cancel: expire });
  }

  #fail(connection: ServerConnection, stream: number, text: string): void {
    connection.out.frame({ type: 'fail', stream, reason: 'lost', text });
    this.#flush(connection);
  }

  #bind(waiting: Waiting, outgoing: Outgoing): void {
    const { connection, stream: id, credits } = waiting;
    const credit = new SendCredit();
    credit.granted(credits);
    const stream: OutStream = { connection, id, outgoing, credit };
    outgoing.stream = stream;
    connection.streams.set(id, stream);
  }

  #stopWaiting(channelId: string, waiting: Waiting): void {
    waiting.cancel();
    this.#waiting.delete(channelId);
  }
}
