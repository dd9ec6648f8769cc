/**
 * Where `execute()` goes: to the local executor, to the client that captures the job, or to the slot
 * that re-runs main. Kept on globalThis under a registered symbol, so that it is one per thread even if
 * the module is loaded twice. The one deliberate piece of module-level state of the library.
 */
import type { JobGraph } from '../graph/job-graph.js';
import type { JobGraphAttributes } from '../graph/job-graph-builder.js';
import type { FunctionSource } from '../operators/stream-operator.js';
import type { JobExecutionResult } from '../gateway/client-gateway.js';
import type { Settings } from './job-options.js';
import { readEnvironment } from './pinned-globals.js';

/** A job as the program defines it: what travels, and the functions that stay. */
export interface DefinedJob {
  readonly jobGraph: JobGraph;
  readonly functions: FunctionSource;
}

/** Runs the job and resolves with its result, also when it failed. */
export interface JobExecutor {
  execute(jobGraph: JobGraph, functions: FunctionSource): Promise<JobExecutionResult>;
}

export interface LocalContext extends JobExecutor {
  readonly kind: 'local';
  readonly settings: Settings;
  declareEnvironment(names: readonly string[]): Readonly<Record<string, string>>;
}

/** While main runs only to find out what the job is. */
export interface HandOverContext {
  readonly kind: 'capture' | 'rebuild';
  /** Defaults of the environment; code overrides them. */
  readonly settings: Settings;
  /** The parts of the JobGraph that do not come from the program. */
  readonly attributes: Pick<JobGraphAttributes, 'jobId' | 'main' | 'bundle' | 'restore'>;
  /** Names of environment variables the program depends on; answers their values. */
  declareEnvironment(names: readonly string[]): Readonly<Record<string, string>>;
  /** Called synchronously by `execute()`, whose promise then never settles. */
  handOver(job: DefinedJob): void;
  /** The program is wrong in a way its author must hear of, whatever main does with exceptions. */
  reject(error: unknown): void;
}

export type ExecutionContext = LocalContext | HandOverContext;

/** Runs a program file on a cluster; `jobFile` is bundled and captured by the client. */
export interface RemoteExecutor {
  executeRemotely(options: {
    readonly url: string;
    readonly jobFile: string | undefined;
    readonly token: string | undefined;
    readonly settings: Settings;
  }): Promise<JobExecutionResult>;
}

interface ContextSlot {
  current?: ExecutionContext;
  loadLocalExecutor?: () => Promise<JobExecutor>;
  loadRemoteExecutor?: () => Promise<RemoteExecutor>;
}

const key = Symbol.for('millrace.execution-context');

function slot(): ContextSlot {
  const holder = globalThis as { [key]?: ContextSlot };
  holder[key] ??= {};
  return holder[key];
}

/** The context set for this thread, or local execution by the installed executor. */
export function currentExecutionContext(): ExecutionContext {
  return slot().current ?? localContext({});
}

/** Without an executor of its own: the installed one. */
export function localContext(settings: Settings, executor?: JobExecutor): LocalContext {
  return {
    kind: 'local',
    settings,
    declareEnvironment: readEnvironment,
    execute: async (jobGraph, functions) => {
      const chosen = executor ?? (await loadLocalExecutor());
      return chosen.execute(jobGraph, functions);
    },
  };
}

/** Returns the function that puts back what was there. */
export function setExecutionContext(context: ExecutionContext): () => void {
  const holder = slot();
  const before = holder.current;
  holder.current = context;
  return () => {
    if (before === undefined) delete holder.current;
    else holder.current = before;
  };
}

/** Executors are loaded at first use: a slot that only rebuilds never loads them. */
export function installExecutors(loaders: {
  readonly local: () => Promise<JobExecutor>;
  readonly remote: () => Promise<RemoteExecutor>;
}): void {
  slot().loadLocalExecutor ??= loaders.local;
  slot().loadRemoteExecutor ??= loaders.remote;
}

async function loadLocalExecutor(): Promise<JobExecutor> {
  const load = slot().loadLocalExecutor;
  if (load === undefined) {
    throw new TypeError('no local executor is installed: import "millrace", not its inner files');
  }
  return load();
}

export async function loadRemoteExecutor(): Promise<RemoteExecutor> {
  const load = slot().loadRemoteExecutor;
  if (load === undefined) {
    throw new TypeError('no remote executor is installed: import "millrace", not its inner files');
  }
  return load();
}
