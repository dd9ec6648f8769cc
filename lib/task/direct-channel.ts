/**
 * A channel inside a slot. While the consumer can take it, an element is a direct call; while the channel
 * is blocked for alignment or the consumer is held back, elements queue up. Direct calls resume only when
 * the queue is empty, so the order stays. The queue holds references, is bounded by its number of records
 * and counts as a full output of its producer.
 */
import type { MillraceError } from '../base/errors.js';
import type { ControlEvent } from '../record/stream-element.js';
import type { OutputChannel } from './output-channel.js';
import type { Quantum } from './quantum.js';

/** One record by direct call; never throws. `keyHash` is that of the record's key, where the producer has it. */
export type TakeRecord = (value: unknown, timestamp: number, keyHash: number | undefined) => void;

/** The consumer, as its direct channels see it. */
export interface DirectConsumer {
  /** It is running and not in the middle of something. */
  readonly canTake: boolean;
  /** It ended in good order: what it is sent is dropped. */
  readonly hasFinished: boolean;
  /** Its outputs, and those it calls directly, have room. */
  readonly hasRoom: boolean;
  takeControl(channel: number, event: ControlEvent): void;
}

/** Marks control events among queued records. */
class QueuedControl {
  readonly event: ControlEvent;

  constructor(event: ControlEvent) {
    this.event = event;
  }
}

export class DirectChannel implements OutputChannel {
  /**
   * Records are direct calls of `take` now. Kept up to date by `refresh`, as generated code asks for every record.
   */
  isOpen = false;
  /** The consumer's entry for records. Set before the channel opens. */
  take: TakeRecord = () => undefined;
  readonly bytes = 0;
  readonly failure = undefined as MillraceError | undefined;
  readonly #quantum: Quantum;
  readonly #maxQueued: number;
  #consumer: DirectConsumer | undefined;
  #channel = 0;
  #values: unknown[] = [];
  #timestamps: number[] = [];
  #head = 0;
  #isBlocked = false;

  constructor(quantum: Quantum, maxQueued: number) {
    this.#quantum = quantum;
    this.#maxQueued = maxQueued;
  }

  connect(consumer: DirectConsumer, channel: number): void {
    this.#consumer = consumer;
    this.#channel = channel;
    this.refresh();
  }

  get queued(): number {
    return this.#values.length - this.#head;
  }

  get isBlocked(): boolean {
    return this.#isBlocked;
  }

  set isBlocked(isBlocked: boolean) {
    this.#isBlocked = isBlocked;
    this.refresh();
  }

  /** Whether the consumer can take, or what is queued, changed. */
  refresh(): void {
    this.isOpen = this.queued === 0 && !this.#isBlocked && this.#consumer?.canTake === true;
  }

  // ---- Producer -------------------------------------------------------------------------------

  collect(value: unknown, timestamp: number): void {
    if (this.isOpen) {
      this.take(value, timestamp, undefined);
      return;
    }
    if (this.#consumer?.hasFinished === true) return;
    this.#values.push(value);
    this.#timestamps.push(timestamp);
    if (this.queued >= this.#maxQueued) this.#quantum.stop();
  }

  control(event: ControlEvent): void {
    const consumer = this.#consumer;
    if (consumer !== undefined && this.isOpen) {
      consumer.takeControl(this.#channel, event);
      return;
    }
    if (consumer?.hasFinished === true) return;
    const last = this.queued > 0 ? this.#values[this.#values.length - 1] : undefined;
    if (
      event.kind === 'watermark' &&
      last instanceof QueuedControl &&
      last.event.kind === 'watermark'
    ) {
      this.#values[this.#values.length - 1] = new QueuedControl(event);
      return;
    }
    this.#values.push(new QueuedControl(event));
    this.#timestamps.push(0);
    this.refresh();
  }

  flush(): void {
    // Nothing is held back here.
  }

  get hasRoom(): boolean {
    const consumer = this.#consumer;
    if (consumer === undefined) return false;
    if (this.isOpen) return consumer.hasRoom;
    // A consumer that can take what waits goes first: fed all the time, the queue would never empty again.
    const isDrained = this.queued > 0 && !this.#isBlocked && consumer.canTake;
    return !isDrained && this.queued < this.#maxQueued;
  }

  /** The queue dies with the slot, so it must be empty before the producer may end. */
  get isFlushed(): boolean {
    return this.queued === 0 || this.#consumer?.hasFinished === true;
  }

  close(): void {
    // The consumer sees nothing more; the producer's task reports why.
  }

  // ---- Consumer -------------------------------------------------------------------------------

  /** Takes the oldest queued element: a control event, or a record handed to `record`. */
  takeQueued(record: (value: unknown, timestamp: number) => void): ControlEvent | undefined {
    const at = this.#head;
    const value = this.#values[at];
    const timestamp = this.#timestamps[at] ?? 0;
    this.#values[at] = undefined;
    this.#head += 1;
    if (this.#head === this.#values.length || this.#head >= this.#maxQueued) {
      this.#values = this.#values.slice(this.#head);
      this.#timestamps = this.#timestamps.slice(this.#head);
      this.#head = 0;
    }
    if (value instanceof QueuedControl) return value.event;
    record(value, timestamp);
    return undefined;
  }
}
