import fc from 'fast-check';
import t from 'tap';
import type { WindowFunction } from '../../../lib/api/functions.js';
import { OutputTag } from '../../../lib/api/side-output.js';
import type { MillraceError } from '../../../lib/base/errors.js';
import { WindowOperator } from '../../../lib/operators/window-operator.js';
import { keyGroupOf } from '../../../lib/state/key-group.js';
import { subtaskOfKeyGroup } from '../../../lib/state/key-group-range.js';
import { ValueStateDescriptor } from '../../../lib/state/state-descriptor.js';
import type { OperatorSubtaskState } from '../../../lib/state/state-handle.js';
import {
  OperatorTestHarness,
  type HarnessOptions,
} from '../../../lib/testing/operator-test-harness.js';
import { TumblingEventTimeWindows } from '../../../lib/windowing/assigners.js';

interface Event {
  readonly key: string;
  readonly n: number;
}

const sum: WindowFunction = {
  kind: 'aggregate',
  aggregate: {
    createAccumulator: () => ({ total: 0 }),
    add: (value, accumulator) => {
      (accumulator as { total: number }).total += (value as Event).n;
      return accumulator;
    },
    getResult: (accumulator) => (accumulator as { total: number }).total,
  },
  process: (key, context, [total], out) => {
    out.collect([key, context.window.start, total]);
  },
};

const collectAll: WindowFunction = {
  kind: 'process',
  process: (key, context, elements, out) => {
    out.collect([key, context.window.end, (elements as Event[]).map(({ n }) => n)]);
  },
};

function windowOperator(
  fn: WindowFunction = sum,
  allowedLatenessMs = 0,
  lateOutputTag?: OutputTag<Event>,
  size: number | string = 10,
): WindowOperator<Event> {
  return new WindowOperator<Event>({
    keySelector: (event) => event.key,
    assigner: TumblingEventTimeWindows.of(size),
    function: fn,
    allowedLatenessMs,
    ...(lateOutputTag !== undefined && { lateOutputTag }),
  });
}

const harness = (
  operator = windowOperator(),
  options: HarnessOptions = {},
): Promise<OperatorTestHarness> => new OperatorTestHarness(operator, options).open();

t.test('a window fires once, when the watermark reaches its last millisecond', async (t) => {
  const h = await harness();
  h.processElement({ key: 'a', n: 1 }, 0);
  h.processElement({ key: 'a', n: 2 }, 9);
  h.processElement({ key: 'b', n: 5 }, 3);
  h.processElement({ key: 'a', n: 100 }, 10);
  h.processElement({ key: 'a', n: 1000 }, -1);
  h.processWatermark(8);
  t.same(h.values, [['a', -10, 1000]]);
  h.processWatermark(9);
  h.processWatermark(18);
  t.same(h.takeOutput(), [
    { kind: 'record', value: ['a', -10, 1000], timestamp: -1 },
    { kind: 'watermark', timestamp: 8 },
    { kind: 'record', value: ['a', 0, 3], timestamp: 9 },
    { kind: 'record', value: ['b', 0, 5], timestamp: 9 },
    { kind: 'watermark', timestamp: 9 },
    { kind: 'watermark', timestamp: 18 },
  ]);
  h.processWatermark(Infinity);
  t.same(h.values, [['a', 10, 100]]);
});

t.test('windows fire by end, their keys in order of first element', async (t) => {
  const h = await harness(windowOperator(collectAll));
  for (const [key, at] of [
    ['z', 25],
    ['b', 5],
    ['a', 5],
    ['b', 6],
    ['c', 15],
  ] as const) {
    h.processElement({ key, n: at }, at);
  }
  h.processWatermark(100);
  t.same(h.values, [
    ['b', 10, [5, 6]],
    ['a', 10, [5]],
    ['c', 20, [15]],
    ['z', 30, [25]],
  ]);
});

t.test('reduce without a process function emits the bare result', async (t) => {
  const reduce = (a: unknown, b: unknown): Event => ({
    key: (a as Event).key,
    n: Math.max((a as Event).n, (b as Event).n),
  });
  const h = await harness(windowOperator({ kind: 'reduce', reduce }));
  for (const n of [3, 9, 4]) h.processElement({ key: 'a', n }, n);
  h.processWatermark(9);
  t.same(h.values, [{ key: 'a', n: 9 }]);
});

