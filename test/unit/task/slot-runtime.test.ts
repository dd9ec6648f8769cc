import t from 'tap';
import { MillraceError } from '../../../lib/base/errors.js';
import type { OperatorId } from '../../../lib/base/ids.js';
import type {
  OperatorSnapshotInProgress,
  SourceStreamOperator,
} from '../../../lib/operators/stream-operator.js';
import type { SlotRuntimeOptions } from '../../../lib/task/slot-ports.js';
import { SlotCluster } from '../../support/slot-cluster.js';
import { attemptIdOf, type TestJob, type TestPlacement } from '../../support/slot-job.js';
import {
  CheckingSink,
  StampOperator,
  TestOperator,
  TestSource,
} from '../../support/slot-operators.js';

const oneSlot: TestPlacement = { slotOf: () => 0 };

function cluster(job: TestJob, placement = oneSlot, runtime: SlotRuntimeOptions = {}): SlotCluster {
  return new SlotCluster(job, { seed: 1, slots: 4, placement, runtime });
}

/** `source` -> `sink`, by HASH, so that they are two tasks. */
function twoTasks(source: TestOperator[], sink: TestOperator[]): TestJob {
  return {
    vertices: [
      { name: 'source', parallelism: 1, operators: source.map((operator) => () => operator) },
      { name: 'sink', parallelism: 1, operators: sink.map((operator) => () => operator) },
    ],
    edges: [{ from: 'source', to: 'sink', strategy: 'HASH', key: () => 1 }],
  };
}

const state = (c: SlotCluster, vertex: string): string | undefined =>
  c.tasks.get(attemptIdOf(vertex, 0))?.state;
const failure = (c: SlotCluster, vertex: string): Record<string, unknown> =>
  (c.tasks.get(attemptIdOf(vertex, 0))?.failure ?? {}) as Record<string, unknown>;

class ThrowingOperator extends TestOperator {
  override processElement(): void {
    throw new Error('boom');
  }
}

/** A user function that swallows what its successors throw. */
class SwallowingOperator extends TestOperator {
  override processElement(value: unknown, timestamp: number): void {
    try {
      super.processElement(value, timestamp);
    } catch {
      // As careless user code does.
    }
  }
}

async function ackedBy(c: SlotCluster, checkpointId: number, tasks: number): Promise<void> {
  c.send({
    kind: 'triggerCheckpoint',
    attemptIds: c.roots,
    checkpointId,
    timestamp: c.clock.wallTime(),
  });
  await c.runUntil(() => c.acks.get(checkpointId)?.size === tasks);
}

const isRunning = (c: SlotCluster) => (): boolean =>
  c.live.every((task) => task.state === 'RUNNING');
const endless = (): TestSource => new TestSource({ records: 1e9, pauses: () => true });

t.test(
  'an exception is blamed on the chained operator that threw, also when it is swallowed',
  async (t) => {
    for (const between of [new StampOperator(), new SwallowingOperator()]) {
      const source = new TestSource({ records: 5 });
      const c = cluster(twoTasks([source, between, new ThrowingOperator()], [new CheckingSink()]));
      await c.runUntil(() => state(c, 'source') === 'FAILED');
      t.match(failure(c, 'source'), {
        code: 'USER_FUNCTION',
        message: /operator "source.2" of source \(1\/1\) threw: boom/,
        details: { operator: 'source.2' },
      });
      t.equal(state(c, 'sink'), 'RUNNING', 'the other task goes on until the host cancels');
      await c.close();
      t.equal(state(c, 'sink'), 'CANCELED');
      t.equal(c.closedSlots, 1);
    }
  },
);

