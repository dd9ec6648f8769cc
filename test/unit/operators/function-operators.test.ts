import fc from 'fast-check';
import t from 'tap';
import type { RuntimeContext } from '../../../lib/api/runtime-context.js';
import type { Collector } from '../../../lib/api/functions.js';
import type {
  KeyedProcessContext,
  KeyedProcessFunction,
  OnTimerContext,
} from '../../../lib/api/process-function.js';
import { OutputTag } from '../../../lib/api/side-output.js';
import { MillraceError } from '../../../lib/base/errors.js';
import { KeyedProcessOperator } from '../../../lib/operators/keyed-process-operator.js';
import { ProcessOperator } from '../../../lib/operators/process-operator.js';
import { ReduceOperator } from '../../../lib/operators/reduce-operator.js';
import { FilterOperator, FlatMapOperator, MapOperator } from '../../../lib/operators/stream-map.js';
import { keyGroupOf } from '../../../lib/state/key-group.js';
import { subtaskOfKeyGroup } from '../../../lib/state/key-group-range.js';
import { ValueStateDescriptor, type ValueState } from '../../../lib/state/state-descriptor.js';
import type { OperatorSubtaskState } from '../../../lib/state/state-handle.js';
import type { StreamOperator } from '../../../lib/operators/stream-operator.js';
import {
  OperatorTestHarness,
  type HarnessOptions,
} from '../../../lib/testing/operator-test-harness.js';

const harness = (
  operator: StreamOperator,
  options: HarnessOptions = {},
): Promise<OperatorTestHarness> => new OperatorTestHarness(operator, options).open();

function errorOf(run: () => unknown): MillraceError {
  try {
    run();
  } catch (error) {
    if (error instanceof MillraceError) return error;
    throw error;
  }
  throw new Error('nothing thrown');
}

t.test('map, filter and flatMap pass timestamps, watermarks and status on', async (t) => {
  const map = await harness(new MapOperator((n: number) => n + 1));
  map.processElement(1, 5);
  map.processElement(2);
  map.processWatermark(7);
  map.operator.processWatermarkStatus(false);
  t.same(map.output, [
    { kind: 'record', value: 2, timestamp: 5 },
    { kind: 'record', value: 3, timestamp: -Infinity },
    { kind: 'watermark', timestamp: 7 },
    { kind: 'status', active: false },
  ]);
  const filter = await harness(new FilterOperator({ filter: (n: number) => n % 2 === 0 }));
  for (const n of [1, 2, 3, 4]) filter.processElement(n, n);
  t.same(filter.values, [2, 4]);
  const flatMap = await harness(
    new FlatMapOperator((n: number, out: Collector<number>) => {
      out.collect(n);
      return [n * 10, n * 100];
    }),
  );
  flatMap.processElement(1, 3);
  t.same(flatMap.output, [
    { kind: 'record', value: 1, timestamp: 3 },
    { kind: 'record', value: 10, timestamp: 3 },
    { kind: 'record', value: 100, timestamp: 3 },
  ]);
  const generator = await harness(
    new FlatMapOperator(function* (text: string) {
      yield* text.split(' ');
    }),
  );
  generator.processElement('a b');
  t.same(generator.values, ['a', 'b']);
});

t.test('what a function throws is blamed on its operator, once', async (t) => {
  const cause = new RangeError('boom');
  const operators = [
    new MapOperator(() => {
      throw cause;
    }),
    new FilterOperator(() => {
      throw cause;
    }),
    new FlatMapOperator(() => {
      throw cause;
    }),
    new ProcessOperator({
      processElement: () => {
        throw cause;
      },
    }),
    new ReduceOperator(
      () => {
        throw cause;
      },
      (a) => a,
    ),
  ];
  for (const operator of operators) {
    const h = await harness(operator);
    const error = errorOf(() => {
      h.processElement(1);
    });
    t.equal(error.code, 'USER_FUNCTION');
    t.equal(error.cause, cause);
  }
  const outer = await harness(new FlatMapOperator((n: number, out) => out.collect(n)));
  const inner = new MillraceError('USER_FUNCTION', 'the next operator: boom');
  const throwing = outer.output as unknown as { push: () => never };
  throwing.push = () => {
    throw inner;
  };
  t.equal(
    errorOf(() => {
      outer.processElement(1);
    }),
    inner,
    'an error of an operator called from inside keeps its blame',
  );
});

