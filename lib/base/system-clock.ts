import { performance } from 'node:perf_hooks';
import type { CancelTimer, Clock } from './clock.js';

/** The real clock: the only user of Date, performance and setTimeout. */
export class SystemClock implements Clock {
  now(): number {
    return performance.now();
  }

  wallTime(): number {
    return Date.now();
  }

  setTimer(delayMs: number, fn: () => void): CancelTimer {
    // Node caps timers at 2^31-1 ms and fires longer ones at once.
    const timer = setTimeout(fn, Math.min(Math.max(0, delayMs), 0x7fffffff));
    return () => {
      clearTimeout(timer);
    };
  }
}
