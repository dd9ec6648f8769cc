/** What REST shows of a job, from its execution graph (pure). Field names are Flink's. */
import type { AttemptId } from '../../base/ids.js';
import type {
  JobDetails,
  JobSummary,
  SubtaskDetails,
  VertexDetails,
} from '../../gateway/client-gateway.js';
import { isGloballyTerminal, type JobStatus } from '../../gateway/job-status.js';
import type { TaskMetrics } from '../../gateway/taskmanager-gateway.js';
import type { JobGraph, JobVertex } from '../../graph/job-graph.js';
import { jobPlan } from '../../graph/job-plan.js';
import type { ExecutionGraph } from '../executiongraph/execution-graph.machine.js';
import {
  aggregateState,
  countStates,
  executionStateOf,
} from '../executiongraph/execution-job-vertex.js';
import type { ExecutionVertex } from '../executiongraph/execution-vertex.js';
import { isExecutionTerminal } from '../executiongraph/execution.js';

export interface JobViewSource {
  readonly graph: JobGraph;
  readonly execution: ExecutionGraph;
  readonly metrics: ReadonlyMap<AttemptId, TaskMetrics>;
  readonly epoch: string;
  /** Wall-clock ms of the submission. */
  readonly startTime: number;
  readonly statusReason: string | undefined;
  host(vertex: ExecutionVertex): string;
}

const jobStatuses: readonly JobStatus[] = [
  'INITIALIZING',
  'CREATED',
  'RUNNING',
  'FAILING',
  'FAILED',
  'CANCELLING',
  'CANCELED',
  'FINISHED',
  'RESTARTING',
  'SUSPENDED',
  'RECONCILING',
];

export function jobSummary(source: JobViewSource, now: number): JobSummary {
  const { graph, execution, startTime, statusReason } = source;
  const end = endTime(execution);
  const counts = countStates(execution.vertices);
  const lower = Object.entries(counts).map(([state, n]) => [state.toLowerCase(), n] as const);
  return {
    jid: graph.jobId,
    name: graph.name,
    state: execution.status,
    'start-time': startTime,
    'end-time': end,
    duration: (end < 0 ? now : end) - startTime,
    'last-modification': Math.max(startTime, ...Object.values(execution.timestamps)),
    tasks: Object.fromEntries([['total', execution.vertices.length] as const, ...lower]),
    ...(statusReason !== undefined && { 'status-reason': statusReason }),
  };
}

export function jobDetails(source: JobViewSource, now: number): JobDetails {
  const { graph, execution, startTime, statusReason, epoch } = source;
  const end = endTime(execution);
  const timestamps = Object.fromEntries(
    jobStatuses.map((status) => [status, execution.timestamps[status] ?? 0]),
  ) as Record<JobStatus, number>;
  return {
    jid: graph.jobId,
    name: graph.name,
    state: execution.status,
    isStoppable: false,
    'job-type': 'STREAMING',
    'start-time': startTime,
    'end-time': end,
    duration: (end < 0 ? now : end) - startTime,
    now,
    maxParallelism: Math.max(...graph.vertices.map((vertex) => vertex.maxParallelism)),
    timestamps,
    vertices: graph.vertices.map((vertex) => vertexDetails(source, vertex, now)),
    'status-counts': countStates(execution.vertices),
    plan: jobPlan(graph),
    ...(statusReason !== undefined && { 'status-reason': statusReason }),
    generation: execution.generation,
    epoch,
  };
}

function vertexDetails(source: JobViewSource, vertex: JobVertex, now: number): VertexDetails {
  const vertices = source.execution.vertices.filter(
    ({ subtask }) => subtask.vertex.id === vertex.id,
  );
  const subtasks = vertices.map((subtask) => subtaskDetails(source, subtask, now));
  const starts = subtasks.map((subtask) => subtask['start-time']).filter((time) => time >= 0);
  const start = starts.length > 0 ? Math.min(...starts) : -1;
  const isOver = subtasks.every((subtask) => subtask['end-time'] >= 0);
  const end = isOver ? Math.max(...subtasks.map((subtask) => subtask['end-time'])) : -1;
  return {
    id: vertex.id,
    name: vertex.name,
    parallelism: vertex.parallelism,
    maxParallelism: vertex.maxParallelism,
    slotSharingGroupId: vertex.slotSharingGroup,
    status: aggregateState(vertices),
    'start-time': start,
    'end-time': end,
    duration: start < 0 ? -1 : (end < 0 ? now : end) - start,
    tasks: countStates(vertices),
    metrics: addMetrics(vertices.map((subtask) => metricsOf(source, subtask))),
    subtasks,
  };
}

function subtaskDetails(
  source: JobViewSource,
  vertex: ExecutionVertex,
  now: number,
): SubtaskDetails {
  const { current } = vertex;
  const start = current?.timestamps.DEPLOYING ?? -1;
  const isOver = current !== undefined && isExecutionTerminal(current.state);
  const end = isOver ? (current.timestamps[current.state] ?? -1) : -1;
  return {
    subtask: vertex.subtask.subtaskIndex,
    status: executionStateOf(vertex),
    attempt: current?.attemptNumber ?? 0,
    'attempt-id': current?.attemptId ?? '',
    endpoint: source.host(vertex),
    'taskmanager-id': current?.location?.taskManagerId ?? '(unassigned)',
    'start-time': start,
    'end-time': end,
    duration: start < 0 ? -1 : (end < 0 ? now : end) - start,
    metrics: ioMetrics(metricsOf(source, vertex)),
  };
}

function metricsOf(source: JobViewSource, { current }: ExecutionVertex): TaskMetrics | undefined {
  return current === undefined ? undefined : source.metrics.get(current.attemptId);
}

/** Flink's IOMetricsInfo, and the watermark. */
function ioMetrics(metrics: TaskMetrics | undefined): Record<string, number | boolean> {
  return {
    'read-bytes': metrics?.numBytesIn ?? 0,
    'read-bytes-complete': metrics !== undefined,
    'write-bytes': metrics?.numBytesOut ?? 0,
    'write-bytes-complete': metrics !== undefined,
    'read-records': metrics?.numRecordsIn ?? 0,
    'read-records-complete': metrics !== undefined,
    'write-records': metrics?.numRecordsOut ?? 0,
    'write-records-complete': metrics !== undefined,
    'accumulated-backpressured-time': Math.round(metrics?.backPressuredMs ?? 0),
    'accumulated-idle-time': Math.round(metrics?.idleMs ?? 0),
    'accumulated-busy-time': Math.round(metrics?.busyMs ?? 0),
    'late-records-dropped': metrics?.numLateRecordsDropped ?? 0,
    ...(metrics?.currentInputWatermark !== undefined && {
      'current-input-watermark': metrics.currentInputWatermark,
    }),
  };
}

function addMetrics(all: readonly (TaskMetrics | undefined)[]): Record<string, number | boolean> {
  const sum: Record<string, number | boolean> = {};
  for (const [name, value] of all.flatMap((metrics) => Object.entries(ioMetrics(metrics)))) {
    const known = sum[name];
    if (known === undefined) sum[name] = value;
    else if (typeof value === 'boolean') sum[name] = known === true && value;
    else
      sum[name] =
        name === 'current-input-watermark' ? Math.min(Number(known), value) : Number(known) + value;
  }
  return sum;
}

function endTime(execution: ExecutionGraph): number {
  return isGloballyTerminal(execution.status) ? (execution.timestamps[execution.status] ?? -1) : -1;
}
