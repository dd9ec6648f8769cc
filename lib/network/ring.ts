/**
 * The way of one channel between two threads: a single-producer single-consumer ring in a
 * SharedArrayBuffer. N data buffers are the channel's credits; an ordered queue of entries names what is
 * in them and carries control frames, which need no buffer: the queue has room for N data entries and
 * `controlEntries` more, so data can never take the lane of control frames.
 *
 * A data buffer is claimed, written in place and committed; the consumer peeks, reads in place and
 * releases. Both ends may be in one thread.
 */
import type { ControlEvent } from '../record/stream-element.js';
import { InvariantError } from '../base/assert.js';
import { Bell } from './bell.js';

export interface RingOptions {
  /** Bytes of a data buffer. */
  readonly bufferBytes: number;
  /** Data buffers: the credit of the channel; at least 2. */
  readonly buffers: number;
}

/** How an end of the channel ended; `closed` means its task ended and reports why, `failed` that the network did. */
export type EndState = 'open' | 'closed' | 'failed';
const endStates: readonly EndState[] = ['open', 'closed', 'failed'];

/** What the consumer finds at the head of the queue. */
export type RingEntry =
  | { readonly kind: 'data'; readonly bytes: Uint8Array; readonly continues: boolean }
  | { readonly kind: 'control'; readonly event: ControlEvent };

const controlEntries = 16;
const headerBytes = 128;
const entryBytes = 24;

// Words of the header (Int32). Counters run in [0, 2 x capacity), so that full and empty differ. Each has one
// writer, which reads its own without Atomics; the other end reads it with. The consumer advances ENTRIES_READ
// before the counter of the kind: a free buffer or lane place always has a free entry.
const BUFFERS = 0;
const BUFFER_BYTES = 1;
const ENTRIES_WRITTEN = 2;
const ENTRIES_READ = 3;
const DATA_WRITTEN = 4;
const DATA_READ = 5;
const CONTROL_WRITTEN = 6;
const CONTROL_READ = 7;
/** Free data buffers at which the producer wants to be woken; 0: it does not wait. */
const PRODUCER_WAITS_FOR = 8;
const PRODUCER_STATE = 9;
const CONSUMER_STATE = 10;
/** Index of the end's bell plus 1; 0 until that end is attached. */
const PRODUCER_BELL = 11;
const CONSUMER_BELL = 12;

// Words of an entry: Int32 kind, Int32 length, Float64 a, Float64 b.
const KIND_DATA = 1;
const KIND_DATA_CONTINUES = 2;
const KIND_WATERMARK = 3;
const KIND_STATUS = 4;
const KIND_BARRIER = 5;
const KIND_CANCEL_BARRIER = 6;
const KIND_END_OF_DATA = 7;
const KIND_END_OF_PARTITION = 8;

/** Memory of a new ring, to be wrapped by `Ring` in both threads. */
export function createRingMemory(options: RingOptions): SharedArrayBuffer {
  const entries = options.buffers + controlEntries;
  const bytes = headerBytes + entries * entryBytes + options.buffers * options.bufferBytes;
  const memory = new SharedArrayBuffer(bytes);
  const header = new Int32Array(memory, 0, headerBytes / 4);
  header[BUFFERS] = options.buffers;
  header[BUFFER_BYTES] = options.bufferBytes;
  return memory;
}

export class Ring {
  readonly memory: SharedArrayBuffer;
  readonly bufferBytes: number;
  readonly buffers: number;
  readonly #bells: SharedArrayBuffer;
  readonly #header: Int32Array<SharedArrayBuffer>;
  readonly #entries: DataView<SharedArrayBuffer>;
  readonly #data: Uint8Array<SharedArrayBuffer>[];
  readonly #capacity: number;
  #producerBell: Bell | undefined;
  #consumerBell: Bell | undefined;

