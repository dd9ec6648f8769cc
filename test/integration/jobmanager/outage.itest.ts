/**
 * A leader whose etcd dies, hangs or stays away, on real etcd: it commands and completes nothing, keeps its tasks, says
 * why, and goes on by itself when etcd is back; one that cannot go on gives up. Tasks are scripted, in this process.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { createEtcdHighAvailability } from '../../../ha/etcd/create-etcd-high-availability.js';
import type { HighAvailabilityOptions } from '../../../ha/index.js';
import type { LeaderInfo } from '../../../ha/services.js';
import { sleep } from '../../../lib/base/clock.js';
import type { JobId, JobManagerId } from '../../../lib/base/ids.js';
import type { ClientGateway } from '../../../lib/gateway/client-gateway.js';
import type { FunctionSource } from '../../../lib/operators/stream-operator.js';
import { JobManager } from '../../../lib/jobmanager/job-manager.js';
import { localCoordinatorHosts } from '../../../lib/jobmanager/jobmaster/local-coordinator-host.js';
import { LocalRpcService } from '../../../lib/rpc/local-rpc-service.js';
import { TestEtcd } from '../../support/etcd.js';
import { acknowledge, checkpointing, numbers, pipeline } from '../../support/job-runs.js';
import { ScriptedTaskManager } from '../../support/scripted-task-manager.js';
import { testEnv } from '../../support/test-env.js';

t.setTimeout(180_000);

const base = testEnv();

/** Short enough for a test, long enough for a machine that is busy with others. */
const timing = { leaseTtlMs: 4_000, outcomeTimeoutMs: 1_000 };

class Cluster {
  readonly triggered: number[] = [];
  readonly completed: number[] = [];
  /** Tasks acknowledge checkpoints as they come. */
  acknowledges = true;
  lost: string | undefined;
  taskManager: ScriptedTaskManager;
  readonly manager: JobManager;
  readonly etcd: TestEtcd;

  private constructor(
    etcd: TestEtcd,
    manager: (cluster: Cluster) => JobManager,
    rpc: LocalRpcService,
  ) {
    this.etcd = etcd;
    this.manager = manager(this);
    this.taskManager = new ScriptedTaskManager(base, 'tm1', 4, rpc.createConnector(base), {
      onTrigger: (checkpointId) => {
        this.triggered.push(checkpointId);
        if (this.acknowledges) this.acknowledge(checkpointId);
      },
      onComplete: (checkpointId) => this.completed.push(checkpointId),
    });
  }

  static async start(t: Test, options: Partial<HighAvailabilityOptions> = {}): Promise<Cluster> {
    const etcd = await TestEtcd.start(t);
    const storageDir = mkdtempSync(join(tmpdir(), 'millrace-outage-'));
    const rpc = new LocalRpcService();
    const { endpoints } = etcd;
    const ha = await createEtcdHighAvailability(base, {
      ...timing,
      endpoints,
      clusterId: 'outage',
      storageDir,
      ...options,
    });
    const server = rpc.createServer(base);
    const rpcAddress = await server.listen();
    const cluster = new Cluster(
      etcd,
      (self) =>
        new JobManager(
          base,
          {
            ha,
            rpc: server,
            coordinatorHosts: localCoordinatorHosts(base, () => functions),
            onLeadershipLost: (reason) => {
              self.lost = reason;
            },
          },
          {
            storageDir,
            checkpointDir: storageDir,
            heartbeatIntervalMs: 1_000,
            heartbeatTimeoutMs: 60_000,
            slotRequestTimeoutMs: 60_000,
            smallStateThresholdBytes: 20_000,
            exceptionHistorySize: 16,
            checkpointHistorySize: 10,
          },
        ),
      rpc,
    );
    t.teardown(async () => {
      for (const member of etcd.members) member.resume();
      await cluster.manager.close();
      await server.close();
      await ha.close();
      rmSync(storageDir, { recursive: true, force: true });
    });
    cluster.manager.start({
      jobManagerId: 'jm1' as JobManagerId,
      rpcAddress,
      restAddress: 'http://jm1:1',
    });
    await cluster.until('it leads', () => cluster.manager.leader()?.state === 'ACTIVE');
    const leader = cluster.manager.leader();
    if (leader !== undefined) await cluster.taskManager.register(leader);
    return cluster;
  }

