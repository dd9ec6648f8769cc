/**
 * The cells of an open-addressing table from 32-bit hashes to numbers: pairs [hash, number + 1] in typed
 * arrays, probed linearly. Extendible hashing: a segment that is full is doubled up to 2^16 pairs, then split in
 * two, so that no insertion moves more than that, whatever the size of the table. Who owns the numbers decides what
 * they mean and whether equal hashes are equal keys.
 */

/** Hashes of one subtask share low bits (the key group): the high bits of the product depend on all of them. */
export const spread = 0x9e3779b1 | 0;

/** log2 of the pairs of a segment at which it splits: 32,768 entries to move. */
const splitBits = 16;
/** Deeper segments hold many entries of one hash, which no bit tells apart; they are doubled. */
const depthMax = 14;
const initialBits = 4;

interface Segment {
  /** Leading bits of the spread hash that choose the segment. */
  depth: number;
  count: number;
}

export class KeyCells {
  /**
   * The pairs [hash, number + 1] of each segment, by the leading bits of the spread hash; a second word of 0 is an
   * empty pair. The leading bits of the hash itself choose the pair: see `homeOf`. At least two entries, as a shift
   * by 32 is none.
   */
  directory: Int32Array[];
  directoryShift = 31;
  /** By the same bits. */
  #segments: Segment[];

  /** @param expected how many entries it will probably hold */
  constructor(expected = 0) {
    let bits = initialBits;
    while (bits < splitBits && 1 << (bits - 1) < expected) bits += 1;
    const cells = new Int32Array(2 << bits);
    const segment = { depth: 0, count: 0 };
    this.directory = [cells, cells];
    this.#segments = [segment, segment];
  }

  /** The number of a hash (all of whose bits are mixed); -1 when it is not there. Only where equal hashes are equal keys. */
  find(hash: number): number {
    const cells = this.directory[Math.imul(hash, spread) >>> this.directoryShift]!;
    const mask = cells.length - 1;
    let at = homeOf(cells, hash);
    for (;;) {
      const found = cells[at + 1]!;
      if (found === 0 || cells[at] === hash) return found - 1;
      at = (at + 2) & mask;
    }
  }

  /** The pair (hash, number) is not there. */
  insert(hash: number, number: number): void {
    const mixed = Math.imul(hash, spread);
    let segment = this.#segments[mixed >>> this.directoryShift]!;
    // At most half full a probe is about one pair long.
    while (segment.count >= this.directory[mixed >>> this.directoryShift]!.length >>> 2) {
      this.#extend(segment, mixed);
      segment = this.#segments[mixed >>> this.directoryShift]!;
    }
    put(this.directory[mixed >>> this.directoryShift]!, hash, number + 1);
    segment.count += 1;
  }

  /** The pair (hash, number) is there. Moves the pairs behind it up: there are no tombstones. */
  remove(hash: number, number: number): void {
    const entry = Math.imul(hash, spread) >>> this.directoryShift;
    const cells = this.directory[entry]!;
    const mask = cells.length - 1;
    let hole = homeOf(cells, hash);
    while (cells[hole + 1] !== number + 1) hole = (hole + 2) & mask;
    let at = hole;
    for (;;) {
      at = (at + 2) & mask;
      if (cells[at + 1] === 0) break;
      // It may move up only as far as its home.
      if (((at - homeOf(cells, cells[at]!)) & mask) < ((at - hole) & mask)) continue;
      cells[hole] = cells[at]!;
      cells[hole + 1] = cells[at + 1]!;
      hole = at;
    }
    cells[hole] = 0;
    cells[hole + 1] = 0;
    this.#segments[entry]!.count -= 1;
  }

  /** Makes room in the segment, which the spread hash `mixed` belongs to. */
  #extend(segment: Segment, mixed: number): void {
    const cells = this.directory[mixed >>> this.directoryShift]!;
    if (cells.length < 2 << splitBits || segment.depth >= depthMax) {
      const larger = new Int32Array(2 * cells.length);
      for (let at = 0; at < cells.length; at += 2) {
        if (cells[at + 1] !== 0) put(larger, cells[at]!, cells[at + 1]!);
      }
      this.#place(segment, mixed, [larger, larger], segment);
      return;
    }
    this.#split(segment, mixed, cells);
  }

  #split(segment: Segment, mixed: number, cells: Int32Array): void {
    const { depth } = segment;
    if (32 - this.directoryShift === depth) {
      this.directory = this.directory.flatMap((entry) => [entry, entry]);
      this.#segments = this.#segments.flatMap((entry) => [entry, entry]);
      this.directoryShift -= 1;
    }
    const lower = new Int32Array(cells.length);
    const upper = new Int32Array(cells.length);
    let uppers = 0;
    for (let at = 0; at < cells.length; at += 2) {
      if (cells[at + 1] === 0) continue;
      const hash = cells[at]!;
      const isUpper = Math.imul(hash, spread) << depth < 0;
      put(isUpper ? upper : lower, hash, cells[at + 1]!);
      if (isUpper) uppers += 1;
    }
    this.#place(segment, mixed, [lower, upper], { depth: depth + 1, count: uppers });
    segment.depth = depth + 1;
    segment.count -= uppers;
  }

  /** A segment's entries in the directory are adjacent: the first half of them gets `lower`, the second `upper`. */
  #place(
    segment: Segment,
    mixed: number,
    [lower, upper]: readonly [Int32Array, Int32Array],
    upperSegment: Segment,
  ): void {
    const { depth } = segment;
    const entries = 2 ** (32 - this.directoryShift - depth);
    const first = depth === 0 ? 0 : (mixed >>> (32 - depth)) * entries;
    for (let i = 0; i < entries; i += 1) {
      const isUpper = 2 * i >= entries;
      this.directory[first + i] = isUpper ? upper : lower;
      this.#segments[first + i] = isUpper ? upperSegment : segment;
    }
  }
}

/** First word of the pair a hash is looked for from. */
export function homeOf(cells: Int32Array, hash: number): number {
  return (hash >>> (Math.clz32(cells.length) + 2)) << 1;
}

function put(cells: Int32Array, hash: number, second: number): void {
  const mask = cells.length - 1;
  let at = homeOf(cells, hash);
  while (cells[at + 1] !== 0) at = (at + 2) & mask;
  cells[at] = hash;
  cells[at + 1] = second;
}
