import { isDeepStrictEqual } from 'node:util';
import { compileFunction } from 'node:vm';
import fc from 'fast-check';
import t from 'tap';
import type { WindowFunction } from '../../../lib/api/functions.js';
import type { KeyedProcessFunction } from '../../../lib/api/process-function.js';
import { OutputTag } from '../../../lib/api/side-output.js';
import type { CodeScope, GeneratesCode } from '../../../lib/operators/operator-code.js';
import { KeyedProcessOperator } from '../../../lib/operators/keyed-process-operator.js';
import { ReduceOperator } from '../../../lib/operators/reduce-operator.js';
import { WindowOperator } from '../../../lib/operators/window-operator.js';
import { hashKey } from '../../../lib/state/key-group.js';
import { ValueStateDescriptor, type ValueState } from '../../../lib/state/state-descriptor.js';
import { OperatorTestHarness } from '../../../lib/testing/operator-test-harness.js';
import { TumblingEventTimeWindows } from '../../../lib/windowing/assigners.js';

type Process = (value: unknown, timestamp: number, keyHash: number | undefined) => void;

/** One operator's generated code, results going where the harness keeps them. */
function compile(operator: GeneratesCode, h: OperatorTestHarness): Process {
  const names: string[] = [];
  const values: unknown[] = [];
  const bind = (name: string, value: () => unknown): string => {
    if (names.includes(name)) return name;
    names.push(name);
    values.push(value());
    return name;
  };
  const collect = (value: unknown, timestamp: number): unknown =>
    h.output.push({ kind: 'record', value, timestamp });
  const out = {
    timestamp: 0,
    collect(value: unknown): void {
      collect(value, this.timestamp);
    },
  };
  const scope: CodeScope = {
    operatorName: 'operator',
    blame: '',
    bind,
    local: (hint) => `${hint}_local`,
    emit: ({ value, timestamp }) => `${bind('collect', () => collect)}(${value}, ${timestamp});`,
    emitter: () => bind('collect', () => collect),
    collector: () => bind('out', () => out),
  };
  const record = { value: 'value', timestamp: 'timestamp', keyHash: 'keyHash' };
  const body = operator.generate(scope, record);
  const make = compileFunction(
    `return function (value, timestamp, keyHash) {\n${body}\n}`,
    names,
  ) as (...given: unknown[]) => Process;
  return make(...values);
}

interface Event {
  readonly key: unknown;
  readonly n: number;
  readonly at: number;
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
  process: (key, context, [total], out) => out.collect([key, context.window.start, total]),
};
const count: WindowFunction = {
  kind: 'aggregate',
  aggregate: {
    createAccumulator: () => NaN,
    add: (value, accumulator) => ((accumulator as number) || 0) + (value as Event).n,
    getResult: (accumulator) => accumulator,
  },
};
const largest: WindowFunction = {
  kind: 'reduce',
  reduce: (a, b) => ((a as Event).n >= (b as Event).n ? a : b),
};
const all: WindowFunction = {
  kind: 'process',
  process: (key, context, elements, out) => out.collect([key, context.window.end, ...elements]),
};

class Counting implements KeyedProcessFunction<unknown, Event, unknown> {
  seen!: ValueState<number, number>;

  open(context: Parameters<NonNullable<KeyedProcessFunction<1, 1, 1>['open']>>[0]): void {
    this.seen = context.getState(new ValueStateDescriptor('seen', 0));
  }

  processElement(...[value, context, out]: Parameters<Run>): void {
    this.seen.update(this.seen.value() + value.n);
    context.timerService.registerEventTimeTimer(value.at + 5);
    out.collect([context.getCurrentKey(), context.timestamp, this.seen.value()]);
    if (value.n === 3) this.seen.clear();
  }

