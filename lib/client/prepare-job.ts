/** From a job file to what is submitted: checked, bundled, captured. */
import { basename, resolve } from 'node:path';
import { configurationOf } from '../../config/configuration.js';
import { options as configOptions } from '../../config/options.js';
import type { Clock } from '../base/clock.js';
import { newJobId } from '../base/ids.js';
import type { Random } from '../base/random.js';
import { currentWorkingDirectory } from '../api/pinned-globals.js';
import type { JobGraph } from '../graph/job-graph.js';
import { bundleJob } from './bundle.js';
import { captureJob } from './capture.js';
import { typeCheckJob } from './type-check.js';

export interface PrepareOptions {
  readonly random: Random;
  readonly clock: Clock;
  /** What main finds in `process.argv` from index 2. */
  readonly args?: readonly string[];
  /** Job settings (`-D`): defaults that code overrides. */
  readonly settings?: Readonly<Record<string, string>>;
  /** Values of environment variables that main finds in every slot too. */
  readonly environment?: Readonly<Record<string, string>>;
  readonly parallelism?: number;
  /** When execute() gives none. */
  readonly name?: string;
  /** Default: true. */
  readonly typeCheck?: boolean;
  /** Folder in which verdicts of type checks without errors are kept. Default: none is kept. */
  readonly cacheDirectory?: string;
  /** Start from this checkpoint. */
  readonly restore?: { readonly path: string; readonly allowNonRestoredState: boolean };
  /** Relative paths refer to it, `file` and those in main. Default: this process's. */
  readonly workingDirectory?: string;
  readonly onWarning?: (warning: string) => void;
  /** What main prints while it is captured. Default: nobody hears it. */
  readonly onOutput?: (text: string) => void;
}

export interface PreparedJob {
  readonly jobGraph: JobGraph;
  readonly bundle: Uint8Array;
}

/**
 * Type errors win over everything else that may be wrong. Rejects with FILE_NOT_FOUND, JOB_TYPE_ERROR,
 * JOB_INVALID, JOB_MAIN_FAILED, JOB_NO_EXECUTE, JOB_SECOND_EXECUTE or CONFIG.
 */
export async function prepareJob(file: string, options: PrepareOptions): Promise<PreparedJob> {
  const workingDirectory = resolve(options.workingDirectory ?? currentWorkingDirectory());
  const path = resolve(workingDirectory, file);
  const settings = settingsOf(options);
  // Throws for what the job's environment would only find out inside main.
  const timeoutMs = configurationOf(settings).get(configOptions.executionMainTimeout);
  const captured = bundleAndCapture(path, { ...options, settings, workingDirectory }, timeoutMs);
  // The type checker's verdict is awaited first: the other failure may be only its consequence.
  captured.catch(() => undefined);
  if (options.typeCheck !== false) {
    const { cacheDirectory } = options;
    await typeCheckJob({
      file: path,
      workingDirectory,
      ...(cacheDirectory !== undefined && { cacheDirectory }),
    });
  }
  return captured;
}

async function bundleAndCapture(
  path: string,
  options: PrepareOptions & { readonly workingDirectory: string },
  timeoutMs: number,
): Promise<PreparedJob> {
  const { random, clock } = options;
  const bundle = await bundleJob(path);
  for (const warning of bundle.warnings) options.onWarning?.(warning);
  const { jobGraph, warnings } = await captureJob({
    bundle,
    jobId: newJobId(random),
    main: {
      argv: ['node', basename(path), ...(options.args ?? [])],
      workingDirectory: options.workingDirectory,
      environment: options.environment ?? {},
      captureTime: Math.floor(clock.wallTime()),
      seed: Math.floor(random.next() * 2 ** 32),
    },
    settings: options.settings ?? {},
    timeoutMs,
    clock,
    ...(options.restore !== undefined && { restore: options.restore }),
    ...(options.onOutput !== undefined && { onOutput: options.onOutput }),
  });
  for (const warning of warnings) options.onWarning?.(warning);
  return { jobGraph, bundle: bundle.bytes };
}

function settingsOf({ settings, parallelism, name }: PrepareOptions): Record<string, string> {
  return {
    ...settings,
    ...(parallelism !== undefined && {
      [configOptions.parallelismDefault.key]: String(parallelism),
    }),
    ...(name !== undefined && { [configOptions.pipelineName.key]: name }),
  };
}
