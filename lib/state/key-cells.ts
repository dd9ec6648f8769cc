/**
 * The cells of an open-addressing table from 32-bit hashes to numbers: pairs [hash, number + 1] in typed
 * arrays, probed linearly. Extendible hashing: a segment that is full is doubled up to 2^14 pairs, then split in
 * two, so that no insertion moves more than that, whatever the size of the table. Who owns the numbers decides what
 * they mean and whether equal hashes are equal keys.
 */

/** Hashes of one subtask share low bits (the key group): its high bits depend on every bit. */
export const spread = 0x9e3779b1 | 0;

/** log2 of the pairs of a segment at which it splits. */
const splitBits = 14;
/** Deeper segments have too few bits of the hash left to be split further; they are doubled. */
const depthMax = 32 - splitBits - 1;
const initialBits = 4;

export class Segment {
  /** Pairs [hash, number + 1]; a second word of 0 is an empty pair. */
  cells: Int32Array;
  /** Leading bits of the spread hash that choose the segment. */
  depth: number;
  /** 32 - log2(pairs): the bits after those choose the pair. */
  shift: number;
  count = 0;

  constructor(bits: number, depth: number) {
    this.cells = new Int32Array(2 << bits);
    this.depth = depth;
    this.shift = 32 - bits;
  }
}

export class KeyCells {
  /** By the leading bits of the spread hash; at least two entries, as a shift by 32 is none. */
  directory: Segment[];
  directoryShift = 31;

  /** @param expected how many entries it will probably hold */
  constructor(expected = 0) {
    let bits = initialBits;
    while (bits < splitBits && limitOf(1 << bits) < expected) bits += 1;
    const segment = new Segment(bits, 0);
    this.directory = [segment, segment];
  }

  /** The number of a hash; -1 when it is not there. Only where equal hashes are equal keys. */
  find(hash: number): number {
    const mixed = Math.imul(hash, spread);
    const segment = this.directory[mixed >>> this.directoryShift]!;
    const { cells } = segment;
    const mask = cells.length - 1;
    let at = ((mixed << segment.depth) >>> segment.shift) << 1;
    for (;;) {
      const found = cells[at + 1]!;
      if (found === 0 || cells[at] === hash) return found - 1;
      at = (at + 2) & mask;
    }
  }

  /** The pair (hash, number) is not there. */
  insert(hash: number, number: number): void {
    const mixed = Math.imul(hash, spread);
    let segment = this.directory[mixed >>> this.directoryShift]!;
    while (segment.count >= limitOf(segment.cells.length >>> 1)) {
      this.#extend(segment, mixed);
      segment = this.directory[mixed >>> this.directoryShift]!;
    }
    put(segment, hash, number + 1);
  }

  /** The pair (hash, number) is there. Moves the pairs behind it up: there are no tombstones. */
  remove(hash: number, number: number): void {
    const mixed = Math.imul(hash, spread);
    const segment = this.directory[mixed >>> this.directoryShift]!;
    const { cells, depth, shift } = segment;
    const mask = cells.length - 1;
    let hole = ((mixed << depth) >>> shift) << 1;
    while (cells[hole + 1] !== number + 1) hole = (hole + 2) & mask;
    let at = hole;
    for (;;) {
      at = (at + 2) & mask;
      if (cells[at + 1] === 0) break;
      const home = ((Math.imul(cells[at]!, spread) << depth) >>> shift) << 1;
      // It may move up only as far as its home.
      if (((at - home) & mask) < ((at - hole) & mask)) continue;
      cells[hole] = cells[at]!;
      cells[hole + 1] = cells[at + 1]!;
      hole = at;
    }
    cells[hole] = 0;
    cells[hole + 1] = 0;
    segment.count -= 1;
  }

  #extend(segment: Segment, mixed: number): void {
    const pairs = segment.cells.length >>> 1;
    if (pairs >= 1 << splitBits && segment.depth < depthMax) this.#split(segment, mixed);
    else refill(segment, pairs * 2);
  }

  /** `mixed` is a spread hash that belongs to the segment. */
  #split(segment: Segment, mixed: number): void {
    const { depth } = segment;
    if (32 - this.directoryShift === depth) {
      this.directory = this.directory.flatMap((entry) => [entry, entry]);
      this.directoryShift -= 1;
    }
    const pairs = segment.cells.length >>> 1;
    const upper = new Segment(Math.log2(pairs), depth + 1);
    const before = segment.cells;
    segment.cells = new Int32Array(before.length);
    segment.depth = depth + 1;
    segment.count = 0;
    for (let at = 0; at < before.length; at += 2) {
      if (before[at + 1] === 0) continue;
      const hash = before[at]!;
      const isUpper = ((Math.imul(hash, spread) << depth) | 0) < 0;
      put(isUpper ? upper : segment, hash, before[at + 1]!);
    }
    // Its entries in the directory are adjacent; the second half of them goes to the new segment.
    const prefix = depth === 0 ? 0 : mixed >>> (32 - depth);
    const entries = 2 ** (32 - this.directoryShift - depth);
    const first = prefix * entries;
    for (let i = first + entries / 2; i < first + entries; i += 1) this.directory[i] = upper;
  }
}

/** At 5/8 full a probe is about two pairs long. */
function limitOf(pairs: number): number {
  return (pairs >>> 1) + (pairs >>> 3);
}

function put(segment: Segment, hash: number, second: number): void {
  const { cells } = segment;
  const mask = cells.length - 1;
  let at = ((Math.imul(hash, spread) << segment.depth) >>> segment.shift) << 1;
  while (cells[at + 1] !== 0) at = (at + 2) & mask;
  cells[at] = hash;
  cells[at + 1] = second;
  segment.count += 1;
}

function refill(segment: Segment, pairs: number): void {
  const before = segment.cells;
  segment.cells = new Int32Array(2 * pairs);
  segment.shift -= 1;
  segment.count = 0;
  for (let at = 0; at < before.length; at += 2) {
    if (before[at + 1] !== 0) put(segment, before[at]!, before[at + 1]!);
  }
}
