/**
 * Entry of a slot's thread: finds the job's functions by running its main again, then runs the slot's tasks until
 * they ended. It lives as long as one deployment; the TaskManager ends it.
 */
import { parentPort, workerData } from 'node:worker_threads';
// What main imports: a prepared thread has it, and source maps, switched on later, are not read for it.
import '../index.js';
import { createSnapshotStorage } from '../../checkpoint/storage/file-checkpoint-storage.js';
import { rebuildFunctions } from '../api/rebuild.js';
import type { Env } from '../base/env.js';
import { invariant } from '../base/assert.js';
import { MillraceError, toFailure } from '../base/errors.js';
import type { LogFields } from '../base/logger.js';
import { MetricRegistry } from '../base/metrics.js';
import { createLogger } from '../base/pino-logger.js';
import { SystemClock } from '../base/system-clock.js';
import { SystemRandom } from '../base/system-random.js';
import { attachChannels } from '../network/slot-channels.js';
import type { SlotCommand } from '../task/slot-api.js';
import { createSlotLoop } from '../task/slot-loop.js';
import { SlotRuntime } from '../task/slot-runtime.js';
import { captureConsole } from './slot-console.js';
import { createMemoryCheck, heapProbe } from './slot-memory.js';
import type {
  SlotWorkerCommand,
  SlotWorkerMessage,
  SlotWorkerOptions,
  SlotWorkerStart,
} from './slot-worker-protocol.js';

invariant(parentPort !== null, 'slot-worker.js is the entry of a worker thread');
const port = parentPort;
const options = workerData as SlotWorkerOptions;

function send(message: SlotWorkerMessage): void {
  port.postMessage(message);
}

/** Knows whose code runs. */
let taskRunner: SlotRuntime | undefined;

/** Of the task whose code runs; while main does, there is none. */
function fieldsOfTask(): LogFields {
  const task = taskRunner?.current;
  return task === undefined
    ? { phase: 'main' }
    : { vertex: task.vertexName, subtask: task.subtaskIndex, attempt: task.attemptId };
}

/** Of code nobody awaits: a timer of the user's, a rejected promise. Nobody knows what it leaves behind. */
function onUncaught(cause: unknown): void {
  const message = cause instanceof Error ? cause.message : String(cause);
  const error = new MillraceError('USER_FUNCTION', `uncaught in the slot's thread: ${message}`, {
    cause,
  });
  send({ kind: 'fatal', failure: toFailure(error) });
}

async function run(start: SlotWorkerStart, onReady: (runtime: SlotRuntime) => void): Promise<void> {
  const { deployment, slotIndex, bundlePath } = start;
  const channels = attachChannels(start.channels);
  const { jobId, jobGraph } = deployment;
  const env: Env = {
    clock: new SystemClock(),
    random: new SystemRandom(),
    metrics: new MetricRegistry(),
    log: createLogger(options.log).child({ jobId, slot: slotIndex }),
  };
  process.setSourceMapsEnabled(true);
  captureConsole(env.log, fieldsOfTask);
  const functions = await rebuildFunctions({
    bundlePath,
    jobGraph,
    timeoutMs: options.mainTimeoutMs,
    env,
  });
  process.on('uncaughtException', onUncaught);
  const runtime = new SlotRuntime(
    env,
    {
      functions,
      storage: (epochLabel) =>
        createSnapshotStorage(
          deployment.checkpointDirectory,
          epochLabel,
          options.smallStateThresholdBytes,
        ),
      channels,
      report: send,
      loop: createSlotLoop(env.clock, options.polls ? {} : { maxPollMs: 0 }),
    },
    {
      blockedThresholdMs: options.blockedThresholdMs,
      checkMemory: createMemoryCheck(
        env.clock,
        options.slotMemoryBytes,
        heapProbe(channels.memoryBytes),
      ),
    },
  );
  taskRunner = runtime;
  runtime.deploy(deployment);
  onReady(runtime);
}

// Commands that come while main runs wait here. The port keeps the thread alive.
const early: SlotCommand[] = [];
let running: SlotRuntime | undefined;
port.on('message', (message: SlotWorkerCommand) => {
  if (message.kind !== 'start') {
    if (running === undefined) early.push(message);
    else running.command(message);
    return;
  }
  run(message, (runtime) => {
    running = runtime;
    for (const command of early.splice(0)) runtime.command(command);
  }).catch((error: unknown) => {
    send({ kind: 'fatal', failure: toFailure(error) });
  });
});
