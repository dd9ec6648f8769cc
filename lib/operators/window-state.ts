/**
 * Contents of windows, window first: a table of keys per window (docs/adr/0014). A window's keys go from
 * pending to fired (or away) one by one, so that a snapshot between two of them repeats none and loses none.
 * A part of the keyed state.
 */
import { ColumnSnapshot } from '../state/column-snapshot.js';
import { arrayHeader, arrayHeaderBytes, encodedNumber } from '../state/group-log.js';
import { hashKey, keyGroupOfHash } from '../state/key-group.js';
import type { KeyedStateBackend, KeyedStatePart } from '../state/keyed-state-backend.js';
import type { PartSnapshot } from '../state/keyed-snapshot.js';
import { ownStrings } from '../state/own.js';
import { NumberHeap } from '../time/number-heap.js';
import { TimeWindow } from '../windowing/window.js';
import { WindowContents } from './window-contents.js';

/** `[start, end, pending, fired]`, the latter two flat: key, accumulator, key, accumulator... */
type EncodedWindow = [number, number, unknown[], unknown[]];

/** A window's table begins as large as the one before needed, up to this. */
const expectedKeysMax = 8192;

export class WindowTable implements KeyedStatePart {
  readonly name = 'windows';
  /** Assigner and kind of function: contents made by others do not fit. */
  readonly kind: string;
  readonly #backend: KeyedStateBackend;
  /** By end: one assigner makes one window per end. */
  readonly #windows = new Map<number, WindowContents>();
  /** Ends of windows that may have pending keys. */
  readonly #pendingEnds = new NumberHeap();
  /** Ends of all windows, for their removal. */
  readonly #ends = new NumberHeap();
  #recent: WindowContents | undefined;

  constructor(kind: string, backend: KeyedStateBackend) {
    this.kind = kind;
    this.#backend = backend;
  }

  getOrAdd(window: TimeWindow): WindowContents {
    const known = this.#windows.get(window.end);
    if (known !== undefined) return known;
    const expected = Math.min(expectedKeysMax, this.#recent?.index.limit ?? 0);
    const contents = new WindowContents(window, expected);
    this.#recent = contents;
    this.#windows.set(window.end, contents);
    this.#pendingEnds.push(window.end);
    this.#ends.push(window.end);
    return contents;
  }

  /** The key's slot in a window. INVARIANT for a key of another subtask, which a snapshot would lose. */
  slotOf(contents: WindowContents, key: unknown, hash: number): number {
    const slot = contents.index.find(key, hash);
    if (slot >= 0) return slot;
    this.#backend.checkOwned(hash);
    return contents.index.insert(key, hash);
  }

  /** The earliest complete window that has a pending key, its cursor there. */
  nextPending(watermark: number): WindowContents | undefined {
    for (;;) {
      const end = this.#pendingEnds.peek();
      if (end === undefined || end - 1 > watermark) return undefined;
      const contents = this.#windows.get(end);
      if (contents !== undefined && contents.nextPending() >= 0) return contents;
      this.#pendingEnds.pop();
    }
  }

  /** Drops windows that no element can reach any more. */
  removeExpired(watermark: number, allowedLatenessMs: number): void {
    for (;;) {
      const end = this.#ends.peek();
      if (end === undefined || end - 1 + allowedLatenessMs > watermark) return;
      this.#ends.pop();
      this.#windows.delete(end);
    }
  }

  snapshot(): PartSnapshot {
    const backend = this.#backend;
    const groupOf = (contents: WindowContents, slot: number): number =>
      keyGroupOfHash(contents.index.hashAt(slot), backend.maxParallelism) - backend.range.start;
    const windows = Array.from(this.#windows.values(), (contents) => ({
      contents,
      snapshot: new ColumnSnapshot({
        what: `window contents`,
        column: contents.accumulators,
        index: contents.index,
        // Of a key group first what is pending, then what has fired.
        chains: 2 * backend.groupCount,
        chainOf: (slot) => 2 * groupOf(contents, slot) + (contents.isFired(slot) ? 1 : 0),
        encode: (value) => value,
      }),
    }));
    return new WindowSnapshot(this.name, this.kind, windows);
  }

  restore(_keyGroup: number, payload: unknown): void {
    for (const [start, end, pending, fired] of payload as EncodedWindow[]) {
      const contents = this.getOrAdd(new TimeWindow(start, end));
      this.#restoreKeys(contents, fired, true);
      this.#restoreKeys(contents, pending, false);
    }
  }

  #restoreKeys(contents: WindowContents, flat: unknown[], isFired: boolean): void {
    for (let i = 0; i < flat.length; i += 2) {
      const key = flat[i];
      const slot = this.slotOf(contents, key, hashKey(key));
      contents.accumulators.put(slot, ownStrings(flat[i + 1], undefined));
      contents.setFired(slot, isFired);
    }
  }
}

interface WindowInSnapshot {
  readonly contents: WindowContents;
  readonly snapshot: ColumnSnapshot;
}

/** Array of four, the header of an encoded window. */
const windowHeader = Uint8Array.of(0x94);

class WindowSnapshot implements PartSnapshot {
  readonly name: string;
  readonly kind: string;
  readonly #windows: readonly WindowInSnapshot[];
  /** By key group. */
  readonly #byGroup = new Map<number, WindowInSnapshot[]>();

  constructor(name: string, kind: string, windows: readonly WindowInSnapshot[]) {
    this.name = name;
    this.kind = kind;
    this.#windows = windows;
  }

  *encode(): Generator<void> {
    for (const window of this.#windows) {
      yield* window.snapshot.encode();
      const groups = new Set(Array.from(window.snapshot.log.chains(), (chain) => chain >> 1));
      for (const group of groups) {
        const windows = this.#byGroup.get(group);
        if (windows === undefined) this.#byGroup.set(group, [window]);
        else windows.push(window);
      }
      yield;
    }
  }

  groups(): Iterable<number> {
    return this.#byGroup.keys();
  }

  sizeOf(group: number): number {
    const windows = this.#byGroup.get(group);
    if (windows === undefined) return 0;
    let size = arrayHeaderBytes;
    for (const { contents, snapshot } of windows) {
      size += headOf(contents).byteLength;
      size += snapshot.log.sizeOf(2 * group) + snapshot.log.sizeOf(2 * group + 1);
    }
    return size;
  }

  *payload(group: number): Generator<Uint8Array> {
    const windows = this.#byGroup.get(group) ?? [];
    yield arrayHeader(windows.length);
    for (const { contents, snapshot } of windows) {
      yield headOf(contents);
      yield* snapshot.log.payload(2 * group);
      yield* snapshot.log.payload(2 * group + 1);
    }
  }

  end(): void {
    for (const { snapshot } of this.#windows) snapshot.end();
  }
}

function headOf({ start, end }: WindowContents): Buffer {
  return Buffer.concat([windowHeader, encodedNumber(start), encodedNumber(end)]);
}
