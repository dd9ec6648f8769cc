/**
 * Time to recover: SIGKILL of the leading JobManager (or of a TaskManager) until the successor leads and
 * all tasks run. Stamps are those the processes log; one machine, one clock.
 *
 *   npm run bench -- failover [--rounds 20]
 */
import { parseArgs } from 'node:util';
import { readEvents, readTakeover } from '../bin/drills/timeline.js';
import type { LocalCluster } from '../bin/local/local-cluster.js';
import type { JobId } from '../lib/base/ids.js';
import type { RestClient } from '../lib/rest/rest-client.js';
import { allRunning, formatSpread, spread, submit, waitFor, withCluster } from './support.js';

const leaseTtlMs = 3000;
const { values: options } = parseArgs({
  options: { rounds: { type: 'string', default: '20' } },
  allowPositionals: true,
});
const rounds = Number(options.rounds);

interface Underway {
  readonly cluster: LocalCluster;
  readonly client: RestClient;
  readonly jobId: JobId;
}

/** All tasks run and the leader completed a checkpoint. */
async function settled({ client, jobId }: Underway): Promise<void> {
  await waitFor('a running job with a checkpoint', 60_000, async () => {
    const [job, checkpoints] = await Promise.all([client.job(jobId), client.checkpoints(jobId)]);
    return allRunning(job) && checkpoints.counts.completed > 0 ? job : undefined;
  });
}

async function leaderRound(underway: Underway): Promise<{ elected: number; running: number }> {
  const { cluster, jobId } = underway;
  await settled(underway);
  const leader = await waitFor('a leader', 20_000, () => cluster.leaderName());
  const deathAt = Date.now();
  cluster.signal(leader, 'SIGKILL');
  const takeover = await waitFor('a takeover', 60_000, () => {
    const seen = readTakeover(cluster, deathAt, jobId);
    return Promise.resolve(
      seen.running === undefined || seen.elected === undefined
        ? undefined
        : { elected: seen.elected, running: seen.running },
    );
  });
  cluster.restart(leader);
  return takeover;
}

async function taskManagerRound(underway: Underway): Promise<number> {
  const { cluster, client, jobId } = underway;
  await settled(underway);
  const job = await client.job(jobId);
  const victim = job.vertices[0]?.subtasks[0]?.['taskmanager-id'] ?? '';
  const deathAt = Date.now();
  cluster.signal(victim, 'SIGKILL');
  const running = await waitFor('the tasks running again', 60_000, () =>
    Promise.resolve(
      readEvents(cluster, deathAt).find(
        (one) => one.event === 'job.running' && one.fields['jobId'] === jobId,
      ),
    ),
  );
  cluster.restart(victim);
  await waitFor('the TaskManager back', 30_000, async () =>
    (await client.overview()).taskmanagers >= 3 ? true : undefined,
  );
  return running.at - deathAt;
}

await withCluster({ taskManagers: 3 }, async (cluster) => {
  const client = cluster.restClient();
  const settings = {
    'execution.checkpointing.interval': '300ms',
    'restart-strategy.type': 'fixed-delay',
    'restart-strategy.fixed-delay.attempts': '1000',
    'restart-strategy.fixed-delay.delay': '0 ms',
  };
  const jobId = await submit(client, { job: 'counter', parallelism: 2, settings });
  const underway = { cluster, client, jobId };
  const elected: number[] = [];
  const running: number[] = [];
  for (let round = 1; round <= rounds; round += 1) {
    const one = await leaderRound(underway);
    elected.push(one.elected);
    running.push(one.running);
    console.error(
      `leader SIGKILL, round ${String(round)}: elected ${String(one.elected)} ms, all tasks running ${String(one.running)} ms`,
    );
  }
  const lost: number[] = [];
  for (let round = 1; round <= Math.ceil(rounds / 2); round += 1) {
    lost.push(await taskManagerRound(underway));
    console.error(
      `TaskManager SIGKILL, round ${String(round)}: all tasks running ${String(lost.at(-1))} ms`,
    );
  }
  await client.close();
  const worst = spread(running).max;
  console.log(
    `leader SIGKILL -> elected             ${formatSpread(spread(elected), 'ms')}, ${String(rounds)} rounds`,
  );
  console.log(
    `leader SIGKILL -> all tasks running   ${formatSpread(spread(running), 'ms')}; worst ${worst < leaseTtlMs + 1500 ? 'within' : 'NOT within'} TTL + 1500 ms`,
  );
  console.log(
    `TaskManager SIGKILL -> tasks running  ${formatSpread(spread(lost), 'ms')}, ${String(lost.length)} rounds, restart delay 0`,
  );
});
