/** Answers that are not plain data of the Dispatcher: Flink's shapes of settings and results. */
import type { JobExecutionResult } from '../gateway/client-gateway.js';
import type { JobGraph, RestartStrategyConfig } from '../graph/job-graph.js';

export interface WebConfig {
  /** Version of Millrace, as in its package. */
  readonly version: string;
  readonly clusterId: string;
  /** How often the web interface asks again. */
  readonly refreshIntervalMs: number;
}

export interface WebConfigView {
  readonly 'refresh-interval': number;
  readonly 'timezone-name': string;
  readonly 'timezone-offset': number;
  readonly 'millrace-version': string;
  readonly 'cluster-id': string;
  readonly features: { readonly 'web-submit': boolean; readonly 'web-cancel': boolean };
}

/** Times are shown in UTC, as in logs. */
export function toWebConfig(web: WebConfig): WebConfigView {
  return {
    'refresh-interval': web.refreshIntervalMs,
    'timezone-name': 'UTC',
    'timezone-offset': 0,
    'millrace-version': web.version,
    'cluster-id': web.clusterId,
    features: { 'web-submit': false, 'web-cancel': true },
  };
}

export interface JobConfigView {
  readonly jid: string;
  readonly name: string;
  readonly 'execution-config': {
    readonly 'restart-strategy': string;
    readonly 'job-parallelism': number;
    readonly 'buffer-timeout': number;
    readonly 'auto-watermark-interval': number;
    readonly 'user-config': Readonly<Record<string, string>>;
  };
}

export function toJobConfig(graph: JobGraph): JobConfigView {
  const { config } = graph;
  return {
    jid: graph.jobId,
    name: graph.name,
    'execution-config': {
      'restart-strategy': describeRestart(config.restartStrategy),
      'job-parallelism': Math.max(1, ...graph.vertices.map((vertex) => vertex.parallelism)),
      'buffer-timeout': config.bufferTimeoutMs,
      'auto-watermark-interval': config.autoWatermarkIntervalMs,
      'user-config': config.settings,
    },
  };
}

function describeRestart(strategy: RestartStrategyConfig): string {
  switch (strategy.type) {
    case 'none':
      return 'none';
    case 'fixed-delay':
      return `fixed-delay: ${String(strategy.attempts)} attempts, ${String(strategy.delayMs)} ms apart`;
    case 'exponential-delay':
      return `exponential-delay: from ${String(strategy.initialBackoffMs)} ms to ${String(strategy.maxBackoffMs)} ms, times ${String(strategy.backoffMultiplier)}`;
  }
}

export interface CheckpointConfigView {
  readonly mode: 'exactly_once';
  /** ms; 0: no periodic checkpoints. */
  readonly interval: number;
  readonly timeout: number;
  readonly min_pause: number;
  readonly max_concurrent: number;
  readonly tolerable_failed_checkpoints: number;
  readonly num_retained: number;
  readonly unaligned_checkpoints: boolean;
  readonly state_backend: 'hashmap';
  readonly checkpoints_after_tasks_finish: boolean;
}

export function toCheckpointConfig({ config }: JobGraph): CheckpointConfigView {
  const { checkpointing } = config;
  return {
    mode: 'exactly_once',
    interval: checkpointing.intervalMs,
    timeout: checkpointing.timeoutMs,
    min_pause: checkpointing.minPauseMs,
    max_concurrent: checkpointing.maxConcurrent,
    tolerable_failed_checkpoints: checkpointing.tolerableFailures,
    num_retained: checkpointing.numRetained,
    unaligned_checkpoints: false,
    state_backend: 'hashmap',
    checkpoints_after_tasks_finish: true,
  };
}

const applicationStatus = {
  FINISHED: 'SUCCEEDED',
  CANCELED: 'CANCELED',
  FAILED: 'FAILED',
} as const;

export interface ExecutionResultView {
  readonly status: { readonly id: 'IN_PROGRESS' | 'COMPLETED' };
  readonly 'job-execution-result'?: JobExecutionResult & {
    readonly id: string;
    readonly 'application-status': 'SUCCEEDED' | 'CANCELED' | 'FAILED';
    readonly 'net-runtime': number;
  };
}

/** Flink's fields, with ours (which carry the failure's code) beside them. */
export function toExecutionResult(result: JobExecutionResult | undefined): ExecutionResultView {
  if (result === undefined) return { status: { id: 'IN_PROGRESS' } };
  return {
    status: { id: 'COMPLETED' },
    'job-execution-result': {
      ...result,
      id: result.jid,
      'application-status': applicationStatus[result.state],
      'net-runtime': result.runtimeMs,
    },
  };
}
