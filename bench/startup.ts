/**
 * How long a cluster takes to be ready, a job to its first output, and what idle processes weigh.
 *
 *   npm run bench -- startup [--rounds 5]
 */
import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { once } from 'node:events';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { fileURLToPath } from 'node:url';
import { followJob } from '../bin/commands/follow-job.js';
import { accessLogJob } from '../bin/drills/access-log-run.js';
import type { LocalCluster } from '../bin/local/local-cluster.js';
import { MillraceError } from '../lib/base/errors.js';
import type { JobId } from '../lib/base/ids.js';
import { formatSpread, spread, startCluster, waitFor } from './support.js';

const { values: options } = parseArgs({
  options: { rounds: { type: 'string', default: '5' } },
  allowPositionals: true,
});
const rounds = Number(options.rounds);

function residentMb(pid: number): number {
  const line = /VmRSS:\s+(\d+) kB/.exec(readFileSync(`/proc/${String(pid)}/status`, 'utf8'));
  return Number(line?.[1] ?? NaN) / 1024;
}

const commandLine = fileURLToPath(new URL('../bin/millrace.js', import.meta.url));

/** What a user waits for: from the start of `millrace run` to the first committed file. */
async function timeToFirstOutput(cluster: LocalCluster, cacheFolder: string): Promise<number> {
  const output = mkdtempSync(join(cluster.directory, 'output-'));
  const settings = { 'execution.checkpointing.interval': '200 ms', 'parallelism.default': '2' };
  const began = performance.now();
  const child = spawn(
    process.execPath,
    [
      ...[commandLine, 'run', accessLogJob, '--detached', '--json'],
      ...['--dir', '.millrace', '--cluster', cluster.clusterId],
      ...Object.entries(settings).flatMap(([key, value]) => ['-D', `${key}=${value}`]),
      ...['--', '--output', output, '--rate', '1000'],
    ],
    {
      stdio: ['ignore', 'pipe', 'inherit'],
      env: { ...process.env, XDG_CACHE_HOME: cacheFolder },
    },
  );
  let said = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => (said += text));
  const closed = once(child, 'close') as Promise<[number | null]>;
  const elapsed = await waitFor('committed output', 60_000, () => {
    if (child.exitCode !== null && child.exitCode !== 0)
      throw new MillraceError('JOB_FAILED', `millrace run ended with code ${child.exitCode}`);
    return Promise.resolve(hasCommitted(output) ? performance.now() - began : undefined);
  });
  await closed;
  await endJob(cluster, (JSON.parse(said) as { jobid: JobId }).jobid);
  return elapsed;
}

function hasCommitted(output: string): boolean {
  return ['status-by-minute', 'sessions'].some((part) => {
    const folder = join(output, part);
    return existsSync(folder) && readdirSync(folder).some((name) => !/^[._]/.test(name));
  });
}

async function endJob(cluster: LocalCluster, jobId: JobId): Promise<void> {
  const client = cluster.restClient();
  try {
    await client.cancel(jobId);
    await followJob(client, jobId, { timeoutMs: 30_000, pollMs: 50 });
  } finally {
    await client.close();
  }
}

const ready: number[] = [];
const firstOutput: number[] = [];
const firstOutputAgain: number[] = [];
const jobManager: number[] = [];
const taskManager: number[] = [];

for (let round = 1; round <= rounds; round += 1) {
  const began = Date.now();
  const cluster = await startCluster();
  ready.push(Date.now() - began);
  await sleep(3000);
  for (const { role, pid } of cluster.processes()) {
    if (role === 'jobmanager') jobManager.push(residentMb(pid));
    if (role === 'taskmanager') taskManager.push(residentMb(pid));
  }
  const cacheFolder = mkdtempSync(join(tmpdir(), 'millrace-bench-'));
  try {
    firstOutput.push(await timeToFirstOutput(cluster, cacheFolder));
    firstOutputAgain.push(await timeToFirstOutput(cluster, cacheFolder));
  } finally {
    rmSync(cacheFolder, { recursive: true });
    await cluster.stop();
    cluster.remove();
  }
  const shown = [ready, firstOutput, firstOutputAgain].map((all) => Math.round(all.at(-1) ?? NaN));
  console.error(
    `round ${String(round)}: ready ${String(shown[0])} ms, first output ${String(shown[1])} ms, of an unchanged job ${String(shown[2])} ms`,
  );
}

console.log(
  `cluster start -> ready (3 etcd, 3 JobManagers, 2 TaskManagers)   ${formatSpread(spread(ready), 'ms')}`,
);
console.log(
  `millrace run -> first committed output, job checked first time   ${formatSpread(spread(firstOutput), 'ms')}`,
);
console.log(
  `millrace run -> first committed output, job checked before       ${formatSpread(spread(firstOutputAgain), 'ms')}`,
);
console.log(
  `idle resident memory of a JobManager                             ${formatSpread(spread(jobManager), 'MB')}`,
);
console.log(
  `idle resident memory of a TaskManager with 2 slots               ${formatSpread(spread(taskManager), 'MB')}`,
);
