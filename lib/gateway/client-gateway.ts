/**
 * What clients (REST handlers, the local environment) ask of the leader's Dispatcher. All answers are
 * plain data with Flink's REST field names, so that handlers only route.
 */
import type { Digest, JobId, TaskManagerId } from '../base/ids.js';
import type { Failure } from '../base/errors.js';
import type { MetricSample } from '../base/metrics.js';
import type { JobGraph } from '../graph/job-graph.js';
import type { ExecutionState } from './execution-state.js';
import type { JobStatus } from './job-status.js';
import type { HeartbeatPayload } from './taskmanager-gateway.js';

export interface JobSubmission {
  readonly submissionId: string;
  readonly jobGraph: JobGraph;
  /** The bundle whose digest the graph names. */
  readonly bundle?: Uint8Array;
}

export interface ClusterOverview {
  readonly taskmanagers: number;
  readonly 'slots-total': number;
  readonly 'slots-available': number;
  readonly 'jobs-running': number;
  readonly 'jobs-finished': number;
  readonly 'jobs-cancelled': number;
  readonly 'jobs-failed': number;
  readonly 'leader-state': 'ACTIVE' | 'SUSPENDED';
  /** Why it is suspended, since when, and what that means, for people. */
  readonly 'leader-reason'?: string;
}

export interface JobSummary {
  readonly jid: JobId;
  readonly name: string;
  readonly state: JobStatus;
  /** Wall-clock ms; `end-time` is -1 while it runs. */
  readonly 'start-time': number;
  readonly 'end-time': number;
  readonly duration: number;
  readonly 'last-modification': number;
  readonly tasks: Readonly<Record<string, number>>;
  /** Why the job is not running yet, for people: shortage of slots, restart delay... */
  readonly 'status-reason'?: string;
}

export interface VertexDetails {
  readonly id: string;
  readonly name: string;
  readonly parallelism: number;
  readonly maxParallelism: number;
  readonly slotSharingGroupId: string;
  readonly status: ExecutionState;
  readonly 'start-time': number;
  readonly 'end-time': number;
  readonly duration: number;
  readonly tasks: Readonly<Record<ExecutionState, number>>;
  readonly metrics: Readonly<Record<string, number | boolean>>;
  readonly subtasks: readonly SubtaskDetails[];
}

export interface SubtaskDetails {
  readonly subtask: number;
  readonly status: ExecutionState;
  readonly attempt: number;
  readonly 'attempt-id': string;
  readonly endpoint: string;
  readonly 'taskmanager-id': string;
  readonly 'start-time': number;
  readonly 'end-time': number;
  readonly duration: number;
  readonly metrics: Readonly<Record<string, number | boolean>>;
}

export interface JobPlan {
  readonly jid: string;
  readonly name: string;
  readonly type: 'STREAMING';
  readonly nodes: readonly {
    readonly id: string;
    readonly parallelism: number;
    readonly operator: string;
    readonly operator_strategy: string;
    readonly description: string;
    readonly inputs?: readonly {
      readonly num: number;
      readonly id: string;
      readonly ship_strategy: string;
      readonly exchange: 'pipelined_bounded';
    }[];
  }[];
}

export interface JobDetails {
  readonly jid: JobId;
  readonly name: string;
  readonly state: JobStatus;
  readonly isStoppable: boolean;
  readonly 'job-type': 'STREAMING';
  readonly 'start-time': number;
  readonly 'end-time': number;
  readonly duration: number;
  readonly now: number;
  readonly maxParallelism: number;
  readonly timestamps: Readonly<Record<JobStatus, number>>;
  readonly vertices: readonly VertexDetails[];
  readonly 'status-counts': Readonly<Record<ExecutionState, number>>;
  readonly plan: JobPlan;
  readonly 'status-reason'?: string;
  /** Starts and restarts, from 0. */
  readonly generation: number;
  /** `era.revision` of the leader that runs it. */
  readonly epoch: string;
}

