import type { Random } from './random.js';

export interface BackoffOptions {
  readonly initialMs: number;
  readonly maxMs: number;
  readonly multiplier: number;
  /** 0..1: each delay is drawn from delay * (1 ± jitter). */
  readonly jitter: number;
}

/** Delay before attempt number `attempt` (0-based): capped exponential with jitter. */
export function backoffDelay(options: BackoffOptions, attempt: number, random: Random): number {
  const base = Math.min(
    options.maxMs,
    options.initialMs * options.multiplier ** Math.min(attempt, 64),
  );
  return Math.max(0, base * (1 + options.jitter * (random.next() * 2 - 1)));
}
