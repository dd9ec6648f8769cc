/** `LocalEnvironment`: runs a job in this process, on a MiniCluster as large as it needs. Nothing to install, no port opened. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setPeriodicTimer, type CancelTimer } from '../base/clock.js';
import type { Env } from '../base/env.js';
import { silentLogger } from '../base/logger.js';
import { MetricRegistry } from '../base/metrics.js';
import { SystemClock } from '../base/system-clock.js';
import { SystemRandom } from '../base/system-random.js';
import { rebuildFunctions } from '../api/rebuild.js';
import type { PreparedJob } from '../client/prepare-job.js';
import type { JobDetails, JobExecutionResult } from '../gateway/client-gateway.js';
import type { JobGraph } from '../graph/job-graph.js';
import type { FunctionSource } from '../operators/stream-operator.js';
import { explainChains, type ExplainedChain } from '../task/chain-compiler/explain-chains.js';
import { BlobCache } from '../taskmanager/blob-cache.js';
import { MiniCluster } from './mini-cluster.js';

/** Main has reached execute() before, when it was captured. */
const mainTimeoutMs = 60_000;

function systemEnv(): Env {
  return {
    clock: new SystemClock(),
    random: new SystemRandom(),
    log: silentLogger,
    metrics: new MetricRegistry(),
  };
}

export interface LocalExecutionOptions {
  readonly env?: Env;
  /** Called every 250 ms with how the job stands. */
  readonly onProgress?: (job: JobDetails) => void;
}

const progressPeriodMs = 250;

/** Runs the job to its end; resolves with its result, also when it failed. */
export async function executeLocally(
  jobGraph: JobGraph,
  functions: FunctionSource,
  { env = systemEnv(), onProgress }: LocalExecutionOptions = {},
): Promise<JobExecutionResult> {
  const cluster = await MiniCluster.start(env, { slots: slotsNeeded(jobGraph) });
  let stopProgress: CancelTimer = () => undefined;
  try {
    const jobId = await cluster.submit(jobGraph, functions);
    if (onProgress !== undefined) {
      stopProgress = setPeriodicTimer(env.clock, progressPeriodMs, () => {
        // The job may just have ended and the cluster be closing: then there is nothing to report.
        cluster.gateway.jobDetails(jobId).then(onProgress, () => undefined);
      });
    }
    return await cluster.result(jobId);
  } finally {
    stopProgress();
    await cluster.close();
  }
}

/** A bundled job (`millrace run --target local`): main is re-run here, as in a slot. */
export function runBundleLocally(
  prepared: PreparedJob,
  options: LocalExecutionOptions = {},
): Promise<JobExecutionResult> {
  const { env = systemEnv() } = options;
  return withFunctions(prepared, env, (functions) => {
    // The functions are here: no slot needs to fetch the bundle.
    const { bundle: _bundle, ...byReference } = prepared.jobGraph;
    return executeLocally(byReference, functions, { ...options, env });
  });
}

/** The generated code of every chain of a job (`millrace info --code`), without running the job. */
export function explainBundle(prepared: PreparedJob): Promise<ExplainedChain[]> {
  return withFunctions(prepared, systemEnv(), (functions) =>
    Promise.resolve(explainChains(prepared.jobGraph, functions)),
  );
}

async function withFunctions<T>(
  { jobGraph, bundle }: PreparedJob,
  env: Env,
  use: (functions: FunctionSource) => Promise<T>,
): Promise<T> {
  const directory = await mkdtemp(join(tmpdir(), 'millrace-local-'));
  try {
    const blobs = new BlobCache(env, { directory });
    const digest = jobGraph.bundle?.digest;
    if (digest === undefined) throw new TypeError('the job graph names no bundle');
    const { path } = await blobs.acquire(digest, () =>
      Promise.resolve({ bytes: bundle, end: true }),
    );
    return await use(
      await rebuildFunctions({ bundlePath: path, jobGraph, env, timeoutMs: mainTimeoutMs }),
    );
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

/** Slot sharing: the highest parallelism of each group. */
export function slotsNeeded(graph: JobGraph): number {
  const groups = new Map<string, number>();
  for (const { slotSharingGroup, parallelism } of graph.vertices) {
    groups.set(slotSharingGroup, Math.max(groups.get(slotSharingGroup) ?? 0, parallelism));
  }
  return [...groups.values()].reduce((sum, n) => sum + n, 0);
}
