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
  /** The codec may replace the writers: they are found here by `index` each time. */
  readonly writers: BatchWriter[];
  readonly index: number;
  /** Buffer timeout 0: every record is sent at once. */
  readonly sealsEachRecord: boolean;
  readonly #writer: ChannelWriter;
  readonly #quantum: Quantum;

  constructor(
    writer: ChannelWriter,
    batches: { readonly writers: BatchWriter[]; readonly index: number },
    quantum: Quantum,
    sealsEachRecord: boolean,
  ) {
    this.writers = batches.writers;
    this.index = batches.index;
    this.sealsEachRecord = sealsEachRecord;
    this.#writer = writer;
    this.#quantum = quantum;
  }

  collect(value: unknown, timestamp: number): void {
    const isFull = this.writers[this.index]!.append(value, timestamp);
    if (isFull || this.sealsEachRecord) this.seal();
  }

  control(event: ControlEvent): void {
    if (this.#count > 0) this.seal();
    this.#writer.writeControl(event);
  }

  flush(): void {
    if (this.#count > 0 && this.#writer.hasRoom) this.seal();
  }

  get hasRoom(): boolean {
    return this.#writer.hasRoom;
  }

  get isFlushed(): boolean {
    return this.#count === 0 && this.#writer.isFlushed;
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

  /** Hands the batch over; at least one record is in it. */
  seal(): void {
    this.#writer.writeBatch(this.writers[this.index]!.seal());
    if (!this.#writer.hasRoom) this.#quantum.stop();
  }

  get #count(): number {
    return this.writers[this.index]!.count;
  }
}