  onTimer(...[timestamp, context, out]: Parameters<OnTimer>): void {
    out.collect(['timer', context.getCurrentKey(), timestamp, this.seen.value()]);
  }
}
type Run = KeyedProcessFunction<unknown, Event, unknown>['processElement'];
type OnTimer = NonNullable<KeyedProcessFunction<unknown, Event, unknown>['onTimer']>;

const keyOf = (event: Event): unknown => event.key;
const windowsOf = (fn: WindowFunction, allowedLatenessMs: number) => (): GeneratesCode =>
  new WindowOperator<Event>({
    keySelector: keyOf,
    assigner: TumblingEventTimeWindows.of(10),
    function: fn,
    allowedLatenessMs,
    lateOutputTag: new OutputTag<Event>('late'),
  });

const operators: Readonly<Record<string, () => GeneratesCode>> = {
  reduce: () =>
    new ReduceOperator<Event>(keyOf, (a, b) => ({ key: a.key, n: a.n + b.n, at: a.at })),
  process: () => new KeyedProcessOperator<unknown, Event, unknown>(keyOf, Counting),
  sum: windowsOf(sum, 0),
  'sum with lateness': windowsOf(sum, 15),
  'count from NaN with lateness': windowsOf(count, 15),
  largest: windowsOf(largest, 0),
  'all elements with lateness': windowsOf(all, 15),
};

const event = fc.record({
  key: fc.constantFrom<unknown[]>('a', 'b', 1, 2.5, -0, NaN, ['a', 1], null),
  n: fc.integer({ min: -3, max: 3 }),
  at: fc.nat(60),
});
const steps = fc.array(
  fc.oneof({ weight: 6, arbitrary: event }, { arbitrary: fc.nat(60), weight: 1 }),
  {
    maxLength: 80,
  },
);

for (const [name, create] of Object.entries(operators)) {
  t.test(`generated code does what processElement does: ${name}`, async () => {
    await fc.assert(
      fc.asyncProperty(steps, async (some) => {
        const plain = await new OperatorTestHarness(create()).open();
        const operator = create();
        const generated = await new OperatorTestHarness(operator).open();
        const process = compile(operator, generated);
        for (const [i, each] of some.entries()) {
          if (typeof each === 'number') {
            plain.processWatermark(each);
            generated.processWatermark(each);
          } else {
            plain.processElement(each, each.at);
            process(each, each.at, i % 2 === 0 ? hashKey(each.key) : undefined);
          }
        }
        plain.processWatermark(Infinity);
        generated.processWatermark(Infinity);
        return isDeepStrictEqual(generated.output, plain.output);
      }),
      { numRuns: 60 },
    );
  });
}

for (const [name, create] of Object.entries(operators)) {
  t.test(`a snapshot is the state at its beginning, whatever follows: ${name}`, async () => {
    await fc.assert(
      fc.asyncProperty(steps, steps, steps, async (before, between, after) => {
        const run = (h: OperatorTestHarness, some: typeof before): void => {
          for (const each of some) {
            if (typeof each === 'number') h.processWatermark(each);
            else h.processElement(each, each.at);
          }
        };
        const h = await new OperatorTestHarness(create()).open();
        run(h, before);
        const first = h.operator.snapshotState(1);
        run(h, between);
        const second = h.operator.snapshotState(2);
        run(h, after);
        const states = [await first.finish(), await second.finish()];
        for (const [i, state] of states.entries()) {
          const still = await new OperatorTestHarness(create()).open();
          run(still, i === 0 ? before : [...before, ...between]);
          still.takeOutput();
          still.processWatermark(Infinity);
          const again = new OperatorTestHarness(create(), { restoreFrom: [state] });
          await again.open();
          again.processWatermark(Infinity);
          if (!isDeepStrictEqual(sorted(again), sorted(still))) return false;
        }
        return true;
      }),
      { numRuns: 40 },
    );
  });
}

function sorted(h: OperatorTestHarness): string[] {
  return h.output.map((each) => JSON.stringify(each)).sort();
}