  get state(): LeaderInfo['state'] | undefined {
    return this.manager.own()?.leader.state;
  }

  get gateway(): ClientGateway {
    const gateway = this.manager.gateway();
    if (gateway === undefined) throw new Error('it does not lead');
    return gateway;
  }

  acknowledge(checkpointId: number): void {
    for (const task of this.taskManager.tasks()) acknowledge(this.taskManager, task, checkpointId);
  }

  async run(name: string, config: Parameters<typeof pipeline>[0]): Promise<JobId> {
    const { jobId } = await this.gateway.submitJob({
      submissionId: name,
      jobGraph: pipeline(config, name),
    });
    await this.until('its tasks run', async () => {
      const { state, vertices } = await this.gateway.jobDetails(jobId);
      return state === 'RUNNING' && vertices.every((one) => one.tasks.RUNNING === 2);
    });
    return jobId;
  }

  async attempts(jobId: JobId): Promise<string[]> {
    const { vertices } = await this.gateway.jobDetails(jobId);
    return vertices.flatMap(({ subtasks }) => subtasks.map((one) => one['attempt-id']));
  }

  async until(what: string, condition: () => boolean | Promise<boolean>): Promise<void> {
    const deadline = base.clock.now() + 45_000;
    while (!(await condition())) {
      if (base.clock.now() > deadline) throw new Error(`did not happen: ${what}`);
      await sleep(base.clock, 20);
    }
  }
}

const functions: FunctionSource = {
  fingerprint: 'f'.repeat(64),
  operatorFactory: () => {
    throw new Error('no operators here');
  },
  keySelector: () => (value) => value,
  source: () => numbers(10),
};

t.test(
  'etcd is killed with a checkpoint in flight and comes back after more than the lease',
  async (t) => {
    const cluster = await Cluster.start(t);
    const [member] = cluster.etcd.members;
    if (member === undefined) return;
    const jobId = await cluster.run('job', {
      checkpointing: { ...checkpointing, timeoutMs: 5_000 },
    });
    const bounded = await cluster.run('bounded', {});
    await cluster.until('a checkpoint completes', () => cluster.completed.length > 0);
    const attempts = await cluster.attempts(jobId);
    cluster.acknowledges = false;
    const before = cluster.triggered.length;
    await cluster.until('one is in flight', () => cluster.triggered.length > before);
    const inFlight = cluster.triggered.at(-1) ?? 0;
    await member.kill();
    await cluster.until('it is suspended', () => cluster.state === 'SUSPENDED');

    const completed = cluster.completed.length;
    cluster.acknowledge(inFlight);
    for (const task of cluster.taskManager.tasks())
      if (task.jobId === bounded) cluster.taskManager.setState(task, 'FINISHED');
    t.match(await cluster.gateway.overview(), {
      'leader-state': 'SUSPENDED',
      'leader-reason': /etcd/,
    });
    t.match(await cluster.gateway.jobDetails(jobId), {
      state: 'RUNNING',
      'status-reason': /etcd does not answer since .*no checkpoint completes/,
    });
    const late = { submissionId: 'late', jobGraph: pipeline({}, 'late') };
    await t.rejects(cluster.gateway.submitJob(late), {
      code: 'ETCD_UNAVAILABLE',
      retry: 'backoff',
    });
    await t.rejects(cluster.gateway.cancelJob(jobId), {
      code: 'ETCD_UNAVAILABLE',
      retry: 'backoff',
    });
    // Longer than the timeout of checkpoints.
    await sleep(base.clock, 5_500);
    t.equal(cluster.completed.length, completed, 'nothing is declared complete without etcd');
    t.same(await cluster.attempts(jobId), attempts);
    t.equal((await cluster.gateway.jobResult(bounded))?.state, undefined, 'no result without etcd');

    cluster.acknowledges = true;
    await member.start();
    await cluster.until('it acts again', () => cluster.state === 'ACTIVE');
    await cluster.until('the one in flight completes', () => cluster.completed.includes(inFlight));
    await cluster.until('the next one does', () => (cluster.completed.at(-1) ?? 0) > inFlight);
    await cluster.until(
      'the result is written',
      async () => (await cluster.gateway.jobResult(bounded))?.state === 'FINISHED',
    );
    t.same(await cluster.attempts(jobId), attempts, 'no task was restarted');
    t.match((await cluster.gateway.jobCheckpoints(jobId)).counts, { failed: 0 });
    t.equal((await cluster.gateway.overview())['leader-state'], 'ACTIVE');
    t.equal(cluster.lost, undefined);
  },
);

