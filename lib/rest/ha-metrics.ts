/** Metrics of a JobManager's own process and leadership, taken when somebody asks for them. */
import { monitorEventLoopDelay } from 'node:perf_hooks';
import type { TakeoverRecord } from '../../ha/services.js';
import type { MetricSample } from '../base/metrics.js';
import type { HaObserver, OwnLeadership } from './ha-observer.js';
import { toTakeoverView } from './ha-view.js';

const gauge = (name: string, value: number): MetricSample => ({
  name,
  type: 'gauge',
  labels: {},
  value,
});

const stateNumbers = { RECOVERING: 1, ACTIVE: 2, SUSPENDED: 3 } as const;

/** @param takeover the last one this process led. */
export function haMetrics(
  own: OwnLeadership | undefined,
  takeover: TakeoverRecord | undefined,
): MetricSample[] {
  if (own === undefined) return [gauge('leadershipState', 0)];
  const { leader } = own;
  const samples = [
    gauge('leadershipState', stateNumbers[leader.state]),
    gauge('leaderEra', leader.epoch.era),
    gauge('leaderEpoch', leader.epoch.revision),
  ];
  if (takeover?.epoch.revision !== leader.epoch.revision) return samples;
  const { phases, jobs } = toTakeoverView(takeover);
  return [
    ...samples,
    gauge('takeoverElectedMs', phases.elected),
    gauge('takeoverRecoveredMs', phases.recovered),
    gauge('takeoverActiveMs', phases.active),
    ...(phases.settled === null ? [] : [gauge('takeoverSettledMs', phases.settled)]),
    gauge('takeoverJobsAdopted', jobs.adopted),
    gauge('takeoverJobsRestored', jobs.restored),
    gauge('takeoverJobsFailed', jobs.failed),
  ];
}

/** Each call reports the event loop's delays since the one before. Without an observer there is nothing to tell. */
export function createProcessMetrics(
  own: () => OwnLeadership | undefined = () => undefined,
  observer: HaObserver | undefined,
): () => Promise<MetricSample[]> {
  if (observer === undefined) return () => Promise.resolve([]);
  const resolution = 20;
  const delay = monitorEventLoopDelay({ resolution });
  delay.enable();
  // The histogram counts the whole time between samples, of which `resolution` is meant.
  const lag = (nanoseconds: number): number =>
    delay.count === 0 ? 0 : Math.max(0, Math.round(nanoseconds / 1e6 - resolution));
  return async () => {
    const samples = [
      ...haMetrics(own(), await observer.lastOwnTakeover()),
      gauge('eventLoopLagP99Ms', lag(delay.percentile(99))),
      gauge('eventLoopLagMaxMs', lag(delay.max)),
      gauge('Status_Memory_Resident', process.memoryUsage.rss()),
      gauge('Status_Memory_HeapUsed', process.memoryUsage().heapUsed),
    ];
    delay.reset();
    return samples;
  };
}
