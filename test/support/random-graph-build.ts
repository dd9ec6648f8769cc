/** A planned random job as a program: the public API only. Runs in tests and, bundled, in slots of other processes. */
import {
  ListStateDescriptor,
  MapStateDescriptor,
  OutputTag,
  ReducingStateDescriptor,
  TumblingEventTimeWindows,
  ValueStateDescriptor,
  WatermarkStrategy,
  type Collector,
  type DataStream,
  type FlatMapFunction,
  type KeyedProcessContext,
  type KeyedProcessFunction,
  type KeyedStream,
  type OnTimerContext,
  type ProcessContext,
  type ProcessFunction,
  type ProcessWindowFunction,
  type RuntimeContext,
  type SingleOutputStreamOperator,
  type Source,
  type StreamExecutionEnvironment,
} from 'millrace';
import {
  sideTag,
  type GraphPlan,
  type Operation,
  type Part,
  type PlannedNode,
  type PlannedSink,
  type SourceSpec,
} from './random-graph.js';
import {
  addCounters,
  aggregateOf,
  boundMs,
  bucketRecord,
  chainedRecord,
  clearedAt,
  counter,
  fired,
  flatMapped,
  keeps,
  mapRecord,
  processed,
  rolled,
  selectorOf,
  withPayload,
} from './random-graph-functions.js';
import { fieldsOf, plainKey, type Fields } from './random-graph-values.js';

type Stream = DataStream<unknown>;
type Operator = SingleOutputStreamOperator<unknown>;
type Keyed = KeyedStream<unknown, unknown>;

const side = new OutputTag<unknown>(sideTag);

export interface BuildParts {
  readonly sourceOf: (index: number) => Source<unknown, unknown, unknown>;
  /** Ends the stream. */
  readonly sinkTo: (
    stream: Stream,
    sink: PlannedSink,
    index: number,
  ) => { setParallelism(n: number): unknown };
}

export function buildGraph(
  env: StreamExecutionEnvironment,
  plan: GraphPlan,
  parts: BuildParts,
): void {
  if (!plan.spec.chaining) env.disableOperatorChaining();
  env.setBufferTimeout(plan.spec.bufferTimeoutMs).setMaxParallelism(16);
  const operators: Operator[] = [];
  const streamAt = (index: number): Stream => {
    const { from } = plan.streams[index]!;
    if (!('node' in from)) {
      const [first, ...others] = from.map(streamAt);
      return first!.union(...others);
    }
    const operator = operators[from.node]!;
    return from.tag === undefined ? operator : operator.getSideOutput(side);
  };
  plan.nodes.forEach((node, at) => {
    const made =
      node.input === undefined
        ? sourceStream(env, parts, node, at)
        : operatorOf(partitioned(streamAt(node.input), node.part), node);
    operators.push(place(made, node));
  });
  plan.sinks.forEach((sink, at) => {
    const end = parts.sinkTo(partitioned(streamAt(sink.input), sink.part), sink, at);
    if (sink.par > 0) end.setParallelism(sink.par);
  });
}

function place(operator: Operator, { name, par, chain, group }: PlannedNode): Operator {
  operator.name(name).uid(name);
  if (par > 0) operator.setParallelism(par);
  if (chain === 'head') operator.startNewChain();
  if (chain === 'never') operator.disableChaining();
  if (group > 0) operator.slotSharingGroup(`group ${group}`);
  return operator;
}

function partitioned(stream: Stream, part: Part): Stream {
  switch (part) {
    case 'none':
      return stream;
    case 'key':
      return stream.keyBy((value) => fieldsOf(value).l);
    default:
      return stream[part]();
  }
}

function sourceStream(
  env: StreamExecutionEnvironment,
  parts: BuildParts,
  { name, spec }: PlannedNode,
  index: number,
): Operator {
  const { times, shape } = spec as SourceSpec;
  const bounded = WatermarkStrategy.forBoundedOutOfOrderness<unknown>(boundMs);
  // Numbers on their own do not carry their time.
  const reads = times === 'read' && shape !== 'number';
  const strategy =
    times === 'unmarked'
      ? WatermarkStrategy.noWatermarks<unknown>()
      : reads
        ? bounded.withTimestampAssigner((value: unknown) => fieldsOf(value).t)
        : bounded;
  return env.fromSource(parts.sourceOf(index), strategy, name);
}

