/** Metrics of a leader, under Flink's names; labels say the scope. */
import type { MetricSample } from '../../base/metrics.js';
import type { ClusterOverview, TaskManagerView } from '../../gateway/client-gateway.js';
import type { JobMaster } from '../jobmaster/job-master.js';

const gauge = (name: string, labels: Record<string, string>, value: number): MetricSample => ({
  name,
  type: 'gauge',
  labels,
  value,
});
const counter = (name: string, labels: Record<string, string>, value: number): MetricSample => ({
  name,
  type: 'counter',
  labels,
  value,
});

export function clusterMetrics(overview: ClusterOverview): MetricSample[] {
  return [
    gauge('numRegisteredTaskManagers', {}, overview.taskmanagers),
    gauge('taskSlotsTotal', {}, overview['slots-total']),
    gauge('taskSlotsAvailable', {}, overview['slots-available']),
    gauge('numRunningJobs', {}, overview['jobs-running']),
  ];
}

/** Of each TaskManager, as its last heartbeat said. */
export function taskManagerMetrics(taskManagers: readonly TaskManagerView[]): MetricSample[] {
  return taskManagers.flatMap(({ id, process }) => [
    gauge('Status_Shuffle_Netty_UsedMemory', { tm_id: id }, process.networkMemoryBytes),
    gauge('Status_Memory_Resident', { tm_id: id }, process.rssBytes),
    gauge('eventLoopLagMs', { tm_id: id }, process.eventLoopLagMs),
  ]);
}

export function jobMetrics(job: JobMaster, wallTime: number): MetricSample[] {
  const labels = { job_id: job.graph.jobId, job_name: job.graph.name };
  const statistics = job.checkpointStatistics();
  const completed = statistics?.latest.completed;
  return [
    gauge('uptime', labels, job.runningSince < 0 ? 0 : wallTime - job.runningSince),
    counter('numRestarts', labels, job.restartCount),
    counter('numberOfCompletedCheckpoints', labels, statistics?.counts.completed ?? 0),
    counter('numberOfFailedCheckpoints', labels, statistics?.counts.failed ?? 0),
    gauge('numberOfInProgressCheckpoints', labels, statistics?.counts.in_progress ?? 0),
    gauge('lastCheckpointDuration', labels, completed?.end_to_end_duration ?? -1),
    gauge('lastCheckpointSize', labels, completed?.state_size ?? -1),
    ...taskMetrics(job, labels),
  ];
}

function taskMetrics(job: JobMaster, jobLabels: Record<string, string>): MetricSample[] {
  return job.taskMetrics().flatMap(({ vertex, metrics }) => {
    const labels = {
      ...jobLabels,
      task_id: vertex.subtask.vertex.id,
      task_name: vertex.subtask.vertex.name,
      subtask_index: String(vertex.subtask.subtaskIndex),
      task_attempt_id: metrics.attemptId,
      tm_id: vertex.current?.location?.taskManagerId ?? '',
    };
    const { currentInputWatermark, currentOutputWatermark } = metrics;
    const samples = [
      counter('numRecordsIn', labels, metrics.numRecordsIn),
      counter('numRecordsOut', labels, metrics.numRecordsOut),
      counter('numBytesIn', labels, metrics.numBytesIn),
      counter('numBytesOut', labels, metrics.numBytesOut),
      counter('numLateRecordsDropped', labels, metrics.numLateRecordsDropped),
      counter('accumulateBusyTimeMs', labels, metrics.busyMs),
      counter('accumulateBackPressuredTimeMs', labels, metrics.backPressuredMs),
      counter('accumulateIdleTimeMs', labels, metrics.idleMs),
      ...(currentInputWatermark === undefined
        ? []
        : [gauge('currentInputWatermark', labels, currentInputWatermark)]),
      ...(currentOutputWatermark === undefined
        ? []
        : [gauge('currentOutputWatermark', labels, currentOutputWatermark)]),
    ];
    const user = (metrics.user ?? []).map((sample) => ({
      ...sample,
      labels: { ...labels, ...sample.labels },
    }));
    return [...samples, ...user];
  });
}
