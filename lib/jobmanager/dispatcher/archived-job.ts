/** A job that ended, as its result keeps it: all that REST shows of it afterwards. */
import type { JobResult } from '../../../ha/services.js';
import type { Failure } from '../../base/errors.js';
import type { JobId } from '../../base/ids.js';
import type {
  CheckpointStatistics,
  JobDetails,
  JobExceptions,
  JobExecutionResult,
  JobSummary,
} from '../../gateway/client-gateway.js';
import type { JobGraph } from '../../graph/job-graph.js';
import type { JobMaster } from '../jobmaster/job-master.js';
import type { JobEnd } from '../jobmaster/job-master-options.js';
import { unreadableSummary, type UnreadableJob } from './shown-jobs.js';

export interface ArchivedJob {
  readonly version: 1;
  /** A repeated submission of an ended job is answered as the first. */
  readonly submissionId: string;
  readonly state: 'FINISHED' | 'CANCELED' | 'FAILED';
  readonly failure?: Failure;
  readonly summary: JobSummary;
  /** Absent for a job that could not be recovered and was given up. */
  readonly details?: JobDetails;
  readonly exceptions?: JobExceptions;
  readonly checkpoints?: CheckpointStatistics;
  readonly graph?: JobGraph;
}

export const noCheckpoints: CheckpointStatistics = {
  counts: { restored: 0, total: 0, in_progress: 0, completed: 0, failed: 0 },
  latest: {},
  history: [],
};

export const noExceptions: JobExceptions = { exceptionHistory: { entries: [], truncated: false } };

export function archiveOf(master: JobMaster, submissionId: string, end: JobEnd): ArchivedJob {
  return {
    version: 1,
    submissionId,
    state: end.status,
    ...(end.failure !== undefined && { failure: end.failure }),
    summary: { ...master.summary(), state: end.status },
    details: { ...master.details(), state: end.status },
    exceptions: master.exceptions(Infinity),
    checkpoints: master.checkpointStatistics(),
    graph: master.graph,
  };
}

/** Of a job that somebody gave up: nothing of it could be read. */
export function archiveOfUnreadable(job: UnreadableJob, finishedAt: number): ArchivedJob {
  const { failure } = job;
  const shown = unreadableSummary(job, finishedAt);
  const summary: JobSummary = { ...shown, state: 'CANCELED', 'end-time': finishedAt };
  return { version: 1, submissionId: '', state: 'CANCELED', failure, summary };
}

export function resultOf(
  jobId: JobId,
  name: string,
  archive: ArchivedJob,
  finishedAt: number,
): JobResult {
  return { jobId, name, state: archive.state, archive: JSON.stringify(archive), finishedAt };
}

/** Whatever the archive looks like, the outcome itself is known. */
export function decodeArchive(result: JobResult): ArchivedJob {
  try {
    const archive = JSON.parse(result.archive) as ArchivedJob;
    if (archive.version === 1) return archive;
  } catch {
    // An archive of another version, or a damaged one: what follows says what is certain.
  }
  const { jobId, name, state, finishedAt } = result;
  const summary: JobSummary = {
    jid: jobId,
    name,
    state,
    'start-time': finishedAt,
    'end-time': finishedAt,
    duration: 0,
    'last-modification': finishedAt,
    tasks: { total: 0 },
  };
  return { version: 1, submissionId: '', state, summary };
}

export function executionResult({
  state,
  summary,
  failure,
}: Pick<ArchivedJob, 'state' | 'summary' | 'failure'>): JobExecutionResult {
  return {
    jid: summary.jid,
    name: summary.name,
    state,
    runtimeMs: summary.duration,
    ...(failure !== undefined && { failure }),
  };
}
