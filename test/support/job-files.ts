/** Job files in a temporary folder and what the client makes of them. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { SystemClock } from '../../lib/base/system-clock.js';
import { SystemRandom } from '../../lib/base/system-random.js';
import { prepareJob, type PreparedJob, type PrepareOptions } from '../../lib/client/prepare-job.js';

export function writeJob(folder: string, source: string, name = 'job.ts'): string {
  const file = join(folder, name);
  writeFileSync(file, source);
  return file;
}

/** Without type check unless asked for: it takes a second. */
export function prepare(file: string, options: Partial<PrepareOptions> = {}): Promise<PreparedJob> {
  return prepareJob(file, {
    clock: new SystemClock(),
    random: new SystemRandom(),
    typeCheck: false,
    ...options,
  });
}
