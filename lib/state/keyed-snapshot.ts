/**
 * A snapshot of keyed state under way: begun at once, encoded in steps beside the records, then written.
 * While it is being encoded its parts keep what is about to change (copy on write). Several may overlap; each is
 * the state when it began.
 */
import { crc32 } from 'node:zlib';
import { encodeValue } from '../record/codec/value-codec.js';
import { arrayHeader, arrayHeaderBytes, binaryHeader, binaryHeaderBytes } from './group-log.js';
import {
  crcBytes,
  headerBytes,
  snapshotHeader,
  snapshotKind,
  type StateEntry,
} from './snapshot-format.js';
import type { SnapshotStorage } from './snapshot-storage.js';
import type { KeyedStateHandle, KeyGroupRange } from './state-handle.js';

/** A part's share. Key groups are relative to the start of the range. */
export interface PartSnapshot {
  readonly name: string;
  readonly kind: string;
  /** Encodes everything, a bounded part between two yields. */
  encode(): Generator<void>;
  /** Once encoded: key groups that have something. */
  groups(): Iterable<number>;
  sizeOf(group: number): number;
  /** The encoded value of a key group, in pieces of `sizeOf` bytes together. */
  payload(group: number): Iterable<Uint8Array>;
  /** Captures nothing any more; may be called again. */
  end(): void;
}

interface Encoded {
  readonly data: Uint8Array;
  readonly sections: KeyedStateHandle['sections'];
}

/** Bytes copied or summed between two yields; a piece counts as so many more. */
const bytesPerStep = 256 * 1024;
const bytesPerPiece = 256;

export class KeyedSnapshot {
  readonly #range: KeyGroupRange;
  readonly #parts: readonly PartSnapshot[];
  /** Carried along: by name, then key group. */
  readonly #carried: readonly ReadonlyMap<number, StateEntry>[];
  readonly #work: Generator<void>;
  #encoded: Encoded | undefined;

  constructor(
    range: KeyGroupRange,
    parts: readonly PartSnapshot[],
    carried: readonly ReadonlyMap<number, StateEntry>[],
  ) {
    this.#range = range;
    this.#parts = parts;
    this.#carried = carried;
    this.#work = this.#encode();
  }

  /**
   * Goes on encoding until `isOver`, asked after each bounded piece of work; true when all is encoded.
   * @throws RECORD_UNSUPPORTED for state that is no plain data; the snapshot is over then.
   */
  step(isOver: () => boolean): boolean {
    try {
      do if (this.#work.next().done === true) return true;
      while (!isOver());
      return false;
    } catch (error) {
      this.cancel();
      throw error;
    }
  }

  /** Gives it up, also in the middle of its encoding. */
  cancel(): void {
    for (const part of this.#parts) part.end();
    this.#work.return(undefined);
  }

  /** Resolves when durable; undefined when there is no state at all. Encodes what is left first. */
  async write(
    storage: SnapshotStorage,
    checkpointId: number,
    name: string,
  ): Promise<KeyedStateHandle | undefined> {
    this.step(() => false);
    if (this.#encoded === undefined) return undefined;
    const { data, sections } = this.#encoded;
    return { range: this.#range, sections, data: await storage.write(checkpointId, name, data) };
  }

  *#encode(): Generator<void> {
    for (const part of this.#parts) {
      yield* part.encode();
      part.end();
    }
    const groups = new Set<number>();
    for (const part of this.#parts) for (const group of part.groups()) groups.add(group);
    for (const byGroup of this.#carried) {
      for (const keyGroup of byGroup.keys()) groups.add(keyGroup - this.#range.start);
    }
    if (groups.size === 0) return;
    yield;
    yield* this.#assemble([...groups].sort((a, b) => a - b));
  }

  *#assemble(groups: readonly number[]): Generator<void> {
    const entries = groups.map((group) => this.#entriesOf(group));
    const sizes = entries.map((some) =>
      some.reduce((sum, { size }) => sum + size, arrayHeaderBytes),
    );
    const total = sizes.reduce((sum, size) => sum + crcBytes + size, headerBytes);
    const data = Buffer.allocUnsafeSlow(total);
    data.set(snapshotHeader(snapshotKind.keyed));
    const sections: { keyGroup: number; offset: number; length: number }[] = [];
    let offset = headerBytes;
    for (const [i, group] of groups.entries()) {
      const length = crcBytes + sizes[i]!;
      const section = data.subarray(offset, offset + length);
      yield* fill(section.subarray(crcBytes), entries[i]!);
      section.writeUInt32LE(yield* checksum(section.subarray(crcBytes)), 0);
      sections.push({ keyGroup: group + this.#range.start, offset, length });
      offset += length;
    }
    this.#encoded = { data, sections };
  }

  #entriesOf(group: number): SectionEntry[] {
    const entries: SectionEntry[] = [];
    const add = (
      name: string,
      kind: string,
      length: number,
      pieces: Iterable<Uint8Array>,
    ): void => {
      const labels = [threeElements, encodeValue(name), encodeValue(kind)];
      const labelBytes = labels.reduce((sum, { byteLength }) => sum + byteLength, 0);
      const head = [...labels, binaryHeader(length)];
      entries.push({ size: labelBytes + binaryHeaderBytes + length, head, pieces });
    };
    for (const part of this.#parts) {
      const size = part.sizeOf(group);
      if (size > 0) add(part.name, part.kind, size, part.payload(group));
    }
    for (const byGroup of this.#carried) {
      const entry = byGroup.get(group + this.#range.start);
      if (entry !== undefined) add(entry.name, entry.kind, entry.bytes.byteLength, [entry.bytes]);
    }
    return entries;
  }
}

/** `[name, kind, bytes]` of a section. */
interface SectionEntry {
  readonly size: number;
  readonly head: readonly Uint8Array[];
  readonly pieces: Iterable<Uint8Array>;
}

const threeElements = Uint8Array.of(0x93);

function* fill(target: Uint8Array, entries: readonly SectionEntry[]): Generator<void> {
  target.set(arrayHeader(entries.length));
  let at = arrayHeaderBytes;
  let work = 0;
  for (const { head, pieces } of entries) {
    for (const bytes of head) {
      target.set(bytes, at);
      at += bytes.byteLength;
    }
    for (const piece of pieces) {
      for (let from = 0; from < piece.byteLength; from += bytesPerStep) {
        const some = piece.subarray(from, from + bytesPerStep);
        target.set(some, at);
        at += some.byteLength;
        work += some.byteLength + bytesPerPiece;
        if (work < bytesPerStep) continue;
        work = 0;
        yield;
      }
    }
  }
  yield;
}

function* checksum(data: Uint8Array): Generator<void, number> {
  let sum = 0;
  for (let from = 0; from < data.byteLength; from += bytesPerStep) {
    sum = crc32(data.subarray(from, from + bytesPerStep), sum);
    if (from > 0) yield;
  }
  return sum;
}
