/** Faults that meet a successor while it takes over: none of them may cost a job, or keep others from running. */
import { renameSync, symlinkSync, unlinkSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { prefixEnd } from '../../../ha/kv-store.js';
import { MemoryKvStore } from '../../../ha/memory/memory-kv-store.js';
import { Deferred } from '../../../lib/base/deferred.js';
import { MillraceError } from '../../../lib/base/errors.js';
import type { AttemptId } from '../../../lib/base/ids.js';
import type {
  CoordinatorCommand,
  CoordinatorReply,
} from '../../../lib/jobmanager/jobmaster/coordinator-host.js';
import { SourceCoordinators } from '../../../lib/jobmanager/jobmaster/source-coordinators.js';
import {
  checkpoint,
  checkpointDirectories,
  checkpointing,
  numbers,
  pipeline,
  runJob,
  setUp,
  splitsOf,
  tasksOf,
  untilRunning,
  untilState,
} from '../../support/job-runs.js';
import { ManualClock } from '../../support/manual-clock.js';
import { testEnv } from '../../support/test-env.js';

t.test('checkpoint storage that is away during a takeover is waited for', async (t) => {
  const setup = await setUp(t, 2);
  const { cluster, jm, taskManagers } = setup;
  const jobId = await runJob(setup, pipeline({ checkpointing }));
  await checkpoint(setup);
  const [directory = ''] = checkpointDirectories(cluster, jobId);
  const metadata = join(directory, '_metadata');
  renameSync(metadata, `${metadata}.away`);
  // It is there and cannot be read (ELOOP), as on a file server that has trouble.
  symlinkSync(metadata, metadata);
  const standby = await cluster.jobManager('jm2');
  await jm.close();
  const leader = await cluster.leader(standby);
  const failures = (): number =>
    standby.events.filter(({ event }) => event === 'checkpoint.not-readable').length;
  for (let i = 1; i <= 30; i++) {
    await cluster.until(`try ${i} fails`, () => failures() >= i);
    await cluster.clock.advance(500);
  }
  t.match(await standby.gateway().jobDetails(jobId), { state: 'INITIALIZING' });
  unlinkSync(metadata);
  renameSync(`${metadata}.away`, metadata);
  await cluster.until('it is read', async () => {
    await cluster.clock.advance(100);
    return (await standby.gateway().jobDetails(jobId)).state !== 'INITIALIZING';
  });
  for (const one of taskManagers) await one.register(leader);
  await untilRunning(cluster, standby, jobId);
});

t.test('a result that cannot be read any more keeps no job from running', async (t) => {
  const setup = await setUp(t, 2);
  const { cluster, jm, taskManagers } = setup;
  const ended = await runJob(setup, pipeline());
  for (const one of taskManagers) for (const task of one.tasks()) one.setState(task, 'FINISHED');
  await untilState(cluster, jm, ended, 'FINISHED');
  const other = await runJob(setup, pipeline({}, 'other'));
  const vandal = new MemoryKvStore(cluster.clock, cluster.server);
  const key = `/millrace/v1/test/results/${ended}`;
  const { entries } = await vandal.range({ key });
  const stored = JSON.parse(Buffer.from(entries[0]!.value).toString()) as object;
  const archive = { file: `results/${ended}/${'0'.repeat(64)}`, size: 1 };
  const value = Buffer.from(JSON.stringify({ ...stored, archive }));
  await vandal.txn({ compare: [], then: [{ op: 'put', key, value }] });
  await vandal.close();
  const standby = await cluster.jobManager('jm2');
  await jm.close();
  const leader = await cluster.leader(standby);
  for (const one of taskManagers) await one.register(leader);
  await untilRunning(cluster, standby, other);
  t.match(await standby.gateway().jobResult(ended), { state: 'FINISHED' }, 'its outcome is known');
});

t.test('of two restarts at once only the later one sets up the enumerators', async (t) => {
  const failures: unknown[] = [];
  const replies: ((reply: CoordinatorReply) => void)[] = [];
  const sources = new SourceCoordinators(testEnv(new ManualClock(), 1), pipeline(), {
    hosts: (_graph, onReply) => {
      replies.push(onReply);
      return { send: () => undefined, close: () => Promise.resolve() };
    },
    sendEvent: () => Promise.resolve(),
    onSendFailed: () => undefined,
    onFailed: (failure) => failures.push(failure),
    onAdoptionFailed: (failure) => failures.push(failure),
  });
  sources.warmUp();
  replies[0]?.({
    kind: 'failed',
    resetNumber: 0,
    failure: { name: 'Error', message: 'no bundle' },
  });
  t.same(failures, [], 'nothing needs the thread yet');
  const first = sources.reset(new Map());
  t.equal(replies.length, 2, 'a new thread is tried');
  const second = sources.reset(new Map());
  await t.rejects(first, { code: 'ABORTED' });
  replies[1]?.({ kind: 'ready', resetNumber: 2 });
  await second;
  t.equal(replies.length, 2);
  await sources.close();
});

t.test('what restarted readers ask for waits until the enumerators have started', async (t) => {
  const sent: CoordinatorCommand['kind'][] = [];
  let reply: (reply: CoordinatorReply) => void = () => undefined;
  const graph = pipeline();
  const sources = new SourceCoordinators(testEnv(new ManualClock(), 1), graph, {
    hosts: (_graph, onReply) => {
      reply = onReply;
      return { send: ({ kind }) => sent.push(kind), close: () => Promise.resolve() };
    },
    sendEvent: () => Promise.resolve(),
    onSendFailed: () => undefined,
    onFailed: (failure) => t.fail(failure.message),
    onAdoptionFailed: (failure) => t.fail(failure.message),
  });
  const operatorId = graph.vertices[0]!.operators[0]!.id;
  const attempt = 'attempt' as AttemptId;
  const started = sources.reset(new Map());
  sources.onReaderEvent(operatorId, 0, attempt, { kind: 'readerRegistered', host: 'h' });
  sources.onReaderEvent(operatorId, 0, attempt, { kind: 'requestSplit' });
  t.same(sent, ['reset'], 'tasks run, their thread does not yet');
  reply({ kind: 'ready', resetNumber: 1 });
  await started;
  t.same(sent, ['reset', 'addReader', 'requestSplit'], 'in the order they were asked');
  sources.onReaderEvent(operatorId, 0, attempt, { kind: 'requestSplit' });
  t.same(sent.at(-1), 'requestSplit');
  t.equal(sent.length, 4, 'and at once from then on');
  await sources.close();
});

t.test('a restart waits for space in etcd, and uses up no try of the job', async (t) => {
  const setup = await setUp(t, 2);
  const { cluster, jm, taskManagers } = setup;
  const restartStrategy = { type: 'fixed-delay', attempts: 1, delayMs: 10 } as const;
  const jobId = await runJob(setup, pipeline({ restartStrategy }));
  let refusals = 0;
  jm.kv.faults.onWrite = ({ then }) => {
    if (!then.some(({ op }) => op === 'put')) return 'none';
    refusals += 1;
    throw new MillraceError('ETCD_NO_SPACE', 'etcd has no space left');
  };
  const [failing] = tasksOf(taskManagers, 'src');
  failing?.taskManager.setState(failing.task, 'FAILED');
  for (let i = 0; i < 6; i++) await cluster.clock.advance(500);
  t.ok(refusals > 1, 'it was tried again');
  t.match(await jm.gateway().jobDetails(jobId), { state: 'RESTARTING' });
  jm.kv.faults.onWrite = () => 'none';
  await cluster.until('it runs again', async () => {
    await cluster.clock.advance(100);
    return (await jm.gateway().jobDetails(jobId)).state === 'RUNNING';
  });
  t.match(await jm.gateway().jobDetails(jobId), { generation: 1 });
});

t.test('an enumerator that does not close keeps no deposed leader alive', async (t) => {
  const setup = await setUp(t, 2);
  const { cluster, jm } = setup;
  const source = numbers(10);
  const hangs = new Deferred<void>();
  t.teardown(() => {
    hangs.resolve();
  });
  const stuck = pipeline({}, 'stuck');
  cluster.sources.set(stuck.vertices[0]?.operators[0]?.id ?? '', {
    ...source,
    createEnumerator: (context) =>
      Object.assign(source.createEnumerator(context), { close: () => hangs.promise }),
  });
  const { jobId } = await jm.gateway().submitJob({ submissionId: 'stuck', jobGraph: stuck });
  await untilRunning(cluster, jm, jobId);
  const vandal = new MemoryKvStore(cluster.clock, cluster.server);
  const prefix = '/millrace/v1/test/election/';
  await vandal.txn({
    compare: [],
    then: [{ op: 'delete', key: prefix, rangeEnd: prefixEnd(prefix) }],
  });
  await vandal.close();
  for (let i = 0; i < 10; i++) await cluster.clock.advance(1_000);
  await cluster.until('it knows that it was deposed', () => jm.lost !== undefined);
});

t.test(
  'a split assigned while the leader is suspended is sent when it may act again',
  async (t) => {
    const setup = await setUp(t, 1);
    const { cluster, jm, taskManagers } = setup;
    const graph = pipeline();
    const operatorId = graph.vertices[0]!.operators[0]!.id;
    const answer = new Deferred<void>();
    const source = numbers(10);
    cluster.sources.set(operatorId, {
      ...source,
      createEnumerator: (context) => ({
        ...source.createEnumerator(context),
        handleSplitRequest: async (subtask) => {
          await answer.promise;
          context.assignSplits(subtask, ['late']);
        },
      }),
    });
    const { jobId } = await jm.gateway().submitJob({ submissionId: 's', jobGraph: graph });
    await untilRunning(cluster, jm, jobId);
    const [reader] = tasksOf(taskManagers, 'src');
    reader?.taskManager.sendEvent(reader.task, operatorId, {
      kind: 'readerRegistered',
      host: '',
    });
    reader?.taskManager.sendEvent(reader.task, operatorId, { kind: 'requestSplit' });
    await cluster.clock.advance(10);
    const saw = (event: string): boolean => jm.events.some((one) => one.event === event);
    jm.kv.faults.unavailable = true;
    for (let i = 0; i < 40 && !saw('leader.suspended'); i++) await cluster.clock.advance(100);
    answer.resolve();
    await cluster.clock.advance(10);
    t.same(splitsOf(reader?.task), []);
    jm.kv.faults.unavailable = false;
    for (let i = 0; i < 20 && !saw('leader.resumed'); i++) await cluster.clock.advance(100);
    await cluster.clock.advance(200);
    await cluster.until('the split arrives', () => splitsOf(reader?.task).length > 0);
    t.match(await jm.gateway().jobDetails(jobId), { state: 'RUNNING', generation: 0 });
  },
);
