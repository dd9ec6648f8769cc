/** Deaths at chosen places, for drills: MILLRACE_INTERNAL_FAULT names a directory, see {@link faultFromEnvironment}. */
import { renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Env, FaultPoint } from '../lib/base/env.js';
import { MillraceError } from '../lib/base/errors.js';

/** Who died of an armed fault point. */
export interface FiredFault {
  readonly pid: number;
  /** Wall-clock ms. */
  readonly at: number;
}

/** The file whose presence arms a point. */
export function armedFile(directory: string, point: FaultPoint): string {
  return join(directory, `${point}.armed`);
}

/** The file that holds the {@link FiredFault} afterwards, as JSON. */
export function firedFile(directory: string, point: FaultPoint): string {
  return join(directory, `${point}.fired`);
}

/**
 * A process that passes a point whose file is in the directory ends by SIGKILL. It renames the file first, so that
 * one process dies of it and its successor does not: a point can be armed again later.
 */
export function faultFromEnvironment(
  environment: Readonly<Record<string, string | undefined>>,
): Pick<Env, 'fault'> {
  const directory = environment['MILLRACE_INTERNAL_FAULT'];
  if (directory === undefined || directory === '') return {};
  return {
    fault: (point: FaultPoint) => {
      const fired = firedFile(directory, point);
      const death: FiredFault = { pid: process.pid, at: Date.now() };
      try {
        renameSync(armedFile(directory, point), `${fired}.new`);
      } catch {
        // Not armed, or somebody else has died of it.
        return;
      }
      writeFileSync(`${fired}.new`, JSON.stringify(death));
      renameSync(`${fired}.new`, fired);
      process.kill(process.pid, 'SIGKILL');
    },
  };
}

/**
 * With MILLRACE_INTERNAL_BLOCK set to a number of ms, SIGUSR2 keeps the main thread busy for that long, as a runaway
 * computation would: nothing else runs on it, timers and signals included.
 */
export function blockOnSignal(environment: Readonly<Record<string, string | undefined>>): void {
  const setting = environment['MILLRACE_INTERNAL_BLOCK'];
  if (setting === undefined || setting === '') return;
  const ms = Number(setting);
  if (!Number.isInteger(ms) || ms < 1)
    throw new MillraceError(
      'CONFIG',
      `MILLRACE_INTERNAL_BLOCK must be a number of ms, got ${setting}`,
    );
  process.on('SIGUSR2', () => {
    // Not Atomics.wait: a thread that waits takes no CPU, and one that computes is what happens.
    for (const until = performance.now() + ms; performance.now() < until;);
  });
}
