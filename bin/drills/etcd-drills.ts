/** Drills of etcd: members die, hang, restart, are cut off; it runs out of space; the quorum is lost and comes back. */
import { setTimeout as sleep } from 'node:timers/promises';
import { MillraceError } from '../../lib/base/errors.js';
import { mayRevokeLiveLeases } from '../doctor/etcd-verdicts.js';
import { etcdMemberStatus, waitForEtcd } from '../local/etcd-member.js';
import type { LocalCluster } from '../local/local-cluster.js';
import { waitUntilGone } from '../local/managed-process.js';
import type { Drill, DrillContext, DrillFindings } from './drill.js';
import { keysOf, readKeys } from './etcd-keys.js';
import {
  CheckpointWatch,
  etcdLeaderName,
  etcdName,
  latestCheckpoint,
  lookBefore,
  moreCheckpoints,
  mustHaveFailedOver,
  mustKeepAttempts,
  mustKeepLeader,
  recordsRead,
  waitForEvent,
  type Before,
} from './observe.js';
import { everybodyBack, mustAdopt, mustHaveOneLeaderPerEpoch } from './takeovers.js';

async function strikesEtcdLeader(cluster: LocalCluster): Promise<readonly string[]> {
  return [`${await etcdLeaderName(cluster)}, the leader of etcd`];
}

async function nothingHappened(context: DrillContext, before: Before): Promise<void> {
  await mustKeepLeader(context, before);
  await mustKeepAttempts(context, before);
}

/** The member is back and the whole cluster healthy before the job's end is awaited. */
async function endEtcdMember(
  context: DrillContext,
  kind: 'SIGKILL' | 'SIGTERM',
): Promise<DrillFindings> {
  const { cluster, did } = context;
  const before = await lookBefore(context);
  const victim = await etcdLeaderName(cluster);
  const watch = new CheckpointWatch(context);
  cluster.signal(victim, kind);
  const deathAt = did(`${victim}, etcd's leader, ends (${kind})`);
  await moreCheckpoints(context, 3);
  const checkpointsMs = Date.now() - deathAt;
  await waitUntilGone([cluster.process(victim)], 10_000);
  await cluster.restart(victim);
  did(`${victim} started again`);
  await waitForEtcd(cluster.endpoints);
  await moreCheckpoints(context, 2);
  const gapMs = await watch.stop();
  await nothingHappened(context, before);
  return {
    victim,
    threeCheckpointsMs: checkpointsMs,
    longestCheckpointGapMs: gapMs,
  };
}

async function pauseEtcdMember(
  context: DrillContext,
  victim: string,
  pauseMs: number,
  afterwards = nothingHappened,
): Promise<DrillFindings> {
  const { cluster, did } = context;
  const before = await lookBefore(context);
  const watch = new CheckpointWatch(context);
  cluster.signal(victim, 'SIGSTOP');
  const pausedAt = did(`${victim} stopped (SIGSTOP) for ${String(pauseMs / 1000)} s`);
  try {
    await moreCheckpoints(context, 3);
    const threeCheckpointsMs = Date.now() - pausedAt;
    await sleep(Math.max(0, pauseMs - threeCheckpointsMs));
    await nothingHappened(context, before);
    cluster.signal(victim, 'SIGCONT');
    did(`${victim} goes on (SIGCONT)`);
    await waitForEtcd(cluster.endpoints);
    await moreCheckpoints(context, 2);
    const longestCheckpointGapMs = await watch.stop();
    await afterwards(context, before);
    return { victim, threeCheckpointsMs, longestCheckpointGapMs };
  } finally {
    await watch.stop();
    cluster.signal(victim, 'SIGCONT');
  }
}

/** While it is stopped nothing happens; when it wakes, an etcd with that fault may take the leader's lease from it. */
async function pauseEtcdLeader(context: DrillContext): Promise<DrillFindings> {
  const { cluster } = context;
  const victim = await etcdLeaderName(cluster);
  let takeovers = 0;
  const findings = await pauseEtcdMember(context, victim, 10_000, async (_, before) => {
    const { version } = await etcdMemberStatus(cluster.endpoints[0] ?? '');
    const { epoch } = await context.run.details();
    if (epoch !== before.epoch && mayRevokeLiveLeases(version)) takeovers += 1;
    else await mustKeepLeader(context, before);
    await mustKeepAttempts(context, before);
  });
  return { ...findings, takeovers };
}

