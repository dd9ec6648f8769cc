/** Drills of JobManagers: the leader dies, hangs, hands over; everything dies. */
import { MillraceError } from '../../lib/base/errors.js';
import { waitUntilGone } from '../local/managed-process.js';
import type { Drill, DrillContext, DrillFindings } from './drill.js';
import { leaderOf, leaseTtlMs, present, waitForEvent } from './observe.js';
import { readEvents, readTakeover } from './timeline.js';

/** Kills the leader and waits until all tasks run under the next one. */
export async function killLeader({
  cluster,
  run,
  progress,
  did,
}: DrillContext): Promise<DrillFindings> {
  const { generation } = await run.details();
  const leader = await leaderOf(cluster);
  const deathAt = did(`${leader}, the leader, killed (SIGKILL)`);
  cluster.signal(leader, 'SIGKILL');
  const job = await run.waitUntilRunning(generation);
  const takeover = readTakeover(cluster, deathAt, run.jobId);
  progress(`${takeover.newLeader ?? '?'} leads, all tasks run`);
  return {
    killed: leader,
    ...present('noticedMs', takeover.noticed),
    ...present('electedMs', takeover.elected),
    ...present('recoveredMs', takeover.recovered),
    ...present('runningMs', takeover.running),
    ...present('restoredCheckpoint', takeover.restoredCheckpoint),
    generation: job.generation,
  };
}

async function pauseLeader({ cluster, run, did }: DrillContext): Promise<DrillFindings> {
  const { generation } = await run.details();
  const leader = await leaderOf(cluster);
  const pausedAt = did(`${leader}, the leader, stopped (SIGSTOP)`);
  cluster.signal(leader, 'SIGSTOP');
  // The stopped process still accepts connections, so the others are asked.
  await waitForEvent(cluster, pausedAt, 'leader.granted', leaseTtlMs + 10_000);
  await run.waitUntilRunning(generation);
  const wokenAt = did(`${leader} goes on (SIGCONT), deposed`);
  const old = cluster.process(leader);
  cluster.signal(leader, 'SIGCONT');
  if (!(await waitUntilGone([old], 10_000)))
    throw new MillraceError('INVARIANT', `${leader} still runs 10 s after it was deposed`);
  const noticed = readEvents(cluster, wokenAt).find(
    (one) => one.process === leader && one.event === 'leader.revoked',
  );
  if (noticed === undefined)
    throw new MillraceError(
      'INVARIANT',
      `${leader} ended without saying that its leadership was revoked`,
    );
  await cluster.restart(leader);
  const takeover = readTakeover(cluster, pausedAt, run.jobId);
  return {
    paused: leader,
    ...present('electedMs', takeover.elected),
    ...present('runningMs', takeover.running),
    deposedNoticedMs: noticed.at - wokenAt,
  };
}

async function killEverything({ cluster, run, did }: DrillContext): Promise<DrillFindings> {
  const { generation } = await run.details();
  const all = cluster.processes().filter((one) => one.alive);
  const deathAt = did(`all ${String(all.length)} processes killed (SIGKILL)`);
  for (const one of all) cluster.signal(one.name, 'SIGKILL');
  await waitUntilGone(all, 10_000);
  for (const one of all) await cluster.restart(one.name);
  await cluster.waitReady(30_000);
  const job = await run.waitUntilRunning(-1);
  const restored = (await run.checkpoints()).latest.restored;
  if (restored === undefined)
    throw new MillraceError('INVARIANT', 'the job did not restore a checkpoint');
  return {
    processes: all.length,
    runningMs: Date.now() - deathAt,
    restoredCheckpoint: restored.id,
    generation: Math.max(job.generation, generation),
  };
}

export const leaderDrills: readonly Drill[] = [
  {
    name: 'leader-kill',
    fault: 'SIGKILL of the leading JobManager',
    mustHold: 'a standby leads and all tasks run again within the lease TTL + 1.5 s',
    inject: killLeader,
  },
  {
    name: 'leader-pause',
    fault: 'SIGSTOP of the leader beyond its lease, then SIGCONT',
    mustHold: 'its late writes are refused, it notices and ends; epochs in etcd never go back',
    job: { rate: 400 },
    inject: pauseLeader,
  },
  {
    name: 'cluster-kill',
    fault: 'SIGKILL of every process, etcd included, then all started again',
    mustHold: 'the job restores its last completed checkpoint',
    inject: killEverything,
  },
];