  constructor(memory: SharedArrayBuffer, bells: SharedArrayBuffer) {
    this.memory = memory;
    this.#bells = bells;
    this.#header = new Int32Array(memory, 0, headerBytes / 4);
    this.buffers = this.#header[BUFFERS] ?? 0;
    this.bufferBytes = this.#header[BUFFER_BYTES] ?? 0;
    this.#capacity = this.buffers + controlEntries;
    this.#entries = new DataView(memory, headerBytes, this.#capacity * entryBytes);
    const start = headerBytes + this.#capacity * entryBytes;
    this.#data = Array.from(
      { length: this.buffers },
      (_, i) => new Uint8Array(memory, start + i * this.bufferBytes, this.bufferBytes),
    );
  }

  /** Names the bell of an end's thread; done once by whoever connects that end. */
  attach(end: 'producer' | 'consumer', bell: number): void {
    Atomics.store(this.#header, end === 'producer' ? PRODUCER_BELL : CONSUMER_BELL, bell + 1);
  }

  // ---- Producer -------------------------------------------------------------------------------

  /** Data buffers that can be claimed. */
  get freeBuffers(): number {
    const header = this.#header;
    const used = Atomics.load(header, DATA_WRITTEN) - Atomics.load(header, DATA_READ);
    return used < 0 ? -this.buffers - used : this.buffers - used;
  }

  /** The producer's `freeBuffers > 0`. */
  get hasFree(): boolean {
    const header = this.#header;
    const used = header[DATA_WRITTEN]! - Atomics.load(header, DATA_READ);
    return used !== this.buffers && used !== -this.buffers;
  }

  /** The next free buffer, to be written in place; undefined when the channel has no credit. */
  claim(): Uint8Array | undefined {
    if (!this.hasFree) return undefined;
    const written = this.#header[DATA_WRITTEN]!;
    return this.#data[written < this.buffers ? written : written - this.buffers];
  }

  /** Hands over the claimed buffer. `continues`: the next data buffer belongs to the same batch. */
  commit(length: number, continues: boolean): void {
    this.#put(continues ? KIND_DATA_CONTINUES : KIND_DATA, length);
    this.#advance(DATA_WRITTEN, this.buffers);
    this.#publish();
  }

  /** False when the control lane is full. */
  writeControl(event: ControlEvent): boolean {
    const waiting = this.#header[CONTROL_WRITTEN]! - Atomics.load(this.#header, CONTROL_READ);
    if (waiting === controlEntries || waiting === -controlEntries) return false;
    switch (event.kind) {
      case 'watermark':
        this.#put(KIND_WATERMARK, 0, event.timestamp, 0);
        break;
      case 'watermarkStatus':
        this.#put(KIND_STATUS, 0, event.active ? 1 : 0, 0);
        break;
      case 'barrier':
        this.#put(KIND_BARRIER, 0, event.checkpointId, event.timestamp);
        break;
      case 'cancelBarrier':
        this.#put(KIND_CANCEL_BARRIER, 0, event.checkpointId, 0);
        break;
      case 'endOfData':
        this.#put(KIND_END_OF_DATA, 0);
        break;
      case 'endOfPartition':
        this.#put(KIND_END_OF_PARTITION, 0);
        break;
    }
    this.#advance(CONTROL_WRITTEN, controlEntries);
    this.#publish();
    return true;
  }

  /**
   * The consumer will ring the producer's bell once `free` buffers are free or a control frame was taken.
   * Look again afterwards: it may have happened before the request was visible.
   */
  requestWake(free: number): void {
    Atomics.store(this.#header, PRODUCER_WAITS_FOR, free);
  }

  // ---- Consumer -------------------------------------------------------------------------------

  get isEmpty(): boolean {
    return Atomics.load(this.#header, ENTRIES_WRITTEN) === this.#header[ENTRIES_READ];
  }

  /** The oldest entry; the bytes of a data entry are the buffer itself, valid until `release`. */
  peek(): RingEntry | undefined {
    if (this.isEmpty) return undefined;
    const header = this.#header;
    const entries = this.#entries;
    const at = this.#entryAt(header[ENTRIES_READ]!);
    const kind = entries.getInt32(at, true);
    if (kind === KIND_DATA || kind === KIND_DATA_CONTINUES) {
      const read = header[DATA_READ]!;
      const buffer = this.#data[read < this.buffers ? read : read - this.buffers]!;
      const bytes = buffer.subarray(0, entries.getInt32(at + 4, true));
      return { kind: 'data', bytes, continues: kind === KIND_DATA_CONTINUES };
    }
    const a = entries.getFloat64(at + 8, true);
    const b = entries.getFloat64(at + 16, true);
    return { kind: 'control', event: toEvent(kind, a, b) };
  }

  /** Gives back the entry last peeked, and its buffer. */
  release(): void {
    const kind = this.#entries.getInt32(this.#entryAt(this.#header[ENTRIES_READ]!), true);
    const isData = kind === KIND_DATA || kind === KIND_DATA_CONTINUES;
    this.#advance(ENTRIES_READ, this.#capacity);
    if (isData) this.#advance(DATA_READ, this.buffers);
    else this.#advance(CONTROL_READ, controlEntries);
    const waitsFor = Atomics.load(this.#header, PRODUCER_WAITS_FOR);
    if (waitsFor !== 0 && (!isData || this.freeBuffers >= waitsFor)) {
      Atomics.store(this.#header, PRODUCER_WAITS_FOR, 0);
      this.#bellOf('producer')?.ring();
    }
  }

  // ---- Ends -----------------------------------------------------------------------------------

  get producerState(): EndState {
    return endStates[this.#load(PRODUCER_STATE)] ?? 'open';
  }

  get consumerState(): EndState {
    return endStates[this.#load(CONSUMER_STATE)] ?? 'open';
  }

  /** Ends an end and tells the other. The first word stands. */
  end(end: 'producer' | 'consumer', state: 'closed' | 'failed'): void {
    const word = end === 'producer' ? PRODUCER_STATE : CONSUMER_STATE;
    const before = Atomics.compareExchange(this.#header, word, 0, endStates.indexOf(state));
    if (before === 0) this.#bellOf(end === 'producer' ? 'consumer' : 'producer')?.ring();
  }

  #bellOf(end: 'producer' | 'consumer'): Bell | undefined {
    const known = end === 'producer' ? this.#producerBell : this.#consumerBell;
    if (known !== undefined) return known;
    // Until the other end is attached there is nobody to wake; it looks at the ring when it comes.
    const index = this.#load(end === 'producer' ? PRODUCER_BELL : CONSUMER_BELL) - 1;
    if (index < 0) return undefined;
    const bell = new Bell(this.#bells, index);
    if (end === 'producer') this.#producerBell = bell;
    else this.#consumerBell = bell;
    return bell;
  }

  #put(kind: number, length: number, a = 0, b = 0): void {
    const entries = this.#entries;
    const at = this.#entryAt(this.#header[ENTRIES_WRITTEN]!);
    entries.setInt32(at, kind, true);
    entries.setInt32(at + 4, length, true);
    entries.setFloat64(at + 8, a, true);
    entries.setFloat64(at + 16, b, true);
  }

  #publish(): void {
    this.#advance(ENTRIES_WRITTEN, this.#capacity);
    this.#bellOf('consumer')?.ring();
  }

  #entryAt(counter: number): number {
    return (counter < this.#capacity ? counter : counter - this.#capacity) * entryBytes;
  }

  #load(word: number): number {
    return Atomics.load(this.#header, word);
  }

  /** By the counter's only writer. */
  #advance(word: number, capacity: number): void {
    const next = this.#header[word]! + 1;
    Atomics.store(this.#header, word, next === 2 * capacity ? 0 : next);
  }
}

function toEvent(kind: number, a: number, b: number): ControlEvent {
  switch (kind) {
    case KIND_WATERMARK:
      return { kind: 'watermark', timestamp: a };
    case KIND_STATUS:
      return { kind: 'watermarkStatus', active: a === 1 };
    case KIND_BARRIER:
      return { kind: 'barrier', checkpointId: a, timestamp: b };
    case KIND_CANCEL_BARRIER:
      return { kind: 'cancelBarrier', checkpointId: a };
    case KIND_END_OF_DATA:
      return { kind: 'endOfData' };
    case KIND_END_OF_PARTITION:
      return { kind: 'endOfPartition' };
    default:
      throw new InvariantError('a ring holds an entry of unknown kind', { kind });
  }
}
