#!/usr/bin/env node
/**
 * A TaskManager process: configuration -> network, slots, leader connection -> until told to end.
 * Started with `node --enable-source-maps --max-semi-space-size=2` it takes 20 MB less than without.
 */
import { copyFile, rm } from 'node:fs/promises';
import { availableParallelism, tmpdir, totalmem, userInfo } from 'node:os';
import { join } from 'node:path';
import { setFlagsFromString } from 'node:v8';
import { createSnapshotStorage } from '../checkpoint/storage/file-checkpoint-storage.js';
import { options } from '../config/options.js';
import type { HighAvailability } from '../ha/services.js';
import { rebuildFunctions } from '../lib/api/rebuild.js';
import { childEnv, type Env } from '../lib/base/env.js';
import { MillraceError } from '../lib/base/errors.js';
import { newTaskManagerId, type TaskManagerId } from '../lib/base/ids.js';
import { CloseableRegistry, type Closeable } from '../lib/base/lifecycle.js';
import { compileChecks } from '../lib/gateway/codecs.js';
import { NetworkEnvironment } from '../lib/network/network-environment.js';
import { GrpcJobManagerConnector } from '../lib/rpc/grpc-rpc-service.js';
import { BlobCache } from '../lib/taskmanager/blob-cache.js';
import { InProcessSlotRunner } from '../lib/taskmanager/in-process-slot-runner.js';
import { createProcessStats } from '../lib/taskmanager/process-stats.js';
import type { SlotRunner } from '../lib/taskmanager/slot-runner.js';
import { staticLeaderRetrieval } from '../lib/taskmanager/static-leader-retrieval.js';
import { TaskExecutor } from '../lib/taskmanager/task-executor.js';
import { WorkerSlotRunner } from '../lib/taskmanager/worker-slot-runner.js';
import { openHighAvailability, runProcess, type ProcessContext } from './wiring.js';

// The small young generation this process is started with is its main thread's alone: slots have their own.
setFlagsFromString('--max-semi-space-size=0');

await runProcess('taskmanager', async (context) => {
  const { config } = context;
  const host = config.get(options.taskmanagerHost);
  const id =
    (config.get(options.taskmanagerResourceId) as TaskManagerId | undefined) ??
    newTaskManagerId(context.env.random, host);
  context.supervisor.tell({ type: 'taskManager', taskManagerId: id });
  const env = childEnv(context.env, 'taskmanager', { taskManagerId: id });
  const registry = new CloseableRegistry(env.log);
  try {
    const { clusterUid, ...leadership } = await openLeadership({ ...context, env }, registry);
    const network = registry.own(
      'network',
      new NetworkEnvironment(env, {
        taskManagerId: id,
        clusterUid,
        slots: config.get(options.taskmanagerNumberOfTaskSlots),
        bufferBytes: config.get(options.taskmanagerNetworkMemoryBufferSize),
        buffersPerChannel: config.get(options.taskmanagerNetworkMemoryBuffersPerChannel),
        polls: config.get(options.taskmanagerSlotPollingEnabled),
      }),
      (owned) => owned.close(),
    );
    const dataAddress = await network.listen(host, config.get(options.taskmanagerDataPort));
    const executor = new TaskExecutor(
      env,
      {
        ...leadership,
        connector: new GrpcJobManagerConnector(env),
        runner: createRunner(context, env, network),
        blobs: new BlobCache(env, { directory: temporaryDirectory(context) }),
        processStats: createProcessStats(env, () => network.memoryBytes),
        onFatal: context.onFatal,
      },
      {
        taskManagerId: id,
        host,
        dataAddress,
        pid: process.pid,
        slots: config.get(options.taskmanagerNumberOfTaskSlots),
        hardware: { cpuCores: availableParallelism(), memoryBytes: totalmem() },
        slotMemoryBytes: config.get(options.taskmanagerMemorySlotHeapSize),
        cancellationTimeoutMs: config.get(options.taskCancellationTimeout),
        registrationTimeoutMs: config.get(options.taskmanagerRegistrationTimeout),
        leaderlessTimeoutMs: config.get(options.taskmanagerLeaderlessTimeout),
        outageGraceMs: config.get(options.highAvailabilityControlOutageGrace),
        expectsRestart: config.get(options.highAvailabilityJobRecovery) === 'restore',
        ...(context.log.path !== undefined && { logPath: context.log.path }),
      },
    );
    registry.own('task executor', executor, (owned) => owned.close());
    compileChecks('taskmanager');
    executor.start();
    return registry;
  } catch (error) {
    await registry.close();
    throw error;
  }
});

