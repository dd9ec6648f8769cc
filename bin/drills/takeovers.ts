/** What the drills of leaders share: a takeover that tasks must not notice, and the return of everybody. */
import { setTimeout as sleep } from 'node:timers/promises';
import { MillraceError } from '../../lib/base/errors.js';
import type { LocalCluster } from '../local/local-cluster.js';
import type { DrillContext } from './drill.js';
import { candidates } from './etcd-keys.js';
import { moreCheckpoints, mustHaveFailedOver, mustKeepAttempts, type Before } from './observe.js';
import { readEvents, readTakeover, type LoggedEvent } from './timeline.js';

export interface SeenTakeover {
  readonly newLeader: string;
  /** ms from the fault to the event that the new leader is active. */
  readonly activeMs: number;
  /** ms from the fault until the job was adopted. */
  readonly adoptedMs: number;
  readonly epoch: string;
}

/**
 * After a fault at `since` (wall-clock ms): another epoch leads, every attempt is the one that ran before, and a
 * checkpoint completes under the new leader. INVARIANT or TIMEOUT when that is not so.
 */
export async function mustAdopt(
  context: DrillContext,
  before: Before,
  since: number,
  timeoutMs = 30_000,
): Promise<SeenTakeover> {
  const { cluster, run, progress } = context;
  let active: LoggedEvent | undefined;
  let adopted: LoggedEvent | undefined;
  let epoch = before.epoch;
  // A leader may answer and be gone before it is ACTIVE: the one that counts is who adopted.
  await run.waitFor('a leader that is active and has adopted the job', timeoutMs, async () => {
    ({ epoch } = await run.details());
    if (epoch === before.epoch) return false;
    const ofEpoch = readEvents(cluster, since).filter((one) => one.fields['epoch'] === epoch);
    active = ofEpoch.find((one) => one.event === 'leader.active');
    adopted = ofEpoch.find(
      (one) => one.event === 'job.adopted' && one.fields['jobId'] === run.jobId,
    );
    return active !== undefined && adopted !== undefined;
  });
  await mustHaveFailedOver(context, before);
  if (active === undefined || adopted === undefined)
    throw new MillraceError('INVARIANT', 'no events after waiting for them');
  await moreCheckpoints(context, 1, timeoutMs);
  const tasks = await mustKeepAttempts(context, before);
  progress(
    `${active.process} leads after ${String(active.at - since)} ms, all ${String(tasks)} attempts go on`,
  );
  return {
    newLeader: active.process,
    activeMs: active.at - since,
    adoptedMs: adopted.at - since,
    epoch,
  };
}

/** Starts again what is dead and waits until every JobManager stands for election and every TaskManager is registered. */
export async function everybodyBack(cluster: LocalCluster, timeoutMs = 60_000): Promise<void> {
  for (const one of cluster.processes()) if (!one.alive) await cluster.restart(one.name);
  const expected = cluster.processes().filter((one) => one.role === 'jobmanager').length;
  const deadline = Date.now() + timeoutMs;
  for (;;) {
    const queue = await candidates(cluster);
    if (queue.length === expected) break;
    if (Date.now() > deadline)
      throw new MillraceError(
        'TIMEOUT',
        `${String(queue.length)} of ${String(expected)} JobManagers stand for election after ${String(timeoutMs / 1000)} s`,
      );
    await sleep(50);
  }
  await cluster.waitReady(timeoutMs);
}

/** The checkpoint restored since then must be the last that had a pointer: nobody goes back to an older state. */
export function mustHaveRestored(
  { cluster, run }: DrillContext,
  since: number,
  atLeast: number,
): number {
  const { restoredCheckpoint } = readTakeover(cluster, since, run.jobId);
  if (restoredCheckpoint === undefined || restoredCheckpoint < atLeast)
    throw new MillraceError(
      'INVARIANT',
      `checkpoint ${String(restoredCheckpoint ?? 'none')} was restored, ${String(atLeast)} had completed`,
    );
  return restoredCheckpoint;
}

/** INVARIANT when two processes were active as leader in one epoch. Returns the number of epochs. */
export function mustHaveOneLeaderPerEpoch(cluster: LocalCluster, since: number): number {
  const active = new Map<string, string>();
  for (const { event, fields, process } of readEvents(cluster, since)) {
    const epoch = fields['epoch'];
    if (event !== 'leader.active' || typeof epoch !== 'string') continue;
    const known = active.get(epoch);
    if (known !== undefined && known !== process)
      throw new MillraceError('INVARIANT', `${known} and ${process} both led in epoch ${epoch}`);
    active.set(epoch, process);
  }
  return active.size;
}