t.test('function objects are opened, closed and never shared between subtasks', async (t) => {
  const calls: string[] = [];
  const fn = {
    index: -1,
    open(context: RuntimeContext) {
      this.index = context.subtaskIndex;
      context.metrics.counter('opened').inc();
      calls.push(`open ${context.subtaskIndex} of ${context.parallelism}`);
    },
    map(n: number) {
      return `${this.index}: ${n}`;
    },
    close() {
      calls.push(`close ${this.index}`);
    },
  };
  const first = await harness(new MapOperator(fn), { parallelism: 2, subtaskIndex: 0 });
  const second = await harness(new MapOperator(fn), { parallelism: 2, subtaskIndex: 1 });
  for (const h of [first, second]) h.processElement(7);
  t.same([...first.values, ...second.values], ['0: 7', '1: 7']);
  await first.close();
  await second.close();
  t.same(calls, ['open 0 of 2', 'open 1 of 2', 'close 0', 'close 1']);
  t.equal(fn.index, -1);
  t.equal(first.metrics.samples().find(({ name }) => name === 'opened')?.value, 1);
});

class Private {
  #seen = 0;

  processElement(_value: unknown, _context: unknown, out: Collector<number>): void {
    this.#seen += 1;
    out.collect(this.#seen);
  }
}

t.test('a class or factory gives each subtask an object with private fields', async (t) => {
  for (const fn of [Private, () => new Private()]) {
    const h = await harness(new ProcessOperator(fn));
    h.processElement(1);
    h.processElement(1);
    t.same(h.values, [1, 2]);
  }
  const shared = await harness(new ProcessOperator(new Private()));
  const error = errorOf(() => {
    shared.processElement(1);
  });
  t.match(error.message, /#private fields.*pass its class or a factory/);
});

t.test('reduce emits the rolling value of each key and keeps it', async (t) => {
  const sum = (): ReduceOperator<{ k: string; n: number }> =>
    new ReduceOperator(
      (value) => value.k,
      (a, b) => ({ k: a.k, n: a.n + b.n }),
    );
  const h = await harness(sum());
  for (const [k, n] of [
    ['a', 1],
    ['b', 5],
    ['a', 2],
  ] as const)
    h.processElement({ k, n }, n);
  t.same(h.values, [
    { k: 'a', n: 1 },
    { k: 'b', n: 5 },
    { k: 'a', n: 3 },
  ]);
  const again = await harness(sum(), { restoreFrom: [await h.snapshot(1)] });
  again.processElement({ k: 'a', n: 10 });
  t.same(again.values, [{ k: 'a', n: 13 }]);
});

t.test('a process function sees time and side outputs; timers and state need keys', async (t) => {
  const tag = new OutputTag<string>('side');
  let problems: string[] = [];
  const h = await harness(
    new ProcessOperator({
      open(context: RuntimeContext) {
        problems = [errorOf(() => context.getState(new ValueStateDescriptor('s'))).code];
      },
      processElement(value: number, context, out: Collector<unknown>) {
        context.output(tag, `side ${value}`);
        out.collect([context.timestamp, context.timerService.currentWatermark]);
        problems.push(errorOf(() => context.timerService.registerEventTimeTimer(1)).code);
      },
    }),
  );
  h.processElement(1);
  h.processWatermark(10);
  h.processElement(2, 11);
  t.same(h.values, [
    [undefined, -Infinity],
    [11, 10],
  ]);
  t.same(h.sideValues('side'), ['side 1', 'side 2']);
  t.same(problems, ['JOB_INVALID', 'JOB_INVALID', 'JOB_INVALID']);
});

interface Command {
  readonly key: string;
  readonly event?: readonly number[];
  readonly processing?: readonly number[];
  readonly remove?: readonly number[];
  readonly removeProcessing?: readonly number[];
}

/** Registers timers as told, and says which fired. */
class TimerFunction implements KeyedProcessFunction<string, Command, unknown> {
  count!: ValueState<number, number>;

  open(context: RuntimeContext): void {
    this.count = context.getState(new ValueStateDescriptor('count', 0));
  }

  processElement(command: Command, { timerService }: KeyedProcessContext<string>): void {
    this.count.update(this.count.value() + 1);
    for (const at of command.event ?? []) timerService.registerEventTimeTimer(at);
    for (const at of command.processing ?? []) timerService.registerProcessingTimeTimer(at);
    for (const at of command.remove ?? []) timerService.deleteEventTimeTimer(at);
    for (const at of command.removeProcessing ?? []) timerService.deleteProcessingTimeTimer(at);
  }

  onTimer(timestamp: number, context: OnTimerContext<string>, out: Collector<unknown>): void {
    out.collect([context.getCurrentKey(), context.timeDomain, timestamp, this.count.value()]);
    if (timestamp === 77) context.timerService.registerEventTimeTimer(78);
  }
}

const timerOperator = (): KeyedProcessOperator<string, Command, unknown> =>
  new KeyedProcessOperator((command) => command.key, TimerFunction);

t.test('event-time timers fire in order of time, once per key and time', async (t) => {
  const h = await harness(timerOperator());
  h.processElement({ key: 'a', event: [30, 10, 10] });
  h.processElement({ key: 'b', event: [10, 20], remove: [20] });
  h.processElement({ key: 'a', event: [10] });
  h.processWatermark(9);
  h.processWatermark(29);
  t.same(h.takeOutput(), [
    { kind: 'watermark', timestamp: 9 },
    { kind: 'record', value: ['a', 'event', 10, 2], timestamp: 10 },
    { kind: 'record', value: ['b', 'event', 10, 1], timestamp: 10 },
    { kind: 'watermark', timestamp: 29 },
  ]);
  h.processElement({ key: 'c', event: [5] });
  h.processWatermark(30);
  t.same(h.values, [
    ['c', 'event', 5, 1],
    ['a', 'event', 30, 2],
  ]);
  h.processElement({ key: 'd', event: [77] });
  h.processWatermark(100);
  t.same(h.values.slice(2), [
    ['d', 'event', 77, 1],
    ['d', 'event', 78, 1],
  ]);
});

t.test('processing-time timers fire with the clock, one armed at a time', async (t) => {
  const h = await harness(timerOperator(), { wallTime: 1000 });
  h.processElement({ key: 'a', processing: [1300, 1100, 1200] });
  h.processElement({ key: 'b', processing: [1100, 1050], removeProcessing: [1050] });
  t.equal(h.clock.timerCount, 1);
  h.advanceTime(99);
  t.same(h.values, []);
  h.advanceTime(101);
  t.same(h.takeOutput(), [
    { kind: 'record', value: ['a', 'processing', 1100, 1], timestamp: -Infinity },
    { kind: 'record', value: ['b', 'processing', 1100, 1], timestamp: -Infinity },
    { kind: 'record', value: ['a', 'processing', 1200, 1], timestamp: -Infinity },
  ]);
  t.equal(h.clock.timerCount, 1);
  const state = await h.snapshot(1);
  await h.close();
  t.equal(h.clock.timerCount, 0);
  const again = await harness(timerOperator(), { wallTime: 5000, restoreFrom: [state] });
  again.advanceTime(1);
  t.same(again.values, [['a', 'processing', 1300, 1]], 'overdue after the restore');
});

t.test('many timers are cut between keys, and the watermark waits for them', async (t) => {
  let left = 3;
  const shouldYield = (): boolean => {
    left -= 1;
    return left % 3 === 0;
  };
  const h = await harness(timerOperator(), { shouldYield });
  for (let i = 0; i < 10; i += 1) h.processElement({ key: `k${String(i)}`, event: [i % 4] });
  h.processWatermark(1);
  h.processWatermark(3);
  const counts = [h.values.length];
  while (!h.runContinuation()) counts.push(h.values.length);
  t.same(counts, [3, 6, 9]);
  t.same(h.watermarks, [1, 3]);
  const timestamps = h.values.map((value) => (value as [string, string, number])[2]);
  t.same(timestamps, [0, 0, 0, 1, 1, 1, 2, 2, 3, 3]);
  const at1 = h.output.findIndex(({ kind }) => kind === 'watermark');
  t.equal(h.output.slice(0, at1).length, 6);
});

t.test('a hundred thousand timers of one time fire in linear time', async (t) => {
  const h = await harness(timerOperator(), { shouldYield: () => true });
  for (let i = 0; i < 100_000; i += 1) h.processElement({ key: String(i), event: [5] });
  h.processWatermark(5);
  while (!h.runContinuation());
  t.equal(h.values.length, 100_000);
});

t.test('keyed state outside a record, a bad key and a bad time are found out', async (t) => {
  const unkeyed = new KeyedProcessOperator<string, Command, unknown>((command) => command.key, {
    open: (context: RuntimeContext) => {
      context.getState(new ValueStateDescriptor('s')).value();
    },
    processElement: () => undefined,
  });
  await t.rejects(harness(unkeyed), { code: 'USER_FUNCTION' });
  const h = await harness(timerOperator());
  t.equal(errorOf(() => h.processElement({ key: { id: 1 } })).code, 'RECORD_UNSUPPORTED');
  t.equal(errorOf(() => h.processElement({})).code, 'RECORD_UNSUPPORTED');
  t.match(errorOf(() => h.processElement({ key: 'a', event: [NaN] })).message, /a time in ms/);
});

t.test('timers and state survive restores at other parallelisms', async () => {
  const keyed = fc.record({
    key: fc.constantFrom('a', 'b', 'c', 'd', 'e', 'f', 'g'),
    event: fc.array(fc.nat(50), { maxLength: 3 }),
    remove: fc.array(fc.nat(50), { maxLength: 1 }),
  });
  const steps = fc.array(fc.oneof(keyed, fc.nat(50), fc.constant('rescale' as const)), {
    maxLength: 60,
  });
  const run = async (
    all: readonly (Command | number | 'rescale')[],
    parallelisms: readonly number[],
  ): Promise<string[]> => {
    const maxParallelism = 8;
    const results: string[] = [];
    let watermark = -Infinity;
    let states: OperatorSubtaskState[] | undefined;
    let at = 0;
    const open = (): Promise<OperatorTestHarness[]> => {
      const parallelism = parallelisms[Math.min(at, parallelisms.length - 1)]!;
      at += 1;
      const restore = states === undefined ? {} : { restoreFrom: states };
      return Promise.all(
        Array.from({ length: parallelism }, (_, subtaskIndex) =>
          harness(timerOperator(), { parallelism, subtaskIndex, maxParallelism, ...restore }),
        ),
      );
    };
    let subtasks = await open();
    const drain = (): void => {
      for (const h of subtasks) results.push(...h.values.map((value) => JSON.stringify(value)));
    };
    for (const [n, step] of all.entries()) {
      if (step === 'rescale') {
        states = await Promise.all(subtasks.map((h) => h.snapshot(n)));
        drain();
        subtasks = await open();
      } else if (typeof step === 'number') {
        watermark = Math.max(watermark, step);
        for (const h of subtasks) h.processWatermark(watermark);
      } else {
        const group = keyGroupOf(step.key, maxParallelism);
        subtasks[subtaskOfKeyGroup(group, maxParallelism, subtasks.length)]!.processElement(step);
      }
    }
    for (const h of subtasks) h.processWatermark(Infinity);
    drain();
    return results.sort();
  };
  await fc.assert(
    fc.asyncProperty(steps, async (all) => {
      const still = await run(
        all.filter((step) => step !== 'rescale'),
        [1],
      );
      return JSON.stringify(still) === JSON.stringify(await run(all, [1, 2, 4, 3]));
    }),
    { numRuns: 100 },
  );
});
