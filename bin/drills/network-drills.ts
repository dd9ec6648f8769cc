/** Drills of links that are cut, one-way or lossy, and of leaders that are late without being dead. */
import { setTimeout as sleep } from 'node:timers/promises';
import { parseEpoch } from '../../ha/services.js';
import { MillraceError } from '../../lib/base/errors.js';
import { waitUntilGone } from '../local/managed-process.js';
import type { Drill, DrillContext, DrillFindings } from './drill.js';
import { candidates, revokeLease } from './etcd-keys.js';
import type { FaultProxy } from './fault-proxy.js';
import {
  eventsOf,
  leaseTtlMs,
  lookBefore,
  moreCheckpoints,
  mustKeepAttempts,
  mustKeepLeader,
  present,
  standbysOf,
  waitForEvent,
  type Before,
} from './observe.js';
import { everybodyBack, mustAdopt, mustHaveOneLeaderPerEpoch } from './takeovers.js';
import { readEvents } from './timeline.js';

/** The deposed leader ends by itself, having completed nothing since `since`; it is started again and stands by. */
async function mustEndDeposed(
  { cluster }: DrillContext,
  { leader }: Before,
  old: Parameters<typeof waitUntilGone>[0][number],
  since: number,
): Promise<Record<string, number>> {
  if (!(await waitUntilGone([old], 10_000)))
    throw new MillraceError('INVARIANT', `${leader} still runs 10 s after it was deposed`);
  const said = eventsOf(cluster, leader, since);
  const revoked = said.find((one) => one.event === 'leader.revoked');
  if (revoked === undefined)
    throw new MillraceError(
      'INVARIANT',
      `${leader} ended without saying that its leadership was revoked`,
    );
  const late = said.find(({ event, at }) => event === 'leader.active' && at < revoked.at);
  if (late !== undefined)
    throw new MillraceError('INVARIANT', `${leader} was active after it was deposed`);
  await everybodyBack(cluster);
  return {
    deposedNoticedMs: revoked.at - since,
    writesRefused: said.filter(({ event }) => event === 'leader.write-refused').length,
  };
}

/** Its writes leave it, are held up on the way, and reach etcd when another one leads: none of them may be taken. */
async function freezeLeaderMidWrite(context: DrillContext): Promise<DrillFindings> {
  const { cluster, links, did, soak } = context;
  const before = await lookBefore(context);
  const old = cluster.process(before.leader);
  await links.setEtcd(before.leader, 'drop-requests');
  const cutAt = did(`requests of ${before.leader}, the leader, to etcd are held up`);
  // Until a checkpoint has its files and waits for its pointer.
  await sleep(900);
  cluster.signal(before.leader, 'SIGSTOP');
  did(`${before.leader} stopped (SIGSTOP), a checkpoint in flight`);
  const { newLeader, activeMs } = await mustAdopt(context, before, cutAt);
  if (soak) await sleep(Math.max(0, 20_000 - (Date.now() - cutAt)));
  await links.heal();
  did('what was held up reaches etcd');
  await sleep(500);
  cluster.signal(before.leader, 'SIGCONT');
  const wokenAt = did(`${before.leader} goes on (SIGCONT), deposed`);
  const end = await mustEndDeposed(context, before, old, wokenAt);
  return { frozen: before.leader, newLeader, activeMs, ...end };
}

async function blockLeader(context: DrillContext): Promise<DrillFindings> {
  const { cluster, did } = context;
  const before = await lookBefore(context);
  const old = cluster.process(before.leader);
  cluster.signal(before.leader, 'SIGUSR2');
  const blockedAt = did(`the event loop of ${before.leader}, the leader, is blocked`);
  const { newLeader, activeMs } = await mustAdopt(context, before, blockedAt);
  const end = await mustEndDeposed(context, before, old, blockedAt);
  return { blocked: before.leader, newLeader, activeMs, ...end };
}

async function cutLeaderFromEtcd(context: DrillContext): Promise<DrillFindings> {
  const { cluster, links, did } = context;
  const before = await lookBefore(context);
  const old = cluster.process(before.leader);
  await links.setEtcd(before.leader, 'blackhole');
  const cutAt = did(`${before.leader}, the leader, is cut off from etcd`);
  const suspended = await waitForEvent(cluster, cutAt, 'leader.suspended', leaseTtlMs + 2_000);
  const { newLeader, activeMs } = await mustAdopt(context, before, cutAt);
  if (suspended.at - cutAt > activeMs)
    throw new MillraceError(
      'INVARIANT',
      `${before.leader} went on for ${String(suspended.at - cutAt - activeMs)} ms beside its successor`,
    );
  await links.heal();
  const healedAt = did('the link is whole again');
  const end = await mustEndDeposed(context, before, old, healedAt);
  return {
    cutOff: before.leader,
    newLeader,
    suspendedMs: suspended.at - cutAt,
    activeMs,
    ...end,
  };
}