function operatorOf(stream: Stream, node: PlannedNode): Operator {
  const spec = node.spec as Operation;
  switch (spec.op) {
    case 'map': {
      const map = (value: unknown): unknown => mapRecord(spec.fn, spec.shape, value);
      return stream.map(spec.flavor === 0 ? map : { map });
    }
    case 'filter': {
      const filter = (value: unknown): boolean => keeps(spec.modulo, value);
      return stream.filter(spec.flavor === 0 ? filter : { filter });
    }
    case 'flatMap':
      return stream.flatMap(flatMapOf(spec));
    case 'process':
      return stream.process(processOf(node, spec));
    case 'assign':
      return stream.assignTimestampsAndWatermarks(
        WatermarkStrategy.forBoundedOutOfOrderness<unknown>('365d').withTimestampAssigner(
          (value: unknown) => fieldsOf(value).t + spec.offset,
        ),
      );
    case 'roll':
      return node.strict ? strictRoll(stream, node, spec.how) : countRoll(stream, node, spec.how);
    case 'buckets':
      return stream.keyBy(selectorOf(node)).process(bucketsOf(node, spec.size));
    case 'window':
      return windowOf(stream, node, spec);
    case 'union':
      throw new TypeError('a union is no operator');
  }
}

function flatMapOf(spec: Extract<Operation, { op: 'flatMap' }>): FlatMapFunction<unknown, unknown> {
  const { mode, copies } = spec;
  return (value, out) => {
    const { collected, returned } = flatMapped(mode, copies, value);
    for (const one of collected) out.collect(one);
    if (returned === undefined || mode !== 'generator') return returned;
    return (function* () {
      yield* returned;
    })();
  };
}

