/**
 * The table of metrics: names are Flink's wherever Flink has one, so that existing dashboards work.
 * docs/reference/metrics.md is generated from it. Code uses the short name (`numRecordsIn`) with the
 * labels of its scope; the exposition puts the scope's prefix before it.
 */
export type MetricScope = 'cluster' | 'job' | 'task' | 'jobmanager' | 'taskmanager';

export interface MetricDefinition {
  readonly name: string;
  readonly scope: MetricScope;
  readonly type: 'counter' | 'gauge';
  readonly unit: string;
  readonly meaning: string;
}

interface ScopeDefinition {
  /** Before the name in the exposition: Flink's scope formats with `.` as `_`. */
  readonly prefix: string;
  readonly labels: readonly string[];
}

export const metricScopes: Readonly<Record<MetricScope, ScopeDefinition>> = {
  cluster: { prefix: 'flink_jobmanager_', labels: ['host'] },
  job: { prefix: 'flink_jobmanager_job_', labels: ['host', 'job_id', 'job_name'] },
  task: {
    prefix: 'flink_taskmanager_job_task_',
    labels: [
      'host',
      'tm_id',
      'job_id',
      'job_name',
      'task_id',
      'task_name',
      'subtask_index',
      'task_attempt_id',
      'task_attempt_num',
    ],
  },
  jobmanager: { prefix: 'flink_jobmanager_Status_', labels: ['host'] },
  taskmanager: { prefix: 'flink_taskmanager_Status_', labels: ['host', 'tm_id'] },
};

const row =
  (scope: MetricScope, type: 'counter' | 'gauge') =>
  (name: string, unit: string, meaning: string): MetricDefinition => ({
    name,
    scope,
    type,
    unit,
    meaning,
  });

const cluster = row('cluster', 'gauge');
const job = row('job', 'gauge');
const taskCounter = row('task', 'counter');
const task = row('task', 'gauge');

export const metricDefinitions: readonly MetricDefinition[] = [
  cluster('numRegisteredTaskManagers', 'TaskManagers', 'Registered TaskManagers.'),
  cluster('numRunningJobs', 'jobs', 'Jobs that have not ended.'),
  cluster('taskSlotsTotal', 'slots', 'Slots of all registered TaskManagers.'),
  cluster('taskSlotsAvailable', 'slots', 'Slots no job holds.'),
  cluster(
    'leaderEpochEra',
    'era',
    'Era of the current leadership; raised when etcd is restored from a backup.',
  ),
  cluster(
    'leaderEpochRevision',
    'revision',
    'Create revision of the leader’s candidate key in etcd.',
  ),

  job('uptime', 'ms', 'Time since the job last became RUNNING; 0 while it is not.'),
  job(
    'downtime',
    'ms',
    'Time since the job stopped running; 0 while it runs, -1 once it has ended.',
  ),
  job('runningTime', 'ms', 'Time the job was RUNNING, in total.'),
  job('restartingTime', 'ms', 'Time the job spent in the current or last restart.'),
  row('job', 'counter')(
    'numRestarts',
    'restarts',
    'Restarts since the job was submitted, those of earlier leaders included.',
  ),
  row('job', 'counter')('fullRestarts', 'restarts', 'The same under Flink’s older name.'),
  job('numberOfCompletedCheckpoints', 'checkpoints', 'Completed under this leader.'),
  job('numberOfFailedCheckpoints', 'checkpoints', 'Failed under this leader.'),
  job('numberOfInProgressCheckpoints', 'checkpoints', 'In progress.'),
  job('totalNumberOfCheckpoints', 'checkpoints', 'Triggered under this leader.'),
  job(
    'lastCheckpointDuration',
    'ms',
    'From trigger to completion of the last completed checkpoint.',
  ),
  job('lastCheckpointSize', 'bytes', 'State of the last completed checkpoint.'),
  job('lastCompletedCheckpointId', 'id', 'Its id.'),
  job(
    'lastCheckpointRestoreTimestamp',
    'ms since 1970',
    'When the job was last restored from a checkpoint; -1 if never.',
  ),

  taskCounter(
    'numRecordsIn',
    'records',
    'Records the task took from its inputs, or its source read.',
  ),
  taskCounter('numRecordsOut', 'records', 'Records the task emitted, to each of its outputs once.'),
  taskCounter('numBytesIn', 'bytes', 'Bytes of buffers the task took from other slots.'),
  taskCounter('numBytesOut', 'bytes', 'Bytes of buffers the task sent to other slots.'),
  taskCounter(
    'numLateRecordsDropped',
    'records',
    'Records dropped because their window was past its allowed lateness.',
  ),
  task('busyTimeMsPerSecond', 'ms/s', 'Time the task worked.'),
  task(
    'backPressuredTimeMsPerSecond',
    'ms/s',
    'Time the task could have worked but for a full output.',
  ),
  task('idleTimeMsPerSecond', 'ms/s', 'Time the task had no input.'),
  taskCounter('accumulateBusyTimeMs', 'ms', 'Time the task worked, in total.'),
  taskCounter(
    'accumulateBackPressuredTimeMs',
    'ms',
    'Time the task waited for a full output, in total.',
  ),
  taskCounter('accumulateIdleTimeMs', 'ms', 'Time the task had no input, in total.'),
  task(
    'currentInputWatermark',
    'ms since 1970',
    'Event time of the last watermark the task took; absent before the first.',
  ),
  task(
    'currentOutputWatermark',
    'ms since 1970',
    'Event time of the last watermark the task emitted; absent before the first.',
  ),

  ...(['jobmanager', 'taskmanager'] as const).flatMap((scope) => [
    row(scope, 'gauge')('Process_Memory_RSS', 'bytes', 'Resident memory of the process.'),
    row(scope, 'gauge')('Heap_Used', 'bytes', 'V8 heap in use on the main thread.'),
    row(scope, 'gauge')(
      'EventLoop_Lag',
      'ms',
      'Delay of the main thread’s event loop, mean since the last report.',
    ),
  ]),
];

/** Name in the exposition: `flink_taskmanager_job_task_numRecordsIn`. */
export function prometheusName(metric: {
  readonly scope: MetricScope;
  readonly name: string;
}): string {
  return metricScopes[metric.scope].prefix + metric.name;
}
