import t from 'tap';
import type {
  Committer,
  CommitOutcome,
  Sink,
  SinkContext,
  SinkWriter,
} from '../../../lib/api/sink.js';
import { SinkOperator } from '../../../lib/operators/sink-operator.js';
import {
  OperatorTestHarness,
  type HarnessOptions,
} from '../../../lib/testing/operator-test-harness.js';

type Chunk = readonly unknown[];

/** Stores each committed chunk once; `answers` are given before it commits properly. */
class ChunkSink implements Sink<unknown, Chunk, string> {
  readonly committed: Chunk[] = [];
  readonly log: string[] = [];
  readonly answers: (CommitOutcome | Error)[] = [];
  restored: readonly string[] = [];

  createWriter(
    context: SinkContext,
    restored: readonly string[],
  ): SinkWriter<unknown, Chunk, string> {
    this.restored = restored;
    this.log.push('writer');
    let open: unknown[] = [];
    return {
      write: (value) => {
        if (value === 'bad') throw new RangeError('bad value');
        open.push(value);
      },
      prepareCommit: () => {
        const chunk = open;
        open = [];
        return chunk.length === 0 ? [] : [chunk];
      },
      sync: async () => {
        this.log.push('sync');
      },
      snapshotState: (id) => [`writer ${context.subtaskIndex} at ${id}`],
      close: () => void this.log.push('close writer'),
    };
  }

  createCommitter(): Committer<Chunk> {
    return {
      commit: (chunks) => {
        const answer = this.answers.shift();
        if (answer instanceof Error) return Promise.reject(answer);
        if (answer === 'retry') return Promise.resolve(chunks.map(() => answer));
        this.log.push('commit');
        const outcomes = chunks.map((chunk): CommitOutcome => {
          const isKnown = this.committed.some((c) => JSON.stringify(c) === JSON.stringify(chunk));
          if (!isKnown) this.committed.push(chunk);
          return isKnown ? 'alreadyCommitted' : 'committed';
        });
        return Promise.resolve(outcomes);
      },
      close: () => void this.log.push('close committer'),
    };
  }
}

type SinkHarness = OperatorTestHarness<SinkOperator>;

const open = (sink: ChunkSink, options: HarnessOptions = {}): Promise<SinkHarness> =>
  new OperatorTestHarness(new SinkOperator(sink), options).open();

/** Lets promises that are ready run. */
const settle = async (): Promise<void> => {
  for (let i = 0; i < 10; i += 1) await Promise.resolve();
};

t.test('output is durable before the ack and visible after the completion', async (t) => {
  const sink = new ChunkSink();
  const h = await open(sink);
  h.processElement('a');
  h.processElement('b');
  await h.snapshot(1);
  t.same(sink.log, ['writer', 'sync']);
  h.processElement('c');
  h.operator.notifyCheckpointAborted(1);
  await h.snapshot(2);
  h.processElement('d');
  t.same(sink.committed, []);
  await h.operator.notifyCheckpointComplete(2);
  t.same(sink.committed, [['a', 'b'], ['c']]);
  await h.close();
  t.same(sink.log.slice(-2), ['close writer', 'close committer']);
});

t.test('a restored sink commits again what its checkpoint lists, before it writes', async (t) => {
  const sink = new ChunkSink();
  const h = await open(sink);
  h.processElement('a');
  await h.snapshot(1);
  h.processElement('b');
  const state = await h.snapshot(2);
  await h.operator.notifyCheckpointComplete(1);
  t.same(sink.committed, [['a']]);
  sink.log.length = 0;
  const again = await open(sink, { restoreFrom: [state], generation: 1 });
  t.same(sink.committed, [['a'], ['b']]);
  t.same(sink.log, ['commit', 'writer']);
  t.same(sink.restored, ['writer 0 at 2']);
  await again.snapshot(3);
  await again.operator.notifyCheckpointComplete(3);
  t.equal(sink.committed.length, 2);
});

t.test('committables are dealt out when the parallelism changes', async (t) => {
  const old = await Promise.all(
    [0, 1, 2].map(async (subtaskIndex) => {
      const h = await open(new ChunkSink(), { parallelism: 3, subtaskIndex });
      h.processElement(`from ${subtaskIndex}`);
      return h.snapshot(1);
    }),
  );
  const sink = new ChunkSink();
  for (const subtaskIndex of [0, 1]) {
    await open(sink, { parallelism: 2, subtaskIndex, restoreFrom: old });
  }
  t.same(sink.committed.map(([value]) => value).sort(), ['from 0', 'from 1', 'from 2']);
});

t.test('a full disk is waited for, a bounded number of times', async (t) => {
  const sink = new ChunkSink();
  const h = await open(sink);
  h.processElement('a');
  await h.snapshot(1);
  sink.answers.push('retry', 'retry');
  const done = h.operator.notifyCheckpointComplete(1);
  await settle();
  t.equal(h.clock.timerCount, 1);
  h.advanceTime(100);
  await settle();
  h.advanceTime(200);
  await done;
  t.same(sink.committed, [['a']]);
  h.processElement('b');
  await h.snapshot(2);
  sink.answers.push(...new Array<CommitOutcome>(50).fill('retry'));
  const failed = h.operator.notifyCheckpointComplete(2);
  for (let i = 0; i < 20; i += 1) {
    await settle();
    h.advanceTime(10_000);
  }
  await t.rejects(failed, { code: 'COMMIT_FAILED', message: /1 outputs in 12 tries/ });
  await t.rejects(h.operator.notifyCheckpointComplete(3), { code: 'COMMIT_FAILED' });
});

t.test('a throwing committer or writer fails the task with its own error', async (t) => {
  const sink = new ChunkSink();
  const h = await open(sink);
  t.throws(
    () => {
      h.processElement('bad');
    },
    { code: 'USER_FUNCTION', message: 'operator: bad value' },
  );
  h.processElement('a');
  const state = await h.snapshot(1);
  sink.answers.push(new RangeError('refused'));
  await t.rejects(h.operator.notifyCheckpointComplete(1), {
    code: 'USER_FUNCTION',
    message: /refused/,
  });
  sink.answers.push(new RangeError('refused again'));
  await t.rejects(open(sink, { restoreFrom: [state] }), { message: /refused again/ });
});

t.test('closing during a commit ends the wait', async (t) => {
  const sink = new ChunkSink();
  const h = await open(sink);
  h.processElement('a');
  await h.snapshot(1);
  sink.answers.push('retry');
  const done = h.operator.notifyCheckpointComplete(1);
  done.catch(() => undefined);
  await settle();
  await h.close();
  await t.rejects(done, { code: 'CLOSED' });
  t.equal(h.clock.timerCount, 0);
});

t.test('a sink without committer just writes, and is synced at checkpoints', async (t) => {
  const written: unknown[] = [];
  let synced = 0;
  const sink: Sink<unknown> = {
    createWriter: () => ({
      write: (value, timestamp) => void written.push([value, timestamp]),
      sync: async () => void (synced += 1),
      close: () => undefined,
    }),
  };
  const h = await new OperatorTestHarness(new SinkOperator(sink)).open();
  h.processElement('a', 5);
  t.same(written, [['a', 5]]);
  t.same(await h.snapshot(1), {});
  t.equal(synced, 1);
  await h.operator.notifyCheckpointComplete(1);
  h.processWatermark(3);
  t.same(h.watermarks, [3]);
});