t.test('late elements are counted and dropped, or go to the late output', async (t) => {
  const dropped = await harness();
  const tag = new OutputTag<Event>('late');
  const kept = await harness(windowOperator(sum, 0, tag));
  for (const h of [dropped, kept]) {
    h.processWatermark(9);
    h.processElement({ key: 'a', n: 1 }, 9);
    h.processElement({ key: 'a', n: 2 }, 10);
    h.processWatermark(19);
    t.same(h.values, [['a', 10, 2]]);
  }
  const late = (h: OperatorTestHarness): number | undefined =>
    h.metrics.samples().find(({ name }) => name === 'numLateRecordsDropped')?.value;
  t.equal(late(dropped), 1);
  t.equal(late(kept), 0);
  t.same(
    kept.output.filter(({ kind }) => kind === 'side'),
    [{ kind: 'side', tag: 'late', value: { key: 'a', n: 1 }, timestamp: 9 }],
  );
});

t.test('within the allowed lateness every late element fires its key again', async (t) => {
  const h = await harness(windowOperator(sum, 5));
  h.processElement({ key: 'a', n: 1 }, 5);
  h.processWatermark(9);
  h.processElement({ key: 'a', n: 2 }, 5);
  h.processElement({ key: 'b', n: 7 }, 6);
  h.processWatermark(13);
  h.processElement({ key: 'a', n: 4 }, 7);
  h.processWatermark(14);
  h.processElement({ key: 'a', n: 8 }, 7);
  t.same(h.values, [
    ['a', 0, 1],
    ['a', 0, 3],
    ['b', 0, 7],
    ['a', 0, 7],
  ]);
  const state = await h.snapshot(1);
  t.equal(state.keyed, undefined, 'the expired window is gone');
});

t.test('firing stops between keys when the quantum is used up, and goes on later', async (t) => {
  const h = await harness(windowOperator(), { shouldYield: () => true });
  for (const key of ['a', 'b', 'c']) h.processElement({ key, n: 1 }, 1);
  h.processWatermark(20);
  t.same(h.values.length, 1);
  t.same(h.watermarks, [], 'the watermark waits for its windows');
  while (!h.runContinuation()) t.same(h.watermarks, []);
  t.same(h.values, [
    ['a', 0, 1],
    ['b', 0, 1],
    ['c', 0, 1],
  ]);
  t.same(h.watermarks, [20]);
});

t.test('a snapshot between two keys of a firing window repeats none and loses none', async (t) => {
  for (const lateness of [0, 100]) {
    const h = await harness(windowOperator(sum, lateness), { shouldYield: () => true });
    for (const key of ['a', 'b', 'c']) h.processElement({ key, n: 1 }, 1);
    h.processWatermark(20);
    const state = await h.snapshot(1);
    const again = await harness(windowOperator(sum, lateness), { restoreFrom: [state] });
    again.processWatermark(20);
    const fired = [...h.values, ...again.values].map((value) => (value as [string])[0]);
    t.same(fired.sort(), ['a', 'b', 'c']);
  }
});

t.test('a purged window does not fire again after a restore, and late stays late', async (t) => {
  const tag = new OutputTag<Event>('late');
  const h = await harness(windowOperator(sum, 0, tag));
  h.processElement({ key: 'a', n: 1 }, 5);
  h.processWatermark(30);
  const state = await h.snapshot(1);
  t.equal(state.watermark, 30);
  const again = await harness(windowOperator(sum, 0, tag), { restoreFrom: [state] });
  again.processElement({ key: 'a', n: 1 }, 5);
  again.processWatermark(7);
  again.processWatermark(31);
  t.same(again.values, []);
  t.equal(again.sideValues('late').length, 1);
  t.same(again.watermarks, [31], 'time does not go back');
});

t.test('a window that fired before the snapshot takes late elements after it', async (t) => {
  const h = await harness(windowOperator(sum, 100));
  h.processElement({ key: 'a', n: 1 }, 5);
  h.processWatermark(9);
  const again = await harness(windowOperator(sum, 100), { restoreFrom: [await h.snapshot(1)] });
  again.processWatermark(9);
  t.same(again.values, []);
  again.processElement({ key: 'a', n: 2 }, 6);
  t.same(again.values, [['a', 0, 3]]);
});

t.test('windows of another size or function do not fit', async (t) => {
  const h = await harness();
  h.processElement({ key: 'a', n: 1 }, 5);
  const state = await h.snapshot(1);
  const others = [windowOperator(sum, 0, undefined, 20), windowOperator(collectAll)];
  for (const operator of others) {
    await t.rejects(harness(operator, { restoreFrom: [state] }), {
      code: 'CHECKPOINT_INCOMPATIBLE',
    });
  }
});

