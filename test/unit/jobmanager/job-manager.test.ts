import { existsSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { MillraceError, toFailure } from '../../../lib/base/errors.js';
import type { JobId } from '../../../lib/base/ids.js';
import { operatorId, testGraph } from '../../support/job-graphs.js';
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
  splitsOf,
  keysOfJob,
  checkpointDirectories,
} from '../../support/job-runs.js';

t.test('a job is deployed slot by slot, spread over the TaskManagers, and runs', async (t) => {
  const setup = await setUp(t, 1);
  const { jm, taskManagers } = setup;
  const jobId = await runJob(setup, pipeline());
  const [first, second] = taskManagers.map((one) => one.deployments[0]);
  t.same(
    first?.tasks.map((task) => task.vertex.name.slice(0, 3)),
    ['src', 'win'],
    'a slot holds a whole pipeline',
  );
  t.equal(second?.tasks.length, 2);
  const output = first?.tasks[0]?.outputs[0];
  t.equal(output?.channels.length, 2);
  t.same(
    output?.channels.map((channel) => channel.peer.taskManagerId).sort(),
    ['tm1', 'tm2'],
    'all to all',
  );
  const incoming = second?.tasks[1]?.inputs[0]?.channels.map(({ channelId }) => channelId);
  t.ok(
    incoming?.includes(
      output?.channels.find(({ peer }) => peer.taskManagerId === 'tm2')?.channelId ?? '',
    ),
    'both ends name the channel alike',
  );
  t.match(await jm.gateway().overview(), {
    taskmanagers: 2,
    'slots-total': 2,
    'slots-available': 0,
    'jobs-running': 1,
  });
  await taskManagers[0]?.heartbeat();
  t.match((await jm.gateway().jobDetails(jobId)).vertices[0]?.metrics, { 'read-records': 7 });
  t.ok(jm.events.some(({ event }) => event === 'job.running'));
  t.match(await jm.gateway().taskManagerLog('tm1' as never, { maxLines: 1, stream: 'log' }), [
    'log of tm1',
  ]);
});

t.test(
  'a bounded job ends when all tasks have: result first, then slots, keys and files are gone',
  async (t) => {
    const setup = await setUp(t, 1);
    const { cluster, jm, taskManagers } = setup;
    const jobId = await runJob(setup, pipeline({ checkpointing }));
    await checkpoint(setup);
    t.equal(await jm.gateway().jobResult(jobId), undefined);
    for (const one of taskManagers) for (const task of one.tasks()) one.setState(task, 'FINISHED');
    await untilState(cluster, jm, jobId, 'FINISHED');
    t.match(await jm.gateway().jobResult(jobId), { state: 'FINISHED', name: 'job' });
    t.match(await jm.gateway().jobDetails(jobId), {
      state: 'FINISHED',
      'status-counts': { FINISHED: 4 },
    });
    await cluster.until(
      'slots are free',
      async () => (await jm.gateway().overview())['slots-available'] === 2,
    );
    await cluster.until('the job leaves nothing in the store', async () =>
      keysOfJob(setup, jobId).then((keys) => keys.length === 0),
    );
    t.same(checkpointDirectories(cluster, jobId), [], 'a FINISHED job keeps no checkpoint');
    const again = { submissionId: 'another', jobGraph: pipeline() };
    await t.rejects(
      jm.gateway().submitJob(again),
      { code: 'JOB_DUPLICATE' },
      'it never runs again',
    );
  },
);

t.test('a job that does not fit waits, says why, runs when slots come', async (t) => {
  const setup = await setUp(t, 1, 1);
  const { cluster, jm } = setup;
  const graph = pipeline();
  cluster.sources.set(graph.vertices[0]?.operators[0]?.id ?? '', numbers(1));
  const { jobId } = await jm.gateway().submitJob({ submissionId: 's', jobGraph: graph });
  await cluster.until('the reason is given', async () => {
    const [job] = await jm.gateway().listJobs();
    return job?.state === 'CREATED' && job['status-reason'] === 'needs 2 slots, 1 exist';
  });
  const other = await cluster.taskManager('tm2', 1);
  await other.register(await cluster.leader(jm));
  await untilRunning(cluster, jm, jobId);
});

t.test(
  'a job that never gets its slots fails with the shortage, and frees what it asked for',
  async (t) => {
    const setup = await setUp(t, 1, 1);
    const { cluster, jm } = setup;
    const graph = pipeline();
    cluster.sources.set(graph.vertices[0]?.operators[0]?.id ?? '', numbers(1));
    const { jobId } = await jm.gateway().submitJob({ submissionId: 's', jobGraph: graph });
    await cluster.until(
      'it waits',
      async () => (await jm.gateway().listJobs())[0]?.state === 'CREATED',
    );
    for (let i = 0; i < 61; i++) {
      await setup.taskManagers[0]?.heartbeat();
      await cluster.clock.advance(1_000);
    }
    await untilState(cluster, jm, jobId, 'FAILED');
    t.match(await jm.gateway().jobResult(jobId), {
      state: 'FAILED',
      failure: { code: 'NO_RESOURCE_AVAILABLE', message: /needs 2 slots, 1 exist/ },
    });
    t.match(await jm.gateway().jobExceptions(jobId, 5), {
      exceptionHistory: { entries: [{ exceptionName: 'NO_RESOURCE_AVAILABLE' }] },
    });
  },
);

