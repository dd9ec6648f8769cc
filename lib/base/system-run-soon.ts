/** Runs `fn` once the event loop has served pending I/O and timers; yielding by `await` alone starves both. */
export function systemRunSoon(fn: () => void): void {
  setImmediate(fn);
}
