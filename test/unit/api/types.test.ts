/** What the compiler must infer and refuse; a wrong inference does not compile. */
import t from 'tap';
import {
  FileSink,
  OutputTag,
  StreamExecutionEnvironment,
  TumblingEventTimeWindows,
  ValueStateDescriptor,
  WatermarkStrategy,
  type AggregateFunction,
  type DataStream,
  type KeyedProcessFunction,
  type KeyedStream,
  type ProcessFunction,
  type RuntimeContext,
  type ValueState,
} from '../../../lib/index.js';

type Equal<A, B> =
  (<X>() => X extends A ? 1 : 2) extends <X>() => X extends B ? 1 : 2 ? true : false;
/** Compiles only when the stream's type is exactly `T`. */
function expectStream<T>() {
  return <S>(
    stream: DataStream<S>,
    ..._proof: Equal<S, T> extends true ? [] : [never]
  ): DataStream<S> => stream;
}

interface Click {
  readonly user: string;
  readonly at: number;
}

class Counter implements KeyedProcessFunction<string, Click, { user: string; count: number }> {
  count!: ValueState<number, number>;

  open(context: RuntimeContext): void {
    this.count = context.getState(new ValueStateDescriptor<number>('count', 0));
  }

  processElement(
    ...[click, , out]: Parameters<
      KeyedProcessFunction<string, Click, { user: string; count: number }>['processElement']
    >
  ): void {
    this.count.update(this.count.value() + 1);
    out.collect({ user: click.user, count: this.count.value() });
  }
}

t.test('record types are inferred through every step', (t) => {
  const env = StreamExecutionEnvironment.createLocalEnvironment();
  const clicks = env.dataGenerator((i): Click => ({ user: `u${i % 3}`, at: i * 1000 }), {
    count: 10,
    watermarks: WatermarkStrategy.forBoundedOutOfOrderness<Click>('5s').withTimestampAssigner(
      (click) => click.at,
    ),
  });
  expectStream<Click>()(clicks);
  expectStream<string>()(clicks.map((click) => click.user));
  expectStream<number>()(clicks.map({ open: () => undefined, map: (click) => click.at }));
  expectStream<string>()(clicks.flatMap((click) => [click.user, String(click.at)]));
  expectStream<string>()(
    clicks.flatMap(function* (click) {
      yield click.user;
    }),
  );
  expectStream<number>()(clicks.flatMap<number>((click, out) => out.collect(click.at)));
  expectStream<Click>()(clicks.filter((click) => click.at > 5));
  expectStream<1 | 2>()(env.fromElements(1, 2, 3).filter((n): n is 1 | 2 => n < 3));
  expectStream<number>()(env.fromSequence(1, 3).union(env.fromElements(4)).rebalance());
  expectStream<Click>()(
    clicks.assignTimestampsAndWatermarks(WatermarkStrategy.forMonotonousTimestamps()),
  );

  const tag = new OutputTag<number>('numbers');
  const split: ProcessFunction<Click, string> = {
    processElement: (click, context, out) => {
      context.output(tag, click.at);
      // @ts-expect-error -- the tag says what may be emitted
      context.output(tag, 'text');
      out.collect(click.user);
    },
  };
  const processed = clicks.process(split);
  expectStream<string>()(processed);
  expectStream<number>()(processed.getSideOutput(tag));

  const keyed: KeyedStream<Click, string> = clicks.keyBy((click) => click.user);
  expectStream<Click>()(keyed.reduce((a, b) => (a.at > b.at ? a : b)));
  expectStream<{ user: string; count: number }>()(keyed.process(new Counter()));
  expectStream<{ user: string; count: number }>()(keyed.process(Counter));
  expectStream<{ user: string; count: number }>()(keyed.process(() => new Counter()));

  const count: AggregateFunction<Click, { n: number }, number> = {
    createAccumulator: () => ({ n: 0 }),
    add: (_click, acc) => ({ n: acc.n + 1 }),
    getResult: (acc) => acc.n,
  };
  const windows = keyed
    .window(TumblingEventTimeWindows.of('1m'))
    .allowedLateness('10s')
    .sideOutputLateData(new OutputTag<Click>('late'));
  expectStream<number>()(windows.aggregate(count));
  expectStream<string>()(
    windows.aggregate<{ n: number }, number, string>(count, (key, context, [n], out) => {
      out.collect(`${key.toUpperCase()} ${context.window.end} ${n?.toFixed(0)}`);
    }),
  );
  expectStream<Click>()(windows.reduce((a) => a));
  expectStream<string>()(
    windows.process<string>((key, _context, clicksOfWindow, out) =>
      out.collect(key + clicksOfWindow[0]?.user),
    ),
  );
  t.end();
});

t.test('what does not fit is refused by the compiler', (t) => {
  const env = StreamExecutionEnvironment.createLocalEnvironment();
  const numbers = env.fromSequence(1, 3);
  // @ts-expect-error -- numbers have no length
  numbers.map((n) => n.length);
  // @ts-expect-error -- a filter answers a boolean
  numbers.filter((n) => n * 2);
  // @ts-expect-error -- streams of different types
  numbers.union(env.fromElements('a'));
  // @ts-expect-error -- the sink takes texts
  numbers.sinkTo(FileSink.forLines<string>('/tmp/never'));
  // @ts-expect-error -- windows need keys
  t.throws(() => numbers.window(TumblingEventTimeWindows.of('1m')) as unknown);
  const windows = numbers.keyBy((n) => n).window(TumblingEventTimeWindows.of('1m'));
  // @ts-expect-error -- the late records are numbers
  windows.sideOutputLateData(new OutputTag<string>('late'));
  numbers.sinkTo(FileSink.forLines<number>('/tmp/never', { encoder: (n) => n.toFixed(2) }));
  t.end();
});
