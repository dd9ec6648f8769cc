/** Time as a dependency. Everything that waits or measures takes a Clock, so that tests decide when time passes. */

/** Cancels a timer; calling it twice, or after it fired, does nothing. */
export type CancelTimer = () => void;

export interface Clock {
  /** Monotonic milliseconds since an arbitrary origin. Leases, timeouts and durations use this one. */
  now(): number;
  /** Wall-clock milliseconds since the Unix epoch; for stamps people read and processing-time timers, never for leases. */
  wallTime(): number;
  /** Runs `fn` once after `delayMs`; the timer keeps the process alive until it fires or is cancelled. */
  setTimer(delayMs: number, fn: () => void): CancelTimer;
}

/** Waits `delayMs`; ends early, without an error, when the signal aborts. */
export function sleep(clock: Clock, delayMs: number, signal?: AbortSignal): Promise<void> {
  if (signal?.aborted === true) return Promise.resolve();
  return new Promise((resolve) => {
    const done = (): void => {
      cancel();
      signal?.removeEventListener('abort', done);
      resolve();
    };
    const cancel = clock.setTimer(delayMs, done);
    signal?.addEventListener('abort', done, { once: true });
  });
}

/** Runs `fn` every `periodMs` until cancelled; a run never overlaps the next, as `fn` is synchronous. */
export function setPeriodicTimer(clock: Clock, periodMs: number, fn: () => void): CancelTimer {
  let cancelled = false;
  let cancel: CancelTimer = () => undefined;
  const arm = (): void => {
    cancel = clock.setTimer(periodMs, () => {
      fn();
      if (!cancelled) arm();
    });
  };
  arm();
  return () => {
    cancelled = true;
    cancel();
  };
}