t.test('a directly called task fails by itself, not its caller', async (t) => {
  const source = new TestSource({ records: 5000 });
  const c = cluster(twoTasks([source], [new ThrowingOperator()]), oneSlot, {
    maxQueuedRecords: 10,
  });
  await c.runUntil(() => state(c, 'sink') === 'FAILED');
  t.match(failure(c, 'sink'), { details: { operator: 'sink.0' } });
  for (let i = 0; i < 50; i += 1) c.step();
  t.equal(state(c, 'source'), 'RUNNING');
  t.ok(source.position < 100, 'and is held back, since nobody takes its records');
  const failed = c.reports.filter((r) => r.kind === 'taskState' && r.state === 'FAILED');
  t.equal(failed.length, 1, 'reported once');
  await c.close();
});

t.test(
  'cancel closes the operators, waits for those still opening, and reports closed last',
  async (t) => {
    let finishOpening = (): void => undefined;
    class SlowToOpen extends TestOperator {
      override async open(): Promise<void> {
        await new Promise<void>((resolve) => {
          finishOpening = resolve;
        });
        this.calls.push('opened');
      }
    }
    const slow = new SlowToOpen();
    const source = endless();
    const c = cluster(twoTasks([source], [slow]));
    await c.runUntil(() => state(c, 'source') === 'RUNNING');
    c.send({ kind: 'cancel' });
    await c.settle();
    t.equal(state(c, 'source'), 'CANCELED');
    t.same(slow.calls, [], 'not closed while it opens');
    finishOpening();
    await c.settle();
    t.same(slow.calls, ['opened', 'close']);
    t.equal(state(c, 'sink'), 'CANCELED');
    t.equal(c.reports.at(-1)?.kind, 'closed');
    t.equal(c.clock.timerCount, 0, 'no timer is left');
    await c.close();
  },
);

t.test('back-pressure reaches the source when the consumer’s slot does not run', async (t) => {
  const source = new TestSource({ records: 100_000 });
  const c = cluster(twoTasks([source], [new CheckingSink()]), {
    slotOf: (vertex) => (vertex === 'source' ? 0 : 1),
  });
  await c.settle();
  for (let i = 0; i < 100; i += 1) {
    c.loops[0]!.step();
    await c.settle();
  }
  const held = source.position;
  t.ok(held > 0 && held < 50, `held back after ${String(held)} records`);
  c.clock.advance(1000);
  const metrics = c.reports.findLast(
    (r) => r.kind === 'metrics' && r.tasks[0]?.attemptId === attemptIdOf('source', 0),
  );
  t.ok(metrics?.kind === 'metrics' && metrics.tasks[0]!.backPressuredMs >= 900, 'and says so');
  t.notOk(c.loops[0]!.isRunnable, 'it sleeps meanwhile');
  // The barrier needs no room and goes to all outputs before the next record.
  await ackedBy(c, 1, 2);
  t.pass('a checkpoint completes all the same');
  await c.close();
});

t.test('a record that explodes fails its task instead of the memory', async (t) => {
  class Exploding extends TestOperator {
    override processElement(value: unknown): void {
      for (let i = 0; i < 100_000; i += 1) this.context.output.collect(value, i);
    }
  }
  const c = cluster(
    twoTasks([new TestSource({ records: 3 }), new Exploding()], [new CheckingSink()]),
    { slotOf: (vertex) => (vertex === 'source' ? 0 : 1) },
    { maxOverdraftBuffers: 20 },
  );
  await c.runUntil(() => state(c, 'source') === 'FAILED');
  t.match(failure(c, 'source'), { code: 'OVERDRAFT_EXCEEDED', details: { operator: 'source.1' } });
  await c.close();
});

/** Emits when it is told to. */
class ToldSource extends TestOperator implements SourceStreamOperator {
  #left = 0;
  #seq = 0;

