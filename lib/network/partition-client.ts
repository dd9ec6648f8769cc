/**
 * The consumers' side of the sockets: one connection to each TaskManager that produces for this one. Frames
 * go from the socket to the rings of the slot threads as they are; freed buffers go back as credits.
 */
import { connect, type Socket } from 'node:net';
import type { Env } from '../base/env.js';
import { MillraceError } from '../base/errors.js';
import { ChannelWriter } from './channel-writer.js';
import { ReceiveCredit } from './credit.machine.js';
import { FrameWriter } from './frame-writer.js';
import type { Ring } from './ring.js';
import { FrameReader, frameBytesMax, wireVersion, type Frame } from './wire.js';

export interface PartitionClientOptions {
  readonly clusterUid: string;
  readonly taskManagerId: string;
  readonly bufferBytes: number;
  readonly connectTimeoutMs: number;
}

/** Only client sockets read into a buffer of ours; it is used again for every read. */
const readBufferBytes = 256 * 1024;

interface InStream {
  readonly id: number;
  readonly channelId: string;
  readonly ring: Ring;
  readonly writer: ChannelWriter;
  readonly credit: ReceiveCredit;
  hasEnded: boolean;
}

export class PartitionClient {
  readonly #env: Env;
  readonly #options: PartitionClientOptions;
  readonly #connections = new Map<string, ClientConnection>();
  bytesIn = 0;

  constructor(env: Env, options: PartitionClientOptions) {
    this.#env = env;
    this.#options = options;
  }

  get connectionCount(): number {
    return this.#connections.size;
  }

  /** Asks the TaskManager at `address` for a channel; failures show in the ring. */
  open(address: string, channelId: string, ring: Ring): void {
    let connection = this.#connections.get(address);
    if (connection === undefined) {
      connection = new ClientConnection(this.#env, this.#options, address, {
        onBytes: (count) => {
          this.bytesIn += count;
        },
        onClosed: () => {
          if (this.#connections.get(address) === connection) this.#connections.delete(address);
        },
      });
      this.#connections.set(address, connection);
    }
    connection.open(channelId, ring);
  }

  /** The consumer's slot ended. */
  release(address: string, channelId: string): void {
    this.#connections.get(address)?.release(channelId);
  }

