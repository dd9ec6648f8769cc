/**
 * The producer's end of a channel. Writing never waits and keeps the order of batches and control
 * frames: what finds no room in the ring goes to a bounded overdraft, which the producer's thread moves
 * on when it looks for room. A producer whose channel has no room takes no new input (back-pressure).
 */
import { MillraceError } from '../base/errors.js';
import type { ControlEvent } from '../record/stream-element.js';
import type { Ring } from './ring.js';

type Overdraft =
  | {
      readonly kind: 'data';
      readonly bytes: Uint8Array;
      offset: number;
      readonly continues: boolean;
    }
  | { readonly kind: 'control'; readonly event: ControlEvent };

export class ChannelWriter {
  readonly channelId: string;
  readonly ring: Ring;
  readonly #maxOverdraftBuffers: number;
  #overdraft: Overdraft[] = [];
  #overdraftBuffers = 0;
  /** Bytes of batches accepted. */
  bytes = 0;

  constructor(channelId: string, ring: Ring, maxOverdraftBuffers: number) {
    this.channelId = channelId;
    this.ring = ring;
    this.#maxOverdraftBuffers = maxOverdraftBuffers;
  }

  /** Buffers that wait outside the ring. */
  get overdraftBuffers(): number {
    return this.#overdraftBuffers;
  }

  /** NETWORK when the way to the consumer broke. A consumer that failed by itself is not our failure. */
  get failure(): MillraceError | undefined {
    if (this.ring.consumerState !== 'failed') return undefined;
    return channelFailure(this.channelId, 'consumer');
  }

  /** A batch can be taken. False also asks for a wake-up: look again when the bell rings. */
  get hasRoom(): boolean {
    if (this.#roomNow()) return true;
    // Half of the buffers, so that a blocked producer is not woken for each one. A control frame in front
    // waits for the lane, which no number of buffers opens.
    const isLaneFull = this.#overdraft[0]?.kind === 'control';
    this.ring.requestWake(isLaneFull ? this.ring.buffers + 1 : Math.max(1, this.ring.buffers >> 1));
    return this.#roomNow();
  }

  /** Nothing waits outside the ring. */
  get isFlushed(): boolean {
    this.#drain();
    return this.#overdraft.length === 0 || this.hasRoom;
  }

  /**
   * Takes a sealed batch (copied before this returns). `continues`: the next write carries on with the same batch.
   * OVERDRAFT_EXCEEDED beyond the bound.
   */
  writeBatch(bytes: Uint8Array, continues = false): void {
    this.bytes += bytes.byteLength;
    const offset = this.#overdraft.length === 0 ? this.#writeToRing(bytes, 0, continues) : 0;
    if (offset === bytes.byteLength) return;
    if (this.#overdraftBuffers >= this.#maxOverdraftBuffers) {
      throw new MillraceError(
        'OVERDRAFT_EXCEEDED',
        `the output of one step overflowed channel ${this.channelId}: ${String(this.#overdraftBuffers)} buffers wait already; emit fewer or smaller records at once`,
        { details: { channelId: this.channelId, buffers: this.#overdraftBuffers } },
      );
    }
    const rest = bytes.slice(offset);
    this.#overdraftBuffers += Math.ceil(rest.byteLength / this.ring.bufferBytes);
    this.#overdraft.push({ kind: 'data', bytes: rest, offset: 0, continues });
  }

  writeControl(event: ControlEvent): void {
    if (this.#overdraft.length === 0 && this.ring.writeControl(event)) return;
    coalesce(this.#overdraft, event);
  }

  /** The producer ends without having sent endOfPartition: its task reports why. */
  close(): void {
    this.#overdraft = [];
    this.ring.end('producer', 'closed');
  }

  #roomNow(): boolean {
    this.#drain();
    return this.#overdraft.length === 0 && this.ring.hasFree;
  }

  #drain(): void {
    if (this.#overdraft.length === 0) return;
    let done = 0;
    while (done < this.#overdraft.length) {
      const head = this.#overdraft[done]!;
      if (head.kind === 'control') {
        if (!this.ring.writeControl(head.event)) break;
      } else {
        const from = head.offset;
        head.offset = this.#writeToRing(head.bytes, from, head.continues);
        this.#overdraftBuffers -= Math.ceil((head.offset - from) / this.ring.bufferBytes);
        if (head.offset < head.bytes.byteLength) break;
      }
      done += 1;
    }
    if (done > 0) this.#overdraft.splice(0, done);
    if (this.#overdraft.length === 0) this.#overdraftBuffers = 0;
  }

  /** Returns the offset reached. */
  #writeToRing(bytes: Uint8Array, from: number, continues: boolean): number {
    const { ring } = this;
    let offset = from;
    while (offset < bytes.byteLength) {
      const buffer = ring.claim();
      if (buffer === undefined) break;
      const end = Math.min(offset + buffer.byteLength, bytes.byteLength);
      buffer.set(end - offset === bytes.byteLength ? bytes : bytes.subarray(offset, end));
      ring.commit(end - offset, continues || end < bytes.byteLength);
      offset = end;
    }
    return offset;
  }
}

/**
 * A run of watermarks and statuses becomes what it says in the end (active, the last watermark, idle if
 * it ended so), and adjacent cancellations the highest: control frames in the overdraft stay bounded however
 * long the channel is blocked.
 */
function coalesce(queue: Overdraft[], event: ControlEvent): void {
  const last = controlAt(queue, queue.length - 1);
  if (event.kind === 'cancelBarrier' && last?.kind === 'cancelBarrier') {
    const checkpointId = Math.max(event.checkpointId, last.checkpointId);
    queue[queue.length - 1] = { kind: 'control', event: { kind: 'cancelBarrier', checkpointId } };
    return;
  }
  if (event.kind !== 'watermark' && event.kind !== 'watermarkStatus') {
    queue.push({ kind: 'control', event });
    return;
  }
  let watermark: ControlEvent | undefined;
  let status: Extract<ControlEvent, { kind: 'watermarkStatus' }> | undefined;
  const note = (noted: ControlEvent | undefined): boolean => {
    if (noted?.kind === 'watermark') watermark ??= noted;
    else if (noted?.kind === 'watermarkStatus') status ??= noted;
    else return false;
    return true;
  };
  note(event);
  while (note(controlAt(queue, queue.length - 1))) queue.pop();
  const run: ControlEvent[] = [];
  if (status !== undefined && (status.active || watermark !== undefined)) {
    run.push({ kind: 'watermarkStatus', active: true });
  }
  if (watermark !== undefined) run.push(watermark);
  if (status?.active === false) run.push(status);
  for (const reduced of run) queue.push({ kind: 'control', event: reduced });
}

function controlAt(queue: readonly Overdraft[], index: number): ControlEvent | undefined {
  const entry = queue[index];
  return entry?.kind === 'control' ? entry.event : undefined;
}

export function channelFailure(channelId: string, peer: 'producer' | 'consumer'): MillraceError {
  return new MillraceError(
    'NETWORK',
    `the connection to the ${peer} of channel ${channelId} failed`,
    { details: { channelId } },
  );
}
