import t from 'tap';
import type {
  ReaderOutput,
  Source,
  SourceReader,
  SourceReaderContext,
} from '../../../lib/api/source.js';
import { MillraceError } from '../../../lib/base/errors.js';
import { SourceOperator } from '../../../lib/operators/source-operator.js';
import { TimestampsAndWatermarksOperator } from '../../../lib/operators/timestamps-and-watermarks-operator.js';
import {
  OperatorTestHarness,
  type HarnessOptions,
} from '../../../lib/testing/operator-test-harness.js';
import { WatermarkStrategy } from '../../../lib/time/watermark-strategy.js';

interface ListSplit {
  readonly id: string;
  readonly at: number;
}

/** Named lists of timestamps; several splits are read in turn. A gap (undefined) has nothing yet. */
type Lists = Readonly<Record<string, (number | undefined)[]>>;

class ListReader implements SourceReader<number, ListSplit> {
  readonly context: SourceReaderContext;
  readonly #lists: Lists;
  #splits: { id: string; at: number }[] = [];
  #isLast = false;

  constructor(lists: Lists, context: SourceReaderContext) {
    this.#lists = lists;
    this.context = context;
  }

  start(): void {
    if (this.#splits.length === 0) this.context.requestSplit();
  }

  pollNext(output: ReaderOutput<number>): 'more' | 'nothing' | 'end' {
    for (const _ of this.#splits) {
      const split = this.#splits.shift()!;
      const list = this.#lists[split.id]!;
      const value = list[split.at];
      if (split.at >= list.length) {
        output.releaseSplit(split.id);
        this.context.requestSplit();
        return 'more';
      }
      this.#splits.push(split);
      if (value === undefined) continue;
      split.at += 1;
      output.collect(value, value, split.id);
      return 'more';
    }
    return this.#isLast && this.#splits.length === 0 ? 'end' : 'nothing';
  }

  addSplits(splits: readonly ListSplit[]): void {
    this.#splits.push(...splits.map((split) => ({ ...split })));
  }

  notifyNoMoreSplits(): void {
    this.#isLast = true;
  }

  snapshotState(): ListSplit[] {
    return this.#splits.map((split) => ({ ...split }));
  }

  close(): void {
    this.#splits = [];
  }
}

class ListSource implements Source<number, ListSplit, null> {
  readonly boundedness = 'bounded';
  readonly lists: Lists;
  reader: ListReader | undefined;

  constructor(lists: Lists) {
    this.lists = lists;
  }

  createEnumerator(): never {
    throw new Error('not in a task');
  }

  restoreEnumerator(): never {
    throw new Error('not in a task');
  }

