/** Randomness as a dependency, so that a seed reproduces a history. */
export interface Random {
  /** A float in [0, 1). */
  next(): number;
  /** `length` lower-case hexadecimal characters. */
  hex(length: number): string;
}

/** Deterministic generator (mulberry32): for tests and rebuilds of main; not for secrets. */
export class SeededRandom implements Random {
  #state: number;

  constructor(seed: number) {
    this.#state = seed >>> 0;
  }

  next(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let t = this.#state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  }

  hex(length: number): string {
    let text = '';
    while (text.length < length) text += Math.floor(this.next() * 16).toString(16);
    return text;
  }
}