function processOf(
  node: PlannedNode,
  { modulo, flavor }: Extract<Operation, { op: 'process' }>,
): ProcessFunction<unknown, unknown> | (() => ProcessFunction<unknown, unknown>) {
  class Split implements ProcessFunction<unknown, unknown> {
    #isOpen = false;
    open(): void {
      this.#isOpen = true;
    }
    processElement(value: unknown, context: ProcessContext, out: Collector<unknown>): void {
      if (!this.#isOpen) throw new Error('not open');
      const { timestamp } = context;
      const watermark = context.timerService.currentWatermark;
      const results = processed(node, modulo, value, { timestamp, watermark });
      if ('side' in results) context.output(side, results.side);
      if ('main' in results) out.collect(results.main);
    }
  }
  return flavor === 0 ? () => new Split() : (Split as unknown as () => Split);
}

type RollKind = Extract<Operation, { op: 'roll' }>['how'];
type Keep = KeyedProcessFunction<unknown, unknown, unknown>;

/** Counts records by key, with the kind of state it is told to. */
function countRoll(stream: Stream, node: PlannedNode, how: RollKind): Operator {
  const select = selectorOf(node);
  if (how === 'reduce') {
    return stream
      .map((value) => counter(select(value), 1))
      .name(`${node.name} counters`)
      .keyBy((value) => fieldsOf(value).p)
      .reduce(addCounters);
  }
  return stream.keyBy(select).process(() => new Counting(how));
}

class Counting implements Keep {
  readonly #how: RollKind;
  /** Adds one; answers how many there are now, of which none are left after `true`. */
  #add!: () => number;
  #clear!: () => void;

  constructor(how: RollKind) {
    this.#how = how;
  }

  open(context: RuntimeContext): void {
    switch (this.#how) {
      case 'list': {
        const list = context.getListState(new ListStateDescriptor<number>('list'));
        this.#add = () => {
          list.add(list.get().length);
          return list.get().length;
        };
        this.#clear = () => list.clear();
        break;
      }
      case 'map': {
        const map = context.getMapState(new MapStateDescriptor<unknown, unknown>('map'));
        this.#add = () => {
          map.put([map.size, 'x'], null);
          return map.size;
        };
        this.#clear = () => map.clear();
        break;
      }
      case 'reducing': {
        const sum = new ReducingStateDescriptor<number>('sum', (a, b) => a + b);
        const state = context.getReducingState(sum);
        this.#add = () => {
          state.add(1);
          return state.get()!;
        };
        this.#clear = () => state.clear();
        break;
      }
      default: {
        const value = context.getState(new ValueStateDescriptor('value', 0));
        this.#add = () => {
          value.update(value.value() + 1);
          return value.value();
        };
        this.#clear = () => value.clear();
      }
    }
  }

  processElement(_: unknown, context: KeyedProcessContext<unknown>, out: Collector<unknown>): void {
    const count = this.#add();
    out.collect(counter(context.getCurrentKey(), count));
    if (count === clearedAt[this.#how]) this.#clear();
  }
}

/** Remembers what came before, by lane. */
function strictRoll(stream: Stream, node: PlannedNode, how: RollKind): Operator {
  const keyed = stream.keyBy(selectorOf(node));
  return how === 'reduce' ? keyed.reduce(rolled) : keyed.process(remembering(how));
}

function remembering(how: Exclude<RollKind, 'reduce'>): () => Keep {
  return () => {
    let next: (fields: Fields) => unknown;
    return {
      open: (context) => {
        next = memoryOf(how, context);
      },
      processElement: (value, _context, out) => {
        out.collect(withPayload(value, next(fieldsOf(value))));
      },
    };
  };
}

/** Answers the new payload of a record from those before it. */
function memoryOf(
  how: Exclude<RollKind, 'reduce'>,
  context: RuntimeContext,
): (fields: Fields) => unknown {
  switch (how) {
    case 'value': {
      const state = context.getState(new ValueStateDescriptor<unknown>('before'));
      return ({ n, p }) => {
        const before = state.value();
        if (n % 7 === 6) state.clear();
        else state.update(p);
        return { before, p };
      };
    }
    case 'list': {
      const state = context.getListState(new ListStateDescriptor<unknown>('recent'));
      return ({ p }) => {
        state.update(state.get().slice(-2));
        state.add(p);
        return [...state.get()];
      };
    }
    case 'map': {
      const state = context.getMapState(new MapStateDescriptor<number, unknown>('recent'));
      return ({ n, p }) => {
        if (n % 7 === 6) state.remove(0);
        else state.put(n % 3, p);
        return [...state.entries()];
      };
    }
    case 'reducing': {
      const descriptor = new ReducingStateDescriptor<string>('text', (a, b) => (a + b).slice(-12));
      const state = context.getReducingState(descriptor);
      return ({ s }) => {
        state.add(s.slice(-12));
        return state.get();
      };
    }
  }
}

/** Gathers the records of each stretch of time; a timer at its end, and one behind that. */
function bucketsOf(node: PlannedNode, size: number): () => Keep {
  return () => {
    let buckets: ReturnType<RuntimeContext['getMapState']>;
    const lastOf = (bucket: number): number => bucket + size - 1;
    return {
      open: (context) => {
        buckets = context.getMapState(new MapStateDescriptor('buckets'));
      },
      processElement: (value, context) => {
        const { timerService, timestamp = NaN } = context;
        const bucket = Math.floor(timestamp / size) * size;
        if (node.seesMarks && lastOf(bucket) <= timerService.currentWatermark) {
          context.output(side, counter(context.getCurrentKey(), bucket));
          return;
        }
        const before = (buckets.get(bucket) ?? []) as readonly number[];
        buckets.put(bucket, [...before, fieldsOf(value).n]);
        timerService.registerEventTimeTimer(lastOf(bucket));
        timerService.registerEventTimeTimer(timestamp + 0.5);
        timerService.deleteEventTimeTimer(timestamp + 0.5);
      },
      onTimer: (at, context: OnTimerContext<unknown>, out) => {
        const key = context.getCurrentKey();
        if (at % 1 === 0.5 || at % 1 === 0.75) throw new Error('a deleted timer fired');
        if (!Number.isInteger(at)) {
          out.collect(chainedRecord(key, at));
          return;
        }
        const bucket = at + 1 - size;
        const ns = buckets.get(bucket) as readonly number[] | undefined;
        if (ns === undefined) return;
        out.collect(bucketRecord(key, bucket, ns));
        buckets.remove(bucket);
        if (ns.length % 2 === 1) context.output(side, counter(key, ns.length));
        if (ns.length > 2) context.timerService.registerEventTimeTimer(at + 1.25);
      },
    };
  };
}

function windowOf(
  stream: Stream,
  node: PlannedNode,
  spec: Extract<Operation, { op: 'window' }>,
): Operator {
  const select = selectorOf(node);
  const isCounted = spec.how.startsWith('reduce');
  const keyed: Keyed = isCounted
    ? stream
        .map((value) => counter(select(value), 1))
        .name(`${node.name} counters`)
        .keyBy((value) => fieldsOf(value).p)
    : stream.keyBy(select);
  const window = keyed
    .window(TumblingEventTimeWindows.of(spec.size))
    .allowedLateness(spec.lateness);
  if (spec.late) window.sideOutputLateData(side);
  const process = firing(node);
  switch (spec.how) {
    case 'reduce':
      return window.reduce(addCounters);
    case 'reduce+':
      return window.reduce(addCounters, process);
    case 'aggregate':
      return window.aggregate(aggregateOf(node));
    case 'aggregate+':
      return window.aggregate(aggregateOf(node), process);
    case 'process':
      return window.process(process);
  }
}

function firing(node: PlannedNode): ProcessWindowFunction<unknown, unknown, unknown> {
  const descriptor = new ValueStateDescriptor('fires', 0);
  return (key, context, elements, out) => {
    const count = context.globalState.getState(descriptor);
    const fires = count.value() + 1;
    count.update(fires);
    const { start } = context.window;
    const results = fired(node, { key: plainKey(key), start, elements, fires });
    out.collect(results.main);
    if ('side' in results) context.output(side, results.side);
  };
}
