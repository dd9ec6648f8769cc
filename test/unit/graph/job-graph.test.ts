import fc from 'fast-check';
import t from 'tap';
import type { StreamExecutionEnvironment } from '../../../lib/api/stream-execution-environment.js';
import { OutputTag } from '../../../lib/api/side-output.js';
import type { OperatorId } from '../../../lib/base/ids.js';
import { BlackholeSink } from '../../../lib/connectors/blackhole-sink.js';
import { describeDifference } from '../../../lib/graph/fingerprint.js';
import {
  checkJobGraph,
  decodeJobGraph,
  encodeJobGraph,
} from '../../../lib/graph/job-graph-codec.js';
import type { JobGraph } from '../../../lib/graph/job-graph.js';
import { jobPlan } from '../../../lib/graph/job-plan.js';
import { defaultMaxParallelism } from '../../../lib/state/key-group-range.js';
import { TumblingEventTimeWindows } from '../../../lib/windowing/assigners.js';
import { defineJob } from '../../support/defined-job.js';

const late = new OutputTag<number>('late');

function sample(env: StreamExecutionEnvironment): void {
  env.setParallelism(2);
  const parsed = env
    .fromSequence(1, 10)
    .uid('numbers')
    .map((n) => n * 2);
  const windowed = parsed
    .filter((n) => n > 2)
    .keyBy((n) => n % 3)
    .window(TumblingEventTimeWindows.of('1m'))
    .sideOutputLateData(late)
    .reduce((a, b) => a + b)
    .uid('sums')
    .name('sums');
  windowed.sinkTo(new BlackholeSink()).uid('out');
  windowed.getSideOutput(late).sinkTo(new BlackholeSink()).name('late');
  parsed
    .union(env.fromElements(1))
    .rebalance()
    .sinkTo(new BlackholeSink())
    .name('all')
    .setParallelism(3);
}

/** The graph in a few lines: tasks with chains, edges with reasons. */
function outline({ vertices, edges }: JobGraph): string[] {
  const name = (id: string): string => vertices.find((v) => v.id === id)?.name ?? id;
  return [
    ...vertices.map((v) => `${v.name} x${v.parallelism}/${v.maxParallelism} ${v.slotSharingGroup}`),
    ...edges.map(
      (e) => `${name(e.source)} =${e.shipStrategy}=> ${name(e.target)}: ${e.notChainedBecause}`,
    ),
  ];
}

t.test('operators become chains and the rest edges with a reason', (t) => {
  const { jobGraph } = defineJob(sample);
  t.strictSame(outline(jobGraph), [
    'Source: Sequence -> Map -> Filter x2/128 default',
    'sums -> (Sink: Sink, Sink: late) x2/128 default',
    'Source: Collection x1/128 default',
    'Sink: all x3/128 default',
    'Source: Sequence -> Map -> Filter =HASH=> sums -> (Sink: Sink, Sink: late): records are redistributed by HASH',
    'Source: Sequence -> Map -> Filter =REBALANCE=> Sink: all: "all" has 2 inputs',
    'Source: Collection =REBALANCE=> Sink: all: "all" has 2 inputs',
  ]);
  const [source, sums] = jobGraph.vertices;
  t.strictSame(
    source?.operators.map(({ type, kind, chainedTo }) => [type, kind, chainedTo.length]),
    [
      ['SequenceSource', 'source', 1],
      ['Map', 'operator', 1],
      ['Filter', 'operator', 0],
    ],
  );
  t.match(sums?.operators[0]?.chainedTo, [{ sideOutput: undefined }, { sideOutput: 'late' }]);
  const toAll = jobGraph.edges[1];
  t.equal(
    toAll?.sourceOperator,
    source?.operators[1]?.id,
    'an edge leaves from the middle of a chain',
  );
  t.equal(toAll?.id, `${toAll?.sourceOperator}_${toAll?.target}_0`);
  t.end();
});

