/** What a heartbeat says of the process. */
import { monitorEventLoopDelay } from 'node:perf_hooks';
import type { HeartbeatPayload } from '../gateway/taskmanager-gateway.js';

/** Each call reports the worst lag since the one before. */
export function createProcessStats(): () => HeartbeatPayload['process'] {
  const resolution = 20;
  const delay = monitorEventLoopDelay({ resolution });
  delay.enable();
  return () => {
    const { heapUsed } = process.memoryUsage();
    // The histogram counts the whole time between samples, of which `resolution` is meant.
    const lag = delay.count === 0 ? 0 : delay.max / 1e6 - resolution;
    delay.reset();
    return {
      rssBytes: process.memoryUsage.rss(),
      heapUsedBytes: heapUsed,
      eventLoopLagMs: Math.max(0, Math.round(lag)),
    };
  };
}
