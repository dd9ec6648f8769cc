/**
 * A JobManager and TaskManagers in one process, on the calling thread: the real Dispatcher, JobMasters,
 * checkpoints and task runtime over an in-memory store and in-process calls. For the local environment
 * and for tests of jobs; functions are by reference, so closures may share variables with the test.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { cpus, tmpdir, totalmem } from 'node:os';
import { join } from 'node:path';
import type { HighAvailability } from '../../ha/services.js';
import { createMemoryHighAvailability } from '../../ha/memory/create-memory-high-availability.js';
import { createSnapshotStorage } from '../../checkpoint/storage/file-checkpoint-storage.js';
import { sleep } from '../base/clock.js';
import type { Env } from '../base/env.js';
import { MillraceError } from '../base/errors.js';
import { newJobManagerId, type JobId, type TaskManagerId } from '../base/ids.js';
import { CloseableRegistry, type Closeable } from '../base/lifecycle.js';
import type { ClientGateway, JobExecutionResult } from '../gateway/client-gateway.js';
import type { JobGraph } from '../graph/job-graph.js';
import { JobManager } from '../jobmanager/job-manager.js';
import { localCoordinatorHosts } from '../jobmanager/jobmaster/local-coordinator-host.js';
import { NetworkEnvironment } from '../network/network-environment.js';
import type { FunctionSource } from '../operators/stream-operator.js';
import { LocalRpcService } from '../rpc/local-rpc-service.js';
import { BlobCache } from '../taskmanager/blob-cache.js';
import { InProcessSlotRunner } from '../taskmanager/in-process-slot-runner.js';
import { TaskExecutor } from '../taskmanager/task-executor.js';

export interface MiniClusterOptions {
  /** Default 1. More than one opens loopback sockets between them. */
  readonly taskManagers?: number;
  /** Of each TaskManager. Default 4. */
  readonly slots?: number;
  /** Checkpoints and HA files. Default: a temporary directory, removed by `close`. */
  readonly storageDir?: string;
  readonly slotRequestTimeoutMs?: number;
}

const pollMs = 5;
const leaderTimeoutMs = 10_000;
const smallStateThresholdBytes = 20 * 1024;

export class MiniCluster implements Closeable {
  readonly #env: Env;
  readonly #owned: CloseableRegistry;
  readonly #functions = new Map<string, FunctionSource>();
  readonly #jobManager: JobManager;

  private constructor(
    env: Env,
    owned: CloseableRegistry,
    functions: Map<string, FunctionSource>,
    jobManager: JobManager,
  ) {
    this.#env = env;
    this.#owned = owned;
    this.#functions = functions;
    this.#jobManager = jobManager;
  }

  /** Resolves when the leader answers and every slot is registered. */
  static async start(env: Env, options: MiniClusterOptions = {}): Promise<MiniCluster> {
    const owned = new CloseableRegistry(env.log);
    const functions = new Map<string, FunctionSource>();
    try {
      const jobManager = await startParts(env, owned, functions, options);
      const cluster = new MiniCluster(env, owned, functions, jobManager);
      await cluster.#untilRegistered(options.taskManagers ?? 1);
      return cluster;
    } catch (error) {
      await owned.close();
      throw error;
    }
  }

  /** The Dispatcher. */
  get gateway(): ClientGateway {
    const gateway = this.#jobManager.gateway();
    if (gateway === undefined)
      throw new MillraceError('NO_LEADER', 'the JobManager does not lead (yet)');
    return gateway;
  }

  async submit(jobGraph: JobGraph, functions: FunctionSource): Promise<JobId> {
    this.#functions.set(jobGraph.jobId, functions);
    const { jobId } = await this.gateway.submitJob({
      submissionId: this.#env.random.hex(32),
      jobGraph,
    });
    return jobId;
  }

