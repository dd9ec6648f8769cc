/** `createRemoteEnvironment`: a program that is started by itself and runs its job on a cluster. */
import { MillraceError } from '../base/errors.js';
import { sleep } from '../base/clock.js';
import { SystemClock } from '../base/system-clock.js';
import { SystemRandom } from '../base/system-random.js';
import { programArguments } from '../api/pinned-globals.js';
import type { RemoteExecutor } from '../api/execution-context.js';
import { RestClient } from '../rest/rest-client.js';
import { prepareJob } from './prepare-job.js';

/** Between looks at the result. */
const pollMs = 250;

/**
 * Bundles and captures the program's file, submits it and waits for the job's result. The program runs
 * three times in all: here, to be captured, and in every slot; each time up to `execute()`.
 */
export const executeRemotely: RemoteExecutor['executeRemotely'] = async (options) => {
  const [program, ...args] = programArguments();
  const file = options.jobFile ?? program;
  if (file === undefined) {
    throw new MillraceError(
      'JOB_INVALID',
      'createRemoteEnvironment does not know the file of this program: pass { jobFile: fileURLToPath(import.meta.url) }',
    );
  }
  const clock = new SystemClock();
  const random = new SystemRandom();
  const { jobGraph, bundle } = await prepareJob(file, {
    clock,
    random,
    args,
    settings: options.settings,
  });
  const { token } = options;
  const client = new RestClient([options.url], token === undefined ? {} : { token });
  try {
    const { jobId } = await client.submit({ submissionId: random.hex(32), jobGraph, bundle });
    for (;;) {
      const result = await client.jobResult(jobId);
      if (result !== undefined) return result;
      await sleep(clock, pollMs);
    }
  } finally {
    await client.close();
  }
};