  /** Moves what waits into the rings and announces free buffers. */
  pump(): void {
    for (const connection of this.#connections.values()) connection.pump();
  }

  close(): void {
    for (const connection of [...this.#connections.values()]) connection.destroy();
  }
}

class ClientConnection {
  readonly #env: Env;
  readonly #address: string;
  readonly #socket: Socket;
  readonly #out: FrameWriter;
  readonly #events: { onBytes(count: number): void; onClosed(): void };
  readonly #streams = new Map<number, InStream>();
  #nextStream = 1;
  #isClosed = false;

  constructor(
    env: Env,
    options: PartitionClientOptions,
    address: string,
    events: { onBytes(count: number): void; onClosed(): void },
  ) {
    this.#env = env;
    this.#address = address;
    this.#events = events;
    const reader = new FrameReader(frameBytesMax(options.bufferBytes), (frame) =>
      this.#onFrame(frame),
    );
    const colon = address.lastIndexOf(':');
    this.#socket = connect({
      host: address.slice(0, colon).replace(/^\[|\]$/g, ''),
      port: Number(address.slice(colon + 1)),
      noDelay: true,
      onread: {
        buffer: Buffer.alloc(readBufferBytes),
        callback: (count, buffer) => {
          this.#onBytes(reader, buffer as Buffer, count);
          return true;
        },
      },
    });
    const cancelTimeout = env.clock.setTimer(options.connectTimeoutMs, () => {
      this.#fail(
        new MillraceError(
          'NETWORK',
          `no data connection to ${address} within ${String(options.connectTimeoutMs)} ms`,
        ),
      );
    });
    this.#socket.on('connect', cancelTimeout);
    this.#socket.on('error', (error) => this.#fail(error));
    this.#socket.on('close', () => {
      cancelTimeout();
      this.#fail(new MillraceError('NETWORK', `the data connection to ${address} closed`));
    });
    const { clusterUid, taskManagerId, bufferBytes } = options;
    this.#out = new FrameWriter(this.#socket, bufferBytes);
    // Written before the connection is there; sent first.
    this.#send({
      type: 'hello',
      hello: { version: wireVersion, clusterUid, taskManagerId, bufferBytes },
    });
    this.#out.flush();
  }

  open(channelId: string, ring: Ring): void {
    const id = this.#nextStream;
    this.#nextStream += 1;
    const credit = new ReceiveCredit(ring.buffers);
    // Data in the overdraft is bounded by the credits given.
    const writer = new ChannelWriter(channelId, ring, Infinity);
    this.#streams.set(id, { id, channelId, ring, writer, credit, hasEnded: false });
    this.#send({ type: 'open', stream: id, credits: credit.announce(ring.freeBuffers), channelId });
    this.#out.flush();
  }

  release(channelId: string): void {
    for (const stream of this.#streams.values()) {
      if (stream.channelId !== channelId) continue;
      if (!stream.hasEnded) this.#send({ type: 'close', stream: stream.id });
      this.#streams.delete(stream.id);
    }
    this.#out.flush();
    this.#endIfUnused();
  }

  pump(): void {
    for (const stream of this.#streams.values()) this.#pumpStream(stream);
    this.#out.flush();
    this.#endIfUnused();
  }

  destroy(): void {
    this.#fail(new MillraceError('CLOSED', 'the data plane of this TaskManager was closed'));
  }

  #pumpStream(stream: InStream): void {
    const { ring, writer, credit } = stream;
    const isFlushed = writer.isFlushed;
    if (stream.hasEnded) {
      if (isFlushed) this.#streams.delete(stream.id);
      return;
    }
    // Twice: the second look sees what was freed before the request for a wake-up was visible.
    for (let look = 0; look < 2; look += 1) {
      const credits = credit.announce(ring.freeBuffers - writer.overdraftBuffers);
      if (credits > 0) this.#send({ type: 'credit', stream: stream.id, credits });
      if (look === 0) ring.requestWake(credit.dueAt);
    }
  }

  #onBytes(reader: FrameReader, buffer: Buffer, count: number): void {
    if (this.#isClosed) return;
    this.#events.onBytes(count);
    try {
      reader.push(buffer.subarray(0, count));
    } catch (error) {
      this.#fail(error);
      return;
    }
    this.pump();
  }

  #onFrame(frame: Frame): void {
    switch (frame.type) {
      case 'welcome':
        break;
      case 'refuse':
        throw new MillraceError(
          'NETWORK',
          `TaskManager ${this.#address} refuses data connections: ${frame.reason}`,
        );
      case 'data': {
        const stream = this.#streams.get(frame.stream);
        if (stream === undefined) break;
        if (!stream.credit.received()) {
          throw new MillraceError(
            'RPC_PROTOCOL',
            `channel ${stream.channelId} received data without credit`,
          );
        }
        stream.writer.writeBatch(frame.bytes, frame.continues);
        break;
      }
      case 'control': {
        const stream = this.#streams.get(frame.stream);
        if (stream === undefined) break;
        stream.writer.writeControl(frame.event);
        if (frame.event.kind === 'endOfPartition') stream.hasEnded = true;
        break;
      }
      case 'fail': {
        const stream = this.#streams.get(frame.stream);
        if (stream === undefined) break;
        this.#streams.delete(stream.id);
        if (frame.reason === 'lost') {
          this.#env.log.warn({ channelId: stream.channelId, reason: frame.text }, 'channel lost');
        }
        stream.ring.end('producer', frame.reason === 'closed' ? 'closed' : 'failed');
        break;
      }
      case 'hello':
      case 'open':
      case 'credit':
      case 'close':
        throw new MillraceError('RPC_PROTOCOL', `a producer sent a ${frame.type} frame`);
    }
  }

  #send(frame: Exclude<Frame, { type: 'data' }>): void {
    if (!this.#isClosed) this.#out.frame(frame);
  }

  #endIfUnused(): void {
    if (this.#streams.size > 0 || this.#isClosed) return;
    this.#isClosed = true;
    this.#socket.end();
    this.#events.onClosed();
  }

  /** Fails every channel that has not come to its end. */
  #fail(error: unknown): void {
    const streams = [...this.#streams.values()];
    this.#streams.clear();
    this.#socket.destroy();
    if (this.#isClosed) return;
    this.#isClosed = true;
    const lost = streams.filter((stream) => !stream.hasEnded);
    if (lost.length > 0) {
      this.#env.log.warn(
        { event: 'network.lost', err: error, address: this.#address, channels: lost.length },
        'data connection lost',
      );
    }
    for (const stream of lost) stream.ring.end('producer', 'failed');
    this.#events.onClosed();
  }
}