t.test('bad records are refused by name', async (t) => {
  const h = await harness();
  t.throws(
    () => {
      h.processElement({ key: 'a', n: 1 });
    },
    { code: 'JOB_INVALID', message: /without a timestamp/ },
  );
  t.throws(
    () => {
      h.processElement({ key: { id: 1 }, n: 1 }, 5);
    },
    { code: 'RECORD_UNSUPPORTED' },
  );
  const failing = await harness(
    windowOperator({
      kind: 'process',
      process: () => {
        throw new RangeError('boom');
      },
    }),
  );
  failing.processElement({ key: 'a', n: 1 }, 5);
  try {
    failing.processWatermark(10);
    t.fail('not thrown');
  } catch (error) {
    const { code, message, cause } = error as MillraceError;
    t.equal(code, 'USER_FUNCTION');
    t.match(message, 'operator: boom');
    t.type(cause, RangeError);
  }
});

t.test('a process function keeps state over windows of a key', async (t) => {
  const h = await harness(
    windowOperator({
      kind: 'process',
      process: (key, context, elements, out) => {
        const state = context.globalState.getState(new ValueStateDescriptor('seen', 0));
        state.update(state.value() + elements.length);
        out.collect([key, state.value()]);
      },
    }),
  );
  for (const at of [1, 2, 11, 21]) h.processElement({ key: 'a', n: 1 }, at);
  h.processWatermark(100);
  t.same(h.values, [
    ['a', 2],
    ['a', 3],
    ['a', 4],
  ]);
});

type Step =
  { readonly key: string; readonly at: number } | { readonly watermark: number } | 'rescale';

const steps = fc.array(
  fc.oneof(
    {
      weight: 8,
      arbitrary: fc.record({ key: fc.constantFrom('a', 'b', 'c', 'd', 'e', 'f'), at: fc.nat(60) }),
    },
    { weight: 2, arbitrary: fc.record({ watermark: fc.nat(60) }) },
    { weight: 1, arbitrary: fc.constant('rescale' as const) },
  ),
  { minLength: 10, maxLength: 100 },
);

/** All output of a run whose parallelism follows `parallelisms` at each rescale, sorted. */
async function run(
  all: readonly Step[],
  parallelisms: readonly number[],
  lateness: number,
): Promise<string[]> {
  const maxParallelism = 8;
  const results: unknown[] = [];
  let at = 0;
  let watermark = -Infinity;
  let states: OperatorSubtaskState[] | undefined;
  const open = async (): Promise<OperatorTestHarness[]> => {
    const parallelism = parallelisms[Math.min(at, parallelisms.length - 1)]!;
    const opened: OperatorTestHarness[] = [];
    for (let subtaskIndex = 0; subtaskIndex < parallelism; subtaskIndex += 1) {
      const operator = windowOperator(sum, lateness, new OutputTag<Event>('late'));
      const restoreFrom = states === undefined ? {} : { restoreFrom: states };
      opened.push(
        await harness(operator, { parallelism, subtaskIndex, maxParallelism, ...restoreFrom }),
      );
    }
    return opened;
  };
  const drain = (from: readonly OperatorTestHarness[]): void => {
    for (const h of from) {
      results.push(...h.takeOutput().filter(({ kind }) => kind === 'record' || kind === 'side'));
    }
  };
  let subtasks = await open();
  for (const [n, step] of all.entries()) {
    if (step === 'rescale') {
      states = await Promise.all(subtasks.map((h) => h.snapshot(n)));
      drain(subtasks);
      at += 1;
      subtasks = await open();
    } else if ('watermark' in step) {
      watermark = Math.max(watermark, step.watermark);
      for (const h of subtasks) h.processWatermark(watermark);
    } else {
      const keyGroup = keyGroupOf(step.key, maxParallelism);
      const subtask = subtasks[subtaskOfKeyGroup(keyGroup, maxParallelism, subtasks.length)]!;
      subtask.processElement({ key: step.key, n: 1 }, step.at);
    }
  }
  for (const h of subtasks) h.processWatermark(Infinity);
  drain(subtasks);
  return results.map((result) => JSON.stringify(result)).sort();
}

t.test('restores at other parallelisms (1, 2, 4, 3) do not change the results', async () => {
  await fc.assert(
    fc.asyncProperty(steps, fc.constantFrom(0, 25), async (all, lateness) => {
      const still = await run(
        all.filter((step) => step !== 'rescale'),
        [1],
        lateness,
      );
      const moving = await run(all, [1, 2, 4, 3], lateness);
      return JSON.stringify(still) === JSON.stringify(moving);
    }),
    { numRuns: 200 },
  );
});
