/** millrace run | info: from a job file to a running job, or to its plan. */
import { homedir } from 'node:os';
import { isAbsolute, join } from 'node:path';
import { existsSync } from 'node:fs';
import { resolve } from 'node:path';
import type { Command } from 'commander';
import { MillraceError, fromFailure } from '../../lib/base/errors.js';
import { SystemClock } from '../../lib/base/system-clock.js';
import { SystemRandom } from '../../lib/base/system-random.js';
import type { PreparedJob } from '../../lib/client/prepare-job.js';
import { jobPlan } from '../../lib/graph/job-plan.js';
import type { JobGraph } from '../../lib/graph/job-graph.js';
import type { JobId } from '../../lib/base/ids.js';
import type { JobDetails, JobExecutionResult } from '../../lib/gateway/client-gateway.js';
import type { RestClient } from '../../lib/rest/rest-client.js';
import { checkedSettings } from './cluster.js';
import { followJob, type JobProgress } from './follow-job.js';
import {
  bold,
  colorState,
  countOf,
  dim,
  formatElapsed,
  print,
  printError,
  printJson,
  table,
} from './output.js';
import { withClient, withTarget, type TargetOptions } from './target.js';

interface JobOptions {
  readonly parallelism?: string;
  readonly fromCheckpoint?: string;
  readonly allowNonRestoredState?: boolean;
  readonly name?: string;
  readonly env?: readonly string[];
  readonly define?: readonly string[];
  readonly typeCheck: boolean;
  readonly json?: boolean;
}

interface InfoOptions extends JobOptions {
  readonly code?: boolean;
}

interface RunOptions extends JobOptions, TargetOptions {
  readonly detached?: boolean;
  readonly target: string;
  readonly shutdownOnAttachedExit?: boolean;
}

const collect = (value: string, previous: readonly string[] = []): string[] => [...previous, value];

function withJob(command: Command): Command {
  return command
    .argument('<job>', 'a TypeScript or JavaScript file whose main builds and executes a job')
    .argument('[args...]', "the job's own arguments, after --")
    .option('-p, --parallelism <n>', 'parallelism of operators that do not set their own')
    .option('-D, --define <key=value>', 'a setting of the job; may be repeated', collect)
    .option('--name <name>', 'name of the job, when execute() gives none')
    .option(
      '--env <name>',
      "an environment variable the job's main reads; may be repeated",
      collect,
    )
    .option('--no-type-check', 'submit without type-checking')
    .option('--json', 'print one JSON document');
}

export function registerRun(program: Command): void {
  withTarget(withJob(program.command('run').description('submit a job and follow it to its end')))
    .option('-d, --detached', 'return as soon as the job is accepted')
    .option('-s, --from-checkpoint <path>', 'start from a checkpoint directory')
    .option('-n, --allow-non-restored-state', 'drop state of operators the job no longer has')
    .option('-t, --target <target>', 'remote: a cluster; local: this process', 'remote')
    .option('--shutdown-on-attached-exit', 'cancel the job when this command is interrupted')
    .action(run);
  withJob(program.command('info').description("print a job's plan without running it"))
    .option('--code', 'print the generated code of its chains instead')
    .action(info);
}

async function prepare(
  file: string,
  args: readonly string[],
  options: JobOptions,
): Promise<PreparedJob> {
  if (!existsSync(file)) {
    throw new MillraceError('FILE_NOT_FOUND', `there is no job file ${resolve(file)}`);
  }
  const settings = checkedSettings(options.define);
  if (options.parallelism !== undefined)
    Object.assign(settings, checkedSettings([`parallelism.default=${options.parallelism}`]));
  const declared = options.env ?? [];
  const { prepareJob } = await import('../../lib/client/prepare-job.js');
  return prepareJob(file, {
    args,
    settings,
    environment: Object.fromEntries(declared.map((name) => [name, process.env[name] ?? ''])),
    typeCheck: options.typeCheck,
    cacheDirectory: join(userCacheFolder(), 'millrace/type-check'),
    random: new SystemRandom(),
    clock: new SystemClock(),
    ...(options.name !== undefined && { name: options.name }),
    ...(options.fromCheckpoint !== undefined && {
      restore: {
        path: options.fromCheckpoint,
        allowNonRestoredState: options.allowNonRestoredState === true,
      },
    }),
    onWarning: (warning) => {
      printError(`warning: ${warning}`);
    },
  });
}

