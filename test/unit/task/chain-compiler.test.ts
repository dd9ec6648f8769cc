import t from 'tap';
import { OutputTag } from '../../../lib/api/side-output.js';
import type { OperatorId } from '../../../lib/base/ids.js';
import { FilterOperator, FlatMapOperator, MapOperator } from '../../../lib/operators/stream-map.js';
import { ProcessOperator } from '../../../lib/operators/process-operator.js';
import type { StreamOperator } from '../../../lib/operators/stream-operator.js';
import type {
  ChainNode,
  ChainShape,
  EdgeShape,
} from '../../../lib/task/chain-compiler/chain-shape.js';
import { generateChain } from '../../../lib/task/chain-compiler/chain-source.js';
import {
  StreamExecutionEnvironment,
  TumblingEventTimeWindows,
  WatermarkStrategy,
} from '../../../lib/index.js';

function node(
  type: string,
  operator: StreamOperator,
  rest: Partial<Pick<ChainNode, 'chained' | 'edges'>> = {},
): ChainNode {
  return { id: type as OperatorId, name: type, type, operator, chained: [], edges: [], ...rest };
}

function chain(nodes: ChainNode[], edges: EdgeShape[] = []): ChainShape {
  return { name: 'test', nodes, edges, inputs: { direct: false, ring: true } };
}

const hashEdge: EdgeShape = {
  target: 'counts',
  strategy: 'HASH',
  channels: ['direct', 'ring'],
  sealsEachRecord: false,
  maxParallelism: 128,
};

const bodyOf = (code: string, name: string): string =>
  new RegExp(`^function ${name}\\([^]*?^}`, 'm').exec(code)?.[0] ?? '';

t.test('a chain is one function, from the decoded record to the encoder of its channel', (t) => {
  const { code, parameters } = generateChain(
    chain(
      [
        node('Map', new MapOperator((n: number) => n + 1), { chained: [1] }),
        node('Filter', new FilterOperator((n: number) => n > 1), { edges: [0] }),
      ],
      [hashEdge],
    ),
    'chain.js',
  );
  t.equal(
    bodyOf(code, 'rows'),
    `function rows(batch, from) {
  const { count } = batch;
  let i = from;
  try {
    while (i < count) {
      op = 0;
      const value = batch.value(i);
      const timestamp = batch.timestamp(i);
      i += 1;
      // 0 Map "Map"
      op = 0;
      const value_0 = map_0(value);
      // 1 Filter "Filter"
      op = 1;
      if (filter_1(value_0)) {
        // HASH edge to "counts"
        sent_e0[0] += 1;
        op = 2;
        const key_e0 = keyOf_e0(value_0);
        const hash_e0 = typeof key_e0 === 'number' && (key_e0 | 0) === key_e0 ? fmix32(key_e0 | 0) : hashKey(key_e0);
        op = 1;
        const channel_e0 = channelOfGroup_e0[(hash_e0 >>> 0) % 128];
        if (channel_e0 === 0) {
          if (direct0_e0.isOpen) direct0_e0.take(value_0, timestamp, hash_e0);
          else direct0_e0.collect(value_0, timestamp);
        } else {
          if (writers_e0[channel_e0].append(value_0, timestamp)) channels_e0[channel_e0].seal();
        }
      }
      if (--quantum.budget <= 0) quantum.tick();
      if (quantum.isOver) break;
    }
  } catch (error) {
    throw caught(error, op);
  }
  received[0] += i - from;
  return i;
}`,
  );
  t.match(code, /\/\/# sourceURL=chain\.js$/);
  for (const { name } of parameters) t.match(code, name);
  t.end();
});

t.test(
  'what user code emits goes through a function of its own, which gives the blame back',
  (t) => {
    const { code, emitters } = generateChain(
      chain([
        node('FlatMap', new FlatMapOperator((n: number) => [n, n]), { chained: [1, 2] }),
        node('Process', new ProcessOperator({ processElement: () => undefined })),
        node('Map', new MapOperator((n: number) => n)),
      ]),
      'chain.js',
    );
    t.same(emitters, [0, 1]);
    t.match(bodyOf(code, 'emit_0'), /\/\/ 1 Process[^]*\/\/ 2 Map[^]*op = 0;\n}$/);
    t.end();
  },
);

