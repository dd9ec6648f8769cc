/** Tasks that go on under another leader: what the older one began is over, nothing else changes for them. */
import t from 'tap';
import { Deferred } from '../../../lib/base/deferred.js';
import type { AttemptId } from '../../../lib/base/ids.js';
import type { OperatorSnapshotInProgress } from '../../../lib/operators/stream-operator.js';
import { EpochStorage, type OpenStorage } from '../../../lib/task/epoch-storage.js';
import { SlotCluster } from '../../support/slot-cluster.js';
import { attemptIdOf, memoryStorage, type TestJob } from '../../support/slot-job.js';
import type { TestOperator } from '../../support/slot-operators.js';
import { CheckingSink, TestSource } from '../../support/slot-operators.js';

const everywhere = { slotOf: (_: string, subtask: number): number => subtask };
const source = (subtask: number): AttemptId => attemptIdOf('source', subtask);
const sinkId = attemptIdOf('sink', 0);

interface Fixture {
  readonly c: SlotCluster;
  readonly sources: readonly TestSource[];
  readonly sink: TestOperator;
}

/** Two sources in two slots, the second beside the sink of both. */
function fixture(
  options: { readonly sink?: TestOperator; readonly storage?: OpenStorage } = {},
): Fixture {
  const { sink = new CheckingSink() } = options;
  const sources = [0, 1].map(() => new TestSource({ records: 1e9, pauses: () => false }));
  let made = 0;
  const job: TestJob = {
    vertices: [
      { name: 'source', parallelism: 2, operators: [() => sources[made++]!] },
      { name: 'sink', parallelism: 1, operators: [() => sink] },
    ],
    edges: [{ from: 'source', to: 'sink', strategy: 'HASH', key: () => 1 }],
  };
  const c = new SlotCluster(job, {
    seed: 1,
    slots: 2,
    placement: everywhere,
    ...(options.storage !== undefined && { storage: options.storage }),
  });
  return { c, sources, sink };
}

const isRunning = (c: SlotCluster) => (): boolean =>
  c.live.length === 3 && c.live.every((task) => task.state === 'RUNNING');

let tickets = 0;
function adopt(
  c: SlotCluster,
  terms: { label?: string; completed?: number; aborted: number },
): void {
  tickets += 1;
  const ticket = tickets;
  c.send({
    kind: 'adopt',
    ticket,
    epochLabel: terms.label ?? 'e1.2',
    completedCheckpointId: terms.completed ?? 0,
    abortedCheckpointId: terms.aborted,
  });
  const answers = c.reports.filter((r) => r.kind === 'taken' && r.ticket === ticket);
  t.equal(answers.length, 2, 'each slot answers, at once');
}

function trigger(c: SlotCluster, checkpointId: number, attemptIds: readonly AttemptId[]): void {
  c.send({ kind: 'triggerCheckpoint', attemptIds, checkpointId, timestamp: c.clock.wallTime() });
}

const acksOf = (c: SlotCluster, checkpointId: number): number =>
  c.acks.get(checkpointId)?.size ?? 0;
const countOf = (sink: TestOperator): number => (sink as CheckingSink).counts['source.0.0'] ?? 0;
const declines = (c: SlotCluster): unknown[] =>
  c.reports.filter(({ kind }) => kind === 'checkpointDecline');

t.test('an alignment that can never end is over, and late barriers are dropped', async (t) => {
  const { c, sink } = fixture();
  await c.runUntil(isRunning(c));
  trigger(c, 5, [source(0)]);
  await c.runUntil(() => acksOf(c, 5) === 1);
  for (let i = 0; i < 300; i += 1) c.step();
  const blockedAt = countOf(sink);
  for (let i = 0; i < 300; i += 1) c.step();
  t.equal(countOf(sink), blockedAt, 'the sink waits for the barrier of the other source');

  adopt(c, { aborted: 1_000_000 });
  await c.runUntil(() => countOf(sink) > blockedAt + 100);
  t.pass('its channel is open again');
  trigger(c, 6, [source(0)]);
  trigger(c, 1_000_000, [source(1)]);
  trigger(c, 1_000_001, [source(0), source(1)]);
  await c.runUntil(() => acksOf(c, 1_000_001) === 3);
  t.strictSame([acksOf(c, 6), acksOf(c, 1_000_000)], [0, 0], 'of the older leader');
  t.strictSame(declines(c), [], 'the new leader is told nothing of what it did not begin');
  t.ok(isRunning(c)(), 'no task was touched');
  await c.close();
});