/** By the XDG base directory specification, where a relative path is to be ignored. */
function userCacheFolder(): string {
  const named = process.env['XDG_CACHE_HOME'] ?? '';
  return isAbsolute(named) ? named : join(homedir(), '.cache');
}

async function run(file: string, args: readonly string[], options: RunOptions): Promise<void> {
  if (options.target === 'local') {
    await runLocally(file, args, options);
    return;
  }
  if (options.target !== 'remote')
    throw new MillraceError('CONFIG', `unknown target '${options.target}': one of remote, local`);
  // The HTTP client is loaded while the job is bundled and captured, which other threads do.
  const [{ jobGraph, bundle }] = await Promise.all([
    prepare(file, args, options),
    import('../../lib/rest/rest-client.js'),
  ]);
  await withClient(options, async (client) => {
    const { jobId } = await client.submit({
      submissionId: new SystemRandom().hex(32),
      jobGraph,
      bundle,
    });
    if (options.detached === true) {
      if (options.json === true) printJson({ jobid: jobId });
      else
        print(
          `submitted ${bold(jobGraph.name)} as ${jobId}; follow it with 'millrace status ${jobId.slice(0, 8)}'`,
        );
      return;
    }
    printError(`submitted ${bold(jobGraph.name)} as ${jobId}`);
    await attach(client, jobId, options);
  });
}

async function attach(client: RestClient, jobId: JobId, options: RunOptions): Promise<void> {
  const interrupted = new AbortController();
  process.once('SIGINT', () => {
    interrupted.abort();
  });
  const report = progressReporter();
  const result = await followJob(client, jobId, {
    signal: interrupted.signal,
    pollMs: 500,
    onProgress: report,
  });
  if (result !== undefined) {
    finish(result, options);
    return;
  }
  if (options.shutdownOnAttachedExit === true) {
    await client.cancel(jobId);
    printError(`cancelled ${jobId}`);
  } else {
    printError(`detached: the job goes on; 'millrace cancel ${jobId.slice(0, 8)}' ends it`);
  }
  process.exitCode = 130;
}

function finish(result: JobExecutionResult, options: JobOptions): void {
  if (options.json === true) printJson(result);
  else
    print(
      `${bold(result.name)} ${colorState(result.state)} after ${formatElapsed(result.runtimeMs)}`,
    );
  if (result.state === 'FINISHED') return;
  if (result.failure === undefined) {
    process.exitCode = 1;
    return;
  }
  throw new MillraceError(
    'JOB_FAILED',
    `the job ended ${result.state}: ${result.failure.message}`,
    { cause: fromFailure(result.failure) },
  );
}

const timeOfDay = (): string => dim(new Date().toISOString().slice(11, 19));

/** A line when the state changes, with the reason where there is one. */
function stateReporter(): (job: JobDetails) => void {
  let last = '';
  return ({ state, 'status-reason': reason = '' }) => {
    // The delay in "restarts in 940 ms" changes all the time.
    const said = `${state} ${reason.replace(/\d+/g, '')}`;
    if (said === last) return;
    last = said;
    printError(`${timeOfDay()} ${colorState(state)}  ${dim(reason)}`.trimEnd());
  };
}

