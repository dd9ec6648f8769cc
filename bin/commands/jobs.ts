/** millrace list | status | cancel | logs. */
import type { Command } from 'commander';
import { MillraceError } from '../../lib/base/errors.js';
import { isGloballyTerminal } from '../../lib/gateway/job-status.js';
import type { JobDetails, JobSummary } from '../../lib/gateway/client-gateway.js';
import { parseDuration } from '../../config/option-types.js';
import {
  bold,
  colorState,
  dim,
  formatBytes,
  formatElapsed,
  formatTime,
  print,
  printJson,
  red,
  table,
  yellow,
} from './output.js';
import { findJob, jobManagerName, withClient, withTarget, type TargetOptions } from './target.js';
import { followJob } from './follow-job.js';

interface CommonOptions extends TargetOptions {
  readonly json?: boolean;
}

export function registerJobs(program: Command): void {
  withTarget(program.command('list').description('jobs, running and finished'))
    .option('-r, --running', 'only those that have not ended')
    .option('--json', 'print one JSON document')
    .action(list);
  withTarget(program.command('status').description('one job: tasks, checkpoints, failures, leader'))
    .argument('<job>', 'job id, the beginning of one, or a name')
    .option('--json', 'print one JSON document')
    .action(status);
  withTarget(program.command('cancel').description('cancel a job; its retained checkpoints stay'))
    .argument('<job>', 'job id, the beginning of one, or a name')
    .option('-d, --detached', 'do not wait until it is cancelled')
    .option('--json', 'print one JSON document')
    .action(cancel);
  withTarget(
    program
      .command('logs')
      .description("what TaskManagers logged, a job's console output included"),
  )
    .argument('[job]', 'only lines of this job')
    .option('-n, --lines <n>', 'last lines of each TaskManager', '200')
    .option('--json', 'print the lines as they are in the log (JSON)')
    .action(logs);
}

function runningTasks(job: JobSummary): string {
  return `${String(job.tasks['running'] ?? job.tasks['RUNNING'] ?? 0)}/${String(job.tasks['total'] ?? 0)}`;
}

async function list(options: CommonOptions & { readonly running?: boolean }): Promise<void> {
  const jobs = await withClient(options, (client) => client.jobs());
  const shown =
    options.running === true ? jobs.filter((job) => !isGloballyTerminal(job.state)) : jobs;
  if (options.json === true) {
    printJson({ jobs: shown });
    return;
  }
  if (shown.length === 0) {
    print("no jobs; submit one with 'millrace run JOB.ts'");
    return;
  }
  const rows = shown.map((job) => [
    job.jid,
    job.name,
    colorState(job.state),
    runningTasks(job),
    formatTime(job['start-time']),
    formatElapsed(job.duration),
  ]);
  print(table(['JOB', 'NAME', 'STATE', 'TASKS', 'STARTED (UTC)', 'DURATION'], rows));
}

async function status(text: string, options: CommonOptions): Promise<void> {
  await withClient(options, async (client, local) => {
    const { jid } = await findJob(client, text);
    const [job, checkpoints, exceptions, leader] = await Promise.all([
      client.job(jid),
      client.checkpoints(jid),
      client.exceptions(jid),
      client.leader(),
    ]);
    if (options.json === true) {
      const name = jobManagerName(local, leader);
      printJson({ job, checkpoints, exceptions, leader: { ...leader, name } });
      return;
    }
    print(`${bold(job.name)}  ${job.jid}  ${colorState(job.state)}`);
    if (job['status-reason'] !== undefined) print(yellow(`  ${job['status-reason']}`));
    print(
      `  started    ${formatTime(job['start-time'])} UTC, ${job['end-time'] > 0 ? 'ran' : 'runs'} for ${formatElapsed(job.duration)}, generation ${String(job.generation)}`,
    );
    print(
      `  leader     ${jobManagerName(local, leader)} (epoch ${job.epoch})  ${leader.restAddress}`,
    );
    const { restored, completed } = checkpoints.latest;
    print(
      `  restored   ${restored === undefined ? 'from nothing: started afresh' : `checkpoint ${String(restored.id)} from ${restored.external_path}, at ${formatTime(restored.restore_timestamp)} UTC`}`,
    );
    print(
      `  checkpoint ${completed === undefined ? 'none completed yet' : `${String(completed.id)} at ${formatTime(completed.trigger_timestamp)} UTC, ${formatBytes(completed.state_size)}, ${formatElapsed(completed.end_to_end_duration)}`}` +
        dim(
          ` (${String(checkpoints.counts.completed)} completed, ${String(checkpoints.counts.failed)} failed)`,
        ),
    );
    print();
    print(vertexTable(job));
    const failure = exceptions['root-exception'];
    if (failure !== undefined) {
      print();
      print(`${red('last failure')} at ${formatTime(exceptions.timestamp ?? 0)} UTC`);
      print(essence(failure));
    }
  });
}

