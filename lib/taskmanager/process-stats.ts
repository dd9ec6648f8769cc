/** What a heartbeat says of the process. */
import { monitorEventLoopDelay } from 'node:perf_hooks';
import type { Env } from '../base/env.js';
import type { HeartbeatPayload } from '../gateway/taskmanager-gateway.js';

/** A main thread that stands still for longer than this is warned of; it owns the sockets of all slots. */
const warnLagMs = 500;
const warnPauseMs = 10_000;

/** Each call reports the worst lag since the one before. */
export function createProcessStats(
  env: Env,
  networkMemoryBytes: () => number,
): () => HeartbeatPayload['process'] {
  const resolution = 20;
  const delay = monitorEventLoopDelay({ resolution });
  delay.enable();
  let warnedAt = -Infinity;
  return () => {
    const { heapUsed } = process.memoryUsage();
    // The histogram counts the whole time between samples, of which `resolution` is meant.
    const lag = delay.count === 0 ? 0 : delay.max / 1e6 - resolution;
    delay.reset();
    const eventLoopLagMs = Math.max(0, Math.round(lag));
    const now = env.clock.now();
    if (eventLoopLagMs >= warnLagMs && now - warnedAt >= warnPauseMs) {
      warnedAt = now;
      env.log.warn(
        { event: 'process.blocked', lagMs: eventLoopLagMs },
        'the main thread, which owns the sockets, stood still',
      );
    }
    return {
      rssBytes: process.memoryUsage.rss(),
      heapUsedBytes: heapUsed,
      eventLoopLagMs,
      networkMemoryBytes: networkMemoryBytes(),
    };
  };
}
