import type { Clock } from './clock.js';
import type { Logger } from './logger.js';
import type { MetricRegistry } from './metrics.js';
import type { Random } from './random.js';

/** What every component with behaviour is handed first: nothing reads these from the surroundings. */
export interface Env {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  readonly metrics: MetricRegistry;
}

/** The same Env, logging under a component's name. */
export function childEnv(env: Env, component: string, fields: Readonly<Record<string, unknown>> = {}): Env {
  return { ...env, log: env.log.child({ component, ...fields }) };
}
