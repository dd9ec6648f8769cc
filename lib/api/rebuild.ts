/**
 * Finds a job's functions by running its main again: loads the bundle in rebuild mode, where `execute()`
 * hands over instead of running anything. Called once per thread (a bundle's URL never runs twice) by
 * slot workers and by the thread of the JobManager that runs source enumerators.
 */
import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { pathToFileURL } from 'node:url';
import type { Clock } from '../base/clock.js';
import type { Env } from '../base/env.js';
import { Deferred } from '../base/deferred.js';
import { hasCode, MillraceError } from '../base/errors.js';
import { describeDifference } from '../graph/fingerprint.js';
import type { JobGraph } from '../graph/job-graph.js';
import type { FunctionSource } from '../operators/stream-operator.js';
import { type DefinedJob, type HandOverContext, setExecutionContext } from './execution-context.js';
import { pinGlobals } from './pinned-globals.js';
import { secondExecute } from './stream-builder.js';

export interface RebuildOptions {
  /** Absolute path of the bundle, beside a `node_modules/millrace` that links to this package. */
  readonly bundlePath: string;
  readonly jobGraph: JobGraph;
  /** Longest time main may take to reach `execute()` (execution.main.timeout). */
  readonly timeoutMs: number;
  readonly env: Env;
}

/**
 * Throws JOB_FINGERPRINT when main gives another job than was submitted, JOB_NO_EXECUTE, JOB_MAIN_FAILED.
 *
 * NB: main stays suspended at `execute()` for ever. Once this resolves, the thread needs a handle of its
 * own that keeps it alive (its message port), or Node ends it with code 13.
 */
export async function rebuildFunctions(options: RebuildOptions): Promise<FunctionSource> {
  const { jobGraph } = options;
  await checkBundle(options);
  const { settings } = jobGraph.config;
  const { jobId, main, bundle, restore } = jobGraph;
  const { bundlePath, env, timeoutMs } = options;
  const limit = { clock: env.clock, timeoutMs };
  const job = await runMain({ bundlePath, limit }, (handOver, reject) => ({
    kind: 'rebuild',
    settings,
    attributes: {
      jobId,
      main,
      ...(bundle !== undefined && { bundle }),
      ...(restore !== undefined && { restore }),
    },
    declareEnvironment: (names) =>
      Object.fromEntries(Object.entries(main.environment).filter(([name]) => names.includes(name))),
    handOver,
    reject,
  }));
  if (job.jobGraph.fingerprint !== jobGraph.fingerprint) {
    const difference = describeDifference(jobGraph, job.jobGraph) ?? 'the fingerprints differ';
    throw new MillraceError(
      'JOB_FINGERPRINT',
      `running main of "${jobGraph.name}" again gave another job: ${difference}. Main must depend only on its ` +
        'arguments, declared environment variables and the pinned clock and random numbers',
      { details: { jobId, submitted: jobGraph.fingerprint, rebuilt: job.jobGraph.fingerprint } },
    );
  }
  return job.functions;
}

type ContextFactory = (
  handOver: (job: DefinedJob) => void,
  reject: (error: unknown) => void,
) => HandOverContext;

export interface RunMainOptions {
  readonly bundlePath: string;
  /** Absent: the thread ends when main has nothing left to do, which whoever started it notices. */
  readonly limit?: { readonly clock: Clock; readonly timeoutMs: number };
}

/** Runs a bundle's main up to `execute()` with pinned surroundings; shared with the client's capture. */
export async function runMain(
  { bundlePath, limit }: RunMainOptions,
  createContext: ContextFactory,
): Promise<DefinedJob> {
  const outcome = new Deferred<DefinedJob>();
  const fail = (cause: unknown): void => {
    outcome.reject(mainFailed(cause));
  };
  const context = createContext((job) => {
    if (outcome.settled) {
      context.reject(secondExecute());
      return;
    }
    unpin();
    outcome.resolve(job);
  }, fail);
  const restoreContext = setExecutionContext(context);
  const unpin = pinGlobals(context.attributes.main);
  let isLoaded = false;
  // The timer also keeps the thread alive while main waits for something that does not.
  const cancelTimer = limit?.clock.setTimer(limit.timeoutMs, () => {
    const what = isLoaded ? 'main ended' : 'main was still running';
    outcome.reject(
      new MillraceError(
        'JOB_NO_EXECUTE',
        `main did not call execute within ${limit.timeoutMs} ms (${what}); is env.execute() missing, or does main wait for something?`,
      ),
    );
  });
  // Of a main that is an async function nobody awaits.
  process.on('unhandledRejection', fail);
  try {
    import(pathToFileURL(bundlePath).href).then(() => (isLoaded = true), fail);
    return await outcome.promise;
  } finally {
    cancelTimer?.();
    unpin();
    restoreContext();
    process.off('unhandledRejection', fail);
  }
}

function mainFailed(cause: unknown): unknown {
  // What the library itself said about the job needs no wrapping.
  if (hasCode(cause, 'JOB_INVALID') || hasCode(cause, 'JOB_SECOND_EXECUTE')) return cause;
  if (hasCode(cause, 'CONFIG')) return cause;
  const message = cause instanceof Error ? cause.message : String(cause);
  return new MillraceError('JOB_MAIN_FAILED', `the job's main threw: ${message}`, { cause });
}

async function checkBundle({ bundlePath, jobGraph }: RebuildOptions): Promise<void> {
  if (jobGraph.bundle === undefined) return;
  let bytes: Uint8Array;
  try {
    bytes = await readFile(bundlePath);
  } catch (cause) {
    throw new MillraceError('IO', `the bundle ${bundlePath} cannot be read`, { cause });
  }
  const digest = createHash('sha256').update(bytes).digest('hex');
  if (digest !== jobGraph.bundle.digest) {
    throw new MillraceError(
      'JOB_FINGERPRINT',
      `the bundle differs: ${jobGraph.bundle.digest} was submitted, ${bundlePath} has ${digest}`,
    );
  }
}