t.test('a long chain is cut into functions that V8 still optimises', (t) => {
  const nodes = Array.from({ length: 100 }, (_, i) =>
    node('Map', new MapOperator((n: number) => n), i < 99 ? { chained: [i + 1] } : {}),
  );
  const { code } = generateChain(chain(nodes), 'chain.js');
  const functions = code.match(/^function /gm)?.length ?? 0;
  t.ok(functions >= 4 && functions <= 6, `${String(functions)} functions`);
  t.equal(code.match(/ = map_\d+\(/g)?.length, 100, 'every operator is there once');
  t.end();
});

t.test('names of operators cannot break out of their comments', (t) => {
  const evil = 'x\nthrow 1\u2028throw 2';
  const shape = chain([{ ...node('Map', new MapOperator((n: number) => n)), name: evil }]);
  const { code, parameters } = generateChain({ ...shape, name: evil }, 'chain.js');
  // eslint-disable-next-line @typescript-eslint/no-implied-eval
  const create = new Function(...parameters.map(({ name }) => name), code) as () => object;
  t.type(create(), 'object');
  t.end();
});

/** What `fn` ends with as a job of one process. */
async function failureOf(fn: (n: number) => number, compile: boolean): Promise<string> {
  const env = StreamExecutionEnvironment.createLocalEnvironment({
    'pipeline.compile': String(compile),
    'restart-strategy.type': 'none',
  });
  try {
    await env
      .fromElements(1, 2, 3)
      .map((n) => n)
      .map(fn)
      .name('tripled')
      .executeAndCollect();
  } catch (error) {
    let trace = '';
    for (let at: unknown = error; at instanceof Error; at = at.cause)
      trace += `${at.stack ?? ''}\n`;
    return trace;
  }
  return 'no failure';
}

t.test('a stack trace names the user’s function, its line and the chain', async (t) => {
  function triple(n: number): number {
    if (n === 2) throw new RangeError('two is too much');
    return n * 3;
  }
  for (const compile of [true, false]) {
    const trace = await failureOf(triple, compile);
    t.match(trace, 'two is too much');
    t.match(trace, 'tripled');
    t.match(trace, /triple.*chain-compiler\.test\.[tj]s:\d+/);
    t.equal(/millrace\/chain\/[\w-]+\.0\.\d+\.js/.test(trace), compile);
  }
});

t.test('side outputs and unions reach generated code as they reach operators', async (t) => {
  const tag = new OutputTag<string>('odd');
  for (const compile of ['true', 'false']) {
    const env = StreamExecutionEnvironment.createLocalEnvironment({ 'pipeline.compile': compile });
    const main = env.fromElements(1, 2, 3, 4).process<number>({
      processElement(n, context, out) {
        if (n % 2 === 1) context.output(tag, `odd ${String(n)}`);
        else out.collect(n);
      },
    });
    const odd = main.getSideOutput(tag).map((text) => text.length);
    const all = main.map((n) => n * 10).union(odd);
    t.same((await all.executeAndCollect()).sort(), [20, 40, 5, 5].sort());
  }
});

t.test('an aggregate is an object with its methods, also where it is a class', async (t) => {
  class Counting {
    static createAccumulator(): number {
      return 0;
    }
    static add(_value: number, count: number): number {
      return count + 1;
    }
    static getResult(count: number): number {
      return count;
    }
  }
  for (const compile of ['true', 'false']) {
    const env = StreamExecutionEnvironment.createLocalEnvironment({ 'pipeline.compile': compile });
    const counts = env
      .fromElements(1, 2, 3, 4, 5)
      .assignTimestampsAndWatermarks(
        WatermarkStrategy.forMonotonousTimestamps<number>().withTimestampAssigner((n) => n),
      )
      .keyBy((n) => n % 2)
      .window(TumblingEventTimeWindows.of('1m'))
      .aggregate(Counting);
    t.same((await counts.executeAndCollect()).sort(), [2, 3]);
  }
});
