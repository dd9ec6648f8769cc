import { readFileSync } from 'node:fs';

/** How long a process's main thread was ready to run and had no processor: Linux counts it, elsewhere it is 0. */
export class Starvation {
  readonly #path: string;
  #lastMs: number;

  constructor(pid: number) {
    this.#path = `/proc/${String(pid)}/schedstat`;
    this.#lastMs = this.#totalMs() ?? 0;
  }

  /** Ms since it was asked last, or since the beginning. */
  sinceLast(): number {
    const totalMs = this.#totalMs();
    if (totalMs === undefined) return 0;
    const since = totalMs - this.#lastMs;
    this.#lastMs = totalMs;
    return since;
  }

  /** Second field: ns. */
  #totalMs(): number | undefined {
    try {
      const waited = Number(readFileSync(this.#path, 'latin1').split(' ')[1]);
      return Number.isFinite(waited) ? waited / 1e6 : undefined;
    } catch {
      return undefined;
    }
  }
}
