/**
 * What user functions throw is blamed on the same operator by interpreted and by compiled chains, wherever in a chain
 * it is thrown, also when a user function before it swallows what its results cause; and what no channel or key
 * can be is refused with the same words.
 *
 *   MILLRACE_RUNS=500 node --enable-source-maps build/test/conformance/record-path-errors.test.js    more cases
 *   MILLRACE_SEED=42 ...                                                        other cases
 */
import fc from 'fast-check';
import t from 'tap';
import type { Failure } from '../../lib/base/errors.js';
import {
  TumblingEventTimeWindows,
  WatermarkStrategy,
  type Collector,
  type DataStream,
  type Sink,
} from '../../lib/index.js';
import { captureJob, Clusters } from '../support/random-graph-run.js';
import { testEnv } from '../support/test-env.js';

const runs = Number(process.env['MILLRACE_RUNS'] ?? 40);
const seed = Number(process.env['MILLRACE_SEED'] ?? 3);
/** Both, or one to see where a difference comes from. */
const modes = (process.env['MILLRACE_COMPILE'] ?? 'false,true').split(',').map((s) => s === 'true');

t.setTimeout(0);
const clusters = new Clusters(testEnv());
t.teardown(() => clusters.close());

/** Throws where it is told to; its name has to be in the stack. */
function explode(): never {
  throw new RangeError('the seventh record');
}

type Numbers = DataStream<number>;

/** Passes numbers on; `pass` throws for the seventh, if the operator is the one. */
type Step = (stream: Numbers, pass: (n: number) => number) => Numbers;

const byTens = (n: number): number => n % 10;
const withTime = (stream: Numbers): Numbers =>
  stream
    .assignTimestampsAndWatermarks(
      WatermarkStrategy.forMonotonousTimestamps<number>().withTimestampAssigner((n) => n),
    )
    .name('times');

const steps: Readonly<Record<string, (name: string, ...args: Parameters<Step>) => Numbers>> = {
  map: (name, stream, pass) => stream.map((n) => pass(n)).name(name),
  mapObject: (name, stream, pass) => stream.map({ map: (n: number) => pass(n) }).name(name),
  filter: (name, stream, pass) => stream.filter((n) => pass(n) === n).name(name),
  flatMapCollect: (name, stream, pass) =>
    stream.flatMap<number>((n, out) => out.collect(pass(n))).name(name),
  flatMapReturn: (name, stream, pass) => stream.flatMap((n) => [pass(n)]).name(name),
  flatMapGenerator: (name, stream, pass) =>
    stream
      .flatMap(function* (n) {
        yield pass(n);
      })
      .name(name),
  flatMapAfter: (name, stream, pass) =>
    stream
      .flatMap<number>((n, out) => {
        out.collect(n);
        pass(n);
      })
      .name(name),
  process: (name, stream, pass) =>
    stream
      .process({
        processElement: (n: number, _: unknown, out: Collector<number>) => out.collect(pass(n)),
      })
      .name(name),
  assigner: (name, stream, pass) =>
    stream
      .assignTimestampsAndWatermarks(
        WatermarkStrategy.noWatermarks<number>().withTimestampAssigner((n: number) => pass(n)),
      )
      .name(name),
  key: (name, stream, pass) =>
    stream
      .keyBy((n) => byTens(pass(n)))
      .reduce((_, n) => n)
      .name(name),
  reduce: (name, stream, pass) =>
    stream
      .keyBy(() => 'all')
      .reduce((_, n) => pass(n))
      .name(name),
  keyedProcess: (name, stream, pass) =>
    stream
      .keyBy(byTens)
      .process({
        processElement: (n: number, _: unknown, out: Collector<number>) => out.collect(pass(n)),
      })
      .name(name),
  timer: (name, stream, pass) =>
    withTime(stream)
      .keyBy((n) => n)
      .process({
        processElement: (n: number, context) => {
          context.timerService.registerEventTimeTimer(n);
        },
        onTimer: (_: number, context, out: Collector<number>) =>
          out.collect(pass(context.getCurrentKey())),
      })
      .name(name),
  windowAdd: (name, stream, pass) =>
    withTime(stream)
      .keyBy((n) => n)
      .window(TumblingEventTimeWindows.of(10))
      .aggregate({
        createAccumulator: () => 0,
        add: (n: number, sum: number) => sum + pass(n),
        getResult: (sum: number) => sum,
      })
      .name(name),
  windowResult: (name, stream, pass) =>
    withTime(stream)
      .keyBy((n) => n)
      .window(TumblingEventTimeWindows.of(10))
      .aggregate({
        createAccumulator: () => 0,
        add: (n: number, sum: number) => sum + n,
        getResult: (sum: number) => pass(sum),
      })
      .name(name),
  windowProcess: (name, stream, pass) =>
    withTime(stream)
      .keyBy((n) => n)
      .window(TumblingEventTimeWindows.of(10))
      .process((_key, _context, elements, out: Collector<number>) => {
        for (const n of elements) out.collect(pass(n));
      })
      .name(name),
  swallowCollect: (name, stream, pass) =>
    stream
      .flatMap<number>((n, out) => {
        const passed = pass(n);
        try {
          out.collect(passed);
        } catch {
          return;
        }
      })
      .name(name),
  swallowProcess: (name, stream, pass) =>
    stream
      .process({
        processElement: (n: number, _: unknown, out: Collector<number>) => {
          const passed = pass(n);
          try {
            out.collect(passed);
          } catch {
            // The job must hear of it all the same.
            return;
          }
        },
      })
      .name(name),
};

