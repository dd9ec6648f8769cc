/** Watches a job over REST until it ends, across changes of the leader. */
import { setTimeout as sleep } from 'node:timers/promises';
import { MillraceError, hasCode } from '../../lib/base/errors.js';
import type { JobId } from '../../lib/base/ids.js';
import type {
  CheckpointStatistics,
  JobDetails,
  JobExecutionResult,
} from '../../lib/gateway/client-gateway.js';
import { isGloballyTerminal } from '../../lib/gateway/job-status.js';
import type { RestClient } from '../../lib/rest/rest-client.js';

export interface JobProgress {
  readonly job: JobDetails;
  readonly checkpoints: CheckpointStatistics;
}

export interface FollowOptions {
  readonly pollMs?: number;
  /** Gives up with TIMEOUT; the job goes on. Default: never. */
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: JobProgress) => void;
}

/** Resolves with the job's result; undefined when the signal aborted first. */
export async function followJob(
  client: RestClient,
  jobId: JobId,
  options: FollowOptions = {},
): Promise<JobExecutionResult | undefined> {
  const deadline = options.timeoutMs === undefined ? Infinity : Date.now() + options.timeoutMs;
  while (options.signal?.aborted !== true) {
    try {
      const job = await client.job(jobId);
      if (options.onProgress !== undefined)
        options.onProgress({ job, checkpoints: await client.checkpoints(jobId) });
      if (isGloballyTerminal(job.state)) {
        const result = await client.jobResult(jobId);
        if (result !== undefined) return result;
      }
    } catch (error) {
      // Between two leaders nobody knows the job yet: the client has waited for a leader already.
      if (!hasCode(error, 'NO_LEADER') && !hasCode(error, 'RPC_DISCONNECTED')) throw error;
    }
    if (Date.now() > deadline)
      throw new MillraceError('TIMEOUT', `the job ${jobId} has not ended in time`);
    await sleep(options.pollMs ?? 250);
  }
  return undefined;
}
