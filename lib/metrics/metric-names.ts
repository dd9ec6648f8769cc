/**
 * The table of metrics: names are Flink's wherever Flink has one, so that existing dashboards work.
 * docs/reference/metrics.md is generated from it. Code uses the short name (`numRecordsIn`) with the
 * labels of its scope; the exposition puts the scope's prefix before it.
 */
export type MetricScope = 'jobmanager' | 'taskmanager' | 'job' | 'task';

export interface MetricDefinition {
  readonly name: string;
  readonly scope: MetricScope;
  readonly type: 'counter' | 'gauge' | 'histogram';
  readonly unit: string;
  readonly meaning: string;
}

interface ScopeDefinition {
  /** Before the name in the exposition: Flink's scope formats with `.` as `_`. */
  readonly prefix: string;
  readonly labels: readonly string[];
}

const jobLabels = ['job_id', 'job_name'];

export const metricScopes: Readonly<Record<MetricScope, ScopeDefinition>> = {
  jobmanager: { prefix: 'flink_jobmanager_', labels: [] },
  taskmanager: { prefix: 'flink_taskmanager_', labels: ['tm_id'] },
  job: { prefix: 'flink_jobmanager_job_', labels: jobLabels },
  task: {
    prefix: 'flink_taskmanager_job_task_',
    labels: ['tm_id', ...jobLabels, 'task_id', 'task_name', 'subtask_index', 'task_attempt_id'],
  },
};

const row =
  (scope: MetricScope, type: MetricDefinition['type']) =>
  (name: string, unit: string, meaning: string): MetricDefinition => ({
    name,
    scope,
    type,
    unit,
    meaning,
  });

const jobManager = row('jobmanager', 'gauge');
const jobManagerCounter = row('jobmanager', 'counter');
const jobManagerHistogram = row('jobmanager', 'histogram');
const taskManager = row('taskmanager', 'gauge');
const job = row('job', 'gauge');
const jobCounter = row('job', 'counter');
const task = row('task', 'gauge');
const taskCounter = row('task', 'counter');