interface LeadershipDeps {
  readonly clusterUid: string;
  readonly retrieval: ReturnType<HighAvailability['leaderRetrieval']>;
  readonly register?: HighAvailability['registerTaskManager'];
  readonly probeHa?: HighAvailability['probe'];
}

async function openLeadership(
  context: ProcessContext,
  registry: CloseableRegistry,
): Promise<LeadershipDeps> {
  const { config } = context;
  const close = (owned: Closeable): Promise<void> => owned.close();
  if (config.get(options.highAvailabilityType) === 'none') {
    const port = config.get(options.jobmanagerRpcPort);
    if (port === 0) {
      throw new MillraceError(
        'CONFIG',
        'jobmanager.rpc.port is required without high availability: nothing else tells where the JobManager is',
      );
    }
    const address = `${config.get(options.jobmanagerRpcAddress)}:${String(port)}`;
    return { clusterUid: 'none', retrieval: staticLeaderRetrieval(address) };
  }
  const timeoutMs = config.get(options.taskmanagerRegistrationTimeout);
  const ha = registry.own(
    'high availability',
    await openHighAvailability(context, timeoutMs),
    close,
  );
  return {
    clusterUid: ha.clusterUid,
    retrieval: registry.own('leader retrieval', ha.leaderRetrieval(), close),
    register: (info) => ha.registerTaskManager(info),
    probeHa: () => ha.probe(),
  };
}

function createRunner(
  { config, log }: ProcessContext,
  env: Env,
  network: NetworkEnvironment,
): SlotRunner {
  const smallStateThresholdBytes = config.get(options.stateStorageSmallStateThreshold);
  const mainTimeoutMs = config.get(options.executionMainTimeout);
  if (config.get(options.taskmanagerSlotThreading) === 'in-process') {
    return new InProcessSlotRunner(env, {
      network,
      functions: async ({ jobGraph }, bundlePath) => {
        if (bundlePath === undefined) {
          throw new MillraceError('JOB_INVALID', 'the job has no bundle to run');
        }
        // One thread never runs the same file twice.
        const copy = `${bundlePath}.${env.random.hex(8)}.mjs`;
        await copyFile(bundlePath, copy);
        try {
          return await rebuildFunctions({
            bundlePath: copy,
            jobGraph,
            timeoutMs: mainTimeoutMs,
            env,
          });
        } finally {
          await rm(copy, { force: true });
        }
      },
      storage: ({ checkpointDirectory }, epochLabel) =>
        createSnapshotStorage(checkpointDirectory, epochLabel, smallStateThresholdBytes),
    });
  }
  return new WorkerSlotRunner(env, network, {
    slotMemoryBytes: config.get(options.taskmanagerMemorySlotHeapSize),
    youngGenerationBytes: config.get(options.taskmanagerMemorySlotYoungGenerationSize),
    v8Flags: config.get(options.taskmanagerSlotV8Flags),
    polls: config.get(options.taskmanagerSlotPollingEnabled),
    blockedThresholdMs: config.get(options.taskmanagerSlotBlockedThreshold),
    mainTimeoutMs,
    smallStateThresholdBytes,
    log,
  });
}

/** Of this user's alone when it is the system's: what is run from there must not be anybody else's. */
function temporaryDirectory({ config }: ProcessContext): string {
  return config.get(options.ioTmpDirs) ?? join(tmpdir(), `millrace-${String(userInfo().uid)}`);
}
