import { rmSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { MillraceError, toFailure } from '../../../lib/base/errors.js';
import { MemoryKvStore } from '../../../ha/memory/memory-kv-store.js';
import {
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