async function pauseEtcdFollower(context: DrillContext): Promise<DrillFindings> {
  const leads = await etcdLeaderName(context.cluster);
  const follower = context.cluster
    .processes()
    .find(({ role, name }) => role === 'etcd' && name !== leads);
  if (follower === undefined) throw new MillraceError('INVARIANT', 'etcd has one member only');
  return pauseEtcdMember(context, follower.name, context.soak ? 60_000 : 20_000);
}

async function restartEtcdInTurn(context: DrillContext): Promise<DrillFindings> {
  const { cluster, did } = context;
  const before = await lookBefore(context);
  const watch = new CheckpointWatch(context);
  for (const { name } of cluster.processes().filter(({ role }) => role === 'etcd')) {
    did(`${name} asked to end (SIGTERM)`);
    cluster.signal(name, 'SIGTERM');
    if (!(await waitUntilGone([cluster.process(name)], 15_000)))
      throw new MillraceError('TIMEOUT', `${name} does not end`);
    await cluster.restart(name);
    await waitForEtcd(cluster.endpoints);
    did(`${name} is back`);
    await moreCheckpoints(context, 2);
  }
  const longestCheckpointGapMs = await watch.stop();
  await nothingHappened(context, before);
  return { members: cluster.endpoints.length, longestCheckpointGapMs };
}

/** Which member has whose watch is not known from outside: each has its turn, and the leader dies in the last. */
async function isolateEtcdMembers(context: DrillContext): Promise<DrillFindings> {
  const { cluster, links, did } = context;
  const before = await lookBefore(context);
  const watch = new CheckpointWatch(context);
  const last = cluster.endpoints.length - 1;
  let longestCheckpointGapMs = 0;
  let takeoverMs = 0;
  for (let member = 0; member <= last; member += 1) {
    await links.isolateMember(member, cluster.endpoints);
    const cutAt = did(`${etcdName(member)} is cut off from the other members`);
    await moreCheckpoints(context, 3);
    await sleep(Math.max(0, 3_000 - (Date.now() - cutAt)));
    await nothingHappened(context, before);
    if (member === last) {
      longestCheckpointGapMs = await watch.stop();
      cluster.signal(before.leader, 'SIGKILL');
      const deathAt = did(`${before.leader}, the leading JobManager, killed (SIGKILL)`);
      takeoverMs = (await mustAdopt(context, before, deathAt)).activeMs;
    }
    await links.heal();
    await waitForEtcd(cluster.endpoints);
    did('the link is whole again');
  }
  await everybodyBack(cluster);
  return { members: last + 1, longestCheckpointGapMs, takeoverWhileCutMs: takeoverMs };
}

async function setNoSpaceAlarm(cluster: LocalCluster, isOn: boolean): Promise<void> {
  for (const endpoint of cluster.endpoints) {
    const { memberId } = await etcdMemberStatus(endpoint);
    const response = await fetch(`${endpoint}/v3/maintenance/alarm`, {
      method: 'POST',
      body: JSON.stringify({
        action: isOn ? 'ACTIVATE' : 'DEACTIVATE',
        memberID: memberId,
        alarm: 'NOSPACE',
      }),
      signal: AbortSignal.timeout(3_000),
    });
    if (!response.ok)
      throw new MillraceError('ETCD_REJECTED', `the alarm: ${await response.text()}`);
  }
}

/** The keys of the job's completed checkpoints. */
async function pointers({ cluster, run }: DrillContext): Promise<string> {
  const found = await readKeys(cluster, keysOf(cluster).checkpointsPrefix(run.jobId));
  return found.map(({ key }) => key).join(' ');
}

async function runOutOfSpace(context: DrillContext): Promise<DrillFindings> {
  const { cluster, run, did } = context;
  const before = await lookBefore(context);
  await setNoSpaceAlarm(cluster, true);
  did('etcd has no space left (NOSPACE)');
  await sleep(500);
  const pointersThen = await pointers(context);
  await sleep(1_000);
  cluster.signal(before.leader, 'SIGKILL');
  const deathAt = did(`${before.leader}, the leading JobManager, killed (SIGKILL)`);
  await mustHaveFailedOver(context, before);
  const active = await waitForEvent(cluster, deathAt, 'leader.active', 10_000);
  if ((await pointers(context)) !== pointersThen)
    throw new MillraceError('INVARIANT', 'a checkpoint completed while etcd had no space');
  const seen = await run.client.ha();
  if (!JSON.stringify(seen).includes('NOSPACE'))
    throw new MillraceError('INVARIANT', 'nobody is told that etcd has no space');
  await mustKeepAttempts(context, before);
  await setNoSpaceAlarm(cluster, false);
  const freeAt = did('the alarm is disarmed');
  await moreCheckpoints(context, 2);
  const checkpointsAgainMs = Date.now() - freeAt;
  await mustKeepAttempts(context, before);
  await everybodyBack(cluster);
  return { killed: before.leader, activeMs: active.at - deathAt, checkpointsAgainMs };
}

