/** The access-log example on a cluster: submitted, watched, and its committed output checked against an independent computation. */
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { setTimeout as sleep } from 'node:timers/promises';
import { verifyAccessLog, type Verdict } from '../../examples/access-log/verify.js';
import { MillraceError, hasCode } from '../../lib/base/errors.js';
import type { Digest, JobId } from '../../lib/base/ids.js';
import { SystemClock } from '../../lib/base/system-clock.js';
import { SystemRandom } from '../../lib/base/system-random.js';
import { prepareJob, type PreparedJob } from '../../lib/client/prepare-job.js';
import type {
  CheckpointStatistics,
  JobDetails,
  JobExecutionResult,
} from '../../lib/gateway/client-gateway.js';
import { fingerprintOf } from '../../lib/graph/fingerprint.js';
import type { RestClient } from '../../lib/rest/rest-client.js';
import { followJob } from '../commands/follow-job.js';
import type { LocalCluster } from '../local/local-cluster.js';

const packageRoot = fileURLToPath(new URL('../../../', import.meta.url));
export const accessLogJob = join(packageRoot, 'examples/access-log/job.ts');
export const accessLogInput = join(packageRoot, 'examples/access-log/data/apache_logs.txt');

export interface AccessLogOptions {
  /** Lines a second in all; 0 is as fast as it goes. The log has 10,000. */
  readonly rate: number;
  /** So many lines of the log only. Default all. */
  readonly lines?: number;
  readonly parallelism: number;
  readonly settings?: Readonly<Record<string, string>>;
  /** Checkpoint directory to start from. */
  readonly restorePath?: string;
  /** Default: a new one in the cluster's folder. */
  readonly outputDirectory?: string;
  /** A bundle with a digest of its own: otherwise all runs share one, and the copies of it that processes keep. */
  readonly hasOwnBundle?: boolean;
}

export class AccessLogRun {
  readonly cluster: LocalCluster;
  readonly client: RestClient;
  readonly jobId: JobId;
  readonly outputDirectory: string;
  readonly inputFile: string;

  private constructor(
    cluster: LocalCluster,
    client: RestClient,
    jobId: JobId,
    outputDirectory: string,
    inputFile: string,
  ) {
    this.cluster = cluster;
    this.client = client;
    this.jobId = jobId;
    this.outputDirectory = outputDirectory;
    this.inputFile = inputFile;
  }

  static async submit(cluster: LocalCluster, options: AccessLogOptions): Promise<AccessLogRun> {
    const random = new SystemRandom();
    const outputDirectory =
      options.outputDirectory ?? join(cluster.directory, 'output', random.hex(6));
    const inputFile = firstLines(cluster, options.lines);
    mkdirSync(outputDirectory, { recursive: true });
    const prepared = await prepareJob(accessLogJob, {
      args: ['--input', inputFile, '--output', outputDirectory, '--rate', String(options.rate)],
      settings: { 'parallelism.default': String(options.parallelism), ...options.settings },
      environment: {},
      // The example is checked by the project's own build.
      typeCheck: false,
      random,
      clock: new SystemClock(),
      ...(options.restorePath !== undefined && {
        restore: { path: options.restorePath, allowNonRestoredState: false },
      }),
    });
    const client = cluster.restClient();
    const { jobId } = await client.submit({
      submissionId: random.hex(32),
      ...(options.hasOwnBundle === true ? withOwnBundle(prepared, random.hex(8)) : prepared),
    });
    return new AccessLogRun(cluster, client, jobId, outputDirectory, inputFile);
  }

  details(): Promise<JobDetails> {
    return this.client.job(this.jobId);
  }

  checkpoints(): Promise<CheckpointStatistics> {
    return this.client.checkpoints(this.jobId);
  }

  /** Committed files of both results. */
  committedFiles(): string[] {
    return ['status-by-minute', 'sessions'].flatMap((part) => {
      const folder = join(this.outputDirectory, part);
      if (!existsSync(folder)) return [];
      return readdirSync(folder)
        .filter((name) => !/^[._]/.test(name))
        .map((name) => join(part, name));
    });
  }

  /** All tasks run, `completed` checkpoints were completed by this leader, and some output is committed. */
  async waitUntilUnderway(completed = 2, timeoutMs = 60_000): Promise<void> {
    await this.waitFor(
      `${String(completed)} checkpoints and committed output`,
      timeoutMs,
      async () => {
        const { counts } = await this.checkpoints();
        return counts.completed >= completed && this.committedFiles().length > 0;
      },
    );
  }

  /** All tasks run under a generation above `generation`. */
  async waitUntilRunning(generation = -1, timeoutMs = 60_000): Promise<JobDetails> {
    let seen: JobDetails | undefined;
    await this.waitFor('all tasks running', timeoutMs, async () => {
      seen = await this.details();
      return (
        seen.state === 'RUNNING' &&
        seen.generation > generation &&
        seen.vertices.every((vertex) =>
          vertex.subtasks.every((subtask) => subtask.status === 'RUNNING'),
        )
      );
    });
    if (seen === undefined) throw new MillraceError('INVARIANT', 'no details after waiting');
    return seen;
  }

  async waitFor(
    what: string,
    timeoutMs: number,
    condition: () => boolean | Promise<boolean>,
  ): Promise<void> {
    const deadline = Date.now() + timeoutMs;
    for (;;) {
      try {
        if (await condition()) return;
        const { state } = await this.details();
        if (state === 'FAILED' || state === 'CANCELED' || state === 'FINISHED') {
          throw new MillraceError('JOB_FAILED', `the job is ${state} while ${what} was awaited`, {
            details: { exceptions: await this.client.exceptions(this.jobId) },
          });
        }
      } catch (error) {
        if (
          !hasCode(error, 'NO_LEADER') &&
          !hasCode(error, 'RPC_DISCONNECTED') &&
          !hasCode(error, 'TIMEOUT')
        )
          throw error;
      }
      if (Date.now() > deadline)
        throw new MillraceError('TIMEOUT', `${what} did not happen within ${String(timeoutMs)} ms`);
      await sleep(20);
    }
  }

  async waitUntilEnd(timeoutMs = 120_000): Promise<JobExecutionResult> {
    const result = await followJob(this.client, this.jobId, { timeoutMs, pollMs: 50 });
    if (result === undefined)
      throw new MillraceError('INVARIANT', 'following a job ended without a result');
    return result;
  }

  verify(): Verdict {
    return verifyAccessLog(this.inputFile, this.outputDirectory);
  }

  close(): Promise<void> {
    return this.client.close();
  }
}

function withOwnBundle({ jobGraph, bundle }: PreparedJob, nonce: string): PreparedJob {
  const own = Buffer.concat([bundle, Buffer.from(`\n// ${nonce}\n`)]);
  const digest = createHash('sha256').update(own).digest('hex') as Digest;
  const graph = { ...jobGraph, bundle: { digest, sizeBytes: own.byteLength } };
  return { jobGraph: { ...graph, fingerprint: fingerprintOf(graph) }, bundle: own };
}

/** The log, or a file of its first lines. */
function firstLines(cluster: LocalCluster, lines: number | undefined): string {
  if (lines === undefined) return accessLogInput;
  const path = join(cluster.directory, `access-log-${String(lines)}.txt`);
  if (!existsSync(path)) {
    const kept = readFileSync(accessLogInput, 'utf8').split('\n').slice(0, lines);
    writeFileSync(path, `${kept.join('\n')}\n`);
  }
  return path;
}
