/** What the Dispatcher shows of jobs that have no result yet (pure). */
import type { Failure } from '../../base/errors.js';
import type { JobId } from '../../base/ids.js';
import type { JobDetails, JobSummary } from '../../gateway/client-gateway.js';
import type { JobMaster } from '../jobmaster/job-master.js';

export interface ShownJob {
  readonly master: JobMaster;
  /** It is not run, but kept for somebody to act on. */
  readonly recoveryFailure: Failure | undefined;
}

/** A job whose data cannot be read: listed, and given up by cancelling it. */
export interface UnreadableJob {
  readonly jobId: JobId;
  readonly failure: Failure;
  readonly since: number;
}

/** A job whose result is not written yet has not ended for anybody. @param suspension why nobody acts on it, if so. */
export function shownSummary(job: ShownJob, suspension: string | undefined): JobSummary {
  return shown(job, job.master.summary(), suspension);
}

export function shownDetails(job: ShownJob, suspension: string | undefined): JobDetails {
  return shown(job, job.master.details(), suspension);
}

function shown<T extends JobSummary | JobDetails>(
  { recoveryFailure }: ShownJob,
  view: T,
  suspension: string | undefined,
): T {
  if (recoveryFailure !== undefined)
    return { ...view, state: 'FAILED', 'status-reason': recoveryFailure.message };
  return {
    ...view,
    state: stateBeforeResult(view.state),
    ...(suspension !== undefined && { 'status-reason': suspension }),
  };
}

function stateBeforeResult(state: JobSummary['state']): JobSummary['state'] {
  if (state === 'FINISHED') return 'RUNNING';
  if (state === 'CANCELED') return 'CANCELLING';
  return state === 'FAILED' ? 'FAILING' : state;
}

export function unreadableSummary(
  { jobId, failure, since }: UnreadableJob,
  now: number,
): JobSummary {
  return {
    jid: jobId,
    name: jobId,
    state: 'FAILED',
    'start-time': since,
    'end-time': -1,
    duration: now - since,
    'last-modification': since,
    tasks: { total: 0 },
    'status-reason': failure.message,
  };
}
