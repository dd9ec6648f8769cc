/** Deaths of the leader at named places of its work (fault points), and what drills do with them. */
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { MillraceError } from '../../lib/base/errors.js';
import type { FaultPoint } from '../../lib/base/env.js';
import { armedFile, firedFile, type FiredFault } from '../fault-point.js';
import type { LocalCluster } from '../local/local-cluster.js';
import type { DrillContext } from './drill.js';
import { readEvents } from './timeline.js';

function faultDirectory(clusterDirectory: string): string {
  return join(clusterDirectory, 'faults');
}

/** Environment of processes that die at points armed later, see {@link arm}, or armed from the start. */
export function crashable(
  ...armed: readonly FaultPoint[]
): (directory: string) => Record<string, string> {
  return (directory) => {
    const faults = faultDirectory(directory);
    mkdirSync(faults, { recursive: true });
    for (const point of armed) writeFileSync(armedFile(faults, point), '');
    return { MILLRACE_INTERNAL_FAULT: faults };
  };
}

/** The next process that passes the point dies there; the one after it does not. */
export function arm(cluster: LocalCluster, point: FaultPoint): void {
  const faults = faultDirectory(cluster.directory);
  rmSync(firedFile(faults, point), { force: true });
  writeFileSync(armedFile(faults, point), '');
}

export interface Death {
  /** Wall-clock ms. */
  readonly at: number;
  readonly process: string;
}

/** Waits until somebody has died at the point. `what` says in words where that is. */
export async function deathAt(
  { cluster, did }: DrillContext,
  point: FaultPoint,
  what: string,
  timeoutMs = 30_000,
): Promise<Death> {
  const file = firedFile(faultDirectory(cluster.directory), point);
  const deadline = Date.now() + timeoutMs;
  while (!existsSync(file)) {
    if (Date.now() > deadline)
      throw new MillraceError(
        'TIMEOUT',
        `nobody died within ${String(timeoutMs / 1000)} s at the point: ${what}`,
      );
    await sleep(10);
  }
  const { pid, at } = JSON.parse(readFileSync(file, 'utf8')) as FiredFault;
  const said = readEvents(cluster, 0).find((one) => one.fields['pid'] === pid);
  const process = said?.process ?? `process ${String(pid)}`;
  did(`${process} died: ${what}`);
  return { at, process };
}
