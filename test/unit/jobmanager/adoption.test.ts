/** Running tasks go on under a new leader: the whole JobManager, with scripted TaskManagers. */
import t, { type Test } from 'tap';
import { MillraceError, toFailure } from '../../../lib/base/errors.js';
import type { JobId, OperatorId } from '../../../lib/base/ids.js';
import type { JobManagerOptions } from '../../../lib/jobmanager/job-manager.js';
import type { TestJobManager } from '../../support/job-manager-cluster.js';
import {
  checkpoint,
  checkpointing,
  numbers,
  pipeline,
  runJob,
  setUp,
  splitsOf,
  tasksOf,
  untilRunning,
  untilState,
  type Setup,
} from '../../support/job-runs.js';
import type { ScriptedTask, TaskScript } from '../../support/scripted-task-manager.js';

interface Takeover extends Setup {
  readonly jobId: JobId;
  readonly source: OperatorId;
}

/** A job on two TaskManagers, one slot each, both known to the store. */
async function running(
  t: Test,
  options: Partial<JobManagerOptions> & {
    readonly script?: TaskScript;
    readonly config?: Parameters<typeof pipeline>[0];
  } = {},
): Promise<Takeover> {
  const { config = { checkpointing }, ...others } = options;
  const setup = await setUp(t, 1, 2, others);
  for (const one of setup.taskManagers) await setup.cluster.announce(one);
  const graph = pipeline(config);
  const jobId = await runJob(setup, graph);
  const source = graph.vertices[0]?.operators[0]?.id ?? ('' as OperatorId);
  return { ...setup, jobId, source };
}

/** The leader is gone, another one is ACTIVE; TaskManagers have not found it yet. */
async function takeOver({ cluster, jm, taskManagers }: Setup): Promise<TestJobManager> {
  const standby = await cluster.jobManager(`after-${jm.name}`);
  await jm.close();
  for (const one of taskManagers) one.session?.close('the leader is gone');
  await cluster.leader(standby);
  return standby;
}

async function register(
  { cluster, taskManagers }: Setup,
  jm: TestJobManager,
  which = taskManagers,
): Promise<void> {
  const leader = await cluster.leader(jm);
  for (const one of which) await one.register(leader);
}

const attemptsOf = ({ taskManagers }: Setup): string[] =>
  taskManagers.flatMap((one) => one.tasks().map(({ descriptor }) => descriptor.attemptId));

const eventOf = (jm: TestJobManager, name: string): Record<string, unknown> | undefined =>
  jm.events.find(({ event }) => event === name);

async function askForSplit(
  { cluster, taskManagers, source }: Takeover,
  index: number,
): Promise<void> {
  const one = tasksOf(taskManagers, 'src')[index];
  if (one === undefined) throw new Error('no such task');
  const before = one.task.events.length;
  one.taskManager.sendEvent(one.task, source, { kind: 'requestSplit' });
  await cluster.until('the reader is answered', () => one.task.events.length > before);
}

const given = ({ taskManagers }: Setup): unknown[] =>
  tasksOf(taskManagers, 'src').flatMap(({ task }) => splitsOf(task));

t.test('tasks go on untouched: attempts, splits, and ids of checkpoints', async (t) => {
  const setup = await running(t);
  const { cluster, jobId, taskManagers } = setup;
  await askForSplit(setup, 0);
  await checkpoint(setup);
  await askForSplit(setup, 1);
  await askForSplit(setup, 0);
  t.same(given(setup), [0, 2, 1]);
  const before = attemptsOf(setup);
  const first = tasksOf(taskManagers, 'src')[0]?.task as ScriptedTask;
  const standby = await takeOver(setup);
  // Asked of nobody: its TaskManager remembers.
  first.readers.get(setup.source)!.awaitsSplit = true;
  await register(setup, standby);
  await untilRunning(cluster, standby, jobId);
  t.match(eventOf(standby, 'job.adopted'), { generation: 0, attempts: 4, checkpointId: 1 });
  t.same(attemptsOf(setup), before);
  const details = await standby.gateway().jobDetails(jobId);
  t.match(details, { state: 'RUNNING', generation: 0 });
  t.match(details.vertices[0]?.subtasks[0], { attempt: 0, 'attempt-id': before[0] });

  const handOvers = taskManagers.flatMap(({ adoptions }) => adoptions);
  t.equal(handOvers.length, 2, 'each slot is handed over once');
  const [{ epochLabel, abortedCheckpointId } = { epochLabel: '', abortedCheckpointId: 0 }] =
    handOvers;
  t.match(handOvers[1], { epochLabel, abortedCheckpointId, completedCheckpointId: 1 });
  const firstId = setup.completed[0] ?? 0;
  t.ok(abortedCheckpointId >= 64, 'above every id the earlier leader took, used or not');
  setup.completed.length = 0;
  await cluster.until('the reader gets the split it awaits', () => splitsOf(first).length === 3);
  t.same(given(setup), [0, 2, 3, 1], 'none twice');
  await checkpoint(setup);
  t.ok((setup.completed[0] ?? 0) > abortedCheckpointId && firstId === 1);

  // A later failure gives back what no checkpoint covers, from this leader and the one before.
  await askForSplit(setup, 1);
  const window = tasksOf(taskManagers, 'win')[0];
  const failure = toFailure(new MillraceError('USER_FUNCTION', 'bad record'));
  window?.taskManager.setState(window.task, 'FAILED', failure);
  await cluster.clock.advance(200);
  await cluster.until('all is restarted', () =>
    attemptsOf(setup).every((id) => !before.includes(id)),
  );
  await untilRunning(cluster, standby, jobId);
  t.match(await standby.gateway().jobDetails(jobId), { generation: 1 });
  t.match(
    taskManagers.flatMap((one) => one.tasks().map(({ descriptor }) => descriptor.attemptNumber)),
    [1, 1, 1, 1],
  );
  await askForSplit(setup, 0);
  t.same(given(setup), [4], 'the one given since the last checkpoint');
});

