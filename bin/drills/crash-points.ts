/** Deaths of the leader at named places of its work (fault points), and what drills do with them. */
import { existsSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { MillraceError } from '../../lib/base/errors.js';
import { isAlive } from '../local/managed-process.js';
import type { DrillContext } from './drill.js';
import { leaseTtlMs, waitForEvent } from './observe.js';

/** Fires once per cluster: the marker file keeps the next leader from dying the same way. */
export function crashOnce(
  fault: string,
  occurrence: number,
): (directory: string) => Record<string, string> {
  return (directory) => ({
    MILLRACE_INTERNAL_FAULT: `${fault}@${String(occurrence)}@${join(directory, 'fault-fired')}`,
  });
}

/** Waits for the death at a fault point and for the next leader. */
export async function afterFault(
  { cluster, run, progress, did }: DrillContext,
  what: string,
): Promise<{ deathAt: number; killed: string }> {
  const marker = join(cluster.directory, 'fault-fired');
  const leaders = cluster.processes().filter((one) => one.role === 'jobmanager');
  const deadline = Date.now() + 60_000;
  while (!existsSync(marker) || leaders.every(isAlive)) {
    if (Date.now() > deadline)
      throw new MillraceError('TIMEOUT', `no leader died within 60 s: ${what}`);
    await sleep(20);
  }
  const deathAt = statSync(marker).mtimeMs;
  did(`the leader died: ${what}`);
  await waitForEvent(cluster, deathAt - 100, 'leader.active', leaseTtlMs + 10_000);
  const dead = leaders.filter((one) => !isAlive(one)).map((one) => one.name);
  const { state } = await run.details();
  progress(`the next leader knows the job as ${state}`);
  return { deathAt, killed: dead.join(' ') };
}