  /** Resolves when the job ended, whatever its state. */
  async result(jobId: JobId): Promise<JobExecutionResult> {
    for (;;) {
      const result = await this.gateway.jobResult(jobId);
      if (result !== undefined) return result;
      await sleep(this.#env.clock, pollMs);
    }
  }

  close(): Promise<void> {
    return this.#owned.close();
  }

  async #untilRegistered(taskManagers: number): Promise<void> {
    const deadline = this.#env.clock.now() + leaderTimeoutMs;
    for (;;) {
      const seen = await this.#jobManager.gateway()?.overview();
      if (seen !== undefined && seen.taskmanagers >= taskManagers) return;
      if (this.#env.clock.now() > deadline)
        throw new MillraceError('TIMEOUT', 'the MiniCluster is not ready after 10 s');
      await sleep(this.#env.clock, pollMs);
    }
  }
}

interface Parts {
  readonly env: Env;
  readonly owned: CloseableRegistry;
  readonly ha: HighAvailability;
  readonly rpc: LocalRpcService;
  readonly storageDir: string;
  readonly functionsOf: (jobId: string) => FunctionSource;
}

const close = (one: Closeable): Promise<void> => one.close();

async function startParts(
  env: Env,
  owned: CloseableRegistry,
  functions: Map<string, FunctionSource>,
  options: MiniClusterOptions,
): Promise<JobManager> {
  const storageDir = options.storageDir ?? (await temporaryDirectory(owned));
  const memoryHa = await createMemoryHighAvailability(env, { clusterId: 'local' });
  const ha = owned.own('ha', memoryHa, close);
  const functionsOf = (jobId: string): FunctionSource => {
    const found = functions.get(jobId);
    if (found === undefined) {
      throw new MillraceError('JOB_NOT_FOUND', `no functions are registered for job ${jobId}`);
    }
    return found;
  };
  const parts = { env, owned, ha, rpc: new LocalRpcService(), storageDir, functionsOf };
  const jobManager = await startJobManager(parts, options);
  const count = options.taskManagers ?? 1;
  for (let i = 1; i <= count; i += 1) {
    await startTaskManager(parts, `local-${String(i)}`, { slots: options.slots ?? 4, count });
  }
  return jobManager;
}

async function temporaryDirectory(owned: CloseableRegistry): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), 'millrace-mini-'));
  return owned.own('storage', path, () => rm(path, { recursive: true, force: true }));
}

async function startJobManager(
  { env, owned, ha, rpc, storageDir, functionsOf }: Parts,
  options: MiniClusterOptions,
): Promise<JobManager> {
  const server = owned.own('rpc', rpc.createServer(env), close);
  const rpcAddress = await server.listen();
  const jobManager = new JobManager(
    env,
    {
      ha,
      rpc: server,
      coordinatorHosts: localCoordinatorHosts(env, functionsOf),
      onLeadershipLost: () => undefined,
    },
    {
      storageDir,
      checkpointDir: storageDir,
      slotRequestTimeoutMs: options.slotRequestTimeoutMs ?? 10_000,
      smallStateThresholdBytes,
      exceptionHistorySize: 16,
      checkpointHistorySize: 10,
      heartbeatIntervalMs: 1000,
      heartbeatTimeoutMs: 50_000,
      takeoverWaitMs: 0,
    },
  );
  owned.own('jobmanager', jobManager, close);
  jobManager.start({
    jobManagerId: newJobManagerId(env.random, 'local'),
    rpcAddress,
    restAddress: 'http://local.invalid',
  });
  return jobManager;
}

async function startTaskManager(
  { env, owned, ha, rpc, storageDir, functionsOf }: Parts,
  name: string,
  { slots, count }: { readonly slots: number; readonly count: number },
): Promise<void> {
  const taskManagerId = name as TaskManagerId;
  const { clusterUid } = ha;
  const network = new NetworkEnvironment(env, { taskManagerId, clusterUid, slots });
  owned.own('network', network, close);
  // Alone, nobody ever connects: no port is opened.
  const dataAddress = count === 1 ? '127.0.0.1:0' : await network.listen('127.0.0.1', 0);
  const runner = new InProcessSlotRunner(env, {
    network,
    functions: ({ jobId }) => functionsOf(jobId),
    storage: ({ checkpointDirectory }, epochLabel) =>
      createSnapshotStorage(checkpointDirectory, epochLabel, smallStateThresholdBytes),
  });
  const executor = new TaskExecutor(
    env,
    {
      retrieval: owned.own('retrieval', ha.leaderRetrieval(), close),
      connector: rpc.createConnector(env),
      runner,
      blobs: new BlobCache(env, { directory: join(storageDir, 'blobs') }),
      processStats: () => ({
        rssBytes: 0,
        heapUsedBytes: 0,
        eventLoopLagMs: 0,
        networkMemoryBytes: 0,
      }),
      onFatal: (error) => {
        env.log.error({ err: error }, 'a TaskManager of the MiniCluster failed');
      },
    },
    {
      taskManagerId,
      host: 'localhost',
      dataAddress,
      pid: 0,
      slots,
      hardware: { cpuCores: cpus().length, memoryBytes: totalmem() },
      slotMemoryBytes: 0,
      cancellationTimeoutMs: 30_000,
      registrationTimeoutMs: 30_000,
      leaderlessTimeoutMs: 30_000,
      outageGraceMs: 600_000,
    },
  );
  owned.own('taskmanager', executor, close).start();
}
