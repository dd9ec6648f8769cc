/** The producer's side of a channel as a task sees it. Collecting never waits. */
import type { MillraceError } from '../base/errors.js';
import type { ChannelWriter } from '../network/channel-writer.js';
import type { BatchWriter } from '../record/codec/batch-codec.js';
import type { ControlEvent } from '../record/stream-element.js';
import type { Quantum } from './quantum.js';

export interface OutputChannel {
  collect(value: unknown, timestamp: number): void;
  /** Behind everything collected so far. */
  control(event: ControlEvent): void;
  /** Sends what is collected, if there is room. */
  flush(): void;
  /** The producer may emit; also moves on what waits. */
  readonly hasRoom: boolean;
  /** Everything emitted left the producer's thread or its queue. */
  readonly isFlushed: boolean;
  readonly failure: MillraceError | undefined;
  readonly bytes: number;
  /** The producer ends without endOfPartition. */
  close(): void;
}

/** Through a ring, in encoded batches. */
export class RingOutputChannel implements OutputChannel {
  readonly #writer: ChannelWriter;
  readonly #batch: BatchWriter;
  readonly #quantum: Quantum;
  readonly #sealsEachRecord: boolean;

  constructor(
    writer: ChannelWriter,
    batch: BatchWriter,
    quantum: Quantum,
    sealsEachRecord: boolean,
  ) {
    this.#writer = writer;
    this.#batch = batch;
    this.#quantum = quantum;
    this.#sealsEachRecord = sealsEachRecord;
  }

  collect(value: unknown, timestamp: number): void {
    const batch = this.#batch;
    batch.append(value, timestamp);
    // Sealed when one more record of average size would not fit into the buffer.
    const size = batch.byteLength + batch.byteLength / batch.count;
    if (size >= this.#writer.ring.bufferBytes || this.#sealsEachRecord) this.#seal();
  }

  control(event: ControlEvent): void {
    if (this.#batch.count > 0) this.#seal();
    this.#writer.writeControl(event);
  }

  flush(): void {
    if (this.#batch.count > 0 && this.#writer.hasRoom) this.#seal();
  }

  get hasRoom(): boolean {
    return this.#writer.hasRoom;
  }

  get isFlushed(): boolean {
    return this.#batch.count === 0 && this.#writer.isFlushed;
  }

  get failure(): MillraceError | undefined {
    return this.#writer.failure;
  }

  get bytes(): number {
    return this.#writer.bytes;
  }

  close(): void {
    this.#writer.close();
  }

  #seal(): void {
    this.#writer.writeBatch(this.#batch.seal());
    if (!this.#writer.hasRoom) this.#quantum.stop();
  }
}