  give(records: number): void {
    this.#left += records;
    this.context.wakeUp();
  }
  emitNext(): 'more' | 'nothing' {
    if (this.#left === 0) return 'nothing';
    this.#left -= 1;
    this.context.output.collect({ from: 'source', seq: this.#seq, via: 'source' }, this.#seq);
    this.#seq += 1;
    return 'more';
  }
  handleOperatorEvent(): void {}
}

t.test(
  'a slot that has nothing left to do sends what it collected, once a millisecond',
  async (t) => {
    const source = new ToldSource();
    const sink = new CheckingSink();
    const c = cluster(twoTasks([source], [sink]), {
      slotOf: (vertex) => (vertex === 'source' ? 0 : 1),
    });
    const run = async (): Promise<unknown> => {
      for (let i = 0; i < 20; i += 1) {
        c.step();
        await c.settle();
      }
      return sink.counts['source'];
    };
    await run();
    c.clock.advance(2);
    source.give(1);
    t.equal(await run(), 1, 'at once');
    source.give(1);
    t.equal(await run(), 1, 'not so soon');
    c.clock.advance(0.5);
    source.give(1);
    t.equal(await run(), 1);
    c.clock.advance(0.5);
    t.equal(await run(), 3, 'together, a millisecond after the last');
    c.clock.advance(2);
    source.give(1);
    t.equal(await run(), 4, 'at once');
    c.clock.advance(1);
    await run();
    const timers = c.clock.timerCount;
    c.clock.advance(50);
    t.equal(await run(), 4);
    t.equal(c.clock.timerCount, timers, 'no timer runs for an idle slot');
    await c.close();
  },
);

t.test('a busy slot sends partly filled buffers when the buffer timeout has passed', async (t) => {
  const source = new ToldSource();
  const sink = new CheckingSink();
  const busy = new TestSource({ records: 1e9 });
  const job: TestJob = {
    vertices: [
      { name: 'source', parallelism: 1, operators: [() => source] },
      { name: 'sink', parallelism: 1, operators: [() => sink] },
      { name: 'busy', parallelism: 1, operators: [() => busy] },
      { name: 'other', parallelism: 1, operators: [() => new CheckingSink()] },
    ],
    edges: [
      { from: 'source', to: 'sink', strategy: 'HASH', key: () => 1 },
      { from: 'busy', to: 'other', strategy: 'HASH', key: () => 1 },
    ],
  };
  const c = cluster(job, { slotOf: (vertex) => (vertex === 'sink' ? 1 : 0) });
  const run = async (): Promise<unknown> => {
    for (let i = 0; i < 20; i += 1) {
      c.step();
      await c.settle();
    }
    return sink.counts['source'];
  };
  await run();
  source.give(1);
  const before = busy.position;
  t.equal(await run(), undefined);
  t.ok(busy.position > before, 'the slot is busy with another task');
  c.clock.advance(99);
  t.equal(await run(), undefined, 'not yet');
  c.clock.advance(1);
  t.equal(await run(), 1, 'after 100 ms');
  await c.close();
});

t.test(
  'a failed asynchronous part declines the checkpoint; an aborted one is not acknowledged',
  async (t) => {
    const writes: { resolve: () => void; reject: (error: Error) => void }[] = [];
    class SlowToWrite extends CheckingSink {
      override snapshotState(checkpointId: number): OperatorSnapshotInProgress {
        const done = super.snapshotState(checkpointId);
        const written = new Promise<void>((resolve, reject) => {
          writes.push({ resolve, reject });
        });
        return { finish: () => written.then(() => done.finish()) };
      }
    }
    const sink = new SlowToWrite();
    const c = cluster(twoTasks([endless()], [sink]));
    await c.runUntil(isRunning(c));
    const trigger = (checkpointId: number): void =>
      c.send({ kind: 'triggerCheckpoint', attemptIds: c.roots, checkpointId, timestamp: 0 });
    trigger(1);
    await c.runUntil(() => writes.length === 1);
    writes[0]?.reject(new Error('disk on fire'));
    await c.runUntil(() => c.reports.some((r) => r.kind === 'checkpointDecline'));
    const decline = c.reports.find((r) => r.kind === 'checkpointDecline');
    t.match(decline, {
      attemptId: attemptIdOf('sink', 0),
      checkpointId: 1,
      failure: { code: 'CHECKPOINT_FAILED', cause: { message: 'disk on fire' } },
    });
    trigger(2);
    await c.runUntil(() => writes.length === 2);
    c.send({
      kind: 'checkpointAborted',
      attemptIds: [attemptIdOf('sink', 0), attemptIdOf('source', 0)],
      checkpointId: 2,
    });
    await c.runUntil(() => sink.calls.includes('aborted 2'));
    writes[1]?.resolve();
    await c.settle();
    t.equal(c.acks.get(2)?.has(attemptIdOf('sink', 0)) ?? false, false);
    trigger(2);
    await c.runUntil(() => !c.loops[0]!.isRunnable);
    t.equal(
      c.reports.filter((r) => r.kind === 'checkpointAck' && r.checkpointId === 2).length,
      1,
      'only the source’s first one',
    );
    t.equal(state(c, 'sink'), 'RUNNING');
    await c.close();
  },
);

t.test(
  'completions are awaited one at a time, the newest covering those between; a rejection fails the task',
  async (t) => {
    const waits: (() => void)[] = [];
    let rejects = false;
    class SlowToCommit extends CheckingSink {
      override async notifyCheckpointComplete(checkpointId: number): Promise<void> {
        await super.notifyCheckpointComplete(checkpointId);
        await new Promise<void>((resolve) => waits.push(resolve));
        if (rejects) throw new MillraceError('COMMITTABLE_LOST', 'gone');
      }
    }
    const sink = new SlowToCommit();
    const c = cluster(twoTasks([endless()], [sink]));
    await c.runUntil(isRunning(c));
    const completed = (): string[] => sink.calls.filter((call) => call.startsWith('complete'));
    for (let id = 1; id <= 3; id += 1) {
      await ackedBy(c, id, 2);
      c.send({
        kind: 'checkpointComplete',
        attemptIds: [attemptIdOf('sink', 0)],
        checkpointId: id,
      });
      await c.runUntil(() => !c.loops[0]!.isRunnable);
    }
    t.same(completed(), ['complete 1']);
    waits.shift()?.();
    await c.settle();
    t.same(completed(), ['complete 1', 'complete 3']);
    rejects = true;
    waits.shift()?.();
    await c.runUntil(() => state(c, 'sink') === 'FAILED');
    t.match(failure(c, 'sink'), { code: 'COMMITTABLE_LOST', details: { operator: 'sink.0' } });
    await c.close();
  },
);

t.test('the end waits for a checkpoint taken after the operators finished', async (t) => {
  const source = new TestSource({ records: 10 });
  const sink = new CheckingSink();
  const c = cluster(twoTasks([source], [sink]));
  const ids = [...c.tasks.keys()];
  await c.runUntil(() => c.live.every((task) => task.hasEndOfData));
  t.equal(state(c, 'source'), 'RUNNING');
  t.ok(sink.calls.includes('finish'));
  await ackedBy(c, 1, 2);
  for (const snapshot of c.acks.get(1)!.values()) t.equal(snapshot.finished, true);
  c.send({ kind: 'checkpointAborted', attemptIds: ids, checkpointId: 1 });
  await ackedBy(c, 2, 2);
  t.equal(c.live.length, 2, 'an aborted one does not end anything');
  c.send({ kind: 'checkpointComplete', attemptIds: ids, checkpointId: 2 });
  await c.runUntil(() => c.live.length === 0);
  t.same([state(c, 'source'), state(c, 'sink')], ['FINISHED', 'FINISHED']);
  t.same(sink.calls, ['open', 'finish', 'aborted 1', 'complete 2', 'close']);
  const metrics = c.reports.findLast((r) => r.kind === 'metrics');
  t.match(metrics, {
    tasks: [
      { numRecordsIn: 0, numRecordsOut: 10 },
      { numRecordsIn: 10, numRecordsOut: 0, currentInputWatermark: Number.MAX_SAFE_INTEGER },
    ],
  });
  await c.close();
});

t.test('a subtask restored as finished passes its end on and runs no user code', async (t) => {
  const restored = { checkpointId: 7, operators: {}, finished: true, baseDirectory: '' };
  for (const slots of [1, 2]) {
    const source = new TestSource({ records: 10 });
    const sink = new CheckingSink();
    const c = cluster(twoTasks([source], [sink]), {
      slotOf: (vertex) => (vertex === 'source' ? 0 : slots - 1),
      restoreOf: (attemptId) => (attemptId === attemptIdOf('source', 0) ? restored : undefined),
    });
    await c.runUntil(
      () => state(c, 'source') === 'FINISHED' && c.live.every((task) => task.hasEndOfData),
    );
    t.same(source.calls, []);
    t.equal(sink.watermark, Infinity);
    // Its only input ended, so the sink is where the next checkpoint begins.
    t.same(c.roots, [attemptIdOf('sink', 0)]);
    await ackedBy(c, 8, 1);
    c.send({ kind: 'checkpointComplete', attemptIds: c.roots, checkpointId: 8 });
    await c.runUntil(() => c.live.length === 0);
    t.equal(state(c, 'sink'), 'FINISHED');
    await c.close();
  }
});

t.test(
  'operator events are taken in order with checkpoints and answered, also by tasks that ended',
  async (t) => {
    const source = endless();
    const c = cluster(twoTasks([source], [new CheckingSink()]));
    const event = (ticket: number, attemptId = attemptIdOf('source', 0)): void =>
      c.send({
        kind: 'operatorEvent',
        ticket,
        attemptId,
        operatorId: 'source-0' as OperatorId,
        event: { kind: 'noMoreSplits' },
      });
    const answered = (ticket: number): boolean =>
      c.reports.some((r) => r.kind === 'taken' && r.ticket === ticket);
    event(1);
    t.notOk(answered(1), 'not before the reader is open');
    await c.runUntil(() => answered(1));
    t.same(source.calls, ['noMoreSplits']);
    event(2, attemptIdOf('gone', 0));
    t.ok(answered(2));
    await c.close();
    event(3);
    t.ok(answered(3));
  },
);

t.test('a slot over its memory limit fails all of its tasks with that error', async (t) => {
  let isOver = false;
  const c = cluster(twoTasks([new TestSource({ records: 1e9 })], [new CheckingSink()]), oneSlot, {
    checkMemory: () => (isOver ? new MillraceError('SLOT_MEMORY', 'too much') : undefined),
  });
  await c.runUntil(isRunning(c));
  isOver = true;
  await c.runUntil(() => c.live.length === 0);
  t.match(failure(c, 'source'), { code: 'SLOT_MEMORY' });
  t.match(failure(c, 'sink'), { code: 'SLOT_MEMORY' });
  t.equal(c.closedSlots, 1);
  await c.close();
});

t.test('the host always knows whose code runs', async (t) => {
  const seen = new Set<string>();
  const current = (): string => c.runtimes[0]?.current?.vertexName ?? 'none';
  class Watching extends CheckingSink {
    override processElement(value: unknown): void {
      seen.add(`sink in ${current()}`);
      super.processElement(value);
    }
  }
  class WatchingSource extends TestSource {
    override emitNext(): 'more' | 'nothing' | 'end' {
      const outcome = super.emitNext();
      seen.add(`source in ${current()}`);
      return outcome;
    }
  }
  const c = cluster(twoTasks([new WatchingSource({ records: 5 })], [new Watching()]));
  await c.runUntil(() => c.live.every((task) => task.hasEndOfData));
  t.same([...seen].sort(), ['sink in sink', 'source in source']);
  t.equal(current(), 'none');
  await c.close();
});