t.test(
  'without a checkpoint the enumerator learns of all splits, also of finished readers',
  async (t) => {
    const setup = await running(t, { config: {} });
    const { cluster, jobId, taskManagers } = setup;
    await askForSplit(setup, 0);
    await askForSplit(setup, 1);
    const [first] = tasksOf(taskManagers, 'src');
    first?.taskManager.setState(first.task, 'FINISHED');
    await cluster.until('it is finished', async () => {
      const details = await setup.jm.gateway().jobDetails(jobId);
      return details.vertices[0]?.tasks.FINISHED === 1;
    });
    const standby = await takeOver(setup);
    await register(setup, standby);
    await cluster.until('it is adopted', () => eventOf(standby, 'job.adopted') !== undefined);
    await askForSplit(setup, 1);
    t.same(given(setup), [0, 1, 2]);
  },
);

t.test('what tasks report while one TaskManager is waited for is not lost', async (t) => {
  const setup = await running(t, { config: {} });
  const { cluster, jobId, taskManagers, source } = setup;
  const standby = await takeOver(setup);
  const [early] = taskManagers;
  const [reader] = tasksOf(taskManagers, 'src').filter(({ taskManager }) => taskManager === early);
  const [window] = tasksOf(taskManagers, 'win').filter(({ taskManager }) => taskManager === early);
  if (early === undefined || reader === undefined || window === undefined)
    throw new Error('no task');
  reader.task.readers.get(source)!.awaitsSplit = true;
  await register(setup, standby, [early]);
  await cluster.until('the job waits', async () => {
    const { 'status-reason': reason } = await standby.gateway().jobDetails(jobId);
    return reason === 'finds out which of its tasks run';
  });
  early.sendEvent(reader.task, source, { kind: 'readerRegistered', host: 'localhost' });
  early.sendEvent(reader.task, source, { kind: 'requestSplit' });
  early.setState(window.task, 'FINISHED');
  await register(setup, standby, taskManagers.slice(1));
  await cluster.until('it is adopted', () => eventOf(standby, 'job.adopted') !== undefined);
  await cluster.until('the reader is answered', () => reader.task.events.length > 0);
  t.same(given(setup), [0], 'the repeated request is one request');
  const { vertices } = await standby.gateway().jobDetails(jobId);
  t.match(vertices[1]?.tasks, { FINISHED: 1, RUNNING: 1 });
  for (const one of taskManagers)
    for (const task of one.tasks()) if (task.state === 'RUNNING') one.setState(task, 'FINISHED');
  await untilState(cluster, standby, jobId, 'FINISHED');
});

t.test(
  'an enumerator that cannot adopt has its job restored, whatever the restart strategy',
  async (t) => {
    const setup = await running(t, {
      config: { checkpointing, restartStrategy: { type: 'none' } },
    });
    const { cluster, jobId, source } = setup;
    const plain = numbers(10);
    cluster.sources.set(source, {
      ...plain,
      createEnumerator: (context) => {
        const enumerator = plain.createEnumerator(context);
        delete enumerator.adoptSplits;
        return enumerator;
      },
    });
    await askForSplit(setup, 0);
    const standby = await takeOver(setup);
    await register(setup, standby);
    await cluster.until(
      'the sources refuse',
      () => eventOf(standby, 'job.adoption-refused') !== undefined,
    );
    t.match(eventOf(standby, 'job.adoption-refused'), { reason: /has no adoptSplits/ });
    await cluster.clock.advance(1);
    await cluster.until('it is restored', async () => {
      const { state, generation } = await standby.gateway().jobDetails(jobId);
      return state === 'RUNNING' && generation === 1;
    });
    await untilRunning(cluster, standby, jobId);
    await askForSplit(setup, 0);
    t.same(given(setup), [0]);
  },
);