export interface ExceptionInfo {
  readonly exceptionName: string;
  readonly stacktrace: string;
  readonly timestamp: number;
  readonly taskName?: string;
  readonly endpoint?: string;
  readonly taskManagerId?: string;
  readonly failure: Failure;
}

export interface JobExceptions {
  readonly 'root-exception'?: string;
  readonly timestamp?: number;
  readonly exceptionHistory: {
    readonly entries: readonly (ExceptionInfo & {
      readonly concurrentExceptions: readonly ExceptionInfo[];
    })[];
    readonly truncated: boolean;
  };
}

export interface CheckpointSummary {
  readonly id: number;
  readonly status: 'IN_PROGRESS' | 'COMPLETED' | 'FAILED';
  readonly is_savepoint: boolean;
  readonly trigger_timestamp: number;
  readonly latest_ack_timestamp: number;
  readonly end_to_end_duration: number;
  readonly state_size: number;
  readonly num_subtasks: number;
  readonly num_acknowledged_subtasks: number;
  readonly external_path?: string;
  readonly failure_message?: string;
}

export interface RestoredCheckpoint {
  readonly id: number;
  readonly restore_timestamp: number;
  readonly is_savepoint: boolean;
  readonly external_path: string;
}

export interface CheckpointStatistics {
  readonly counts: {
    readonly restored: number;
    readonly total: number;
    readonly in_progress: number;
    readonly completed: number;
    readonly failed: number;
  };
  readonly latest: {
    readonly completed?: CheckpointSummary;
    readonly failed?: CheckpointSummary;
    readonly restored?: RestoredCheckpoint;
  };
  readonly history: readonly CheckpointSummary[];
}

export interface TaskManagerView {
  readonly id: TaskManagerId;
  readonly path: string;
  readonly dataPort: number;
  readonly timeSinceLastHeartbeat: number;
  readonly slotsNumber: number;
  readonly freeSlots: number;
  readonly pid: number;
  readonly hardware: { readonly cpuCores: number; readonly physicalMemory: number };
  readonly process: HeartbeatPayload['process'];
  readonly allocatedSlots: readonly { readonly index: number; readonly jobId: string }[];
}

export interface JobExecutionResult {
  readonly jid: JobId;
  readonly name: string;
  readonly state: 'FINISHED' | 'CANCELED' | 'FAILED';
  readonly runtimeMs: number;
  readonly failure?: Failure;
}

export interface ClientGateway {
  /** Persisted before it resolves. JOB_DUPLICATE, JOB_INVALID, CONFIG, BLOB_CORRUPT. */
  submitJob(submission: JobSubmission): Promise<{ jobId: JobId }>;
  /** The wish is written to etcd before it is acted on; resolves then. */
  cancelJob(jobId: JobId): Promise<void>;
  listJobs(): Promise<JobSummary[]>;
  overview(): Promise<ClusterOverview>;
  jobDetails(jobId: JobId): Promise<JobDetails>;
  jobExceptions(jobId: JobId, maxExceptions: number): Promise<JobExceptions>;
  jobCheckpoints(jobId: JobId): Promise<CheckpointStatistics>;
  checkpointDetails(jobId: JobId, checkpointId: number): Promise<CheckpointSummary>;
  jobGraph(jobId: JobId): Promise<JobGraph>;
  /** Undefined while the job runs. */
  jobResult(jobId: JobId): Promise<JobExecutionResult | undefined>;
  taskManagers(): Promise<TaskManagerView[]>;
  taskManagerLog(
    id: TaskManagerId,
    options: { jobId?: JobId; maxLines: number; stream: 'log' | 'stdout' },
  ): Promise<readonly string[]>;
  metrics(): Promise<MetricSample[]>;
  fetchBlob(
    jobId: JobId,
    digest: Digest,
    offset: number,
  ): Promise<{ bytes: Uint8Array; end: boolean }>;
}
