/** Drills of JobManagers: the leader dies, hangs, hands over, is tampered with; all of them die; everything dies. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { FaultPoint } from '../../lib/base/env.js';
import { MillraceError } from '../../lib/base/errors.js';
import type { LocalCluster } from '../local/local-cluster.js';
import { waitUntilGone } from '../local/managed-process.js';
import { arm, crashable, deathAt } from './crash-points.js';
import type { Drill, DrillContext, DrillFindings } from './drill.js';
import { candidates, deleteKey, keysOf, putKey, revokeLease } from './etcd-keys.js';
import {
  leaderOf,
  leaseTtlMs,
  lookBefore,
  moreCheckpoints,
  mustKeepLeader,
  waitForEvent,
} from './observe.js';
import {
  everybodyBack,
  mustAdopt,
  mustHaveOneLeaderPerEpoch,
  mustHaveRestored,
} from './takeovers.js';
import { readEvents } from './timeline.js';

async function strikesLeader(cluster: LocalCluster): Promise<readonly string[]> {
  return [await leaderOf(cluster)];
}

/** A few deaths at random moments of checkpoints and of each other; the long variant a hundred. */
async function killLeaders(context: DrillContext): Promise<DrillFindings> {
  const { cluster, did, soak } = context;
  const began = Date.now();
  const rounds = soak ? 20 : 3;
  const activeMs: number[] = [];
  for (let round = 0; round < rounds; round += 1) {
    await sleep(Math.random() * 600);
    const before = await lookBefore(context);
    cluster.signal(before.leader, 'SIGKILL');
    const deathAt = did(`${before.leader} killed`);
    activeMs.push((await mustAdopt(context, before, deathAt)).activeMs);
    await everybodyBack(cluster);
  }
  return {
    rounds,
    activeWorstMs: Math.max(...activeMs),
    epochs: mustHaveOneLeaderPerEpoch(cluster, began),
  };
}

async function loseLeaderMachine(context: DrillContext): Promise<DrillFindings> {
  const { cluster, did } = context;
  const before = await lookBefore(context);
  cluster.signalBoth(before.leader, 'SIGKILL');
  const deathAt = did(`${before.leader} and its supervisor killed`);
  const { newLeader, activeMs, adoptedMs } = await mustAdopt(context, before, deathAt);
  if (activeMs > leaseTtlMs + 1_000)
    throw new MillraceError(
      'INVARIANT',
      `the successor was active after ${String(activeMs)} ms, later than the lease and a second`,
    );
  return { killed: before.leader, newLeader, activeMs, adoptedMs };
}

/** In the order in which a leader comes to be; in words for people. */
const stepsToLead: readonly (readonly [FaultPoint, string])[] = [
  ['election.lease-held', 'it held a lease and was no candidate yet'],
  ['election.registered', 'its candidate key was in etcd'],
  ['election.elected', 'its election was in etcd, nobody had been told'],
  ['leader.recovered', 'it had read everything and was not ACTIVE'],
  ['leader.active', 'it had just become ACTIVE'],
];

/** Each step kills the leader; whoever comes to the step first, the successor or the process that comes back, dies there. */
async function killAtEveryStep(context: DrillContext): Promise<DrillFindings> {
  const { cluster, did } = context;
  const began = Date.now();
  const findings: Record<string, number> = {};
  for (const [point, what] of stepsToLead) {
    const before = await lookBefore(context);
    arm(cluster, point);
    const leader = await leaderOf(cluster);
    cluster.signal(leader, 'SIGKILL');
    const since = did(`${leader} killed, ${point} armed`);
    await sleep(500);
    // A process that comes back passes the first steps.
    await cluster.restart(leader);
    await deathAt(context, point, what);
    const { activeMs } = await mustAdopt(context, before, since);
    findings[`${point.split('.')[1] ?? point}Ms`] = activeMs;
    await everybodyBack(cluster);
  }
  return { ...findings, epochs: mustHaveOneLeaderPerEpoch(cluster, began) };
}

