/** How a slot's runtime gives the thread away and gets it back: a port, so that tests decide the interleaving. */
import { setPeriodicTimer, type Clock } from '../base/clock.js';
import { systemRunSoon } from '../base/system-run-soon.js';
import type { Bell } from '../network/bell.js';
import { Sleeper, type SleeperOptions } from '../network/sleeper.js';

export interface SlotLoop {
  /** Runs `fn` once, when other work of the thread had its turn. */
  runSoon(fn: () => void): void;
  /** Runs `fn` once, when the bell has rung since `seen` was read. Returns the canceller. */
  sleep(bell: Bell, seen: number, fn: () => void): () => void;
  /** Keeps the thread alive until the returned function is called: a sleeping bell alone does not. */
  hold(): () => void;
}

const holdPeriodMs = 60_000;

/** The loop of a real thread (worker or main), for one slot. */
export function createSlotLoop(clock: Clock, options?: SleeperOptions): SlotLoop {
  let sleeper: Sleeper | undefined;
  return {
    runSoon: systemRunSoon,
    sleep: (bell, seen, fn) => {
      sleeper ??= new Sleeper(bell, clock, systemRunSoon, options);
      return sleeper.sleep(seen, fn);
    },
    hold: () => setPeriodicTimer(clock, holdPeriodMs, () => undefined),
  };
}

/** A loop that runs only when it is told to: for tests that choose who goes next. */
export class ManualSlotLoop implements SlotLoop {
  #soon: (() => void) | undefined;
  #sleeping: { readonly bell: Bell; readonly seen: number; readonly fn: () => void } | undefined;

  runSoon(fn: () => void): void {
    this.#soon = fn;
  }

  sleep(bell: Bell, seen: number, fn: () => void): () => void {
    const sleeping = { bell, seen, fn };
    this.#sleeping = sleeping;
    return () => {
      if (this.#sleeping === sleeping) this.#sleeping = undefined;
    };
  }

  hold(): () => void {
    return () => undefined;
  }

  /** There is something to run: asked for, or woken by the bell. */
  get isRunnable(): boolean {
    return (
      this.#soon !== undefined ||
      (this.#sleeping !== undefined && this.#sleeping.bell.sequence !== this.#sleeping.seen)
    );
  }

  /** Runs what is runnable; false when nothing was. */
  step(): boolean {
    if (!this.isRunnable) return false;
    const fn = this.#soon ?? this.#sleeping?.fn;
    this.#soon = undefined;
    this.#sleeping = undefined;
    fn?.();
    return true;
  }
}