t.test(
  'a failed task restarts its region from the last checkpoint, and splits given since come again in order',
  async (t) => {
    const setup = await setUp(t, 1);
    const { cluster, jm, taskManagers } = setup;
    const graph = pipeline({ checkpointing });
    const source = graph.vertices[0]?.operators[0]?.id ?? operatorId('x');
    const jobId = await runJob(setup, graph);
    const [reader] = tasksOf(taskManagers, 'src');
    const ask = async (): Promise<void> => {
      const before = splitsOf(reader?.task).length;
      if (reader !== undefined)
        reader.taskManager.sendEvent(reader.task, source, { kind: 'requestSplit' });
      await cluster.until('a split arrives', () => splitsOf(reader?.task).length > before);
    };
    await ask();
    await checkpoint(setup);
    await ask();
    await ask();
    t.same(splitsOf(reader?.task), [0, 1, 2]);

    const [, window] = tasksOf(taskManagers, 'win');
    window?.taskManager.setState(
      window.task,
      'FAILED',
      toFailure(new MillraceError('USER_FUNCTION', 'bad record')),
    );
    await untilState(cluster, jm, jobId, 'RESTARTING');
    const summary = (await jm.gateway().listJobs())[0];
    t.match(summary?.['status-reason'], /restarts in \d+ ms after: bad record/);
    await cluster.clock.advance(100);
    await untilRunning(cluster, jm, jobId);
    const restarted = tasksOf(taskManagers, 'src');
    t.same(
      restarted.map(({ task }) => task.descriptor.generation),
      [1, 1],
    );
    t.match(restarted[0]?.task.descriptor.restore, { checkpointId: 1, finished: false });
    t.match(restarted[1]?.task.descriptor.restore?.operators[source]?.operator, [
      { kind: 'inline', bytes: Buffer.from('src-job/1') },
    ]);
    if (restarted[1] !== undefined) {
      for (let i = 1; i <= 2; i++) {
        restarted[1].taskManager.sendEvent(restarted[1].task, source, { kind: 'requestSplit' });
        await cluster.until('a split arrives', () => splitsOf(restarted[1]?.task).length >= i);
      }
    }
    t.same(
      splitsOf(restarted[1]?.task),
      [1, 2],
      'what the checkpoint does not cover is given out again',
    );
    const exceptions = await jm.gateway().jobExceptions(jobId, 5);
    t.match(exceptions.exceptionHistory.entries[0], {
      exceptionName: 'USER_FUNCTION',
      taskName: /^win-job \(2\/2\)$/,
      taskManagerId: window?.taskManager.id,
    });
    t.match(await jm.gateway().jobCheckpoints(jobId), { latest: { restored: { id: 1 } } });
  },
);

t.test(
  'a lost TaskManager costs a restart on what is left, and nothing of another job',
  async (t) => {
    const setup = await setUp(t, 2);
    const { cluster, jm, taskManagers } = setup;
    const jobId = await runJob(setup, pipeline());
    const single = testGraph({
      jobId: 'single',
      vertices: [{ name: 'src-single', parallelism: 1 }],
    });
    const other = await runJob(setup, single);
    const holder = taskManagers.find((one) => one.tasks().every(({ jobId: id }) => id !== other));
    const kept = tasksOf(taskManagers, 'src-single').map(({ task }) => task.descriptor.attemptId);
    const spare = await cluster.taskManager('tm3', 2);
    await spare.register(await cluster.leader(jm));
    holder?.die();
    await untilState(cluster, jm, jobId, 'RESTARTING');
    await cluster.clock.advance(100);
    await untilRunning(cluster, jm, jobId);
    t.same(
      tasksOf(taskManagers, 'src-single').map(({ task }) => task.descriptor.attemptId),
      kept,
    );
    t.match(await jm.gateway().jobDetails(other), { state: 'RUNNING', generation: 0 });
    t.match(
      (await jm.gateway().jobExceptions(jobId, 1))['root-exception'],
      /TaskManager tm\d was lost/,
    );
  },
);

t.test('a silent TaskManager is lost after the heartbeat timeout', async (t) => {
  const setup = await setUp(t, 1);
  const { cluster, jm, taskManagers } = setup;
  const jobId = await runJob(setup, pipeline());
  for (let i = 0; i < 6; i++) {
    await taskManagers[0]?.heartbeat();
    await cluster.clock.advance(1_000);
  }
  await cluster.until('its job restarts', async () => {
    const { generation, state } = await jm.gateway().jobDetails(jobId);
    return generation === 1 || state === 'RESTARTING';
  });
  t.same(
    (await jm.gateway().taskManagers()).map(({ id }) => id),
    ['tm1'],
  );
});