/** SIGTERM to whoever leads, again and again, of five JobManagers that started at once. */
async function leaveInOrder(context: DrillContext): Promise<DrillFindings> {
  const { cluster, did, soak } = context;
  const began = Date.now();
  const first = mustHaveOneLeaderPerEpoch(cluster, 0);
  if (first !== 1)
    throw new MillraceError('INVARIANT', `${String(first)} epochs led after a first start`);
  const rounds = soak ? 20 : 4;
  const gaps: number[] = [];
  for (let round = 0; round < rounds; round += 1) {
    const before = await lookBefore(context);
    cluster.signal(before.leader, 'SIGTERM');
    const toldAt = did(`${before.leader} asked to end`);
    await mustAdopt(context, before, toldAt);
    gaps.push(handOverGap(cluster, before.leader, toldAt));
    await everybodyBack(cluster);
  }
  return {
    rounds,
    handOverWorstMs: Math.max(...gaps),
    epochs: mustHaveOneLeaderPerEpoch(cluster, began),
  };
}

/** From the last moment in which the leaving leader led to the first in which its successor does. ms */
function handOverGap(cluster: LocalCluster, leaving: string, toldAt: number): number {
  const events = readEvents(cluster, toldAt);
  const left = events.find((one) => one.process === leaving && one.event === 'leader.revoked');
  const next = events.find((one) => one.process !== leaving && one.event === 'leader.active');
  return Math.max(0, (next?.at ?? NaN) - (left?.at ?? toldAt));
}

/** What an administrator might do with etcdctl. */
async function tamper(context: DrillContext): Promise<DrillFindings> {
  const { cluster, did } = context;
  const { leader: leaderKey } = keysOf(cluster);
  const before = await lookBefore(context);
  const deletedAt = did(`${leaderKey} deleted`);
  await deleteKey(cluster, leaderKey);
  const republished = await waitForEvent(cluster, deletedAt, 'leader.republished', 10_000);
  const overwrittenAt = did(`${leaderKey} overwritten`);
  await putKey(cluster, leaderKey, '{"not":"a leader"}');
  const again = await waitForEvent(cluster, overwrittenAt, 'leader.republished', 10_000);
  await mustKeepLeader(context, before);
  await moreCheckpoints(context, 1);
  const [candidate] = await candidates(cluster);
  if (candidate === undefined) throw new MillraceError('INVARIANT', 'nobody is a candidate');
  const keyDeletedAt = did(`the leader's candidate key deleted`);
  await deleteKey(cluster, candidate.key);
  const first = await mustAdopt(context, before, keyDeletedAt);
  await everybodyBack(cluster);
  const between = await lookBefore(context);
  const [next] = await candidates(cluster);
  if (next === undefined) throw new MillraceError('INVARIANT', 'nobody is a candidate');
  const revokedAt = did(`the lease of the leader, ${between.leader}, revoked`);
  await revokeLease(cluster, next.lease);
  const second = await mustAdopt(context, between, revokedAt);
  await everybodyBack(cluster);
  return {
    deletedRecordMs: republished.at - deletedAt,
    overwrittenRecordMs: again.at - overwrittenAt,
    deletedCandidateMs: first.activeMs,
    revokedLeaseMs: second.activeMs,
    epochs: mustHaveOneLeaderPerEpoch(cluster, 0),
  };
}

async function killAllJobManagers({ cluster, did }: DrillContext): Promise<number> {
  const all = cluster.processes().filter((one) => one.role === 'jobmanager');
  for (const one of all) cluster.signalBoth(one.name, 'SIGKILL');
  await waitUntilGone(all, 10_000);
  return did(`all ${String(all.length)} JobManagers killed`);
}

/** Back before the TaskManagers lose patience. */
async function awayForAWhile(context: DrillContext): Promise<DrillFindings> {
  const { cluster, did, soak } = context;
  const before = await lookBefore(context);
  const deathAt = await killAllJobManagers(context);
  await sleep(soak ? 20_000 : 5_000);
  await everybodyBack(cluster);
  const backAt = did('all JobManagers started again');
  const { adoptedMs } = await mustAdopt(context, before, deathAt);
  return { awayMs: backAt - deathAt, adoptedMs };
}