const stepNames = Object.keys(steps);

interface Chain {
  readonly steps: readonly { readonly step: string; readonly isCut: boolean }[];
  /** Index of the one that throws; beyond the end: the sink. */
  readonly at: number;
  readonly isBranched: boolean;
}

const chain: fc.Arbitrary<Chain> = fc.record({
  steps: fc.array(
    fc.record({
      step: fc.constantFrom(...stepNames),
      isCut: fc.oneof({ weight: 4, arbitrary: fc.constant(false) }, fc.constant(true)),
    }),
    { minLength: 1, maxLength: 5, size: 'max' },
  ),
  at: fc.nat(5),
  isBranched: fc.boolean(),
});

function sinkOf(pass: (n: number) => number): Sink<number> {
  return { createWriter: () => ({ write: (n) => void pass(n), close: () => undefined }) };
}

const same = (n: number): number => n;
const exploding = (n: number): number => (n === 7 ? explode() : n);

/** Of the failed job, outermost first. */
async function failureOf(
  build: Parameters<typeof captureJob>[2],
  compile: boolean,
): Promise<Failure[]> {
  const cluster = await clusters.at('slots');
  const settings = { 'pipeline.compile': String(compile) };
  const job = captureJob(clusters.env, { settings }, (env) => {
    env.enableCheckpointing(0).setRestartStrategy({ type: 'none' });
    build(env);
  });
  const { state, failure } = await cluster.result(
    await cluster.submit(job.jobGraph, job.functions),
  );
  if (state !== 'FAILED')
    throw new Error(`${compile ? 'compiled' : 'interpreted'}: the job is ${state}`);
  const causes: Failure[] = [];
  for (let at = failure; at !== undefined; at = at.cause) causes.push(at);
  return causes;
}

const words = (failures: readonly Failure[]): unknown[] =>
  failures.map(({ code, name, message }) => ({ code, name, message }));

