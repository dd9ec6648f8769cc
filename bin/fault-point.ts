/** Deaths at chosen places, for drills: MILLRACE_INTERNAL_FAULT is `<fault point>@<occurrence>@<marker file>`. */
import { closeSync, openSync } from 'node:fs';
import type { Env, FaultPoint } from '../lib/base/env.js';
import { MillraceError } from '../lib/base/errors.js';

/**
 * Ends the process by SIGKILL at the n-th passage of the point, in whichever process comes there first: it
 * creates the marker file, and no process dies while that exists.
 */
export function faultFromEnvironment(
  environment: Readonly<Record<string, string | undefined>>,
): Pick<Env, 'fault'> {
  const setting = environment['MILLRACE_INTERNAL_FAULT'];
  if (setting === undefined || setting === '') return {};
  const [name, occurrence, marker] = setting.split('@');
  const wanted = Number(occurrence);
  if (name === undefined || marker === undefined || !Number.isInteger(wanted) || wanted < 1) {
    throw new MillraceError(
      'CONFIG',
      `MILLRACE_INTERNAL_FAULT must be NAME@COUNT@FILE, got ${setting}`,
    );
  }
  let passed = 0;
  return {
    fault: (point: FaultPoint) => {
      if (point !== name) return;
      passed += 1;
      if (passed !== wanted) return;
      try {
        closeSync(openSync(marker, 'wx'));
      } catch {
        // It fired before, here or elsewhere.
        return;
      }
      process.kill(process.pid, 'SIGKILL');
    },
  };
}
