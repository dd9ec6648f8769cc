import type { Clock } from '../../lib/base/clock.js';
import type { Env } from '../../lib/base/env.js';
import { silentLogger } from '../../lib/base/logger.js';
import { MetricRegistry } from '../../lib/base/metrics.js';
import { createLogger } from '../../lib/base/pino-logger.js';
import { SeededRandom, type Random } from '../../lib/base/random.js';
import { SystemClock } from '../../lib/base/system-clock.js';
import { SystemRandom } from '../../lib/base/system-random.js';

/** An Env for tests: the given clock with a seed, or the real ones. MILLRACE_TEST_LOG=debug shows logs. */
export function testEnv(clock?: Clock, seed = 1): Env {
  const random: Random = clock === undefined ? new SystemRandom() : new SeededRandom(seed);
  const level = process.env['MILLRACE_TEST_LOG'];
  return {
    clock: clock ?? new SystemClock(),
    random,
    log: level === 'debug' ? createLogger({ level: 'debug', destination: 2 }) : silentLogger,
    metrics: new MetricRegistry(),
  };
}