t.test('cancelling is recorded, ends the tasks and keeps the checkpoints', async (t) => {
  const setup = await setUp(t, 1);
  const { cluster, jm, taskManagers } = setup;
  const jobId = await runJob(setup, pipeline({ checkpointing }));
  await checkpoint(setup);
  await jm.gateway().cancelJob(jobId);
  await untilState(cluster, jm, jobId, 'CANCELED');
  t.same(
    taskManagers.flatMap((one) => one.tasks()),
    [],
  );
  await cluster.until('cleaned up', async () => (await keysOfJob(setup, jobId)).length === 0);
  const [kept] = checkpointDirectories(cluster, jobId);
  t.ok(existsSync(join(kept ?? '', '_metadata')), 'run -s can go on from it');
  t.ok(existsSync(join(kept ?? '', '_retained')));
  await t.rejects(jm.gateway().cancelJob('0'.repeat(32) as JobId), { code: 'JOB_NOT_FOUND' });
});

t.test('restarts end when the strategy says so, and the job fails with the cause', async (t) => {
  const setup = await setUp(t, 1);
  const { cluster, jm, taskManagers } = setup;
  const jobId = await runJob(setup, pipeline({ restartStrategy: { type: 'none' } }));
  const [window] = tasksOf(taskManagers, 'win');
  window?.taskManager.setState(
    window.task,
    'FAILED',
    toFailure(new MillraceError('USER_FUNCTION', 'bad record')),
  );
  await untilState(cluster, jm, jobId, 'FAILED');
  t.match(await jm.gateway().jobResult(jobId), {
    failure: { code: 'JOB_FAILED', cause: { code: 'USER_FUNCTION', message: 'bad record' } },
  });
});

t.test('a fault in an enumerator fails its job over with new enumerators', async (t) => {
  const setup = await setUp(t, 1);
  const { cluster, jm, taskManagers } = setup;
  const graph = pipeline();
  const jobId = await runJob(setup, graph);
  const source = graph.vertices[0]?.operators[0]?.id ?? operatorId('x');
  const real = numbers(10);
  let isBroken = true;
  cluster.sources.set(source, real);
  const good = tasksOf(taskManagers, 'src');
  const enumerator = { ...real };
  cluster.sources.set(source, {
    ...enumerator,
    createEnumerator: (context) => {
      const inner = real.createEnumerator(context);
      return {
        ...inner,
        handleSplitRequest: (subtask) => {
          if (isBroken) throw new Error('no such bucket');
          inner.handleSplitRequest(subtask);
        },
      };
    },
  });
  // The broken one takes effect with the first restart.
  good[0]?.taskManager.setState(good[0].task, 'FAILED', toFailure(new Error('first')));
  await untilState(cluster, jm, jobId, 'RESTARTING');
  await cluster.clock.advance(100);
  await untilRunning(cluster, jm, jobId);
  const [reader] = tasksOf(taskManagers, 'src');
  reader?.taskManager.sendEvent(reader.task, source, { kind: 'requestSplit' });
  await untilState(cluster, jm, jobId, 'RESTARTING');
  isBroken = false;
  await cluster.clock.advance(100);
  await untilRunning(cluster, jm, jobId);
  t.match(
    (await jm.gateway().jobExceptions(jobId, 1))['root-exception'],
    /the split enumerator of a source threw: no such bucket/,
  );
  const [again] = tasksOf(taskManagers, 'src');
  again?.taskManager.sendEvent(again.task, source, { kind: 'requestSplit' });
  await cluster.until('a split arrives', () => splitsOf(again?.task).length === 1);
});

t.test('refuses what is no job, and a second job under one id', async (t) => {
  const { jm, cluster } = await setUp(t, 1);
  const graph = pipeline();
  cluster.sources.set(graph.vertices[0]?.operators[0]?.id ?? '', numbers(1));
  await t.rejects(
    jm.gateway().submitJob({ submissionId: 'a', jobGraph: { ...graph, vertices: [] } }),
    { code: 'JOB_INVALID' },
  );
  const bundled = { ...graph, bundle: { digest: 'a'.repeat(64) as never, sizeBytes: 3 } };
  await t.rejects(
    jm.gateway().submitJob({ submissionId: 'a', jobGraph: bundled, bundle: Buffer.from('abc') }),
    { code: 'BLOB_CORRUPT' },
  );
  const first = jm.gateway().submitJob({ submissionId: 'a', jobGraph: graph });
  const again = jm.gateway().submitJob({ submissionId: 'a', jobGraph: graph });
  t.same(await first, await again, 'a repetition is answered as the first');
  await t.rejects(jm.gateway().submitJob({ submissionId: 'b', jobGraph: graph }), {
    code: 'JOB_DUPLICATE',
  });
});
