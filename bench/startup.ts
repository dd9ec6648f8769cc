/**
 * How long a cluster takes to be ready, a job to its first output, and what idle processes weigh.
 *
 *   npm run bench -- startup [--rounds 5]
 */
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { AccessLogRun } from '../bin/drills/access-log-run.js';
import { formatSpread, spread, startCluster } from './support.js';

const { values: options } = parseArgs({
  options: { rounds: { type: 'string', default: '5' } },
  allowPositionals: true,
});
const rounds = Number(options.rounds);

function residentMb(pid: number): number {
  const line = /VmRSS:\s+(\d+) kB/.exec(readFileSync(`/proc/${String(pid)}/status`, 'utf8'));
  return Number(line?.[1] ?? NaN) / 1024;
}

const ready: number[] = [];
const firstOutput: number[] = [];
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
  const runAt = Date.now();
  const run = await AccessLogRun.submit(cluster, {
    rate: 1000,
    parallelism: 2,
    settings: { 'execution.checkpointing.interval': '200 ms' },
  });
  while (run.committedFiles().length === 0) await sleep(5);
  firstOutput.push(Date.now() - runAt);
  await run.close();
  await cluster.stop();
  cluster.remove();
  console.error(
    `round ${String(round)}: ready ${String(ready.at(-1))} ms, first output ${String(firstOutput.at(-1))} ms`,
  );
}

console.log(
  `cluster start -> ready (3 etcd, 3 JobManagers, 2 TaskManagers)   ${formatSpread(spread(ready), 'ms')}`,
);
console.log(
  `run -> first committed output (bundling and capture included)    ${formatSpread(spread(firstOutput), 'ms')}`,
);
console.log(
  `idle resident memory of a JobManager                             ${formatSpread(spread(jobManager), 'MB')}`,
);
console.log(
  `idle resident memory of a TaskManager with 2 slots               ${formatSpread(spread(taskManager), 'MB')}`,
);