async function loseQuorum(context: DrillContext): Promise<DrillFindings> {
  const { cluster, run, did, progress, soak } = context;
  const before = await lookBefore(context);
  const outageMs = soak ? 60_000 : 15_000;
  const members = cluster.processes().filter(({ role }) => role === 'etcd');
  for (const { name } of members) cluster.signal(name, 'SIGKILL');
  const downAt = did('all etcd members killed');
  await sleep(outageMs / 3);
  const early = await recordsRead(context);
  const latestThen = await latestCheckpoint(context);
  const { 'status-reason': reason = '' } = await run.details();
  progress(`status says: ${reason}`);
  await sleep(outageMs / 2);
  const late = await recordsRead(context);
  await sleep(Math.max(0, outageMs - (Date.now() - downAt)));
  if (late <= early)
    throw new MillraceError('INVARIANT', `no records flowed during the outage (${String(late)})`);
  if (!/etcd/i.test(reason))
    throw new MillraceError('INVARIANT', `the job's status does not name etcd: '${reason}'`);
  if ((await latestCheckpoint(context)) !== latestThen)
    throw new MillraceError('INVARIANT', 'a checkpoint completed without etcd');
  for (const { name } of members) await cluster.restart(name);
  await waitForEtcd(cluster.endpoints);
  const backAt = did('all etcd members are back');
  await moreCheckpoints(context, 2);
  const checkpointsAgainMs = Date.now() - backAt;
  await mustKeepAttempts(context, before);
  const { epoch } = await run.details();
  return {
    outageMs: backAt - downAt,
    recordsMeanwhile: late - early,
    checkpointsAgainMs,
    leader: epoch === before.epoch ? 'the same' : 'a successor',
    epochs: mustHaveOneLeaderPerEpoch(cluster, downAt),
  };
}

const nothing = 'no JobManager fails over, no task restarts, checkpoints go on';

export const etcdDrills: readonly Drill[] = [
  {
    name: 'etcd-leader-kill',
    fault: "SIGKILL of etcd's leader",
    mustHold: nothing,
    strikes: strikesEtcdLeader,
    inject: (context) => endEtcdMember(context, 'SIGKILL'),
  },
  {
    name: 'etcd-leader-stop',
    fault: "SIGTERM to etcd's leader",
    mustHold: nothing,
    strikes: strikesEtcdLeader,
    inject: (context) => endEtcdMember(context, 'SIGTERM'),
  },
  {
    name: 'etcd-leader-pause',
    fault: "SIGSTOP of etcd's leader for 10 s",
    mustHold: `${nothing}; etcd before 3.4.31 and 3.5.13 may revoke the leader's lease when the member wakes: a standby then adopts every task`,
    job: { rate: 300 },
    strikes: strikesEtcdLeader,
    inject: pauseEtcdLeader,
  },
  {
    name: 'etcd-follower-pause',
    fault: 'SIGSTOP of a follower of etcd for 20 s (60 s in the long variant)',
    mustHold: nothing,
    job: (soak) => ({ rate: soak ? 90 : 230 }),
    inject: pauseEtcdFollower,
  },
  {
    name: 'etcd-rolling-restart',
    fault: 'every etcd member restarted in turn',
    mustHold: nothing,
    job: { rate: 350 },
    strikes: (cluster) => Promise.resolve(cluster.endpoints.map((_, i) => etcdName(i))),
    inject: restartEtcdInTurn,
  },
  {
    name: 'etcd-member-isolated',
    fault:
      'each etcd member in turn is cut off from the others, its clients still reach it; then the leading JobManager dies',
    mustHold: 'watches and writes move to a member with a quorum; the takeover is not late',
    cluster: { links: ['etcd-peers'] },
    job: { rate: 280 },
    inject: isolateEtcdMembers,
  },
  {
    name: 'etcd-no-space',
    fault: 'etcd raises NOSPACE, then the leading JobManager dies',
    mustHold:
      'a standby leads, every task goes on, the alarm is shown; checkpoints go on when there is space',
    job: { rate: 400 },
    inject: runOutOfSpace,
  },
  {
    name: 'etcd-outage',
    fault: 'all etcd members killed, back after 15 s (60 s in the long variant)',
    mustHold:
      'records flow, no checkpoint completes, status says why; then no task was restarted, nothing lost or doubled',
    job: (soak) => ({ rate: soak ? 90 : 280 }),
    inject: loseQuorum,
  },
];