/** etcd still knows it as the leader: nobody else may lead, and what it cannot reach goes on or is restored. */
async function cutLeaderFromTaskManagers(context: DrillContext): Promise<DrillFindings> {
  const { cluster, run, links, did, soak } = context;
  const before = await lookBefore(context);
  await links.rpcOf(before.leader).set('blackhole');
  const cutAt = did(`${before.leader}, the leader, is cut off from all TaskManagers`);
  await sleep(soak ? 25_000 : 8_000);
  await links.heal();
  const healedAt = did('the link is whole again');
  const job = await run.waitUntilRunning();
  const checkpointMs = await moreCheckpoints(context, 2);
  return {
    cutOff: before.leader,
    awayMs: healedAt - cutAt,
    checkpointsAgainMs: Date.now() - healedAt,
    lastTwoCheckpointsMs: checkpointMs,
    restarts: job.generation - before.generation,
    epochs: mustHaveOneLeaderPerEpoch(cluster, cutAt),
  };
}

/** Arms all links of a process to etcd; resolves when one of them has lost an answer, the others are disarmed then. */
async function loseOneAnswer(proxies: readonly FaultProxy[], request: RegExp): Promise<void> {
  await Promise.race(proxies.map((one) => one.loseAnswerTo(request)));
  for (const one of proxies) one.disarm();
}

const pointerWrite = /\/ckpt\/\d{19}[\s\S]*"metadataPath"/;
const resultWrite = /\/results\/[\s\S]*"cleanup":"DIRTY"/;
const electionWrite = /"state":"RECOVERING"/;

async function loseAnswersToLeader(context: DrillContext): Promise<DrillFindings> {
  const { run, links, did, soak } = context;
  const before = await lookBefore(context);
  const rounds = soak ? 20 : 4;
  let slowestMs = 0;
  for (let round = 1; round <= rounds; round += 1) {
    await loseOneAnswer(links.etcdOf(before.leader), pointerWrite);
    did(`the answer to the write of a checkpoint's pointer was lost (${String(round)})`);
    slowestMs = Math.max(slowestMs, await moreCheckpoints(context, 1));
  }
  const { failed } = (await run.checkpoints()).counts;
  await mustKeepLeader(context, before);
  await mustKeepAttempts(context, before);
  const ended = run.waitUntilEnd();
  await Promise.race([
    loseOneAnswer(links.etcdOf(before.leader), resultWrite),
    ended.then(() => {
      throw new MillraceError('INVARIANT', "the answer to the result's write was not lost");
    }),
  ]);
  const lostAt = did("the answer to the write of the job's result was lost");
  await ended;
  return {
    answersLost: rounds + 1,
    slowestNextCheckpointMs: slowestMs,
    failedCheckpoints: failed,
    resultKnownMs: Date.now() - lostAt,
  };
}

async function loseElectionAnswer(context: DrillContext): Promise<DrillFindings> {
  const { cluster, links, did } = context;
  const before = await lookBefore(context);
  const proxies = (await standbysOf(cluster)).flatMap((name) => links.etcdOf(name));
  const lost = loseOneAnswer(proxies, electionWrite);
  const deathAt = did(`${before.leader}, the leader, killed (SIGKILL)`);
  cluster.signal(before.leader, 'SIGKILL');
  await lost;
  const lostAt = did('the answer to the election of its successor was lost');
  const { newLeader, activeMs } = await mustAdopt(context, before, deathAt);
  await everybodyBack(cluster);
  return {
    killed: before.leader,
    newLeader,
    answerLostMs: lostAt - deathAt,
    activeMs,
    epochs: mustHaveOneLeaderPerEpoch(cluster, deathAt),
  };
}

/** `created: true` in the encoded answer to the creation of a watch. */
const watchCreated = /\x18\x01/;

/** The standbys' watches break in the moment they are made and the leader dies: its end must be seen all the same. */
async function loseWatchEvent(context: DrillContext): Promise<DrillFindings> {
  const { cluster, links, did } = context;
  const before = await lookBefore(context);
  const proxies = (await standbysOf(cluster)).flatMap((name) => links.etcdOf(name));
  const cuts = proxies.map((one) => one.cutAfterAnswer(watchCreated));
  for (const one of proxies) one.resetConnections();
  await Promise.race([Promise.race(cuts), sleep(2_000)]);
  cluster.signal(before.leader, 'SIGKILL');
  const deathAt = did(`watches of the standbys cut; ${before.leader}, the leader, killed`);
  const { newLeader, activeMs } = await mustAdopt(context, before, deathAt);
  for (const one of proxies) one.disarm();
  // Detection, one resync, reconnecting with backoff.
  const limitMs = leaseTtlMs + 2_000;
  if (activeMs > limitMs)
    throw new MillraceError(
      'INVARIANT',
      `the successor was active after ${String(activeMs)} ms, more than ${String(limitMs)}`,
    );
  await everybodyBack(cluster);
  return { killed: before.leader, newLeader, activeMs };
}

