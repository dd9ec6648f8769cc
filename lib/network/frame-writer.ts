/**
 * Collects frames for a socket and sends them together: one write each time the data plane has moved what there
 * was. The memory they are put into is used again when the socket has taken them.
 */
import type { Socket } from 'node:net';
import { encodeDataInto, encodeFrame, frameBytesMax, dataFrameBytes, type Frame } from './wire.js';

/** Least bytes of a block; a write fills at most one. */
const blockBytesMin = 128 * 1024;
/** Free blocks kept; more are left to the garbage collector. */
const freeBlocksMax = 8;

export class FrameWriter {
  readonly #socket: Socket;
  readonly #blockBytes: number;
  readonly #free: Buffer[] = [];
  #block: Buffer | undefined;
  #filled = 0;
  #written = 0;

  constructor(socket: Socket, bufferBytes: number) {
    this.#socket = socket;
    this.#blockBytes = Math.max(blockBytesMin, frameBytesMax(bufferBytes) + 4);
  }

  /** Bytes that wait for the socket. */
  get pendingBytes(): number {
    return this.#filled + this.#socket.writableLength;
  }

  /** To be followed by `flush` before the event loop goes on. */
  data(stream: number, bytes: Uint8Array, continues: boolean): void {
    const length = dataFrameBytes(bytes);
    encodeDataInto(this.#reserve(length), this.#filled, { stream, bytes, continues });
    this.#filled += length;
  }

  /** Any other frame; likewise. */
  frame(frame: Exclude<Frame, { type: 'data' }>): void {
    const bytes = encodeFrame(frame);
    this.#reserve(bytes.byteLength).set(bytes, this.#filled);
    this.#filled += bytes.byteLength;
  }

  /** Answers the bytes handed to the socket since it was last asked. */
  flush(): number {
    this.#write();
    const bytes = this.#written;
    this.#written = 0;
    return bytes;
  }

  #write(): void {
    const block = this.#block;
    if (block === undefined || this.#filled === 0) return;
    this.#block = undefined;
    const bytes = block.subarray(0, this.#filled);
    this.#written += this.#filled;
    this.#filled = 0;
    this.#socket.write(bytes, () => {
      if (this.#free.length < freeBlocksMax) this.#free.push(block);
    });
  }

  #reserve(bytes: number): Buffer {
    if (this.#block !== undefined && this.#filled + bytes > this.#block.byteLength) this.#write();
    this.#block ??= this.#free.pop() ?? Buffer.allocUnsafeSlow(this.#blockBytes);
    return this.#block;
  }
}
