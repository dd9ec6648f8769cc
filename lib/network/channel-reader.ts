/** The consumer's end of a channel: whole batches and control frames, in the order they were written. */
import type { MillraceError } from '../base/errors.js';
import type { ControlEvent } from '../record/stream-element.js';
import { channelFailure } from './channel-writer.js';
import type { Ring } from './ring.js';

export class ChannelReader {
  readonly channelId: string;
  readonly ring: Ring;
  /** A batch that came in several buffers is put together here. */
  #assembly = new Uint8Array(0);
  #assembled = 0;
  /** The batch handed out lies in the ring: its buffer goes back when the next one is asked for. */
  #isHeld = false;
  /** Bytes of batches taken. */
  bytes = 0;

  constructor(channelId: string, ring: Ring) {
    this.channelId = channelId;
    this.ring = ring;
  }

  /** NETWORK when the way from the producer broke. A producer that failed by itself just stays silent. */
  get failure(): MillraceError | undefined {
    if (this.ring.producerState !== 'failed') return undefined;
    return channelFailure(this.channelId, 'producer');
  }

  /** Bytes of memory of its own. */
  get memoryBytes(): number {
    return this.#assembly.byteLength;
  }

  /** Bytes of a batch, valid until the next call, or a control frame; undefined when nothing (whole) is there. */
  next(): Uint8Array | ControlEvent | undefined {
    const { ring } = this;
    if (this.#isHeld) {
      this.#isHeld = false;
      ring.release();
    }
    for (;;) {
      const entry = ring.peek();
      if (entry === undefined) return undefined;
      if (entry.kind === 'control') {
        ring.release();
        return entry.event;
      }
      this.bytes += entry.bytes.byteLength;
      if (!entry.continues && this.#assembled === 0) {
        this.#isHeld = true;
        return entry.bytes;
      }
      this.#append(entry.bytes);
      ring.release();
      if (entry.continues) continue;
      const batch = this.#assembly.subarray(0, this.#assembled);
      this.#assembled = 0;
      return batch;
    }
  }

  /** The consumer ends; nothing is read any more. */
  close(): void {
    this.ring.end('consumer', 'closed');
  }

  #append(bytes: Uint8Array): void {
    const length = this.#assembled + bytes.byteLength;
    if (length > this.#assembly.byteLength) {
      const larger = new Uint8Array(Math.max(length, 2 * this.#assembly.byteLength));
      larger.set(this.#assembly.subarray(0, this.#assembled));
      this.#assembly = larger;
    }
    this.#assembly.set(bytes, this.#assembled);
    this.#assembled = length;
  }
}