/** What failed, and the innermost cause with its first frames: the user's code, not ours. */
function essence(failure: string): string {
  const lines = failure.split('\n');
  const cause = lines.findLastIndex((line) => line.startsWith('Caused by'));
  const said = lines.slice(0, 1);
  if (cause > 0) said.push(...lines.slice(cause, cause + 4));
  else said.push(...lines.slice(1, 4));
  return said.join('\n');
}

function vertexTable(job: JobDetails): string {
  const rows = job.vertices.map((vertex) => [
    vertex.name.length > 60 ? `${vertex.name.slice(0, 59)}…` : vertex.name,
    vertex.parallelism,
    colorState(vertex.status),
    Number(vertex.metrics['read-records'] ?? 0),
    Number(vertex.metrics['write-records'] ?? 0),
    [...new Set(vertex.subtasks.map((subtask) => subtask['taskmanager-id']))].join(' '),
  ]);
  return table(['TASK', 'P', 'STATE', 'RECORDS IN', 'OUT', 'TASKMANAGERS'], rows);
}

async function cancel(
  text: string,
  options: CommonOptions & { readonly detached?: boolean },
): Promise<void> {
  await withClient(options, async (client) => {
    const { jid, name } = await findJob(client, text);
    await client.cancel(jid);
    const result =
      options.detached === true
        ? undefined
        : await followJob(client, jid, { timeoutMs: parseDuration(options.timeout) });
    const state = result?.state ?? 'CANCELLING';
    if (options.json === true) printJson({ jobid: jid, state });
    else print(`${name} ${jid} ${colorState(state)}`);
    if (result !== undefined && result.state !== 'CANCELED')
      throw new MillraceError(
        'JOB_ENDED',
        `the job ended ${result.state} before it could be cancelled`,
      );
  });
}

interface LogLine {
  readonly time?: string;
  readonly level?: string;
  readonly msg?: string;
  readonly jobId?: string;
  readonly vertex?: string;
  readonly subtask?: number;
  readonly state?: string;
  readonly err?: { readonly message?: string; readonly code?: string };
}

async function logs(
  text: string | undefined,
  options: CommonOptions & { readonly lines: string },
): Promise<void> {
  await withClient(options, async (client) => {
    const jobId = text === undefined ? undefined : (await findJob(client, text)).jid;
    const taskManagers = await client.taskManagers();
    const request = { maxLines: Number(options.lines), ...(jobId !== undefined && { jobId }) };
    const all = await Promise.all(
      taskManagers.map(async ({ id }) =>
        (await client.taskManagerLog(id, request)).map((line) => ({
          id,
          line,
          parsed: parseLine(line),
        })),
      ),
    );
    const lines = all
      .flat()
      .sort((a, b) => (a.parsed?.time ?? '').localeCompare(b.parsed?.time ?? ''));
    for (const { id, line, parsed } of lines) {
      if (options.json === true || parsed === undefined) print(line);
      else print(`${dim(parsed.time ?? '')} ${dim(id)} ${levelName(parsed)} ${saying(parsed)}`);
    }
  });
}

function parseLine(line: string): LogLine | undefined {
  try {
    return JSON.parse(line) as LogLine;
  } catch {
    return undefined;
  }
}

function levelName({ level = 'info' }: LogLine): string {
  const text = level.toUpperCase().padEnd(5);
  return level === 'error' ? red(text) : text;
}

function saying(line: LogLine): string {
  const state = line.state === undefined ? '' : ` ${line.state}`;
  const error = line.err === undefined ? '' : `: ${line.err.message ?? ''}`;
  return `${origin(line)}${line.msg ?? ''}${state}${error}`;
}

function origin({ vertex, subtask }: LogLine): string {
  return vertex === undefined ? '' : `[${vertex} ${String((subtask ?? 0) + 1)}] `;
}
