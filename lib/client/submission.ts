/** Submits a prepared job and waits for its end, over REST; bounded waits while there is no leader. */
import { MillraceError } from '../base/errors.js';
import type { Clock } from '../base/clock.js';
import { sleep } from '../base/clock.js';
import type { JobId } from '../base/ids.js';
import type { JobExecutionResult, JobSubmission } from '../gateway/client-gateway.js';

/** What is needed of lib/rest/rest-client.ts. */
export interface SubmissionClient {
  /** Multipart POST /v1/jobs; idempotent by submission id. */
  submit(submission: JobSubmission): Promise<{ readonly jobId: JobId }>;
  /** GET /v1/jobs/:id/execution-result; undefined while it runs. */
  jobResult(jobId: JobId): Promise<JobExecutionResult | undefined>;
}

export interface SubmissionOptions {
  readonly clock: Clock;
  /** How long to try while no leader answers. Default: 30 s. */
  readonly retryForMs?: number;
  /** Time between looks at the result. Default: 200 ms. */
  readonly pollMs?: number;
}

const defaultRetryForMs = 30_000;
const defaultPollMs = 200;
const retryDelayMs = 500;

/** The same submission id each time: an answer that got lost does not start the job twice. */
export async function submitJob(
  client: SubmissionClient,
  submission: JobSubmission,
  options: SubmissionOptions,
): Promise<JobId> {
  const { jobId } = await retrying(options, () => client.submit(submission));
  return jobId;
}

export async function awaitResult(
  client: SubmissionClient,
  jobId: JobId,
  options: SubmissionOptions,
): Promise<JobExecutionResult> {
  for (;;) {
    const result = await retrying(options, () => client.jobResult(jobId));
    if (result !== undefined) return result;
    await sleep(options.clock, options.pollMs ?? defaultPollMs);
  }
}

async function retrying<T>(options: SubmissionOptions, attempt: () => Promise<T>): Promise<T> {
  const { clock, retryForMs = defaultRetryForMs } = options;
  const deadline = clock.now() + retryForMs;
  for (;;) {
    try {
      return await attempt();
    } catch (error) {
      const mayHelp = error instanceof MillraceError && error.retry !== 'never';
      if (!mayHelp || clock.now() + retryDelayMs > deadline) throw error;
    }
    await sleep(clock, retryDelayMs);
  }
}
