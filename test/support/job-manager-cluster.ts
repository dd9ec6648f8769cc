/** JobManagers of one process over a shared in-memory store, with scripted TaskManagers, on one manual clock. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createHighAvailability, type HighAvailabilityOptions } from '../../ha/index.js';
import { MemoryKvServer } from '../../ha/memory/memory-kv-server.js';
import { MemoryKvStore } from '../../ha/memory/memory-kv-store.js';
import type { HighAvailability, LeaderInfo } from '../../ha/services.js';
import type { Env } from '../../lib/base/env.js';
import type { Source } from '../../lib/api/source.js';
import type { JobManagerId } from '../../lib/base/ids.js';
import type { LogFields, Logger } from '../../lib/base/logger.js';
import type { ClientGateway } from '../../lib/gateway/client-gateway.js';
import { JobManager, type JobManagerOptions } from '../../lib/jobmanager/job-manager.js';
import { localCoordinatorHosts } from '../../lib/jobmanager/jobmaster/local-coordinator-host.js';
import type { FunctionSource } from '../../lib/operators/stream-operator.js';
import { LocalRpcService } from '../../lib/rpc/local-rpc-service.js';
import type { TeardownHost } from './etcd.js';
import { ManualClock, settle } from './manual-clock.js';
import { ScriptedTaskManager, type TaskScript } from './scripted-task-manager.js';
import { testEnv } from './test-env.js';

export interface TestJobManager {
  readonly name: string;
  readonly env: Env;
  readonly kv: MemoryKvStore;
  readonly manager: JobManager;
  readonly ha: HighAvailability;
  readonly events: LogFields[];
  lost: string | undefined;
  gateway(): ClientGateway;
  close(): Promise<void>;
}

export class JobManagerCluster {
  readonly clock = new ManualClock();
  readonly server = new MemoryKvServer(this.clock);
  readonly rpc = new LocalRpcService();
  readonly storageDir = mkdtempSync(join(tmpdir(), 'millrace-jm-'));
  /** Sources of all jobs, by operator id. */
  readonly sources = new Map<string, Source<unknown, unknown, unknown>>();
  readonly #t: TeardownHost;
  readonly #options: Partial<JobManagerOptions>;
  readonly #haOptions: Partial<HighAvailabilityOptions>;
  #count = 0;

  constructor(
    t: TeardownHost,
    options: Partial<JobManagerOptions> = {},
    haOptions: Partial<HighAvailabilityOptions> = {},
  ) {
    this.#t = t;
    this.#options = options;
    this.#haOptions = haOptions;
    t.teardown(() => {
      this.server.close();
      rmSync(this.storageDir, { recursive: true, force: true });
    });
  }

  async jobManager(name: string): Promise<TestJobManager> {
    this.#count += 1;
    const events: LogFields[] = [];
    const base = testEnv(this.clock, this.#count);
    const env: Env = { ...base, log: recordEvents(base.log, events) };
    const kv = new MemoryKvStore(this.clock, this.server);
    const ha = await createHighAvailability(env, kv, {
      clusterId: 'test',
      storageDir: this.storageDir,
      ...this.#haOptions,
    });
    const rpc = this.rpc.createServer(env);
    const test: { lost: string | undefined } = { lost: undefined };
    const manager = new JobManager(
      env,
      {
        ha,
        rpc,
        coordinatorHosts: localCoordinatorHosts(env, () => this.#functions()),
        onLeadershipLost: (reason) => {
          test.lost = reason;
        },
      },
      {
        storageDir: this.storageDir,
        checkpointDir: this.storageDir,
        heartbeatIntervalMs: 1_000,
        heartbeatTimeoutMs: 5_000,
        slotRequestTimeoutMs: 60_000,
        smallStateThresholdBytes: 20_000,
        exceptionHistorySize: 16,
        checkpointHistorySize: 10,
        ...this.#options,
      },
    );
    const rpcAddress = await rpc.listen();
    manager.start({
      jobManagerId: name as JobManagerId,
      rpcAddress,
      restAddress: `http://${name}:1`,
    });
    const close = async (): Promise<void> => {
      // Retries of a cut connection wait for a clock that nobody moves any more.
      kv.faults.unavailable = false;
      await manager.close();
      await rpc.close();
      await ha.close();
      await kv.close();
    };
    this.#t.teardown(close);
    return Object.assign(test, {
      name,
      env,
      kv,
      ha,
      manager,
      events,
      close,
      gateway: () => {
        const gateway = manager.gateway();
        if (gateway === undefined) throw new Error(`${name} does not lead`);
        return gateway;
      },
    });
  }

  /** Registered with whoever leads. */
  async taskManager(
    name: string,
    slots: number,
    script: TaskScript = {},
  ): Promise<ScriptedTaskManager> {
    const env = testEnv(this.clock, 1_000 + (this.#count += 1));
    const taskManager = new ScriptedTaskManager(
      env,
      name,
      slots,
      this.rpc.createConnector(env),
      script,
    );
    return taskManager;
  }

  /** In the store under a lease of its own, as a real one is: a new leader waits for it. */
  async announce(taskManager: ScriptedTaskManager): Promise<void> {
    const env = testEnv(this.clock, 2_000 + (this.#count += 1));
    const kv = new MemoryKvStore(this.clock, this.server);
    const ha = await createHighAvailability(env, kv, {
      clusterId: 'test',
      storageDir: this.storageDir,
    });
    this.#t.teardown(async () => {
      await ha.close();
      await kv.close();
    });
    await ha.registerTaskManager({
      taskManagerId: taskManager.id,
      dataAddress: `${taskManager.id}:7`,
      slots: taskManager.slots.length,
      pid: 1,
    });
  }

  async leader(of: TestJobManager): Promise<LeaderInfo> {
    await this.until(
      `${of.name} leads`,
      () =>
        of.manager.gateway() !== undefined &&
        of.manager.leader()?.state === 'ACTIVE' &&
        of.manager.leader()?.jobManagerId === of.name,
    );
    const leader = of.manager.leader();
    if (leader === undefined) throw new Error('no leader');
    return leader;
  }

  /** Real input and output (files) may be on its way: waits for it, without letting time pass. */
  async until(what: string, condition: () => boolean | Promise<boolean>): Promise<void> {
    for (let i = 0; i < 20_000; i += 1) {
      if (await condition()) return;
      await settle();
    }
    throw new Error(`did not happen: ${what}`);
  }

  #functions(): FunctionSource {
    return {
      fingerprint: 'f'.repeat(64),
      operatorFactory: () => {
        throw new Error('no operators here');
      },
      keySelector: () => (value) => value,
      source: (operator) => {
        const source = this.sources.get(operator);
        if (source === undefined) throw new Error(`no source ${operator}`);
        return source;
      },
    };
  }
}

function recordEvents(log: Logger, events: LogFields[], bound: LogFields = {}): Logger {
  const at =
    (level: 'error' | 'warn' | 'info' | 'debug' | 'trace') =>
    (fields: LogFields, message: string): void => {
      if (fields.event !== undefined) events.push({ ...bound, ...fields });
      log[level](fields, message);
    };
  return {
    child: (fields) => recordEvents(log.child(fields), events, { ...bound, ...fields }),
    error: at('error'),
    warn: at('warn'),
    info: at('info'),
    debug: at('debug'),
    trace: at('trace'),
  };
}
