/**
 * The coordinator thread of a job: enumerators are user code, so they run in a worker, started when the
 * job is and ended with it. A fault in it is reported and ends only this thread.
 */
import { Worker } from 'node:worker_threads';
import type { Env } from '../../base/env.js';
import { MillraceError, toFailure, type Failure } from '../../base/errors.js';
import type { Digest, JobId } from '../../base/ids.js';
import type { LoggerOptions } from '../../base/pino-logger.js';
import type { JobGraph } from '../../graph/job-graph.js';
import type {
  CoordinatorCommand,
  CoordinatorHost,
  CoordinatorHostFactory,
  CoordinatorReply,
} from './coordinator-host.js';
import { StartLimit } from './start-limit.js';
import type {
  CoordinatorWorkerData,
  CoordinatorWorkerMessage,
} from './coordinator-worker-protocol.js';

/** A bundle as a local file beside a `node_modules/millrace`, held until released. */
export interface LocalBundle {
  readonly path: string;
  release(): void;
}

export interface WorkerCoordinatorOptions {
  acquireBundle(jobId: JobId, digest: Digest): Promise<LocalBundle>;
  readonly mainTimeoutMs: number;
  readonly log: LoggerOptions;
  /** Heap of the thread. Default 256 MiB. */
  readonly heapMb?: number;
}

/** Each takes a CPU for a tenth of a second or more, which a leader with many jobs needs for other things. */
const startingMax = 2;
/** A main that takes long, or for ever, does not keep others from starting. */
const startWaitMs = 1_000;

export function workerCoordinatorHosts(
  env: Env,
  options: WorkerCoordinatorOptions,
): CoordinatorHostFactory {
  const starts = new StartLimit(env.clock, startingMax, startWaitMs);
  return (graph, onReply) => new WorkerCoordinatorHost(env, graph, { ...options, starts }, onReply);
}

type HostOptions = WorkerCoordinatorOptions & { readonly starts: StartLimit };

class WorkerCoordinatorHost implements CoordinatorHost {
  readonly #env: Env;
  readonly #onReply: (reply: CoordinatorReply) => void;
  #early: CoordinatorCommand[] = [];
  #resetNumber = 0;
  #worker: Worker | undefined;
  #bundle: LocalBundle | undefined;
  #isClosed = false;
  #started: () => void = () => undefined;
  readonly #opened: Promise<void>;

  constructor(
    env: Env,
    graph: JobGraph,
    options: HostOptions,
    onReply: (reply: CoordinatorReply) => void,
  ) {
    this.#env = env;
    this.#onReply = onReply;
    this.#opened = this.#open(graph, options).catch((error: unknown) => {
      this.#fail(toFailure(error));
    });
  }

  send(command: CoordinatorCommand): void {
    if (command.kind === 'reset') this.#resetNumber = command.resetNumber;
    if (this.#worker === undefined) this.#early.push(command);
    else this.#worker.postMessage(command);
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    await this.#opened;
    await this.#worker?.terminate();
    this.#started();
    this.#bundle?.release();
  }

  async #open(graph: JobGraph, options: HostOptions): Promise<void> {
    if (graph.bundle === undefined) {
      throw new MillraceError(
        'JOB_INVALID',
        'the job has no bundle its source coordinators could run',
      );
    }
    this.#bundle = await options.acquireBundle(graph.jobId, graph.bundle.digest);
    this.#started = await options.starts.begin();
    if (this.#isClosed) {
      this.#started();
      return;
    }
    const data: CoordinatorWorkerData = {
      jobGraph: graph,
      bundlePath: this.#bundle.path,
      mainTimeoutMs: options.mainTimeoutMs,
      log: options.log,
    };
    const worker = new Worker(new URL('./coordinator-worker.js', import.meta.url), {
      workerData: data,
      name: `coordinator-${graph.jobId.slice(0, 8)}`,
      // Source maps of our own files would be read at every start; the thread switches them on for user code.
      execArgv: [],
      stdout: true,
      stderr: true,
      resourceLimits: { maxOldGenerationSizeMb: options.heapMb ?? 256 },
    });
    for (const stream of [worker.stdout, worker.stderr]) {
      stream.setEncoding('utf8').on('data', (text: string) => {
        this.#env.log.info(
          { jobId: graph.jobId, output: text.trimEnd() },
          'output of a source coordinator',
        );
      });
    }
    worker.on('message', (message: CoordinatorWorkerMessage) => {
      if (message.kind === 'loaded') this.#started();
      else if (message.kind === 'fatal') this.#fail(message.failure);
      else if (!this.#isClosed) this.#onReply(message);
    });
    worker.on('error', (error) => {
      this.#fail(
        toFailure(
          new MillraceError('USER_FUNCTION', `the coordinator's thread broke: ${error.message}`, {
            cause: error,
          }),
        ),
      );
    });
    worker.on('exit', (code) => {
      this.#fail(
        toFailure(
          new MillraceError(
            'USER_FUNCTION',
            `the coordinator's thread ended with code ${String(code)}`,
          ),
        ),
      );
    });
    this.#worker = worker;
    for (const command of this.#early.splice(0)) worker.postMessage(command);
  }

  #fail(failure: Failure): void {
    this.#started();
    if (this.#isClosed) return;
    this.#onReply({ kind: 'failed', resetNumber: this.#resetNumber, failure });
  }
}
