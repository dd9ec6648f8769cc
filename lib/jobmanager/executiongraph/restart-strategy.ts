/**
 * Restart strategies (pure), by Flink's rules: `none`, `fixed-delay`, and `exponential-delay`, which
 * counts failures that arrive before the pending restart as one.
 */
import type { RestartStrategyConfig } from '../../graph/job-graph.js';
import type { Random } from '../../base/random.js';

export type RestartDecision =
  | { readonly kind: 'restart'; readonly delayMs: number }
  | { readonly kind: 'giveUp'; readonly reason: string };

export interface RestartStrategy {
  /** A failure happened at `now` (monotonic ms): restart, and when. */
  onFailure(now: number): RestartDecision;
}

export function createRestartStrategy(
  config: RestartStrategyConfig,
  random: Random,
): RestartStrategy {
  switch (config.type) {
    case 'none':
      return { onFailure: () => ({ kind: 'giveUp', reason: 'its restart strategy is none' }) };
    case 'fixed-delay':
      return new FixedDelayStrategy(config.attempts, config.delayMs);
    case 'exponential-delay':
      return new ExponentialDelayStrategy(config, random);
  }
}

class FixedDelayStrategy implements RestartStrategy {
  readonly #attemptsMax: number;
  readonly #delayMs: number;
  #attempts = 0;

  constructor(attemptsMax: number, delayMs: number) {
    this.#attemptsMax = attemptsMax;
    this.#delayMs = delayMs;
  }

  onFailure(): RestartDecision {
    this.#attempts += 1;
    if (this.#attempts <= this.#attemptsMax) return { kind: 'restart', delayMs: this.#delayMs };
    return {
      kind: 'giveUp',
      reason: `fixed-delay allows ${String(this.#attemptsMax)} restarts (restart-strategy.fixed-delay.attempts)`,
    };
  }
}

type ExponentialDelay = Extract<RestartStrategyConfig, { type: 'exponential-delay' }>;

class ExponentialDelayStrategy implements RestartStrategy {
  readonly #config: ExponentialDelay;
  readonly #random: Random;
  #backoffMs: number;
  #attempts = 0;
  /** Monotonic ms of the restart decided last. */
  #nextRestart = -Infinity;

  constructor(config: ExponentialDelay, random: Random) {
    this.#config = config;
    this.#random = random;
    this.#backoffMs = config.initialBackoffMs;
  }

  onFailure(now: number): RestartDecision {
    const { initialBackoffMs, maxBackoffMs, backoffMultiplier, resetBackoffThresholdMs } =
      this.#config;
    // The restart that is still to come answers this failure too.
    if (now <= this.#nextRestart) return { kind: 'restart', delayMs: this.#nextRestart - now };
    if (now - this.#nextRestart >= resetBackoffThresholdMs) {
      this.#backoffMs = initialBackoffMs;
      this.#attempts = 0;
    }
    this.#attempts += 1;
    const attemptsMax = this.#config.attemptsBeforeResetBackoff ?? Infinity;
    if (this.#attempts > attemptsMax) {
      return {
        kind: 'giveUp',
        reason: `exponential-delay allows ${String(attemptsMax)} restarts without a quiet period (restart-strategy.exponential-delay.attempts-before-reset-backoff)`,
      };
    }
    const delayMs = this.#jittered(this.#backoffMs);
    this.#backoffMs = Math.min(maxBackoffMs, this.#backoffMs * backoffMultiplier);
    this.#nextRestart = now + delayMs;
    return { kind: 'restart', delayMs };
  }

  #jittered(backoffMs: number): number {
    const { jitterFactor, initialBackoffMs, maxBackoffMs } = this.#config;
    const offset = backoffMs * jitterFactor * (this.#random.next() * 2 - 1);
    return Math.min(maxBackoffMs, Math.max(initialBackoffMs, Math.round(backoffMs + offset)));
  }
}