const leaderlessMs = 2_000;

/** Back when the TaskManagers have cancelled their tasks. */
async function awayForTooLong(context: DrillContext): Promise<DrillFindings> {
  const { cluster, run, did } = context;
  const before = await lookBefore(context);
  const last = (await run.checkpoints()).latest.completed?.id ?? 0;
  const deathAt = await killAllJobManagers(context);
  await sleep(leaseTtlMs + leaderlessMs + 4_000);
  await everybodyBack(cluster);
  const backAt = did('all JobManagers started again');
  const job = await run.waitUntilRunning(before.generation);
  return {
    awayMs: backAt - deathAt,
    restoredCheckpoint: mustHaveRestored(context, deathAt, last),
    generation: job.generation,
  };
}

/** A power cut: nothing is left but the disks. */
async function killEverything(context: DrillContext): Promise<DrillFindings> {
  const { cluster, run, did } = context;
  const { generation } = await run.details();
  const last = (await run.checkpoints()).latest.completed?.id ?? 0;
  const all = cluster.processes().filter((one) => one.alive);
  for (const one of all) cluster.signalBoth(one.name, 'SIGKILL');
  await waitUntilGone(all, 10_000);
  const deathAt = did(`all ${String(all.length)} processes and their supervisors killed`);
  for (const one of all) await cluster.restart(one.name);
  await cluster.waitReady(60_000);
  const job = await run.waitUntilRunning(generation);
  return {
    processes: all.length,
    runningMs: Date.now() - deathAt,
    restoredCheckpoint: mustHaveRestored(context, deathAt, last),
    generation: job.generation,
  };
}

export const leaderDrills: readonly Drill[] = [
  {
    name: 'leader-kill',
    fault: 'SIGKILL of the leading JobManager, three times, in any phase of the job',
    mustHold: 'a standby leads within milliseconds, every task goes on, one leader per epoch',
    job: { rate: 280 },
    strikes: strikesLeader,
    inject: killLeaders,
  },
  {
    name: 'leader-machine-lost',
    fault: 'leader and supervisor killed together, nobody sees it',
    mustHold: 'a standby leads within the lease TTL + 1 s, every task goes on',
    cluster: { settings: { 'high-availability.peer-detection.enabled': 'false' } },
    inject: loseLeaderMachine,
  },
  {
    name: 'leader-kill-steps',
    fault: 'the leader is killed and its successor dies at a step of becoming one: five steps',
    mustHold: 'somebody leads in the end, epochs never go back, every task goes on',
    cluster: { environment: crashable() },
    job: { rate: 180 },
    inject: killAtEveryStep,
  },
  {
    name: 'leader-hand-over',
    fault: 'five JobManagers start at once; the leader is asked to end, four times',
    mustHold: 'one leader per epoch, the next one acts at once, every task goes on',
    cluster: { jobManagers: 5 },
    job: { rate: 250 },
    inject: leaveInOrder,
  },
  {
    name: 'leader-tampering',
    fault:
      "the leader's record deleted and overwritten, its candidate key deleted, its lease revoked",
    mustHold: 'records are written again; who lost key or lease steps down; every task goes on',
    job: { rate: 300 },
    inject: tamper,
  },
  {
    name: 'jobmanagers-away',
    fault: 'all JobManagers killed, back within the leaderless time',
    mustHold: 'tasks go on meanwhile and are adopted',
    job: { rate: 350 },
    inject: awayForAWhile,
  },
  {
    name: 'jobmanagers-away-long',
    fault: 'all JobManagers killed, back after the leaderless time',
    mustHold: 'tasks are cancelled meanwhile; the job restores its last checkpoint',
    cluster: { settings: { 'taskmanager.leaderless.timeout': `${String(leaderlessMs)} ms` } },
    job: { rate: 400 },
    inject: awayForTooLong,
  },
  {
    name: 'cluster-kill',
    fault: 'power cut: SIGKILL of every process, etcd and supervisors included; then a cold start',
    mustHold: 'the job restores its last completed checkpoint',
    inject: killEverything,
  },
];
