import type { LoggerOptions } from '../../base/pino-logger.js';
import type { Failure } from '../../base/errors.js';
import type { JobGraph } from '../../graph/job-graph.js';
import type { CoordinatorReply } from './coordinator-host.js';

export interface CoordinatorWorkerData {
  readonly jobGraph: JobGraph;
  readonly bundlePath: string;
  readonly mainTimeoutMs: number;
  readonly log: LoggerOptions;
}

export type CoordinatorWorkerMessage =
  /** Main has run; what comes now waits for user code. */
  | CoordinatorReply
  | { readonly kind: 'loaded' }
  | { readonly kind: 'fatal'; readonly failure: Failure };
