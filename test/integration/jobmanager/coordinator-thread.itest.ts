/** Enumerators in a job's coordinator thread: found by running main again, faults end only that thread. */
import t, { type Test } from 'tap';
import { Deferred } from '../../../lib/base/deferred.js';
import { fromFailure } from '../../../lib/base/errors.js';
import type { OperatorId } from '../../../lib/base/ids.js';
import { decodeValue } from '../../../lib/record/codec/value-codec.js';
import type {
  CoordinatorHost,
  CoordinatorReply,
} from '../../../lib/jobmanager/jobmaster/coordinator-host.js';
import { workerCoordinatorHosts } from '../../../lib/jobmanager/jobmaster/worker-coordinator-host.js';
import { BlobCache } from '../../../lib/taskmanager/blob-cache.js';
import { prepare, writeJob } from '../../support/job-files.js';
import { testEnv } from '../../support/test-env.js';

t.setTimeout(60_000);

/** What the enumerator does with a request is said by the split it is about to hand out. */
const job = `
import { StreamExecutionEnvironment, WatermarkStrategy } from 'millrace';
const enumerator = (context, left) => ({
  start() {},
  addReader() {},
  handleSplitRequest(subtask) {
    const next = left.shift();
    if (next === 'throw') throw new Error('no such bucket');
    if (next === 'exit') process.exit(7);
    if (next === 'reject') { setTimeout(() => Promise.reject(new Error('nobody awaits this')), 1); return; }
    if (next === undefined) context.signalNoMoreSplits(subtask);
    else context.assignSplits(subtask, [next]);
  },
  addSplitsBack(splits) { left.unshift(...splits); },
  snapshotState: () => ({ left }),
  close() {},
});
const words = process.argv.slice(2);
const source = {
  boundedness: 'bounded',
  createEnumerator: (context) => enumerator(context, [...words]),
  restoreEnumerator: (context, state) => enumerator(context, [...state.left]),
  createReader() { throw new Error('readers run elsewhere'); },
};
const env = StreamExecutionEnvironment.getExecutionEnvironment();
env.fromSource(source, WatermarkStrategy.noWatermarks(), 'words').print();
await env.execute('words');
`;

class Thread {
  readonly host: CoordinatorHost;
  readonly operatorId: OperatorId;
  readonly replies: CoordinatorReply[] = [];
  #changed = new Deferred<void>();

  constructor(
    host: (onReply: (reply: CoordinatorReply) => void) => CoordinatorHost,
    operatorId: OperatorId,
  ) {
    this.operatorId = operatorId;
    this.host = host((reply) => {
      this.replies.push(reply);
      this.#changed.resolve();
    });
  }

  async next<K extends CoordinatorReply['kind']>(
    kind: K,
  ): Promise<Extract<CoordinatorReply, { kind: K }>> {
    for (;;) {
      const index = this.replies.findIndex((reply) => reply.kind === kind);
      const [found] = index < 0 ? [] : this.replies.splice(index, 1);
      if (found !== undefined) return found as Extract<CoordinatorReply, { kind: K }>;
      const failed = this.replies.find((reply) => reply.kind === 'failed');
      if (failed?.kind === 'failed') throw fromFailure(failed.failure);
      this.#changed = new Deferred();
      await this.#changed.promise;
    }
  }

  reset(resetNumber: number, state?: Uint8Array): void {
    const { operatorId } = this;
    this.host.send({
      kind: 'reset',
      resetNumber,
      sources: [{ operatorId, parallelism: 2, ...(state && { state }) }],
    });
    for (const subtask of [0, 1]) this.host.send({ kind: 'addReader', operatorId, subtask });
  }

  request(subtask: number): void {
    this.host.send({ kind: 'requestSplit', operatorId: this.operatorId, subtask });
  }
}

async function open(t: Test, words: readonly string[]): Promise<Thread> {
  const folder = t.testdir();
  const { jobGraph, bundle } = await prepare(writeJob(folder, job), { args: words });
  const env = testEnv();
  const cache = new BlobCache(env, { directory: folder });
  const hosts = workerCoordinatorHosts(env, {
    acquireBundle: (_jobId, digest) =>
      cache.acquire(digest, async () => ({ bytes: bundle, end: true })),
    mainTimeoutMs: 30_000,
    log: { level: 'silent', destination: 2 },
  });
  const operator = jobGraph.vertices[0]?.operators[0];
  const thread = new Thread(
    (onReply) => hosts(jobGraph, onReply),
    operator?.id ?? ('' as OperatorId),
  );
  t.teardown(() => thread.host.close());
  return thread;
}

t.test(
  'splits are assigned in order, snapshots say what is left, a reset starts from one',
  async (t) => {
    const thread = await open(t, ['a', 'b', 'c']);
    thread.reset(1);
    await thread.next('ready');
    thread.request(1);
    t.match(await thread.next('assigned'), { resetNumber: 1, subtask: 1, splits: ['a'] });
    thread.host.send({ kind: 'snapshot', operatorId: thread.operatorId, checkpointId: 4 });
    const { state, checkpointId } = await thread.next('snapshotTaken');
    t.equal(checkpointId, 4);
    t.same(decodeValue(state), { left: ['b', 'c'] });
    thread.request(0);
    await thread.next('assigned');
    thread.reset(2, state);
    await thread.next('ready');
    for (let i = 0; i < 3; i++) thread.request(0);
    t.match(await thread.next('assigned'), { resetNumber: 2, splits: ['b'] });
    t.match(await thread.next('assigned'), { splits: ['c'] });
    t.match(await thread.next('noMoreSplits'), { subtask: 0 });
  },
);

t.test('what user code does wrong is reported and ends at most its thread', async (t) => {
  for (const [word, message] of [
    ['throw', /split enumerator of a source threw: no such bucket/],
    ['exit', /thread ended with code 7/],
    ['reject', /nobody awaits this/],
  ] as const) {
    const thread = await open(t, [word]);
    thread.reset(1);
    await thread.next('ready');
    thread.request(0);
    t.match((await thread.next('failed')).failure, { code: 'USER_FUNCTION', message }, word);
  }
});

t.test('a bundle that is not there is a fault of the job only', async (t) => {
  const { jobGraph } = await prepare(writeJob(t.testdir(), job), { args: [] });
  const hosts = workerCoordinatorHosts(testEnv(), {
    acquireBundle: () => Promise.reject(new Error('the storage is away')),
    mainTimeoutMs: 1_000,
    log: { level: 'silent', destination: 2 },
  });
  const operatorId = jobGraph.vertices[0]?.operators[0]?.id ?? ('' as OperatorId);
  const thread = new Thread((onReply) => hosts(jobGraph, onReply), operatorId);
  t.teardown(() => thread.host.close());
  thread.reset(3);
  t.match(await thread.next('failed'), { failure: { message: 'the storage is away' } });
});