t.test('each reason not to chain is given in words', (t) => {
  const reasonOf = (build: (env: StreamExecutionEnvironment) => void): string[] =>
    defineJob(build, { 'parallelism.default': '2' }).jobGraph.edges.map((e) => e.notChainedBecause);
  const source = (env: StreamExecutionEnvironment) => env.fromSequence(1, 2).name('seq');
  const id = (n: number): number => n;
  t.strictSame(
    reasonOf((env) => source(env.disableOperatorChaining()).map(id)),
    ['operator chaining is switched off for the job'],
  );
  t.strictSame(
    reasonOf((env) => source(env).map(id).name('m').startNewChain()),
    ['"m" starts a new chain'],
  );
  t.strictSame(
    reasonOf((env) => source(env).map(id).name('m').disableChaining()),
    ['chaining is disabled for "m"'],
  );
  t.strictSame(
    reasonOf((env) => source(env).disableChaining().map(id)),
    ['chaining is disabled for "seq"'],
  );
  t.strictSame(
    reasonOf((env) => source(env).map(id).slotSharingGroup('heavy')),
    ['the slot sharing groups differ ("default" and "heavy")'],
  );
  t.strictSame(
    reasonOf((env) => source(env).forward().map(id).setMaxParallelism(64)),
    ['the maximum parallelism differs (128 and 64)'],
  );
  t.strictSame(
    reasonOf((env) => source(env).broadcast().map(id)),
    ['records are redistributed by BROADCAST'],
  );
  t.strictSame(
    reasonOf((env) => source(env).map(id).setParallelism(4)),
    ['records are redistributed by REBALANCE, and the parallelism differs (2 and 4)'],
  );
  t.strictSame(
    reasonOf((env) => source(env).forward().map(id)),
    [],
    'forward chains',
  );
  for (const [name, build] of [
    ['RESCALE', (env: StreamExecutionEnvironment) => source(env).rescale()],
    ['GLOBAL', (env: StreamExecutionEnvironment) => source(env).global()],
  ] as const) {
    t.strictSame(
      reasonOf((env) => build(env).map(id)),
      [`records are redistributed by ${name}`],
    );
  }
  t.end();
});

t.test('a slot sharing group is inherited where the inputs agree', (t) => {
  const { jobGraph } = defineJob((env) => {
    const heavy = env.fromSequence(1, 2).slotSharingGroup('heavy');
    heavy
      .rebalance()
      .map((n) => n)
      .name('follows');
    heavy
      .union(env.fromElements(1))
      .map((n) => n)
      .name('mixed');
  });
  const groups = new Map(jobGraph.vertices.map((v) => [v.name, v.slotSharingGroup]));
  t.equal(groups.get('follows'), 'heavy');
  t.equal(groups.get('mixed'), 'default');
  t.end();
});

t.test(
  'the partitioning nearest to the consumer counts, and a stream may be joined with itself',
  (t) => {
    const { jobGraph } = defineJob((env) => {
      const numbers = env.fromSequence(1, 2);
      numbers
        .keyBy((n) => n)
        .rebalance()
        .map((n) => n);
      numbers
        .union(numbers)
        .map((n) => n)
        .name('twice');
    });
    t.equal(jobGraph.edges[0]?.shipStrategy, 'REBALANCE');
    const twice = jobGraph.edges.slice(1);
    t.equal(new Set(twice.map(({ id }) => id)).size, 2);
    t.match(
      twice.map(({ id }) => id.slice(-2)),
      ['_0', '_1'],
    );
    t.end();
  },
);

t.test('ids depend on uid or structure only', (t) => {
  const idsOf = (build: (env: StreamExecutionEnvironment) => void): Map<string, string> =>
    new Map(
      defineJob(build).jobGraph.vertices.flatMap((v) => v.operators.map((o) => [o.name, o.id])),
    );
  const before = idsOf((env) => {
    env
      .fromSequence(1, 2)
      .map((n) => n)
      .name('a')
      .keyBy((n) => n)
      .reduce((a, b) => a + b)
      .name('r')
      .uid('sum');
    env
      .fromElements(1)
      .filter((n) => n > 0)
      .name('f');
  });
  const after = idsOf((env) => {
    env.setParallelism(3).disableOperatorChaining();
    env
      .fromElements(1)
      .filter((n) => n > 5)
      .name('f');
    env
      .fromSequence(7, 9)
      .map((n) => String(n))
      .name('a')
      .map(Number)
      .keyBy((n) => n % 2)
      .reduce((a, b) => a * b)
      .name('r')
      .uid('sum');
  });
  for (const name of ['a', 'f', 'r']) t.equal(after.get(name), before.get(name), name);
  const twins = idsOf((env) => {
    const numbers = env.fromSequence(1, 2);
    numbers.map((n) => n).name('first');
    numbers.map((n) => n).name('second');
  });
  t.not(twins.get('first'), twins.get('second'));
  // Golden: state of older checkpoints is found by these.
  t.equal(before.get('r'), 'ce38cea39fdd2cb696d8b782d4ae530e');
  t.equal(before.get('a'), '3226b81e8f5e460ec6a224f7d7eeddf7');
  t.end();
});

