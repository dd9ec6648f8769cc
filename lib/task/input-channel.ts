/** The consumer's side of a channel as a task sees it: drained in quanta, at the place where it stopped. */
import type { MillraceError } from '../base/errors.js';
import type { ChannelReader } from '../network/channel-reader.js';
import type { BatchDecoder, BatchReader } from '../record/codec/batch-codec.js';
import type { ControlEvent } from '../record/stream-element.js';
import type { DirectChannel, TakeRecord } from './direct-channel.js';

/** What a channel is drained into. */
export interface InputSink {
  /** The records of a batch from the `from`-th on, until the task must stop; answers the index of the next one. */
  processRows(rows: BatchReader, from: number): number;
  processRecord(value: unknown, timestamp: number): void;
  processControl(channel: number, event: ControlEvent): void;
  /** Counts an element that is no row; true when the task must stop here. */
  stopsAfterElement(): boolean;
  readonly mustStop: boolean;
}

export interface InputChannel {
  readonly index: number;
  /** Blocked for alignment: nothing is taken. */
  isBlocked: boolean;
  hasEndOfData: boolean;
  hasEnded: boolean;
  readonly failure: MillraceError | undefined;
  readonly bytes: number;
  /** Takes elements until the sink stops it or nothing is there; false when there was nothing. */
  drain(sink: InputSink): boolean;
  /** The entry of the task for records that come by direct call. */
  connect(take: TakeRecord): void;
  /** Whether the task can take direct calls may have changed. */
  refresh(): void;
  close(): void;
}

export class RingInputChannel implements InputChannel {
  readonly index: number;
  isBlocked = false;
  hasEndOfData = false;
  hasEnded = false;
  readonly #reader: ChannelReader;
  readonly #decoder: BatchDecoder;
  #rows: BatchReader | undefined;
  /** Next record of the open batch, and how many it has. */
  #position = 0;
  #count = 0;

  constructor(index: number, reader: ChannelReader, decoder: BatchDecoder) {
    this.index = index;
    this.#reader = reader;
    this.#decoder = decoder;
  }

  get failure(): MillraceError | undefined {
    return this.hasEnded ? undefined : this.#reader.failure;
  }

  get bytes(): number {
    return this.#reader.bytes;
  }

  drain(sink: InputSink): boolean {
    let hasTaken = false;
    while (!this.isBlocked && !this.hasEnded) {
      if (this.#position < this.#count) {
        hasTaken = true;
        this.#position = sink.processRows(this.#rows!, this.#position);
        if (sink.mustStop) return true;
      }
      const next = this.#reader.next();
      if (next === undefined) return hasTaken;
      hasTaken = true;
      if (next instanceof Uint8Array) {
        this.#rows = this.#decoder.open(next);
        this.#count = this.#rows.count;
        this.#position = 0;
      } else {
        sink.processControl(this.index, next);
        if (sink.stopsAfterElement()) return true;
      }
    }
    return hasTaken;
  }

  connect(): void {
    // Records come in batches.
  }

  refresh(): void {
    // Its producer looks at the ring.
  }

  close(): void {
    this.#reader.close();
  }
}

export class DirectInputChannel implements InputChannel {
  readonly index: number;
  hasEndOfData = false;
  hasEnded = false;
  readonly bytes = 0;
  readonly failure = undefined as MillraceError | undefined;
  readonly #channel: DirectChannel;

  constructor(index: number, channel: DirectChannel) {
    this.index = index;
    this.#channel = channel;
  }

  get isBlocked(): boolean {
    return this.#channel.isBlocked;
  }

  set isBlocked(isBlocked: boolean) {
    this.#channel.isBlocked = isBlocked;
  }

  drain(sink: InputSink): boolean {
    let hasTaken = false;
    const channel = this.#channel;
    const record = (value: unknown, timestamp: number): void =>
      sink.processRecord(value, timestamp);
    while (!channel.isBlocked && channel.queued > 0) {
      const event = channel.takeQueued(record);
      if (event !== undefined) sink.processControl(this.index, event);
      hasTaken = true;
      if (sink.stopsAfterElement()) return true;
    }
    return hasTaken;
  }

  connect(take: TakeRecord): void {
    this.#channel.take = take;
  }

  refresh(): void {
    this.#channel.refresh();
  }

  close(): void {
    // Queued elements go with the slot.
  }
}
