#!/usr/bin/env node
/**
 * The JobManager process: a leader or a standby, with its control plane and REST.
 * Started with `node --enable-source-maps --max-semi-space-size=2` it takes 15 MB less than without.
 */
import { mkdtempSync, readFileSync } from 'node:fs';
import { hostname, tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { options } from '../config/options.js';
import { createMemoryHighAvailability } from '../ha/memory/create-memory-high-availability.js';
import type { HighAvailability } from '../ha/services.js';
import { MillraceError } from '../lib/base/errors.js';
import { newJobManagerId } from '../lib/base/ids.js';
import { CloseableRegistry, type Closeable } from '../lib/base/lifecycle.js';
import { BundleStore } from '../lib/jobmanager/dispatcher/bundle-store.js';
import { JobManager } from '../lib/jobmanager/job-manager.js';
import { tcpIsGone } from '../lib/jobmanager/resourcemanager/tcp-is-gone.js';
import { workerCoordinatorHosts } from '../lib/jobmanager/jobmaster/worker-coordinator-host.js';
import type { CoordinatorHostFactory } from '../lib/jobmanager/jobmaster/coordinator-host.js';
import { createRestServer } from '../lib/rest/rest-server.js';
import { GrpcJobManagerServer } from '../lib/rpc/grpc-rpc-service.js';
import { BlobCache } from '../lib/taskmanager/blob-cache.js';
import { openHighAvailability, runProcess, type ProcessContext } from './wiring.js';

/** How long a JobManager waits for etcd at its start, before it gives up with exit code 3. */
const etcdWaitMs = 15_000;
/** How often the web interface asks again. */
const webRefreshMs = 3_000;

const { version } = JSON.parse(
  readFileSync(new URL('../../package.json', import.meta.url), 'utf8'),
) as { version: string };

await runProcess('jobmanager', start);

async function start(context: ProcessContext): Promise<Closeable> {
  const { config, env } = context;
  const registry = new CloseableRegistry(env.log);
  const ha = registry.own('high availability', await openHa(context), (one) => one.close());
  const host = config.get(options.jobmanagerRpcAddress);
  const port = config.get(options.jobmanagerRpcPort);
  const bindPort = config.get(options.jobmanagerRpcBindPort);
  const rpc = new GrpcJobManagerServer(env, {
    host,
    port,
    ...(bindPort !== undefined && { bindPort }),
  });
  registry.own('rpc server', rpc, (server) => server.close());
  const rpcAddress = await rpc.listen();

  const storageDir = storageDirectory(context);
  const manager = new JobManager(
    env,
    {
      ha,
      rpc,
      coordinatorHosts: coordinatorHosts(context, storageDir, ha.clusterUid),
      onLeadershipLost: (reason) => {
        context.onFatal(new MillraceError('LEADERSHIP_LOST', `the leadership was lost: ${reason}`));
      },
      onCandidacyChanged: (candidacy) => {
        context.supervisor.tell({ type: 'candidacy', candidacy: candidacy ?? null });
      },
    },
    {
      storageDir,
      checkpointDir: resolve(config.get(options.executionCheckpointingDir) ?? storageDir),
      heartbeatIntervalMs: config.get(options.heartbeatInterval),
      heartbeatTimeoutMs: config.get(options.heartbeatTimeout),
      slotRequestTimeoutMs: config.get(options.slotRequestTimeout),
      jobRecovery: config.get(options.highAvailabilityJobRecovery),
      reconnectWindowMs: config.get(options.highAvailabilityTaskmanagerReconnectWindow),
      isGone: tcpIsGone(env),
      smallStateThresholdBytes: config.get(options.stateStorageSmallStateThreshold),
      exceptionHistorySize: config.get(options.webExceptionHistorySize),
      checkpointHistorySize: config.get(options.webCheckpointsHistory),
      sweep: {
        orphanMinAgeMs: config.get(options.highAvailabilityOrphanSweepMinAge),
        resultMaxAgeMs: config.get(options.jobstoreExpirationTime),
        resultMaxCount: config.get(options.jobstoreMaxCapacity),
      },
    },
  );
  const token = config.get(options.restToken);
  const rest = createRestServer(env, {
    bindAddress: config.get(options.restBindAddress),
    port: config.get(options.restPort),
    ...(token !== undefined && { token }),
    leader: () => manager.leader(),
    gateway: () => manager.gateway(),
    ha: {
      services: ha,
      jobManagerId: () => manager.candidate?.jobManagerId,
      own: () => manager.own(),
    },
    web: {
      version,
      clusterId: config.get(options.highAvailabilityClusterId),
      refreshIntervalMs: webRefreshMs,
    },
  });
  registry.own('rest server', rest, (server) => server.close());
  const bound = await rest.listen();

  // Closed first: it resigns, so that a standby leads before the rest is taken down.
  registry.own('job manager', manager, (one) => one.close());
  const jobManagerId = newJobManagerId(env.random, hostname());
  const restAddress = `http://${config.get(options.restAddress)}:${String(bound.port)}`;
  manager.start({ jobManagerId, rpcAddress, restAddress });
  env.log.info({ event: 'jobmanager.ready', jobManagerId, rpcAddress, restAddress }, 'ready');
  return registry;
}

async function openHa(context: ProcessContext): Promise<HighAvailability> {
  const { config, env } = context;
  if (config.get(options.highAvailabilityType) === 'etcd') {
    return openHighAvailability(context, etcdWaitMs);
  }
  return createMemoryHighAvailability(env, {
    clusterId: config.get(options.highAvailabilityClusterId),
  });
}

/** Without high availability nothing outlives the process, and a temporary directory will do. */
function storageDirectory({ config }: ProcessContext): string {
  const configured = config.get(options.highAvailabilityStorageDir);
  if (configured !== undefined) return resolve(configured);
  return mkdtempSync(join(config.get(options.ioTmpDirs) ?? tmpdir(), 'millrace-storage-'));
}

function coordinatorHosts(
  { config, env, log }: ProcessContext,
  storageDir: string,
  clusterUid: string,
): CoordinatorHostFactory {
  const bundles = new BundleStore(storageDir, clusterUid, env.random);
  const cache = new BlobCache(env, { directory: config.get(options.ioTmpDirs) ?? tmpdir() });
  return workerCoordinatorHosts(env, {
    acquireBundle: (jobId, digest) =>
      cache.acquire(digest, (offset) => bundles.read(jobId, digest, offset)),
    mainTimeoutMs: config.get(options.executionMainTimeout),
    log,
  });
}
