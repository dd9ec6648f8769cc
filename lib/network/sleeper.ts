/**
 * How the owner of a bell waits for it. Going to sleep and being woken costs some 50 us, more than the gap between
 * two buffers under load: then it polls first, between rounds of the event loop, and its peers need not wake it.
 * Polls that find nothing, because there is little to do or because the peer needs this very core, are followed
 * by ever more sleeps without one. So an idle job burns nothing.
 */
import type { Clock } from '../base/clock.js';
import type { Bell } from './bell.js';

export interface SleeperOptions {
  /** Longest time spent polling before a sleep, ms (0.1); 0: never. */
  readonly maxPollMs?: number;
}

/** After polls in vain, at most so many sleeps go without one. */
const maxPenalty = 1024;
/** A poll that took so many times what it may was interrupted by whoever else needs the core. */
const interrupted = 4;

interface Wait {
  readonly seen: number;
  readonly wake: () => void;
  cancelSleep: (() => void) | undefined;
}

export class Sleeper {
  readonly #bell: Bell;
  readonly #clock: Clock;
  readonly #runSoon: (fn: () => void) => void;
  readonly #maxPollMs: number;
  /** Sleeps without a poll after the next poll in vain, and how many of them are left. */
  #penalty = 0;
  #skips = 0;
  /** The wait that is under way, if any. */
  #wait: Wait | undefined;

  constructor(
    bell: Bell,
    clock: Clock,
    runSoon: (fn: () => void) => void,
    options: SleeperOptions = {},
  ) {
    this.#bell = bell;
    this.#clock = clock;
    this.#runSoon = runSoon;
    this.#maxPollMs = options.maxPollMs ?? 0.1;
  }

  /** As Bell.sleep: calls `wake` once, asynchronously, when the bell has rung since `seen` was read; answers the canceller. */
  sleep(seen: number, wake: () => void): () => void {
    const wait: Wait = { seen, wake, cancelSleep: undefined };
    this.#wait = wait;
    if (this.#skips > 0 || this.#maxPollMs === 0) {
      this.#skips -= 1;
      this.#doze(wait);
    } else this.#poll(wait);
    return () => {
      if (this.#wait !== wait) return;
      this.#wait = undefined;
      // Woken otherwise while it polled: that was worth it too.
      if (wait.cancelSleep === undefined) this.#penalty >>= 1;
      else wait.cancelSleep();
    };
  }

  #poll(wait: Wait): void {
    const since = this.#clock.now();
    const look = (): void => {
      if (this.#wait !== wait) return;
      const lasted = this.#clock.now() - since;
      const isRung = this.#bell.sequence !== wait.seen;
      if (!isRung && lasted < this.#maxPollMs) {
        this.#runSoon(look);
        return;
      }
      if (isRung && lasted < interrupted * this.#maxPollMs) this.#penalty >>= 1;
      else {
        this.#penalty = Math.min(maxPenalty, 2 * this.#penalty + 1);
        this.#skips = this.#penalty;
      }
      if (isRung) this.#end(wait);
      else this.#doze(wait);
    };
    this.#runSoon(look);
  }

  #doze(wait: Wait): void {
    wait.cancelSleep = this.#bell.sleep(wait.seen, () => this.#end(wait));
  }

  #end(wait: Wait): void {
    if (this.#wait !== wait) return;
    this.#wait = undefined;
    wait.wake();
  }
}
