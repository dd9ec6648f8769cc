/** What the benchmarks share: a cluster, a job, medians. */
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { setTimeout as sleep } from 'node:timers/promises';
import { LocalCluster } from '../bin/local/local-cluster.js';
import { MillraceError } from '../lib/base/errors.js';
import type { JobId } from '../lib/base/ids.js';
import { SystemClock } from '../lib/base/system-clock.js';
import { SystemRandom } from '../lib/base/system-random.js';
import { prepareJob } from '../lib/client/prepare-job.js';
import type { JobDetails } from '../lib/gateway/client-gateway.js';
import type { RestClient } from '../lib/rest/rest-client.js';

const packageRoot = fileURLToPath(new URL('../../', import.meta.url));

export interface BenchClusterOptions {
  readonly jobManagers?: number;
  readonly taskManagers?: number;
  readonly slots?: number;
  readonly etcdMembers?: number;
  /** For every process. */
  readonly settings?: Readonly<Record<string, string>>;
  readonly environment?: Readonly<Record<string, string>>;
}

export function startCluster(options: BenchClusterOptions = {}): Promise<LocalCluster> {
  return LocalCluster.start({
    folder: '.millrace',
    clusterId: `bench-${new SystemRandom().hex(6)}`,
    jobManagers: options.jobManagers ?? 3,
    taskManagers: options.taskManagers ?? 2,
    slotsPerTaskManager: options.slots ?? 2,
    etcd: { members: options.etcdMembers ?? 3 },
    settings: options.settings ?? {},
    environment: options.environment ?? {},
  });
}

export interface BenchJob {
  /** File in bench/jobs, without its ending. */
  readonly job: string;
  readonly args?: readonly string[];
  readonly parallelism: number;
  readonly settings?: Readonly<Record<string, string>>;
}

export async function submit(
  client: RestClient,
  { job, args = [], parallelism, settings = {} }: BenchJob,
): Promise<JobId> {
  const random = new SystemRandom();
  const prepared = await prepareJob(join(packageRoot, 'bench/jobs', `${job}.ts`), {
    args,
    settings: { 'parallelism.default': String(parallelism), ...settings },
    environment: {},
    typeCheck: false,
    random,
    clock: new SystemClock(),
  });
  const { jobId } = await client.submit({
    submissionId: random.hex(32),
    jobGraph: prepared.jobGraph,
    bundle: prepared.bundle,
  });
  return jobId;
}

export async function waitFor<T>(
  what: string,
  timeoutMs: number,
  probe: () => Promise<T | undefined>,
): Promise<T> {
  const deadline = Date.now() + timeoutMs;
  for (;;) {
    const found = await probe().catch(() => undefined);
    if (found !== undefined) return found;
    if (Date.now() > deadline)
      throw new MillraceError('TIMEOUT', `${what} did not happen within ${String(timeoutMs)} ms`);
    await sleep(5);
  }
}

export function allRunning(job: JobDetails): boolean {
  return (
    job.state === 'RUNNING' &&
    job.vertices.every((vertex) => vertex.subtasks.every((subtask) => subtask.status === 'RUNNING'))
  );
}

export interface Spread {
  readonly min: number;
  readonly median: number;
  readonly max: number;
}

export function spread(values: readonly number[]): Spread {
  const sorted = [...values].sort((a, b) => a - b);
  const at = (i: number): number => sorted[i] ?? NaN;
  const middle = Math.floor(sorted.length / 2);
  const median = sorted.length % 2 === 1 ? at(middle) : (at(middle - 1) + at(middle)) / 2;
  return { min: at(0), median, max: at(sorted.length - 1) };
}

export function formatSpread({ min, median, max }: Spread, unit: string): string {
  const round = (value: number): string => String(Math.round(value));
  return `median ${round(median)} ${unit} (min ${round(min)}, max ${round(max)})`;
}