t.test(
  'etcd hangs for more than the lease: the leader goes on, or knows that it leads no longer',
  async (t) => {
    const cluster = await Cluster.start(t);
    const jobId = await cluster.run('job', { checkpointing });
    await cluster.until('a checkpoint completes', () => cluster.completed.length > 0);
    const attempts = await cluster.attempts(jobId);
    cluster.etcd.members[0]?.pause();
    await cluster.until('it is suspended', () => cluster.state === 'SUSPENDED');
    const completed = cluster.completed.length;
    await sleep(base.clock, 3_000);
    t.equal(cluster.completed.length, completed, 'nothing is declared complete without etcd');
    // A stopped etcd finds the lease run out when it goes on, and may delete it before it hears of the leader.
    cluster.etcd.members[0]?.resume();
    await cluster.until(
      'it is decided',
      () => cluster.state === 'ACTIVE' || cluster.lost !== undefined,
    );
    if (cluster.lost === undefined) {
      await cluster.until('checkpoints go on', () => cluster.completed.length > completed);
      t.same(await cluster.attempts(jobId), attempts);
    } else {
      t.match(cluster.lost, /lease expired|candidate key was deleted/);
      t.equal(cluster.completed.length, completed, 'what it did not complete is for its successor');
    }
  },
);

t.test('an outage beyond the grace ends the leadership', async (t) => {
  const cluster = await Cluster.start(t, { outageGraceMs: 1_500 });
  cluster.etcd.members[0]?.pause();
  await cluster.until('it is suspended', () => cluster.state === 'SUSPENDED');
  await cluster.until('it gives up', () => cluster.lost !== undefined);
  t.match(cluster.lost, /could not confirm its leadership for too long/);
  t.equal(cluster.manager.gateway(), undefined);
});

t.test('a blocked leader fences itself before it does anything else', async (t) => {
  const cluster = await Cluster.start(t);
  const jobId = await cluster.run('job', { checkpointing });
  await cluster.until('a checkpoint completes', () => cluster.completed.length > 0);
  cluster.acknowledges = false;
  const before = cluster.triggered.length;
  await cluster.until('one is in flight', () => cluster.triggered.length > before);
  const completed = cluster.completed.length;
  const triggered = cluster.triggered.length;
  // As a SIGSTOP: nothing of this process runs, and etcd ends the lease meanwhile.
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 2 * timing.leaseTtlMs + 1_000);
  // What was queued runs before any timer.
  cluster.acknowledge(cluster.triggered.at(-1) ?? 0);
  t.equal(cluster.manager.leader()?.state, 'SUSPENDED');
  t.match(await cluster.gateway.jobDetails(jobId), { 'status-reason': /suspended/ });
  await cluster.until('it knows that it leads no longer', () => cluster.lost !== undefined);
  t.equal(cluster.completed.length, completed, 'no task was told of a completion');
  t.equal(cluster.triggered.length, triggered, 'nor of a trigger');
});
