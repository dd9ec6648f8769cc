/**
 * Runs a bundle's main in a worker thread, up to `execute()`, to find out what the job is. The bundle
 * sees the same module instance of Millrace as the capture, through a link in a temporary folder.
 */
import { mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import type { PinnedMain, JobGraph } from '../graph/job-graph.js';
import type { JobId } from '../base/ids.js';
import { type Failure, fromFailure, MillraceError } from '../base/errors.js';
import type { Clock } from '../base/clock.js';
import type { Bundle } from './bundle.js';
import { packageRoot } from './package-root.js';

export interface CaptureRequest {
  readonly bundle: Bundle;
  readonly jobId: JobId;
  readonly main: PinnedMain;
  readonly settings: Readonly<Record<string, string>>;
  readonly restore?: { readonly path: string; readonly allowNonRestoredState: boolean };
  /** Longest time main may take to reach `execute()`. */
  readonly timeoutMs: number;
  readonly clock: Clock;
  /** What main prints. */
  readonly onOutput?: (text: string) => void;
}

export interface Captured {
  readonly jobGraph: JobGraph;
  /** Things main did that will not be the same when a slot runs it again. */
  readonly warnings: readonly string[];
}

/** Of the worker's data: what structured cloning can carry. */
export type CaptureWorkerData = Pick<CaptureRequest, 'jobId' | 'main' | 'settings' | 'restore'> & {
  readonly bundlePath: string;
  readonly bundle: { readonly digest: Bundle['digest']; readonly sizeBytes: number };
  readonly timeoutMs: number;
};

export type CaptureMessage =
  | { readonly kind: 'captured'; readonly jobGraph: JobGraph; readonly warnings: readonly string[] }
  | { readonly kind: 'failed'; readonly failure: Failure };

/** How much longer than main's limit the thread may take: an endless loop never reaches its own timer. */
const graceMs = 500;

/** JOB_NO_EXECUTE, JOB_MAIN_FAILED, JOB_SECOND_EXECUTE, JOB_INVALID, CONFIG. */
export async function captureJob(request: CaptureRequest): Promise<Captured> {
  const folder = await mkdtemp(join(tmpdir(), 'millrace-capture-'));
  try {
    const bundlePath = await installBundle(folder, request.bundle.bytes);
    const message = await runWorker(request, bundlePath);
    if (message.kind === 'failed') throw fromFailure(message.failure);
    return { jobGraph: message.jobGraph, warnings: message.warnings };
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** The bundle in a folder from which `millrace` resolves to this installation. */
export async function installBundle(folder: string, bytes: Uint8Array): Promise<string> {
  const modules = join(folder, 'node_modules');
  await mkdir(modules, { recursive: true });
  await symlink(packageRoot(), join(modules, 'millrace'), 'dir');
  const bundlePath = join(folder, 'job.mjs');
  await writeFile(bundlePath, bytes);
  return bundlePath;
}

async function runWorker(request: CaptureRequest, bundlePath: string): Promise<CaptureMessage> {
  const { bundle, jobId, main, settings, restore, timeoutMs, clock } = request;
  const workerData: CaptureWorkerData = {
    bundlePath,
    bundle: { digest: bundle.digest, sizeBytes: bundle.bytes.byteLength },
    jobId,
    main,
    settings,
    timeoutMs,
    ...(restore !== undefined && { restore }),
  };
  const worker = new Worker(new URL('./capture-worker.js', import.meta.url), {
    workerData,
    stdout: true,
    stderr: true,
    execArgv: ['--enable-source-maps'],
  });
  for (const stream of [worker.stdout, worker.stderr]) {
    stream.setEncoding('utf8').on('data', (text: string) => request.onOutput?.(text));
  }
  let cancelTimer = (): void => undefined;
  try {
    return await new Promise<CaptureMessage>((resolve, reject) => {
      worker.once('message', resolve);
      worker.once('error', (cause: unknown) => {
        const text = cause instanceof Error ? cause.message : String(cause);
        reject(new MillraceError('JOB_MAIN_FAILED', `the job's main threw: ${text}`, { cause }));
      });
      worker.once('exit', (code) => {
        reject(exitError(code));
      });
      cancelTimer = clock.setTimer(timeoutMs + graceMs, () => {
        reject(
          new MillraceError(
            'JOB_NO_EXECUTE',
            `main did not call execute within ${timeoutMs} ms: it is still busy`,
          ),
        );
      });
    });
  } finally {
    cancelTimer();
    await worker.terminate();
  }
}

function exitError(code: number): MillraceError {
  return code === 0 || code === 13
    ? new MillraceError(
        'JOB_NO_EXECUTE',
        'main ended without calling execute; is env.execute() missing at its end?',
      )
    : new MillraceError(
        'JOB_MAIN_FAILED',
        `the job's main ended its process with code ${code} before execute was called`,
      );
}
