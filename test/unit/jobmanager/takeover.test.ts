import { rmSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { MillraceError, toFailure } from '../../../lib/base/errors.js';
import type { HeartbeatPayload } from '../../../lib/gateway/taskmanager-gateway.js';
import type { ScriptedTaskManager } from '../../support/scripted-task-manager.js';
import type { TakeoverRecord } from '../../../ha/services.js';
import { JobManagerCluster, type TestJobManager } from '../../support/job-manager-cluster.js';
import { MemoryKvStore } from '../../../ha/memory/memory-kv-store.js';
import {
  numbers,
  pipeline,
  checkpointing,
  setUp,
  runJob,
  untilRunning,
  untilState,
  checkpoint,
  tasksOf,
  keysOfJob,
  checkpointDirectories,
} from '../../support/job-runs.js';

t.setTimeout(120_000);

const heartbeatOf = (taskManager: ScriptedTaskManager): HeartbeatPayload => ({
  slots: taskManager.report(),
  taskMetrics: [],
  process: { rssBytes: 1, heapUsedBytes: 1, eventLoopLagMs: 0, networkMemoryBytes: 0 },
});

t.test(
  'a successor goes on from the last completed checkpoint with a new generation',
  async (t) => {
    const setup = await setUp(t, 1);
    const { cluster, jm, taskManagers } = setup;
    const standby = await cluster.jobManager('jm2');
    const jobId = await runJob(setup, pipeline({ checkpointing }));
    await checkpoint(setup);
    t.equal(standby.manager.gateway(), undefined);

    // The leader is cut off from the store, as a paused machine is; its TaskManagers are not told anything.
    jm.kv.faults.unavailable = true;
    for (let i = 0; i < 6; i++) await cluster.clock.advance(1_000);
    const leader = await cluster.leader(standby);
    for (const one of taskManagers) {
      one.session?.close('found a newer leader');
      await one.register(leader);
    }
    t.same(
      taskManagers
        .flatMap((one) => one.tasks().map(({ descriptor }) => descriptor.generation))
        .filter((one) => one > 0),
      [],
    );
    await untilRunning(cluster, standby, jobId);
    const tasks = tasksOf(taskManagers, 'src').map(({ task }) => task.descriptor);
    t.same(
      tasks.map(({ generation }) => generation),
      [1, 1],
    );
    t.same(
      tasks.map(({ restore }) => restore?.checkpointId),
      [1, 1],
    );
    for (const event of ['leader.granted', 'job.recovered', 'checkpoint.restored', 'job.running']) {
      t.ok(
        standby.events.some((one) => one.event === event),
        event,
      );
    }
    t.match(await standby.gateway().jobDetails(jobId), { state: 'RUNNING', generation: 1 });

    const counts = async (): Promise<unknown> =>
      (await standby.gateway().jobCheckpoints(jobId)).counts;
    t.match(await counts(), { total: 1, completed: 1 }, 'known by its pointer');

    jm.kv.faults.unavailable = false;
    for (let i = 0; i < 5; i++) await cluster.clock.advance(1_000);
    await cluster.until('the old leader knows that it was deposed', () => jm.lost !== undefined);
    t.equal(jm.manager.gateway(), undefined);
    t.match(
      await standby.gateway().jobDetails(jobId),
      { state: 'RUNNING', generation: 1 },
      'nothing of the job was cancelled',
    );
  },
);

t.test(
  'an ended job is listed by the successor and never runs again; a wish to cancel is carried out',
  async (t) => {
    const setup = await setUp(t, 2);
    const { cluster, jm, taskManagers } = setup;
    const ended = await runJob(setup, pipeline());
    for (const one of taskManagers) for (const task of one.tasks()) one.setState(task, 'FINISHED');
    await untilState(cluster, jm, ended, 'FINISHED');
    const doomed = await runJob(setup, pipeline({}, 'doomed'));
    // The wish reaches the store, the leader dies before it acts on it.
    for (const one of taskManagers) one.cancelTasks = () => new Promise(() => undefined);
    await jm.gateway().cancelJob(doomed);
    const standby = await cluster.jobManager('jm2');
    await jm.close();
    const leader = await cluster.leader(standby);
    await untilState(cluster, standby, doomed, 'CANCELED');
    for (const one of taskManagers) await one.register(leader);
    await cluster.until(
      'left-over slots are freed',
      async () => (await standby.gateway().overview())['slots-available'] === 4,
    );
    t.match(await standby.gateway().jobResult(ended), { state: 'FINISHED' });
    const deployments = taskManagers.reduce((sum, one) => sum + one.deployments.length, 0);
    await cluster.clock.advance(2_000);
    t.equal(
      taskManagers.reduce((sum, one) => sum + one.deployments.length, 0),
      deployments,
    );
  },
);

t.test(
  'a damaged latest checkpoint stops only its job, keeps its data, and can be given up',
  async (t) => {
    const setup = await setUp(t, 2);
    const { cluster, jm, taskManagers } = setup;
    const jobId = await runJob(setup, pipeline({ checkpointing }));
    const other = await runJob(setup, pipeline({}, 'other'));
    await checkpoint(setup);
    const [directory] = checkpointDirectories(cluster, jobId);
    rmSync(join(directory ?? '', '_metadata'));
    const standby = await cluster.jobManager('jm2');
    await jm.close();
    const leader = await cluster.leader(standby);
    for (const one of taskManagers) await one.register(leader);
    await untilState(cluster, standby, jobId, 'FAILED');
    await untilRunning(cluster, standby, other);
    const [summary] = (await standby.gateway().listJobs()).filter(({ jid }) => jid === jobId);
    t.match(summary?.['status-reason'], /cannot be recovered.*its data is kept/i);
    t.equal(await standby.gateway().jobResult(jobId), undefined, 'no result is written');
    t.not((await keysOfJob(setup, jobId)).length, 0);
    await standby.gateway().cancelJob(jobId);
    await untilState(cluster, standby, jobId, 'CANCELED');
  },
);

t.test(
  'a job that cannot be read is listed, keeps no other from running, and can be given up',
  async (t) => {
    const setup = await setUp(t, 2);
    const { cluster, jm, taskManagers } = setup;
    const jobId = await runJob(setup, pipeline());
    const other = await runJob(setup, pipeline({}, 'other'));
    const key = (await keysOfJob(setup, jobId)).find((one) => one.endsWith('/graph')) ?? '';
    const vandal = new MemoryKvStore(cluster.clock, cluster.server);
    await vandal.txn({ compare: [], then: [{ op: 'put', key, value: Buffer.from('{not json') }] });
    await vandal.close();
    const standby = await cluster.jobManager('jm2');
    await jm.close();
    const leader = await cluster.leader(standby);
    for (const one of taskManagers) await one.register(leader);
    await untilRunning(cluster, standby, other);
    const [broken] = (await standby.gateway().listJobs()).filter(({ jid }) => jid === jobId);
    t.match(broken, { state: 'FAILED', 'end-time': -1, 'status-reason': /graph/ });
    await t.rejects(standby.gateway().jobDetails(jobId), { code: 'RECOVERY_FAILED' });
    await standby.gateway().cancelJob(jobId);
    await untilState(cluster, standby, jobId, 'CANCELED');
    await cluster.until(
      'its keys are gone',
      async () => (await keysOfJob(setup, jobId)).length === 0,
    );
  },
);

t.test(
  'a suspended leader commands nothing, and makes up for it when it may act again',
  async (t) => {
    const setup = await setUp(t, 1);
    const { cluster, jm, taskManagers } = setup;
    const jobId = await runJob(setup, pipeline());
    const saw = (event: string): boolean => jm.events.some((one) => one.event === event);
    jm.kv.faults.unavailable = true;
    for (let i = 0; i < 40 && !saw('leader.suspended'); i++) await cluster.clock.advance(100);
    t.ok(saw('leader.suspended'));
    const [window] = tasksOf(taskManagers, 'win');
    const failure = toFailure(new MillraceError('USER_FUNCTION', 'bad record'));
    window?.taskManager.setState(window.task, 'FAILED', failure);
    await cluster.clock.advance(50);
    t.match(await jm.gateway().jobDetails(jobId), { state: 'RUNNING' });
    t.equal(taskManagers.flatMap((one) => one.tasks()).length, 4, 'nothing was cancelled');

    jm.kv.faults.unavailable = false;
    for (let i = 0; i < 20 && !saw('leader.resumed'); i++) await cluster.clock.advance(100);
    t.ok(saw('leader.resumed'), 'its key was still there');
    await cluster.clock.advance(200);
    await untilRunning(cluster, jm, jobId);
    t.match(await jm.gateway().jobDetails(jobId), { generation: 1 });
  },
);

t.test(
  'what people are shown of a job outlives its leader, and so do records of takeovers',
  async (t) => {
    const setup = await setUp(t, 2);
    const { cluster, jm, taskManagers } = setup;
    const jobId = await runJob(setup, pipeline({ checkpointing }));
    const other = await runJob(setup, pipeline({}, 'other'));
    const [window] = tasksOf(taskManagers, 'win');
    const failure = toFailure(new MillraceError('USER_FUNCTION', 'bad record'));
    window?.taskManager.setState(window.task, 'FAILED', failure);
    await cluster.clock.advance(200);
    await untilRunning(cluster, jm, jobId);
    for (let i = 0; i < 3; i++) await checkpoint(setup);
    await cluster.clock.advance(1_000);
    const before = (await jm.gateway().jobCheckpoints(jobId)).counts;
    const standby = await cluster.jobManager('jm2');
    await jm.close();
    const leader = await cluster.leader(standby);
    for (const one of taskManagers) await one.register(leader);
    await untilRunning(cluster, standby, jobId);
    await untilRunning(cluster, standby, other);

    const after = (await standby.gateway().jobCheckpoints(jobId)).counts;
    t.ok(after.completed >= before.completed && before.completed >= 3, 'counts go on');
    t.equal(after.in_progress, 0);
    t.match((await standby.gateway().jobExceptions(jobId, 5)).exceptionHistory, {
      entries: [{ failure: { message: 'bad record' } }],
    });

    const [last, first] = await until(
      cluster,
      standby,
      (records) => records[0]?.settledAt !== undefined,
    );
    t.match(first, { cause: 'first', jobManagerId: 'jm1', jobsAdopted: 0, jobsRestored: 0 });
    t.match(last, { cause: 'gone', jobManagerId: 'jm2', previous: { jobManagerId: 'jm1' } });
    t.equal((last?.jobsAdopted ?? 0) + (last?.jobsRestored ?? 0), 2);
    const times = [
      last?.noticedAt,
      last?.electedAt,
      last?.recoveredAt,
      last?.activeAt,
      last?.settledAt,
    ];
    t.same(times, [...times].sort());
    t.ok(standby.events.some(({ event }) => event === 'leader.takeover'));
  },
);

async function until(
  cluster: JobManagerCluster,
  { ha }: TestJobManager,
  condition: (records: TakeoverRecord[]) => boolean,
): Promise<TakeoverRecord[]> {
  let records: TakeoverRecord[] = [];
  await cluster.until('the takeover is recorded', async () => {
    records = await ha.takeovers();
    return condition(records);
  });
  return records;
}

t.test(
  'a takeover reads of ended jobs only which they are; what is shown of them comes after',
  async (t) => {
    const setup = await setUp(t, 2);
    const { cluster, jm, taskManagers } = setup;
    const ended = await runJob(setup, pipeline({ checkpointing }));
    await checkpoint(setup);
    for (const one of taskManagers) for (const task of one.tasks()) one.setState(task, 'FINISHED');
    await untilState(cluster, jm, ended, 'FINISHED');
    const standby = await cluster.jobManager('jm2');
    await jm.close();
    await cluster.leader(standby);
    t.match(await standby.gateway().jobResult(ended), { state: 'FINISHED' });
    t.match(await standby.gateway().listJobs(), [{ jid: ended, state: 'FINISHED' }]);
    t.match(await standby.gateway().jobDetails(ended), { jid: ended, vertices: { length: 2 } });
    t.match((await standby.gateway().jobCheckpoints(ended)).counts, { completed: 1 });
    const again = { submissionId: `s-${ended}`, jobGraph: pipeline({ checkpointing }) };
    t.match(await standby.gateway().submitJob(again), { jobId: ended }, 'answered as the first');
    await t.rejects(standby.gateway().submitJob({ ...again, submissionId: 'x' }), {
      code: 'JOB_DUPLICATE',
    });
  },
);

t.test(
  'a suspended leader says why nothing happens, answers heartbeats, and refuses wishes clearly',
  async (t) => {
    // The lease outlasts its local deadline by two seconds.
    const options = { heartbeatTimeoutMs: 100_000, ha: { leaseTtlMs: 20_000 } };
    const setup = await setUp(t, 2, 2, options);
    const { cluster, jm, taskManagers } = setup;
    const jobId = await runJob(setup, pipeline({ checkpointing }));
    await checkpoint(setup);
    const saw = (event: string): boolean => jm.events.some((one) => one.event === event);
    const [first] = taskManagers;
    if (first === undefined) return;
    t.same(await first.leader?.heartbeat(heartbeatOf(first)), { leaderState: 'ACTIVE' });
    jm.kv.faults.unavailable = true;
    for (let i = 0; i < 250 && !saw('leader.suspended'); i++) await cluster.clock.advance(100);
    t.same(await first.leader?.heartbeat(heartbeatOf(first)), { leaderState: 'SUSPENDED' });
    t.equal(jm.manager.leader()?.state, 'SUSPENDED');
    t.equal(jm.manager.own()?.leader.state, 'SUSPENDED');
    t.match(await jm.gateway().overview(), {
      'leader-state': 'SUSPENDED',
      'leader-reason': /etcd/,
    });
    t.match(await jm.gateway().jobDetails(jobId), {
      state: 'RUNNING',
      'status-reason': /etcd does not answer since .*records keep flowing, no checkpoint completes/,
    });
    t.match(await jm.gateway().listJobs(), [{ 'status-reason': /etcd/ }]);
    await t.rejects(jm.gateway().cancelJob(jobId), { code: 'ETCD_UNAVAILABLE', retry: 'backoff' });
    // Tasks end, which is only seen when it may act again.
    for (const one of taskManagers) for (const task of one.tasks()) one.setState(task, 'FINISHED');
    await cluster.clock.advance(50);
    t.match(await jm.gateway().jobDetails(jobId), { state: 'RUNNING' });
    jm.kv.faults.unavailable = false;
    for (let i = 0; i < 20 && !saw('leader.resumed'); i++) await cluster.clock.advance(100);
    await cluster.clock.advance(200);
    await untilState(cluster, jm, jobId, 'FINISHED');
    t.equal(jm.manager.leader()?.state, 'ACTIVE');
  },
);

t.test(
  'a submission that was stored although nobody could say so runs when etcd is back',
  async (t) => {
    const cluster = new JobManagerCluster(t, {}, { leaseTtlMs: 60_000 });
    const jm = await cluster.jobManager('jm1');
    const leader = await cluster.leader(jm);
    const graph = pipeline();
    cluster.sources.set(graph.vertices[0]?.operators[0]?.id ?? '', numbers(1));
    // The write happens, its answer is lost, and then etcd is away.
    jm.kv.faults.onWrite = ({ then }) => {
      if (!then.some((op) => op.op === 'put' && op.key.endsWith('/spec'))) return 'none';
      jm.kv.faults.onWrite = () => 'none';
      jm.kv.faults.unavailable = true;
      return 'lose-response';
    };
    const submitting = jm.gateway().submitJob({ submissionId: 's', jobGraph: graph });
    const refused = t.rejects(submitting, { code: 'ETCD_UNAVAILABLE', retry: 'backoff' });
    for (let i = 0; i < 140; i++) await cluster.clock.advance(100);
    await refused;
    t.same(await jm.gateway().listJobs(), []);
    jm.kv.faults.unavailable = false;
    for (let i = 0; i < 60; i++) await cluster.clock.advance(500);
    await (await cluster.taskManager('tm1', 2)).register(leader);
    await untilRunning(cluster, jm, graph.jobId);
  },
);
