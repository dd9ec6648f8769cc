/**
 * Slots as worker threads: one thread per deployment, with its own heap limit. Whatever user code does in it
 * (endless loops, process.exit, running out of memory) ends at most this thread.
 */
import { setFlagsFromString } from 'node:v8';
import { Worker } from 'node:worker_threads';
import type { CancelTimer } from '../base/clock.js';
import { childEnv, type Env } from '../base/env.js';
import { MillraceError, toFailure, type Failure } from '../base/errors.js';
import type { Logger } from '../base/logger.js';
import type { NetworkEnvironment } from '../network/network-environment.js';
import type { SlotCommand } from '../task/slot-api.js';
import { Bell } from '../network/bell.js';
import { userOutputEvent } from './log-tail.js';
import { memoryError } from './slot-memory.js';
import type { RunningSlot, SlotEvents, SlotRunner, SlotStart } from './slot-runner.js';
import { watchSlot, type SlotWatch } from './slot-watch.js';
import type {
  SlotWorkerMessage,
  SlotWorkerOptions,
  SlotWorkerStart,
} from './slot-worker-protocol.js';

/** Prepared threads that nobody needed are ended after this. */
const spareIdleMs = 30_000;
/** V8's own limit, the last wall, is so many times the soft one. */
const hardLimitFactor = 2;

export class WorkerSlotRunner implements SlotRunner {
  readonly isPreemptive = true;
  readonly #env: Env;
  readonly #network: NetworkEnvironment;
  readonly #options: SlotWorkerOptions;
  /** Threads that have loaded everything but a job. They do not keep the process alive. */
  readonly #spares = new Set<Worker>();
  #cancelSpareTimer: CancelTimer = () => undefined;

  constructor(env: Env, network: NetworkEnvironment, options: SlotWorkerOptions) {
    this.#env = childEnv(env, 'slot-runner');
    this.#network = network;
    this.#options = options;
    // Of the whole process, so that they are there before a slot's thread compiles anything.
    for (const flag of options.v8Flags) setFlagsFromString(flag);
  }

  /** Starting a thread and loading the runtime takes 100 ms that a recovery need not wait for. */
  prepare(slots: number): void {
    while (this.#spares.size < slots) {
      const spare = createWorker(this.#options);
      spare.unref();
      this.#spares.add(spare);
      spare.on('error', (err) => {
        this.#env.log.warn({ err }, 'a prepared slot thread broke');
      });
      spare.on('exit', () => this.#spares.delete(spare));
    }
    this.#cancelSpareTimer();
    this.#cancelSpareTimer = this.#env.clock.setTimer(spareIdleMs, () => {
      this.close();
    });
  }

  /** Ends the prepared threads. */
  close(): void {
    this.#cancelSpareTimer();
    for (const spare of this.#spares) void spare.terminate();
    this.#spares.clear();
  }

  start(start: SlotStart, events: SlotEvents): RunningSlot {
    const { deployment, slotIndex, bundlePath } = start;
    try {
      if (bundlePath === undefined) {
        throw new MillraceError('JOB_INVALID', 'the job has no bundle its slot threads could run');
      }
      const channels = this.#network.openChannels(deployment, slotIndex);
      const command: SlotWorkerStart = {
        kind: 'start',
        deployment,
        slotIndex,
        bundlePath,
        channels,
      };
      const worker = this.#takeSpare() ?? createWorker(this.#options);
      return new WorkerSlot(this.#env.log, worker, command, {
        slotMemoryBytes: this.#options.slotMemoryBytes,
        watch: (threadId) =>
          watchSlot(
            this.#env,
            { threadId, bell: new Bell(channels.bells, channels.bell), deployment },
            this.#options.blockedThresholdMs,
          ),
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

  #takeSpare(): Worker | undefined {
    const [spare] = this.#spares;
    if (spare === undefined) return undefined;
    this.#spares.delete(spare);
    if (this.#spares.size === 0) this.#cancelSpareTimer();
    spare.removeAllListeners();
    spare.ref();
    return spare;
  }
}

function createWorker(options: SlotWorkerOptions): Worker {
  return new Worker(new URL('./slot-worker.js', import.meta.url), {
    workerData: options,
    name: 'slot',
    // Nothing of this process's: V8's flags are refused here, and source maps of our own files would be read at
    // every start (the thread switches them on for user code).
    execArgv: [],
    stdout: true,
    stderr: true,
    resourceLimits: {
      maxYoungGenerationSizeMb: Math.ceil(options.youngGenerationBytes / 1024 ** 2),
      maxOldGenerationSizeMb: Math.ceil((options.slotMemoryBytes * hardLimitFactor) / 1024 ** 2),
    },
  });
}

interface WorkerSlotEvents extends SlotEvents {
  readonly slotMemoryBytes: number;
  readonly watch: (threadId: number) => SlotWatch;
}

class WorkerSlot implements RunningSlot {
  readonly #log: Logger;
  readonly #worker: Worker;
  readonly #slotIndex: number;
  readonly #events: WorkerSlotEvents;
  /** We end the thread, for this reason or, without one, because it is over. */
  #isEnding = false;
  #failure: Failure | undefined;
  readonly #watch: SlotWatch;

  constructor(log: Logger, worker: Worker, start: SlotWorkerStart, events: WorkerSlotEvents) {
    const { slotIndex, deployment } = start;
    this.#log = log.child({ jobId: deployment.jobId, slot: slotIndex });
    this.#slotIndex = slotIndex;
    this.#events = events;
    this.#worker = worker;
    worker.postMessage(start);
    this.#watch = events.watch(worker.threadId);
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
    void this.#watch.stop().then(() => this.#worker.terminate());
  }

  #onExit(code: number): void {
    void this.#watch.stop();
    const isExpected = this.#isEnding && this.#failure === undefined;
    this.#events.onEnded(
      isExpected
        ? undefined
        : (this.#failure ??
            toFailure(
              new MillraceError(
                'SLOT_LOST',
                `the slot's thread ended with code ${String(code)}: user code called process.exit(${String(code)})`,
                { details: { code, slotIndex: this.#slotIndex } },
              ),
            )),
    );
  }

  #describe(error: unknown): MillraceError {
    if ((error as NodeJS.ErrnoException).code === 'ERR_WORKER_OUT_OF_MEMORY') {
      return memoryError(this.#events.slotMemoryBytes);
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
