/**
 * How many things that take a CPU to start do so at once. Whoever waited long goes ahead all the same: one that hangs
 * must not hold up others.
 */
import type { Clock } from '../../base/clock.js';
import { Deferred } from '../../base/deferred.js';

export class StartLimit {
  readonly #clock: Clock;
  readonly #max: number;
  readonly #waitMs: number;
  #starting = 0;
  readonly #waiting: Deferred<void>[] = [];

  constructor(clock: Clock, max: number, waitMs: number) {
    this.#clock = clock;
    this.#max = max;
    this.#waitMs = waitMs;
  }

  /** Resolves when it may start; with what says that it has, which may be called more than once. */
  async begin(): Promise<() => void> {
    if (this.#starting < this.#max) this.#starting += 1;
    else await this.#turn();
    let isOver = false;
    return () => {
      if (isOver) return;
      isOver = true;
      this.#starting -= 1;
      const next = this.#starting < this.#max ? this.#waiting[0] : undefined;
      if (next !== undefined) this.#letGo(next);
    };
  }

  async #turn(): Promise<void> {
    const turn = new Deferred<void>();
    this.#waiting.push(turn);
    const cancel = this.#clock.setTimer(this.#waitMs, () => {
      this.#letGo(turn);
    });
    await turn.promise;
    cancel();
  }

  #letGo(turn: Deferred<void>): void {
    this.#waiting.splice(this.#waiting.indexOf(turn), 1);
    this.#starting += 1;
    turn.resolve();
  }
}