t.test('a barrier under way when its checkpoint is given up does not block anybody', async (t) => {
  const { c, sink } = fixture();
  await c.runUntil(isRunning(c));
  trigger(c, 5, [source(0)]);
  // The first source sent its barrier; the sink has not seen it when it is told of the new leader.
  while (acksOf(c, 5) === 0) {
    c.loops[0]!.step();
    await c.settle();
  }
  adopt(c, { aborted: 900 });
  const before = countOf(sink);
  await c.runUntil(() => countOf(sink) > before + 1000);
  t.equal(acksOf(c, 5), 1, 'the sink took no part');
  trigger(c, 901, [source(0), source(1)]);
  await c.runUntil(() => acksOf(c, 901) === 3);
  await c.close();
});

t.test('a completion whose notice was lost is made up for, once', async (t) => {
  const { c, sources, sink } = fixture();
  await c.runUntil(isRunning(c));
  trigger(c, 3, [source(0), source(1)]);
  await c.runUntil(() => acksOf(c, 3) === 3);
  t.notOk(sink.calls.includes('complete 3'));
  for (const label of ['e1.2', 'e1.3']) adopt(c, { label, completed: 3, aborted: 900 });
  await c.runUntil(() => [sink, ...sources].every(({ calls }) => calls.includes('complete 3')));
  c.send({ kind: 'checkpointComplete', attemptIds: [sinkId], checkpointId: 3 });
  for (let i = 0; i < 100; i += 1) c.step();
  await c.settle();
  for (const { calls } of [sink, ...sources]) {
    t.strictSame(
      calls.filter((call) => call === 'complete 3'),
      ['complete 3'],
    );
  }
  await c.close();
});

t.test(
  'a snapshot being written when the leader changes is given up, its file the older leader’s',
  async (t) => {
    const hold = new Deferred<void>();
    class SlowSnapshot extends CheckingSink {
      override snapshotState(checkpointId: number): OperatorSnapshotInProgress {
        const { storage } = this.context;
        this.calls.push(`snapshot ${String(checkpointId)}`);
        return {
          finish: async () => {
            if (checkpointId === 5) await hold.promise;
            return { operator: await storage.write(checkpointId, 'name', Uint8Array.of(1)) };
          },
        };
      }
    }
    const written: string[] = [];
    const storage: OpenStorage = (label) => ({
      ...memoryStorage,
      write: (checkpointId, name, bytes) => {
        written.push(`${label} ${String(checkpointId)}`);
        return memoryStorage.write(checkpointId, name, bytes);
      },
    });
    const { c, sink } = fixture({ sink: new SlowSnapshot(), storage });
    await c.runUntil(isRunning(c));
    trigger(c, 5, [source(0), source(1)]);
    await c.runUntil(() => sink.calls.includes('snapshot 5'));
    adopt(c, { aborted: 64 });
    trigger(c, 65, [source(0), source(1)]);
    await c.runUntil(() => acksOf(c, 65) === 3);
    t.ok(sink.calls.includes('aborted 5'), 'its operators stop keeping things for it');
    hold.resolve();
    await c.runUntil(() => written.length === 2);
    t.strictSame(written, ['e1.2 65', 'e0.0 5'], 'each into the directory of its own leadership');
    await c.settle();
    t.equal(acksOf(c, 5), 2, 'it is not acknowledged any more');
    await c.close();
  },
);

t.test('a slot whose tasks ended answers too', async () => {
  const { c } = fixture();
  await c.runUntil(isRunning(c));
  for (const runtime of c.runtimes) runtime.cancel();
  await c.runUntil(() => c.closedSlots === 2);
  adopt(c, { completed: 2, aborted: 64 });
  await c.close();
});

t.test('ids tell which leadership a checkpoint is of, over many leaders', async (t) => {
  const written: string[] = [];
  const storage = new EpochStorage(
    (label) => ({
      ...memoryStorage,
      write: (checkpointId, name, bytes) => {
        written.push(`${label}:${String(checkpointId)}`);
        return memoryStorage.write(checkpointId, name, bytes);
      },
    }),
    'e1',
  );
  storage.enter('e2', 64);
  storage.enter('e2', 70);
  storage.enter('e3', 128);
  for (const id of [1, 64, 65, 70, 128, 129]) await storage.write(id, 'x', new Uint8Array());
  t.strictSame(written, ['e1:1', 'e1:64', 'e2:65', 'e2:70', 'e2:128', 'e3:129']);
  for (let epoch = 4; epoch < 100; epoch += 1) storage.enter(`e${String(epoch)}`, epoch * 64);
  written.length = 0;
  await storage.write(100 * 64, 'x', new Uint8Array());
  await storage.write(99 * 64, 'x', new Uint8Array());
  t.strictSame(written, ['e99:6400', 'e98:6336']);
});
