import { defineTransitions } from '../base/transitions.js';

/** State of a job (Flink's JobStatus). SUSPENDED: this JobManager lost leadership; the job goes on elsewhere. */
export type JobStatus =
  | 'INITIALIZING'
  | 'CREATED'
  | 'RUNNING'
  | 'FAILING'
  | 'FAILED'
  | 'CANCELLING'
  | 'CANCELED'
  | 'FINISHED'
  | 'RESTARTING'
  | 'SUSPENDED'
  | 'RECONCILING';

export const jobTransitions = defineTransitions<JobStatus>({
  INITIALIZING: ['CREATED', 'FAILED', 'SUSPENDED', 'CANCELED', 'CANCELLING', 'RECONCILING'],
  RECONCILING: ['RUNNING', 'FAILING', 'CANCELLING', 'RESTARTING', 'SUSPENDED'],
  CREATED: ['RUNNING', 'FAILING', 'FAILED', 'CANCELLING', 'RESTARTING', 'SUSPENDED'],
  RUNNING: ['FAILING', 'CANCELLING', 'FINISHED', 'RESTARTING', 'SUSPENDED'],
  FAILING: ['FAILED', 'SUSPENDED'],
  CANCELLING: ['CANCELED', 'FAILED', 'SUSPENDED'],
  RESTARTING: ['CREATED', 'RUNNING', 'FAILING', 'CANCELLING', 'SUSPENDED'],
  SUSPENDED: [],
  FAILED: [],
  CANCELED: [],
  FINISHED: [],
});

/** Terminal for every JobManager: a result is written. SUSPENDED is terminal only locally. */
export function isGloballyTerminal(
  status: JobStatus,
): status is 'FAILED' | 'CANCELED' | 'FINISHED' {
  return status === 'FAILED' || status === 'CANCELED' || status === 'FINISHED';
}
