/**
 * Entry of a job's coordinator thread on the JobManager: finds the job's sources by running its main again,
 * then runs their enumerators. User code in it can end at most this thread.
 */
import './coordinator-priority.js';
import { parentPort, workerData } from 'node:worker_threads';
// What main imports: loaded before source maps are switched on, which would be read for all of it.
import '../../index.js';
import { rebuildFunctions } from '../../api/rebuild.js';
import { invariant } from '../../base/assert.js';
import type { Env } from '../../base/env.js';
import { MillraceError, toFailure } from '../../base/errors.js';
import { MetricRegistry } from '../../base/metrics.js';
import { createLogger } from '../../base/pino-logger.js';
import { SystemClock } from '../../base/system-clock.js';
import { SystemRandom } from '../../base/system-random.js';
import type { CoordinatorCommand } from './coordinator-host.js';
import type {
  CoordinatorWorkerData,
  CoordinatorWorkerMessage,
} from './coordinator-worker-protocol.js';
import { EnumeratorRunner } from './enumerator-runner.js';

invariant(parentPort !== null, 'coordinator-worker.js is the entry of a worker thread');
const port = parentPort;
const { jobGraph, bundlePath, mainTimeoutMs, log } = workerData as CoordinatorWorkerData;

const env: Env = {
  clock: new SystemClock(),
  random: new SystemRandom(),
  metrics: new MetricRegistry(),
  log: createLogger(log).child({ component: 'coordinator', jobId: jobGraph.jobId }),
};

function send(message: CoordinatorWorkerMessage): void {
  port.postMessage(message);
}

function onUncaught(cause: unknown): void {
  const text = cause instanceof Error ? cause.message : String(cause);
  const error = new MillraceError(
    'USER_FUNCTION',
    `uncaught in the coordinator's thread: ${text}`,
    { cause },
  );
  send({ kind: 'fatal', failure: toFailure(error) });
}

async function run(): Promise<void> {
  process.setSourceMapsEnabled(true);
  const early: CoordinatorCommand[] = [];
  let handle = (command: CoordinatorCommand): void => {
    early.push(command);
  };
  // Commands that come while main runs wait; the port also keeps the thread alive.
  port.on('message', (command: CoordinatorCommand) => {
    handle(command);
  });
  const functions = await rebuildFunctions({ bundlePath, jobGraph, timeoutMs: mainTimeoutMs, env });
  process.on('uncaughtException', onUncaught);
  send({ kind: 'loaded' });
  const runner = new EnumeratorRunner(env, functions, send);
  handle = (command) => {
    runner.handle(command);
  };
  for (const command of early) handle(command);
}

run().catch((error: unknown) => {
  send({ kind: 'fatal', failure: toFailure(error) });
});