async function loseStandbyLeases(context: DrillContext): Promise<DrillFindings> {
  const { cluster, did } = context;
  const before = await lookBefore(context);
  const [, ...waiting] = await candidates(cluster);
  for (const { lease } of waiting) await revokeLease(cluster, lease);
  const deathAt = did(
    `leases of the ${String(waiting.length)} standbys revoked; ${before.leader}, the leader, killed`,
  );
  cluster.signal(before.leader, 'SIGKILL');
  const { newLeader, activeMs } = await mustAdopt(context, before, deathAt);
  await everybodyBack(cluster);
  const gone = new Set(waiting.map(({ createRevision }) => createRevision));
  const phantom = readEvents(cluster, deathAt).find(
    ({ event, fields }) =>
      event === 'leader.active' && gone.has(parseEpoch(String(fields['epoch']))?.revision ?? NaN),
  );
  if (phantom !== undefined)
    throw new MillraceError(
      'INVARIANT',
      `${phantom.process} leads in the epoch of a candidacy it had lost`,
    );
  return {
    killed: before.leader,
    newLeader,
    activeMs,
    epochs: mustHaveOneLeaderPerEpoch(cluster, deathAt),
  };
}

/** A port that refuses looks as if its process were dead: the standbys depose a leader that is well. */
async function deposeHealthyLeader(context: DrillContext): Promise<DrillFindings> {
  const { cluster, links, did } = context;
  const before = await lookBefore(context);
  await links.rpcOf(before.leader).set('refuse');
  const liedAt = did(`the control port of ${before.leader}, the leader, refuses connections`);
  const { newLeader, activeMs } = await mustAdopt(context, before, liedAt);
  const revoked = await waitForEvent(
    cluster,
    liedAt,
    ({ event, process }) => event === 'leader.revoked' && process === before.leader,
    10_000,
  );
  await links.heal();
  await everybodyBack(cluster);
  const epochs = mustHaveOneLeaderPerEpoch(cluster, liedAt);
  if (epochs !== 1)
    throw new MillraceError('INVARIANT', `one lie cost ${String(epochs)} leaderships`);
  return {
    deposed: before.leader,
    newLeader,
    activeMs,
    ...present('deposedNoticedMs', revoked.at - liedAt),
  };
}

export const networkDrills: readonly Drill[] = [
  {
    name: 'leader-late-writes',
    fault:
      'the leader is stopped (SIGSTOP) with writes on their way to etcd, which arrive when another one leads',
    mustHold: 'none of them is taken; woken up it fences itself, ends, and comes back as a standby',
    cluster: { supervised: false, links: ['etcd'] },
    job: (soak) => ({ rate: soak ? 150 : 350 }),
    inject: freezeLeaderMidWrite,
  },
  {
    name: 'leader-blocked',
    fault: 'the event loop of the leader is blocked for two lease TTLs',
    mustHold:
      'a standby leads after the TTL, every task goes on; the first thing the old one does is to stop',
    cluster: {
      supervised: false,
      environment: () => ({ MILLRACE_INTERNAL_BLOCK: String(2 * leaseTtlMs) }),
    },
    job: { rate: 350 },
    inject: blockLeader,
  },
  {
    name: 'leader-without-etcd',
    fault: 'the leader is cut off from etcd, TaskManagers reach it',
    mustHold:
      'it suspends itself before a standby leads; every task goes on; it ends when it sees that it lost',
    cluster: { links: ['etcd'] },
    job: { rate: 350 },
    inject: cutLeaderFromEtcd,
  },
  {
    name: 'leader-without-taskmanagers',
    fault: 'the leader is cut off from all TaskManagers, etcd reaches it',
    mustHold: 'never two leaders; when the link is whole the job goes on by itself',
    cluster: { links: ['rpc'] },
    job: (soak) => ({ rate: soak ? 120 : 250 }),
    inject: cutLeaderFromTaskManagers,
  },
  {
    name: 'answers-lost',
    fault: "etcd's answers to the writes of checkpoint pointers and of the job's result are lost",
    mustHold: 'what was written is found out: one pointer, one result, no takeover, no restart',
    cluster: { links: ['etcd'] },
    job: (soak) => ({ rate: soak ? 250 : 700 }),
    inject: loseAnswersToLeader,
  },
  {
    name: 'election-answer-lost',
    fault: "the leader dies and etcd's answer to the election of its successor is lost",
    mustHold: 'the successor finds out that it leads; one epoch, every task goes on',
    cluster: { links: ['etcd'] },
    inject: loseElectionAnswer,
  },
  {
    name: 'watch-event-lost',
    fault: "the leader dies while the standbys' watches break as they are made",
    mustHold: 'its end is seen within a second more; every task goes on',
    cluster: { links: ['etcd'] },
    inject: loseWatchEvent,
  },
  {
    name: 'standby-leases-lost',
    fault: 'the leases of all standbys are revoked and the leader dies',
    mustHold:
      'nobody leads in a candidacy it lost; they stand again, one leads, every task goes on',
    inject: loseStandbyLeases,
  },
  {
    name: 'false-depose',
    fault: 'a healthy leader is deposed: its port refuses connections as if it were dead',
    mustHold: 'one takeover and no more; the old one ends and stands by; every task goes on',
    cluster: { links: ['rpc'] },
    inject: deposeHealthyLeader,
  },
];