t.test('maximum parallelism follows Flink’s formula', (t) => {
  for (const [parallelism, expected] of [
    [1, 128],
    [85, 128],
    [86, 256],
    [100, 256],
    [171, 256],
    [172, 512],
    [30_000, 32_768],
    [32_768, 32_768],
  ] as const) {
    t.equal(defaultMaxParallelism(parallelism), expected, `of ${parallelism}`);
  }
  t.end();
});

t.test('wrong jobs are refused with JOB_INVALID', (t) => {
  const refused = (
    message: RegExp,
    build: (env: StreamExecutionEnvironment) => void,
    settings = {},
  ): void => {
    t.throws(() => defineJob(build, settings), { code: 'JOB_INVALID', message });
  };
  refused(/no operators/, () => undefined);
  refused(/uid "x" is given to both "Map" and "Filter"/, (env) =>
    env
      .fromElements(1)
      .map((n) => n)
      .uid('x')
      .filter(() => true)
      .uid('x'),
  );
  refused(/"Map" has parallelism 4 above its maximum of 2/, (env) =>
    env
      .fromElements(1)
      .map((n) => n)
      .setParallelism(4)
      .setMaxParallelism(2),
  );
  refused(/parallelism of "Map" is 0/, (env) =>
    env
      .fromElements(1)
      .map((n) => n)
      .setParallelism(0),
  );
  refused(/parallelism of "Map" is 1.5/, (env) =>
    env
      .fromElements(1)
      .map((n) => n)
      .setParallelism(1.5),
  );
  refused(/"Collection" always runs with parallelism 1/, (env) =>
    env.fromElements(1).setParallelism(2),
  );
  refused(/forward\(\) from "Sequence" to "Map" needs the same parallelism/, (env) =>
    env
      .fromSequence(1, 2)
      .forward()
      .map((n) => n)
      .setParallelism(2),
  );
  refused(/a uid must not be empty/, (env) => env.fromElements(1).uid(''));
  refused(/different environments/, (env) => {
    let other: Parameters<typeof env.fromElements> | unknown;
    defineJob((inner) => {
      other = inner.fromElements(1);
    });
    env.fromElements(2).union(other as ReturnType<typeof env.fromElements<number>>);
  });
  t.throws(() => defineJob((env) => env.fromElements(1), { 'paralelism.default': '2' }), {
    code: 'CONFIG',
    message: /parallelism.default/,
  });
  t.end();
});

t.test('settings are defaults that code overrides', (t) => {
  const settings = {
    'parallelism.default': '4',
    'execution.checkpointing.interval': '3 s',
    'restart-strategy.type': 'fixed-delay',
  };
  const { jobGraph } = defineJob((env) => {
    env.enableCheckpointing('1s', { numRetained: 5 });
    env
      .fromSequence(1, 2)
      .map((n) => n)
      .setParallelism(2);
  }, settings);
  t.strictSame(
    jobGraph.vertices.map((v) => v.parallelism),
    [4, 2],
  );
  t.match(jobGraph.config, {
    checkpointing: { intervalMs: 1000, numRetained: 5, timeoutMs: 600_000 },
    restartStrategy: { type: 'fixed-delay', attempts: 1 },
    settings,
  });
  const off = defineJob((env) => env.enableCheckpointing(0).fromElements(1)).jobGraph.config;
  t.strictSame(off.restartStrategy, { type: 'none' }, 'nothing to restart from');
  t.equal(
    defineJob((env) => env.fromElements(1)).jobGraph.config.restartStrategy.type,
    'exponential-delay',
  );
  t.end();
});

t.test('functions are found by operator, edge and source', (t) => {
  const { jobGraph, functions } = defineJob(sample);
  t.equal(functions.fingerprint, jobGraph.fingerprint);
  for (const operator of jobGraph.vertices.flatMap((v) => v.operators)) {
    const factory = functions.operatorFactory(operator.id);
    t.not(factory(), factory(), 'each subtask gets an operator of its own');
  }
  const hash = jobGraph.edges.find((e) => e.shipStrategy === 'HASH');
  t.equal(functions.keySelector(hash?.id ?? '')(5), 2);
  t.equal(
    functions.source(jobGraph.vertices[0]?.operators[0]?.id ?? ('' as OperatorId)).boundedness,
    'bounded',
  );
  t.throws(() => functions.operatorFactory('nobody' as OperatorId), { code: 'JOB_FINGERPRINT' });
  t.throws(() => functions.keySelector('none'), { code: 'JOB_FINGERPRINT' });
  t.end();
});

