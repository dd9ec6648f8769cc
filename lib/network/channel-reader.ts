/** The consumer's end of a channel: whole batches and control frames, in the order they were written. */
import type { MillraceError } from '../base/errors.js';
import type { ControlEvent } from '../record/stream-element.js';
import { channelFailure } from './channel-writer.js';
import type { Ring } from './ring.js';

export class ChannelReader {
  readonly channelId: string;
  readonly ring: Ring;
  /** Private copy of the batch: pieces are put together here and their buffers go back at once. */
  #assembly: Uint8Array;
  #assembled = 0;
  /** Bytes of batches taken. */
  bytes = 0;

  constructor(channelId: string, ring: Ring) {
    this.channelId = channelId;
    this.ring = ring;
    this.#assembly = new Uint8Array(ring.bufferBytes);
  }

  /** NETWORK when the way from the producer broke. A producer that failed by itself just stays silent. */
  get failure(): MillraceError | undefined {
    if (this.ring.producerState !== 'failed') return undefined;
    return channelFailure(this.channelId, 'producer');
  }

  /** Bytes of a batch, valid until the next call, or a control frame; undefined when nothing (whole) is there. */
  next(): Uint8Array | ControlEvent | undefined {
    for (;;) {
      const entry = this.ring.peek();
      if (entry === undefined) return undefined;
      if (entry.kind === 'control') {
        this.ring.release();
        return entry.event;
      }
      this.#append(entry.bytes);
      const continues = entry.continues;
      this.ring.release();
      if (continues) continue;
      const batch = this.#assembly.subarray(0, this.#assembled);
      this.bytes += this.#assembled;
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