  createReader(context: SourceReaderContext): ListReader {
    this.reader = new ListReader(this.lists, context);
    return this.reader;
  }
}

type SourceHarness = OperatorTestHarness<SourceOperator<number, ListSplit, null>>;

function open(
  source: ListSource,
  strategy: WatermarkStrategy<number> = WatermarkStrategy.forMonotonousTimestamps(),
  options: HarnessOptions = {},
): Promise<SourceHarness> {
  return new OperatorTestHarness(
    new SourceOperator<number, ListSplit, null>(source, strategy),
    options,
  ).open();
}

const add = (h: SourceHarness, ...ids: string[]): void => {
  h.operator.handleOperatorEvent({ kind: 'addSplits', splits: ids.map((id) => ({ id, at: 0 })) });
};

t.test('a source registers, asks for splits, reads them and ends', async (t) => {
  const h = await open(new ListSource({ a: [1, 5], b: [7] }));
  t.same(
    h.events.map(({ kind }) => kind),
    ['readerRegistered', 'requestSplit'],
  );
  t.equal(h.pollAll(), 'nothing');
  add(h, 'a');
  t.equal(h.wakeUps, 1);
  t.equal(h.pollAll(), 'nothing');
  t.same(h.output, [
    { kind: 'record', value: 1, timestamp: 1 },
    { kind: 'record', value: 5, timestamp: 5 },
    { kind: 'watermark', timestamp: 4 },
  ]);
  add(h, 'b');
  h.operator.handleOperatorEvent({ kind: 'noMoreSplits' });
  t.equal(h.pollAll(), 'end');
  t.equal(h.pollAll(), 'end');
  t.same(h.values, [1, 5, 7]);
  t.same(h.watermarks, [4, 6]);
  h.advanceTime(1000);
  t.same(h.watermarks, [4, 6], 'nothing after the end');
  t.equal((await h.snapshot(1)).watermark, Infinity);
  await h.close();
  t.equal(h.clock.timerCount, 0);
});

t.test(
  'the watermark is the minimum over the splits, at its interval and at barriers',
  async (t) => {
    const source = new ListSource({ a: [100, 200, undefined], b: [50, 300, undefined] });
    const h = await open(source, WatermarkStrategy.forBoundedOutOfOrderness('10ms'));
    add(h, 'a', 'b');
    h.operator.emitNext();
    h.operator.emitNext();
    t.same(h.watermarks, []);
    h.advanceTime(200);
    t.same(h.watermarks, [39]);
    h.advanceTime(200);
    t.same(h.watermarks, [39], 'only what is new');
    h.pollAll();
    await h.snapshot(1);
    t.same(h.watermarks, [39, 189]);
  },
);

t.test('the assigner gives the event time, and a bad one is named', async (t) => {
  const strategy = WatermarkStrategy.forMonotonousTimestamps().withTimestampAssigner(
    (value: number, recordTimestamp) =>
      value === 13 ? NaN : value * 1000 + (recordTimestamp ?? 0),
  );
  const h = await open(new ListSource({ a: [2, 13] }), strategy);
  add(h, 'a');
  h.operator.emitNext();
  t.same(h.output, [{ kind: 'record', value: 2, timestamp: 2002 }]);
  t.throws(() => h.operator.emitNext(), {
    code: 'USER_FUNCTION',
    message: /assigner returned NaN/,
  });
});

t.test('a silent split does not hold the watermark back once it is idle', async (t) => {
  const source = new ListSource({
    a: Array.from({ length: 20 }, (_, i) => 100 * (i + 1)),
    b: [50, undefined],
  });
  const h = await open(source, WatermarkStrategy.forMonotonousTimestamps().withIdleness('1s'));
  add(h, 'a', 'b');
  h.operator.emitNext();
  for (let i = 0; i < 5; i += 1) {
    h.operator.emitNext();
    h.advanceTime(200);
  }
  t.same(h.watermarks, [49], 'b was heard at 200 ms and is not idle yet');
  h.operator.emitNext();
  h.advanceTime(200);
  t.same(h.watermarks, [49, 599]);
  h.pollAll();
  h.advanceTime(3000);
  t.same(
    h.output.filter(({ kind }) => kind === 'status'),
    [{ kind: 'status', active: false }],
  );
  source.lists['b']!.splice(1, 1, 500);
  h.operator.emitNext();
  t.same(h.output.slice(-2), [
    { kind: 'status', active: true },
    { kind: 'record', value: 500, timestamp: 500 },
  ]);
});

t.test('a source held back by its outputs is not idle', async (t) => {
  const h = await open(
    new ListSource({ a: [100, 200] }),
    WatermarkStrategy.forMonotonousTimestamps().withIdleness(1000),
  );
  add(h, 'a');
  h.operator.emitNext();
  h.advanceTime(10_000);
  t.notOk(h.output.some(({ kind }) => kind === 'status'));
});

t.test('a subtask without splits becomes idle, too', async (t) => {
  const h = await open(
    new ListSource({}),
    WatermarkStrategy.forMonotonousTimestamps().withIdleness(1000),
  );
  h.pollAll();
  h.advanceTime(3000);
  t.same(h.output, [{ kind: 'status', active: false }]);
});

t.test('positions and watermarks are restored, and time does not go back', async (t) => {
  const lists = { a: [100, 200, 300], b: [50, 60, undefined, 70] };
  const h = await open(new ListSource(lists));
  add(h, 'a', 'b');
  for (let i = 0; i < 4; i += 1) h.operator.emitNext();
  const state = await h.snapshot(3);
  t.same(h.watermarks, [59]);
  t.equal(state.watermark, 59);
  const strategy = WatermarkStrategy.forMonotonousTimestamps<number>();
  const again = await open(new ListSource(lists), strategy, { restoreFrom: [state] });
  t.same(
    again.events.map(({ kind }) => kind),
    ['readerRegistered'],
  );
  t.equal(again.pollAll(), 'nothing');
  t.same(again.values, [300]);
  again.advanceTime(200);
  t.same(again.watermarks, [59], 'the split that said nothing yet holds it back as before');
  for (const subtaskIndex of [0, 1]) {
    const options = { restoreFrom: [state], parallelism: 2, subtaskIndex };
    const part = await open(new ListSource(lists), strategy, options);
    part.pollAll();
    t.same(part.values, [[300], []][subtaskIndex]);
    part.advanceTime(200);
    t.same(part.watermarks, [[299, 299].slice(0, 1), [59]][subtaskIndex]);
  }
});

t.test("a reader's errors fail the task, also those of background work", async (t) => {
  const source = new ListSource({ a: [1] });
  const h = await open(source);
  source.reader!.context.fail(new MillraceError('FILE_NOT_FOUND', 'gone'));
  t.equal(h.wakeUps, 1);
  t.throws(() => h.operator.emitNext(), { code: 'FILE_NOT_FOUND' });
  let fired = 0;
  source.reader!.context.setTimer(100, () => (fired += 1));
  const cancel = source.reader!.context.setTimer(100, () => (fired += 10));
  cancel();
  h.advanceTime(100);
  t.equal(fired, 1);
});

t.test('timestamps and watermarks can be given in the middle of a stream', async (t) => {
  const strategy = WatermarkStrategy.forBoundedOutOfOrderness(10)
    .withTimestampAssigner((value: { t: number }) => value.t)
    .withIdleness('1s');
  const operator = (): TimestampsAndWatermarksOperator =>
    new TimestampsAndWatermarksOperator(strategy as WatermarkStrategy<unknown>);
  const h = await new OperatorTestHarness(operator()).open();
  h.processElement({ t: 100 }, 5);
  h.processWatermark(4);
  h.operator.processWatermarkStatus(false);
  t.same(h.takeOutput(), [{ kind: 'record', value: { t: 100 }, timestamp: 100 }]);
  h.advanceTime(200);
  h.processElement({ t: 90 });
  h.advanceTime(200);
  t.same(h.watermarks, [89]);
  h.processElement({ t: 120 });
  const state = await h.snapshot(1);
  t.equal(state.watermark, 109);
  h.advanceTime(2000);
  t.same(h.output.at(-1), { kind: 'status', active: false });
  h.processElement({ t: 121 });
  t.same(h.output.at(-2), { kind: 'status', active: true });
  h.processWatermark(Infinity);
  h.advanceTime(1000);
  t.same(h.watermarks.slice(-1), [Infinity]);
  const again = await new OperatorTestHarness(operator(), { restoreFrom: [state] }).open();
  again.processElement({ t: 1 });
  again.advanceTime(200);
  t.same(again.watermarks, [109]);
});

t.test('strategies check their durations', async (t) => {
  t.throws(() => WatermarkStrategy.forBoundedOutOfOrderness('soon'), /bound of out-of-orderness/);
  t.throws(() => WatermarkStrategy.forBoundedOutOfOrderness(-1), RangeError);
  t.throws(() => WatermarkStrategy.noWatermarks().withIdleness(0), /idleness/);
  const h = await open(new ListSource({ a: [1, 2] }), WatermarkStrategy.noWatermarks());
  add(h, 'a');
  h.pollAll();
  h.advanceTime(1000);
  await h.snapshot(1);
  t.same(h.watermarks, []);
});