t.test('the fingerprint is that of the same program, and a difference is named', (t) => {
  const first = defineJob(sample).jobGraph;
  t.equal(defineJob(sample).jobGraph.fingerprint, first.fingerprint);
  const change = (build: (env: StreamExecutionEnvironment) => void): string | undefined => {
    const base = defineJob((env) =>
      env
        .fromSequence(1, 9)
        .uid('n')
        .map((n) => n + 1)
        .name('add')
        .uid('add'),
    ).jobGraph;
    const other = defineJob(build).jobGraph;
    t.not(other.fingerprint, base.fingerprint);
    return describeDifference(base, other);
  };
  t.equal(
    change((env) =>
      env
        .fromSequence(1, 9)
        .uid('n')
        .map((n) => n + 2)
        .name('add')
        .uid('add'),
    ),
    'the function of operator "add" (uid add) differs',
  );
  t.equal(
    change((env) => env.fromSequence(1, 9).uid('n')),
    'the graph differs: operator "add" (uid add) is missing',
  );
  t.equal(
    change((env) =>
      env
        .fromSequence(1, 9)
        .uid('n')
        .map((n) => n + 1)
        .uid('add')
        .name('add')
        .print(),
    ),
    'the graph differs: operator "Print" (35e0ddc69aa5b7b6298ec5151792de52) is new',
  );
  t.equal(
    change((env) =>
      env
        .setParallelism(2)
        .fromSequence(1, 9)
        .uid('n')
        .map((n) => n + 1)
        .name('add')
        .uid('add'),
    ),
    'the graph differs: parallelism of task "Source: Sequence -> add" (1 and 2)',
  );
  const bundled = { ...first, bundle: { digest: 'a'.repeat(64) as never, sizeBytes: 1 } };
  t.match(
    describeDifference(bundled, first),
    /the bundle differs: a+ was submitted, none was loaded/,
  );
  t.end();
});

t.test('a job graph survives JSON and is checked on the way back', (t) => {
  const { jobGraph } = defineJob(sample);
  t.strictSame(decodeJobGraph(encodeJobGraph(jobGraph)), jobGraph);
  const broken = (message: RegExp, change: (graph: any) => void): void => {
    const copy = structuredClone(jobGraph) as any;
    change(copy);
    t.throws(
      () => decodeJobGraph(JSON.stringify(copy)),
      { code: 'JOB_INVALID', message },
      String(message),
    );
  };
  t.throws(() => decodeJobGraph('{'), { code: 'JOB_INVALID', message: /not JSON/ });
  broken(/version is 9/, (g) => (g.version = 9));
  broken(/version is missing/, (g) => delete g.version);
  broken(/\/vertices\/0\/parallelism must be >= 1/, (g) => (g.vertices[0].parallelism = 0));
  broken(/must have required property 'fingerprint'/, (g) => delete g.fingerprint);
  broken(/above its maximum/, (g) => (g.vertices[0].parallelism = 129));
  broken(/leads backwards/, (g) => g.vertices.reverse());
  broken(/not in the graph/, (g) => (g.edges[0].target = 'f'.repeat(32)));
  broken(/not in its source task/, (g) => (g.edges[0].sourceOperator = g.edges[0].target));
  broken(/occurs twice/, (g) => g.edges.push(g.edges[0]));
  broken(/does not begin with/, (g) => g.vertices[0].operators.reverse());
  broken(/chained to by none/, (g) => (g.vertices[0].operators[0].chainedTo = []));
  broken(/chains to an operator that is not in it/, (g) =>
    g.vertices[0].operators[2].chainedTo.push({ operator: 'f'.repeat(32) }),
  );
  broken(/subtasks, more than 100000/, (g) => {
    const more = { ...g.vertices[0], parallelism: 32_768, maxParallelism: 32_768 };
    g.vertices = [...g.vertices, more, more, more, more];
  });
  broken(/FORWARD between different/, (g) => {
    g.edges[1].shipStrategy = 'FORWARD';
  });
  fc.assert(
    fc.property(fc.jsonValue(), (value) => {
      t.throws(() => checkJobGraph(value), { code: 'JOB_INVALID' });
    }),
    { numRuns: 100 },
  );
  t.end();
});

t.test('the plan has Flink’s shape', (t) => {
  const { jobGraph } = defineJob(sample);
  const plan = jobPlan(jobGraph);
  t.equal(plan.nodes.length, 4);
  t.match(plan.nodes[1], {
    parallelism: 2,
    operator: 'TumblingEventTimeWindows -> BlackholeSink -> BlackholeSink',
    inputs: [{ num: 0, id: jobGraph.vertices[0]?.id, ship_strategy: 'HASH' }],
  });
  t.notOk('inputs' in (plan.nodes[0] ?? {}));
  t.end();
});