/** State changes, completed checkpoints, and throughput every few seconds. */
function progressReporter(): (progress: JobProgress) => void {
  const reportState = stateReporter();
  let checkpoint = 0;
  let lastRecords = 0;
  let lastAt = 0;
  return ({ job, checkpoints }) => {
    reportState(job);
    const completed = checkpoints.latest.completed?.id ?? 0;
    const now = Date.now();
    if (completed === checkpoint || now - lastAt < 2000) return;
    checkpoint = completed;
    // What sources emitted: vertices that no other vertex feeds.
    const fed = new Set(
      job.plan.nodes.filter((node) => (node.inputs ?? []).length > 0).map((node) => node.id),
    );
    const records = job.vertices
      .filter((vertex) => !fed.has(vertex.id))
      .reduce((sum, vertex) => sum + Number(vertex.metrics['write-records'] ?? 0), 0);
    const rate =
      lastAt === 0
        ? ''
        : `, ${String(Math.max(0, Math.round(((records - lastRecords) * 1000) / (now - lastAt))))} records/s from sources`;
    printError(`${timeOfDay()} ${dim(`checkpoint ${String(checkpoint)} completed${rate}`)}`);
    lastRecords = records;
    lastAt = now;
  };
}

async function runLocally(
  file: string,
  args: readonly string[],
  options: RunOptions,
): Promise<void> {
  const prepared = await prepare(file, args, options);
  printError(dim(`running ${prepared.jobGraph.name} in this process`));
  // So that stack traces name lines of the job's TypeScript, as in the slots of a cluster.
  process.setSourceMapsEnabled(true);
  // The whole runtime: loaded only by those who need it.
  const { runBundleLocally } = await import('../../lib/testing/local-executor.js');
  finish(await runBundleLocally(prepared, { onProgress: stateReporter() }), options);
}

async function info(file: string, args: readonly string[], options: InfoOptions): Promise<void> {
  const prepared = await prepare(file, args, options);
  const { jobGraph } = prepared;
  if (options.code === true) {
    await printCode(prepared, options);
    return;
  }
  if (options.json === true) {
    printJson(jobPlan(jobGraph));
    return;
  }
  print(
    `${bold(jobGraph.name)}  fingerprint ${jobGraph.fingerprint.slice(0, 16)}, ${countOf(slotsNeeded(jobGraph), 'slot')}`,
  );
  const rows = jobGraph.vertices.flatMap((vertex) =>
    vertex.operators.map((operator, i) => [
      i === 0 ? vertex.name : '',
      i === 0 ? vertex.parallelism : '',
      i === 0 ? vertex.maxParallelism : '',
      operator.name,
      operator.uid ?? dim('none'),
    ]),
  );
  print(table(['TASK', 'P', 'MAX', 'OPERATORS', 'UID'], rows));
  print();
  const name = (id: string): string =>
    jobGraph.vertices.find((vertex) => vertex.id === id)?.name ?? id;
  print(
    table(
      ['FROM', 'TO', 'SHIP', 'NOT CHAINED BECAUSE'],
      jobGraph.edges.map((edge) => [
        name(edge.source),
        name(edge.target),
        edge.shipStrategy,
        edge.notChainedBecause,
      ]),
    ),
  );
}

/** As the first subtask of every task runs it. */
async function printCode(prepared: PreparedJob, options: InfoOptions): Promise<void> {
  const { explainBundle } = await import('../../lib/testing/local-executor.js');
  const chains = await explainBundle(prepared);
  if (options.json === true) {
    printJson(chains.map(({ vertex, code }) => ({ id: vertex.id, name: vertex.name, code })));
    return;
  }
  for (const { vertex, code } of chains) {
    print(`${bold(vertex.name)}  ${dim(vertex.id)}`);
    print(`${code}\n`);
  }
}

/** Slot sharing: the highest parallelism of every group. */
function slotsNeeded(graph: JobGraph): number {
  const groups = new Map<string, number>();
  for (const { slotSharingGroup, parallelism } of graph.vertices)
    groups.set(slotSharingGroup, Math.max(groups.get(slotSharingGroup) ?? 0, parallelism));
  return [...groups.values()].reduce((sum, n) => sum + n, 0);
}
