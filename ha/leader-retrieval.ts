import type { LeadershipWatch } from './leadership-watch.js';
import {
  compareEpochs,
  type LeaderEpoch,
  type LeaderInfo,
  type LeaderRetrieval,
} from './services.js';

/** Who leads, as everybody but the election sees it; an epoch never goes back. */
export class WatchedLeaderRetrieval implements LeaderRetrieval {
  readonly #listeners = new Set<(leader: LeaderInfo | undefined) => void>();
  readonly #unsubscribe: () => void;
  #highest: LeaderEpoch | undefined;
  #current: LeaderInfo | undefined;

  constructor(watch: LeadershipWatch) {
    this.#unsubscribe = watch.subscribe(({ leader }) => {
      this.#update(leader);
    });
  }

  current(): LeaderInfo | undefined {
    return this.#current;
  }

  subscribe(listener: (leader: LeaderInfo | undefined) => void): () => void {
    this.#listeners.add(listener);
    listener(this.#current);
    return () => {
      this.#listeners.delete(listener);
    };
  }

  async close(): Promise<void> {
    this.#unsubscribe();
    this.#listeners.clear();
  }

  #update(leader: LeaderInfo | undefined): void {
    if (leader !== undefined) {
      if (this.#highest !== undefined && compareEpochs(leader.epoch, this.#highest) < 0) return;
      this.#highest = leader.epoch;
    }
    if (isSame(leader, this.#current)) return;
    this.#current = leader;
    for (const listener of [...this.#listeners]) listener(leader);
  }
}

function isSame(a: LeaderInfo | undefined, b: LeaderInfo | undefined): boolean {
  if (a === undefined || b === undefined) return a === b;
  return (
    compareEpochs(a.epoch, b.epoch) === 0 &&
    a.state === b.state &&
    a.rpcAddress === b.rpcAddress &&
    a.restAddress === b.restAddress
  );
}