async function checkBlame({ steps: all, at, isBranched }: Chain): Promise<void> {
  const guilty = Math.min(at, all.length);
  const nameOf = (index: number): string => (index === all.length ? 'op sink' : `op ${index}`);
  const passOf = (index: number): ((n: number) => number) => (index === guilty ? exploding : same);
  const seen = [];
  for (const compile of modes) {
    const failures = await failureOf((env) => {
      let stream: Numbers = env.fromSequence(1, 12);
      all.forEach(({ step, isCut }, index) => {
        if (isCut) stream = stream.rebalance();
        stream = steps[step]!(nameOf(index), stream, passOf(index));
        if (isBranched)
          stream
            .map((n) => n)
            .name('aside')
            .sinkTo(sinkOf(same))
            .name('aside');
      });
      stream.sinkTo(sinkOf(passOf(all.length))).name(nameOf(all.length));
    }, compile);
    const text = JSON.stringify(words(failures));
    const mode = compile ? 'compiled' : 'interpreted';
    const outer = failures.find(({ code }) => code !== 'JOB_FAILED');
    const root = failures.at(-1);
    if (outer?.code !== 'USER_FUNCTION') throw new Error(`${mode}: another code: ${text}`);
    const blame = `${nameOf(guilty)}: the seventh record`;
    // A key selector runs where records are sent: on the operator before.
    const isSelector = all[guilty]?.step === 'key';
    if (!isSelector && !failures.some(({ message }) => message === blame))
      throw new Error(`${mode}: does not blame ${nameOf(guilty)}: ${text}`);
    if (root?.name !== 'RangeError' || root.message !== 'the seventh record')
      throw new Error(`${mode}: the cause is lost: ${text}`);
    if (!root.stack?.includes('explode')) throw new Error(`${mode}: another stack: ${root.stack}`);
    seen.push(text);
  }
  if (new Set(seen).size > 1) throw new Error(`interpreted ${seen[0]}\ncompiled ${seen[1]}`);
}

t.test('an error is blamed on the operator whose function threw it', async () => {
  const one = process.env['MILLRACE_CASE'];
  if (one !== undefined) return checkBlame(JSON.parse(one) as Chain);
  const { counterexample, errorInstance } = await fc.check(fc.asyncProperty(chain, checkBlame), {
    ...{ numRuns: runs, seed },
    examples: stepNames.map((step): [Chain] => [
      {
        steps: [
          { step: 'swallowCollect', isCut: false },
          { step, isCut: false },
        ],
        at: 1,
        isBranched: false,
      },
    ]),
  });
  if (counterexample === null) return;
  throw new Error(`${String(errorInstance)}\nMILLRACE_CASE='${JSON.stringify(counterexample[0])}'`);
});

class Point {
  readonly x = 1;
}

const unsupported: Readonly<Record<string, (stream: Numbers) => object>> = {
  'a function on a channel': (stream) => stream.map((n) => ({ n, fn: same })).rebalance(),
  'an instance on a channel': (stream) => stream.map((n) => (n > 3 ? new Point() : n)).rebalance(),
  'a symbol in a list on a channel': (stream) => stream.map((n) => [n, Symbol('s')]).rebalance(),
  'a cycle on a channel': (stream) =>
    stream
      .map((n) => {
        const one: { n: number; self?: unknown } = { n };
        one.self = one;
        return one;
      })
      .rebalance(),
  'a function on a channel, with its refusal swallowed,': (stream) =>
    stream
      .flatMap<unknown>((n, out) => {
        try {
          out.collect([n, same]);
        } catch {
          return;
        }
      })
      .rebalance(),
  'an object as key': (stream) => stream.keyBy((n) => ({ n })).reduce((_, n) => n),
  'undefined as key': (stream) => stream.keyBy((n) => (n > 5 ? undefined : n)).reduce((_, n) => n),
  'a date in a tuple as key': (stream) =>
    stream
      .keyBy((n) => [n, new Date(0)])
      .window(TumblingEventTimeWindows.of(10))
      .reduce((_, n) => n),
};

for (const [what, build] of Object.entries(unsupported)) {
  t.test(`${what} is refused in the same words`, async (t) => {
    const seen = [];
    for (const compile of modes) {
      const failures = await failureOf((env) => {
        // To another slot, too: within one nothing is encoded.
        (build(withTime(env.fromSequence(1, 12))) as DataStream<unknown>)
          .map((value) => value)
          .setParallelism(2)
          .sinkTo({ createWriter: () => ({ write: () => undefined, close: () => undefined }) });
      }, compile);
      t.ok(
        failures.some(({ code }) => code === 'RECORD_UNSUPPORTED'),
        JSON.stringify(words(failures)),
      );
      seen.push(words(failures));
    }
    t.same(seen[0], seen.at(-1));
  });
}
