/** The consumer's side of a channel as a task sees it: drained in quanta, at the place where it stopped. */
import type { MillraceError } from '../base/errors.js';
import type { ChannelReader } from '../network/channel-reader.js';
import type { BatchReader } from '../record/codec/batch-codec.js';
import type { ControlEvent } from '../record/stream-element.js';
import type { DirectChannel } from './direct-channel.js';

/** What a channel is drained into. */
export interface InputSink {
  processRecord(value: unknown, timestamp: number): void;
  processControl(channel: number, event: ControlEvent): void;
  /** Counts an element; true when the task must stop here. */
  stopsAfterElement(): boolean;
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
  close(): void;
}

export class RingInputChannel implements InputChannel {
  readonly index: number;
  isBlocked = false;
  hasEndOfData = false;
  hasEnded = false;
  readonly #reader: ChannelReader;
  readonly #batch: BatchReader;
  /** Next record of the open batch. */
  #position = 0;

  constructor(index: number, reader: ChannelReader, batch: BatchReader) {
    this.index = index;
    this.#reader = reader;
    this.#batch = batch;
  }

  get failure(): MillraceError | undefined {
    return this.hasEnded ? undefined : this.#reader.failure;
  }

  get bytes(): number {
    return this.#reader.bytes;
  }

  drain(sink: InputSink): boolean {
    let hasTaken = false;
    const batch = this.#batch;
    while (!this.isBlocked && !this.hasEnded) {
      while (this.#position < batch.count) {
        const i = this.#position;
        this.#position = i + 1;
        sink.processRecord(batch.value(i), batch.timestamp(i));
        hasTaken = true;
        if (sink.stopsAfterElement()) return true;
      }
      const next = this.#reader.next();
      if (next === undefined) return hasTaken;
      hasTaken = true;
      if (next instanceof Uint8Array) {
        batch.open(next);
        this.#position = 0;
      } else {
        sink.processControl(this.index, next);
        if (sink.stopsAfterElement()) return true;
      }
    }
    return hasTaken;
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

  close(): void {
    // Queued elements go with the slot.
  }
}
