/**
 * Slots as worker threads: one thread per deployment, with its own heap limit. Whatever user code does in it
 * (endless loops, process.exit, running out of memory) ends at most this thread.
 */
import { Worker } from 'node:worker_threads';
import { childEnv, type Env } from '../base/env.js';
import { MillraceError, toFailure, type Failure } from '../base/errors.js';
import type { Logger } from '../base/logger.js';
import type { NetworkEnvironment } from '../network/network-environment.js';
import type { SlotCommand } from '../task/slot-api.js';
import { userOutputEvent } from './log-tail.js';
import { memoryError } from './slot-memory.js';
import type { RunningSlot, SlotEvents, SlotRunner, SlotStart } from './slot-runner.js';
import type {
  SlotWorkerData,
  SlotWorkerMessage,
  SlotWorkerOptions,
} from './slot-worker-protocol.js';

/** V8's own limit, the last wall, is so many times the soft one. */
const hardLimitFactor = 2;

export class WorkerSlotRunner implements SlotRunner {
  readonly isPreemptive = true;
  readonly #env: Env;
  readonly #network: NetworkEnvironment;
  readonly #options: SlotWorkerOptions;

  constructor(env: Env, network: NetworkEnvironment, options: SlotWorkerOptions) {
    this.#env = childEnv(env, 'slot-runner');
    this.#network = network;
    this.#options = options;
  }

  start(start: SlotStart, events: SlotEvents): RunningSlot {
    const { deployment, slotIndex, bundlePath } = start;
    try {
      if (bundlePath === undefined) {
        throw new MillraceError('JOB_INVALID', 'the job has no bundle its slot threads could run');
      }
      const channels = this.#network.openChannels(deployment, slotIndex);
      const data: SlotWorkerData = {
        deployment,
        slotIndex,
        bundlePath,
        channels,
        options: this.#options,
      };
      return new WorkerSlot(this.#env.log, data, {
        onReport: (report) => {
          events.onReport(report);
        },
        onEnded: (failure) => {
          this.#network.releaseChannels(slotIndex, deployment.generation);
          events.onEnded(failure);
        },
      });
    } catch (error) {
      queueMicrotask(() => {
        events.onEnded(toFailure(error));
      });
      return { send: () => undefined, terminate: () => undefined };
    }
  }
}

class WorkerSlot implements RunningSlot {
  readonly #log: Logger;
  readonly #worker: Worker;
  readonly #data: SlotWorkerData;
  readonly #events: SlotEvents;
  /** We end the thread, for this reason or, without one, because it is over. */
  #isEnding = false;
  #failure: Failure | undefined;

  constructor(log: Logger, data: SlotWorkerData, events: SlotEvents) {
    const { jobId } = data.deployment;
    this.#log = log.child({ jobId, slot: data.slotIndex });
    this.#data = data;
    this.#events = events;
    const { slotMemoryBytes } = data.options;
    this.#worker = new Worker(new URL('./slot-worker.js', import.meta.url), {
      workerData: data,
      name: `slot-${String(data.slotIndex)}`,
      // Source maps of our own files would be read at every start; the thread switches them on for user code.
      execArgv: process.execArgv.filter((argument) => argument !== '--enable-source-maps'),
      stdout: true,
      stderr: true,
      resourceLimits: {
        maxOldGenerationSizeMb: Math.ceil((slotMemoryBytes * hardLimitFactor) / 1024 ** 2),
      },
    });
    this.#logStreams();
    this.#worker.on('message', (message: SlotWorkerMessage) => {
      this.#onMessage(message);
    });
    this.#worker.on('messageerror', (error) => {
      this.#end(toFailure(error));
    });
    this.#worker.on('error', (error) => {
      this.#failure ??= toFailure(this.#describe(error));
    });
    this.#worker.on('exit', (code) => {
      this.#onExit(code);
    });
  }

  send(command: SlotCommand): void {
    this.#worker.postMessage(command);
  }

  terminate(): void {
    this.#end(undefined);
  }

  #onMessage(message: SlotWorkerMessage): void {
    if (message.kind === 'fatal') this.#end(message.failure);
    else {
      this.#events.onReport(message);
      if (message.kind === 'closed') this.#end(undefined);
    }
  }

  #end(failure: Failure | undefined): void {
    if (this.#isEnding) return;
    this.#isEnding = true;
    this.#failure = failure;
    void this.#worker.terminate();
  }

  #onExit(code: number): void {
    const isExpected = this.#isEnding && this.#failure === undefined;
    this.#events.onEnded(
      isExpected
        ? undefined
        : (this.#failure ??
            toFailure(
              new MillraceError(
                'SLOT_LOST',
                `the slot's thread ended with code ${String(code)}: user code called process.exit(${String(code)})`,
                { details: { code, slotIndex: this.#data.slotIndex } },
              ),
            )),
    );
  }

  #describe(error: unknown): MillraceError {
    if ((error as NodeJS.ErrnoException).code === 'ERR_WORKER_OUT_OF_MEMORY') {
      return memoryError(this.#data.options.slotMemoryBytes);
    }
    const message = error instanceof Error ? error.message : String(error);
    return new MillraceError('SLOT_LOST', `the slot's thread broke: ${message}`, { cause: error });
  }

  /** What did not go through the thread's console: native code, V8 itself. */
  #logStreams(): void {
    for (const [stream, level] of [
      [this.#worker.stdout, 'info'],
      [this.#worker.stderr, 'warn'],
    ] as const) {
      stream.setEncoding('utf8');
      stream.on('data', (text: string) => {
        this.#log[level]({ event: userOutputEvent }, text.trimEnd());
      });
    }
  }
}