export const metricDefinitions: readonly MetricDefinition[] = [
  jobManager('numRegisteredTaskManagers', 'TaskManagers', 'Registered TaskManagers.'),
  jobManager('numRunningJobs', 'jobs', 'Jobs that have not ended.'),
  jobManager('taskSlotsTotal', 'slots', 'Slots of all registered TaskManagers.'),
  jobManager('taskSlotsAvailable', 'slots', 'Slots no job holds.'),
  jobManager(
    'leadershipState',
    'state',
    'Of this JobManager: 0 standby, 1 recovering, 2 active, 3 suspended. Exactly one of a cluster is at 2.',
  ),
  jobManager(
    'leaderEra',
    'number',
    'Of a leader: the first part of its epoch, raised by an import.',
  ),
  jobManager(
    'leaderEpoch',
    'number',
    'Of a leader: the second part of its epoch, higher with every leader.',
  ),
  jobManager(
    'takeoverElectedMs',
    'ms',
    'Of a leader: from the notice that its predecessor was gone to its own election.',
  ),
  jobManager('takeoverRecoveredMs', 'ms', 'Likewise, until jobs and TaskManagers were read.'),
  jobManager('takeoverActiveMs', 'ms', 'Likewise, until it was active.'),
  jobManager(
    'takeoverSettledMs',
    'ms',
    'Likewise, until every job was adopted, restored or given up; absent before.',
  ),
  jobManager('takeoverJobsAdopted', 'jobs', 'Jobs whose tasks went on when it took over.'),
  jobManager('takeoverJobsRestored', 'jobs', 'Jobs it restored from their last checkpoint.'),
  jobManager('takeoverJobsFailed', 'jobs', 'Jobs it could not recover.'),
  jobManager(
    'eventLoopLagP99Ms',
    'ms',
    'Delay of this JobManager’s main thread: 99 % of turns since the last scrape were later by at most this.',
  ),
  jobManager('eventLoopLagMaxMs', 'ms', 'The longest such delay since the last scrape.'),
  jobManager('Status_Memory_Resident', 'bytes', 'Resident memory of this JobManager.'),
  jobManager('Status_Memory_HeapUsed', 'bytes', 'Of it, objects of JavaScript.'),
  jobManager(
    'leaseSlackMs',
    'ms',
    'At the last renewal: time left until the leader would have suspended itself; negative when it had.',
  ),
  jobManagerHistogram(
    'leaseSlackAtRenewalMs',
    'ms',
    'The same of every renewal: how close to its end a lease came.',
  ),
  jobManager('leaseSlackMinMs', 'ms', 'The least of them since the process started.'),
  jobManagerCounter(
    'leaseRenewals',
    'requests',
    'Renewals of a lease that an etcd member (label `endpoint`) answered.',
  ),
  jobManagerCounter(
    'leaseRenewalFailures',
    'requests',
    'Renewals that an etcd member (label `endpoint`) did not answer in time or at all.',
  ),
  jobManagerCounter('leaseFailures', 'requests', 'Grants and renewals of a lease that failed.'),
  jobManagerCounter(
    'etcdFailures',
    'requests',
    'Requests an etcd member (label `endpoint`) did not answer in time or at all.',
  ),
  jobManagerCounter(
    'etcdHedgedReads',
    'requests',
    'Reads that were sent to another etcd member as well, since the first had not answered within 150 ms.',
  ),
  jobManagerCounter(
    'etcdHedgedReadsWon',
    'requests',
    'Of them, those the other member answered first.',
  ),
  jobManagerCounter(
    'etcdCertificateReloads',
    'reloads',
    'Times that changed certificate files for etcd were taken into use.',
  ),
  jobManager('etcdNoSpace', 'state', '1 while etcd refuses writes for want of space, else 0.'),
  jobManager(
    'etcdDbSizeBytes',
    'bytes',
    'Database file of an etcd member (label `endpoint`), looked at every 30 s.',
  ),
  jobManagerCounter(
    'unknownOutcomes',
    'writes',
    'Writes whose answer was lost; they are sent again.',
  ),
  jobManagerCounter(
    'unknownOutcomesCommitted',
    'writes',
    'Of these, writes that turned out to have happened.',
  ),
  jobManagerCounter(
    'orphanFilesDeleted',
    'files',
    'Checkpoint directories and files of large values that nothing named and the leader deleted.',
  ),
  jobManagerCounter('jobResultsExpired', 'jobs', 'Ended jobs that were forgotten (`jobstore.*`).'),
  jobManagerCounter('fencedOut', 'writes', 'Writes refused because another leader had taken over.'),
  jobManagerCounter(
    'watchResyncCorrections',
    'corrections',
    'Times a resync found what a watch had missed.',
  ),

  taskManager(
    'Status_Shuffle_Netty_UsedMemory',
    'bytes',
    'Buffers of the channels of all slots of the TaskManager.',
  ),
  taskManager('Status_Memory_Resident', 'bytes', 'Resident memory of the process.'),
  taskManager(
    'eventLoopLagMs',
    'ms',
    'Worst delay of the main thread, which owns the sockets, between two heartbeats.',
  ),
  job('uptime', 'ms', 'Time since the job last became RUNNING; 0 while it is not.'),
  jobCounter('numRestarts', 'restarts', 'Restarts of tasks under this leader.'),
  jobCounter('numberOfCompletedCheckpoints', 'checkpoints', 'Completed under this leader.'),
  jobCounter('numberOfFailedCheckpoints', 'checkpoints', 'Failed under this leader.'),
  job('numberOfInProgressCheckpoints', 'checkpoints', 'In progress.'),
  job(
    'lastCheckpointDuration',
    'ms',
    'From trigger to completion of the last completed checkpoint; -1 before the first.',
  ),
  job(
    'lastCheckpointSize',
    'bytes',
    'State of the last completed checkpoint; -1 before the first.',
  ),

  taskCounter('numRecordsIn', 'records', 'Records the task took from its inputs; 0 for a source.'),
  taskCounter(
    'numRecordsOut',
    'records',
    'Records the task emitted, counted once for each output.',
  ),
  taskCounter('numBytesIn', 'bytes', 'Bytes of buffers the task took.'),
  taskCounter('numBytesOut', 'bytes', 'Bytes of buffers the task sent.'),
  taskCounter(
    'numLateRecordsDropped',
    'records',
    'Records dropped because their window was past its allowed lateness.',
  ),
  taskCounter('accumulateBusyTimeMs', 'ms', 'Time the task worked.'),
  taskCounter(
    'accumulateBackPressuredTimeMs',
    'ms',
    'Time the task could have worked but for a full output; its growth per second is the back-pressure.',
  ),
  taskCounter('accumulateIdleTimeMs', 'ms', 'Time the task had no input.'),
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
  taskCounter(
    'numBlockingCalls',
    'calls',
    'Times the task held up its slot’s thread for longer than taskmanager.slot.blocked.threshold.',
  ),
];

/** Name in the exposition: `flink_taskmanager_job_task_numRecordsIn`. */
export function prometheusName(metric: {
  readonly scope: MetricScope;
  readonly name: string;
}): string {
  return metricScopes[metric.scope].prefix + metric.name;
}