t.test('an enumerator that assigns before it is told of splits has its job restored', async (t) => {
  const setup = await running(t);
  const { cluster, jobId, source } = setup;
  const plain = numbers(10);
  cluster.sources.set(source, {
    ...plain,
    createEnumerator: (context) => {
      const enumerator = plain.createEnumerator(context);
      // To a reader that is not there yet, from whom it comes back.
      return Object.assign(enumerator, {
        start: () => {
          enumerator.handleSplitRequest(0);
        },
      });
    },
  });
  await askForSplit(setup, 0);
  t.same(given(setup), [0]);
  const standby = await takeOver(setup);
  await register(setup, standby);
  await cluster.until('the sources refuse', () =>
    standby.events.some(({ event }) => event === 'job.adoption-refused'),
  );
  t.match(eventOf(standby, 'job.adoption-refused'), { reason: /before it was told/ });
  await cluster.clock.advance(1);
  await cluster.until('it is restored', async () => {
    const { state, generation } = await standby.gateway().jobDetails(jobId);
    return state === 'RUNNING' && generation === 1;
  });
});

t.test('a TaskManager that does not hand its tasks over has the job restored', async (t) => {
  let refusals = 1;
  const setup = await running(t, {
    config: { checkpointing, restartStrategy: { type: 'none' } },
    script: {
      onAdopt: () =>
        (refusals -= 1) >= 0
          ? Promise.reject(new MillraceError('CONFLICT', 'it is over'))
          : Promise.resolve(),
    },
  });
  const { cluster, jobId } = setup;
  await checkpoint(setup);
  const before = attemptsOf(setup);
  const standby = await takeOver(setup);
  await register(setup, standby);
  await cluster.until('it restarts', async () => {
    await cluster.clock.advance(1);
    return (await standby.gateway().jobDetails(jobId)).generation === 1;
  });
  await untilRunning(cluster, standby, jobId);
  t.notOk(attemptsOf(setup).some((id) => before.includes(id)));
  t.equal(eventOf(standby, 'job.adopted'), undefined);
  t.match(await standby.gateway().jobExceptions(jobId, 1), {
    exceptionHistory: { entries: [{ exceptionName: 'ADOPTION_REFUSED' }] },
  });
});

t.test('a task that failed while nobody led has the job restored, and is named', async (t) => {
  const setup = await running(t);
  const { cluster, jobId, taskManagers } = setup;
  await checkpoint(setup);
  const standby = await takeOver(setup);
  const [window] = tasksOf(taskManagers, 'win');
  window!.task.state = 'FAILED';
  window!.task.failure = toFailure(new MillraceError('USER_FUNCTION', 'bad record'));
  await register(setup, standby);
  await untilRunning(cluster, standby, jobId);
  t.match(eventOf(standby, 'job.adoption-refused'), { reason: /is FAILED/, failure: 'bad record' });
  t.match(await standby.gateway().jobDetails(jobId), { generation: 1 });
  t.match(await standby.gateway().jobExceptions(jobId, 1), {
    exceptionHistory: { entries: [{ exceptionName: 'USER_FUNCTION' }] },
  });
});

t.test(
  'a TaskManager that is dead is not waited for, one that is away only for the window',
  async (t) => {
    for (const isDead of [true, false]) {
      const isGone = (): Promise<boolean> => Promise.resolve(isDead);
      const setup = await running(t, { isGone, reconnectWindowMs: 1_000 });
      const { cluster, jobId, taskManagers } = setup;
      const standby = await takeOver(setup);
      const [lost, alive] = taskManagers;
      lost?.slots.fill(undefined);
      await register(setup, standby, taskManagers.slice(1));
      const reason = isDead ? /tm1.*refuses connections/ : /tm1.*did not come back/;
      if (!isDead) {
        t.equal(alive?.tasks().length, 2, 'its tasks run on');
        await cluster.clock.advance(1_000);
      }
      await cluster.until(
        'it is restored',
        () => eventOf(standby, 'job.adoption-refused') !== undefined,
      );
      t.match(eventOf(standby, 'job.adoption-refused'), { reason });
      await register(setup, standby, taskManagers.slice(0, 1));
      await untilRunning(cluster, standby, jobId);
      t.match(await standby.gateway().jobDetails(jobId), { generation: 1 });
    }
  },
);

t.test(
  'a job cancelled while it is taken over lets go of its tasks, also of those that come later',
  async (t) => {
    const setup = await running(t);
    const { cluster, jobId, taskManagers } = setup;
    const standby = await takeOver(setup);
    await register(setup, standby, taskManagers.slice(0, 1));
    await standby.gateway().cancelJob(jobId);
    await untilState(cluster, standby, jobId, 'CANCELED');
    await register(setup, standby, taskManagers.slice(1));
    await cluster.until(
      'all slots are free',
      async () => (await standby.gateway().overview())['slots-available'] === 2,
    );
    t.same(attemptsOf(setup), []);
  },
);

t.test('where jobs are to be restored, nothing is asked or kept', async (t) => {
  const setup = await running(t, { jobRecovery: 'restore' });
  const { cluster, jobId, taskManagers } = setup;
  await checkpoint(setup);
  for (const one of taskManagers)
    one.requestInventory = () => Promise.reject(new Error('nobody asks'));
  const standby = await takeOver(setup);
  await register(setup, standby);
  await untilRunning(cluster, standby, jobId);
  t.match(await standby.gateway().jobDetails(jobId), { generation: 1 });
  t.equal(eventOf(standby, 'job.adoption-refused'), undefined);
});
