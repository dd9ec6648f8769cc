/** Entry of the thread that runs main for the client; see capture.ts. */
import { setImmediate as nextTurn } from 'node:timers/promises';
import { parentPort, workerData } from 'node:worker_threads';
import { readEnvironment } from '../api/pinned-globals.js';
import { runMain } from '../api/rebuild.js';
import { toFailure } from '../base/errors.js';
// Loaded before anybody watches: what the bundle imports reads files of its own while it is loaded.
import '../index.js';
import { watchOutsideAccess } from './outside-access.js';
import type { CaptureMessage, CaptureWorkerData } from './capture.js';

async function capture(data: CaptureWorkerData): Promise<CaptureMessage> {
  const declared: Record<string, string> = { ...data.main.environment };
  let rejected: { error: unknown } | undefined;
  const access = watchOutsideAccess();
  try {
    const { jobGraph } = await runMain({ bundlePath: data.bundlePath }, (handOver, reject) => ({
      kind: 'capture',
      settings: data.settings,
      attributes: {
        jobId: data.jobId,
        main: data.main,
        bundle: data.bundle,
        ...(data.restore !== undefined && { restore: data.restore }),
      },
      declareEnvironment: (names) => {
        const values = readEnvironment(names);
        Object.assign(declared, values);
        return values;
      },
      handOver,
      reject: (error) => {
        rejected ??= { error };
        reject(error);
      },
    }));
    // A main that does not await execute() goes on: let it come to its second one.
    await nextTurn();
    if (rejected !== undefined) return { kind: 'failed', failure: toFailure(rejected.error) };
    return {
      kind: 'captured',
      jobGraph: { ...jobGraph, main: { ...data.main, environment: declared } },
      warnings: access.warnings(),
    };
  } catch (error) {
    return { kind: 'failed', failure: toFailure(error) };
  } finally {
    access.stop();
  }
}

parentPort?.postMessage(await capture(workerData as CaptureWorkerData));
