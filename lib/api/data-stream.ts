/**
 * The streams a job author works with. Every method adds an operator or a partitioning to the job and
 * returns the resulting stream; nothing runs before `execute()`. The classes are in one file because
 * each one's methods return the others.
 */
import { MillraceError } from '../base/errors.js';
import type { ShipStrategy } from '../graph/job-graph.js';
import type { OperatorTransformation, Transformation } from '../graph/transformation.js';
import type { OperatorFactory } from '../operators/stream-operator.js';
import { KeyedProcessOperator } from '../operators/keyed-process-operator.js';
import { ProcessOperator } from '../operators/process-operator.js';
import { ReduceOperator } from '../operators/reduce-operator.js';
import { SinkOperator } from '../operators/sink-operator.js';
import { FilterOperator, FlatMapOperator, MapOperator } from '../operators/stream-map.js';
import { TimestampsAndWatermarksOperator } from '../operators/timestamps-and-watermarks-operator.js';
import { WindowOperator } from '../operators/window-operator.js';
import { durationMs, type Duration } from '../time/duration.js';
import type { WatermarkStrategy } from '../time/watermark-strategy.js';
import type { WindowAssigner } from '../windowing/assigners.js';
import { CollectSink } from '../connectors/collect-sink.js';
import { PrintSink } from '../connectors/print-sink.js';
import type {
  AggregateFunction,
  FilterFunction,
  FlatMapFunction,
  FunctionOf,
  KeySelector,
  MapFunction,
  ProcessWindowFunction,
  ReduceFunction,
  WindowFunction,
} from './functions.js';
import type { KeyedProcessFunction, ProcessFunction } from './process-function.js';
import type { OutputTag } from './side-output.js';
import type { Sink } from './sink.js';
import { checkParallelism, requireSameBuilder, type StreamBuilder } from './stream-builder.js';

/** What an operator is made from; the graph does not know record types. */
interface NewOperator {
  readonly type: string;
  readonly factory: OperatorFactory;
  /** User functions, for the operator's digest. */
  readonly functions: readonly unknown[];
}

/** A stream without the type of its records. */
interface StreamHandle {
  readonly builder: StreamBuilder;
  readonly transformation: Transformation;
}

/**
 * A stream of records of type `T`.
 *
 * @example
 * env.fromElements(1, 2, 3).map((n) => n * 2).filter((n) => n > 2).print();
 * await env.execute('doubles');
 */
export class DataStream<T> {
  /** @internal */
  readonly builder: StreamBuilder;
  /** @internal */
  readonly transformation: Transformation;
  /** Only a type: nothing is stored. */
  declare protected readonly elementType?: T;

  /** @internal */
  constructor(builder: StreamBuilder, transformation: Transformation) {
    this.builder = builder;
    this.transformation = transformation;
  }

  /** One record for each record. */
  map<R>(fn: MapFunction<T, R>): SingleOutputStreamOperator<R> {
    return this.#transform({ type: 'Map', factory: () => new MapOperator(fn), functions: [fn] });
  }

  /**
   * Any number of records for each record, by `out.collect` or by returning an iterable. With
   * `collect` the type cannot be inferred: write `flatMap<R>(...)`.
   */
  flatMap<R>(fn: FlatMapFunction<T, R>): SingleOutputStreamOperator<R> {
    return this.#transform({
      type: 'FlatMap',
      factory: () => new FlatMapOperator(fn),
      functions: [fn],
    });
  }

  /** Keeps the records for which `fn` answers true; a type guard narrows the stream's type. */
  filter<S extends T>(fn: (value: T) => value is S): SingleOutputStreamOperator<S>;
  filter(fn: FilterFunction<T>): SingleOutputStreamOperator<T>;
  filter(fn: FilterFunction<T>): SingleOutputStreamOperator<T> {
    return this.#transform({
      type: 'Filter',
      factory: () => new FilterOperator(fn),
      functions: [fn],
    });
  }

  /** The general operator without keys: timestamps, side outputs, `open` and `close`. */
  process<R>(fn: FunctionOf<ProcessFunction<T, R>>): SingleOutputStreamOperator<R> {
    return this.#transform({
      type: 'Process',
      factory: () => new ProcessOperator(fn),
      functions: [fn],
    });
  }

  /**
   * Records with equal keys go to the same subtask, where state and timers are kept per key.
   * `selector` must be deterministic; keys are compared by value.
   */
  keyBy<K>(selector: KeySelector<T, K>): KeyedStream<T, K> {
    return new KeyedStream<T, K>(this, selector);
  }

  /** The records of all streams, in no particular order between them. */
  union(...others: readonly DataStream<T>[]): DataStream<T> {
    const streams: readonly DataStream<T>[] = [this, ...others];
    requireSameBuilder(
      streams.map((stream) => stream.builder),
      'union',
    );
    const inputs = streams.map((stream) => stream.transformation);
    return new DataStream<T>(this.builder, { kind: 'union', inputs });
  }

  /** Subtask i to subtask i; needs the same parallelism on both sides. */
  forward(): DataStream<T> {
    return this.#partition('FORWARD');
  }

  /** Round robin over all subtasks of the consumer. */
  rebalance(): DataStream<T> {
    return this.#partition('REBALANCE');
  }

  /** Round robin over a share of the consumer's subtasks: fewer connections than `rebalance`. */
  rescale(): DataStream<T> {
    return this.#partition('RESCALE');
  }

  /** Every record to every subtask of the consumer. */
  broadcast(): DataStream<T> {
    return this.#partition('BROADCAST');
  }

  /** Everything to the consumer's first subtask. */
  global(): DataStream<T> {
    return this.#partition('GLOBAL');
  }

  /** Gives records their event time, and the stream its watermarks, in place of the source's. */
  assignTimestampsAndWatermarks(strategy: WatermarkStrategy<T>): SingleOutputStreamOperator<T> {
    return this.#transform({
      type: 'TimestampsAndWatermarks',
      factory: () => new TimestampsAndWatermarksOperator(strategy as WatermarkStrategy<unknown>),
      functions: [strategy.timestampAssigner],
    });
  }

  /** Ends the stream in a sink. A sink with a committer is exactly once. */
  sinkTo<CommT, WriterStateT>(sink: Sink<T, CommT, WriterStateT>): DataStreamSink<T> {
    const erased = sink as Sink<unknown, unknown>;
    const operator = this.builder.addOperator({
      operatorKind: 'sink',
      type: sink.constructor.name === 'Object' ? 'Sink' : sink.constructor.name,
      name: 'Sink',
      inputs: [this.transformation],
      factory: () => new SinkOperator(erased),
      functions: [sink],
    });
    return new DataStreamSink<T>(operator);
  }

  /** Writes every record to standard output (on a cluster: the TaskManager's), after `prefix> `. */
  print(prefix = ''): DataStreamSink<T> {
    return this.sinkTo(new PrintSink<T>(prefix)).name('Print');
  }

  /**
   * Runs the job here and answers all records of this bounded stream: for tests and local programs.
   * The order is that of a subtask; between subtasks there is none.
   */
  async executeAndCollect(jobName?: string): Promise<T[]> {
    if (this.builder.context.kind !== 'local') {
      throw new MillraceError(
        'JOB_INVALID',
        'executeAndCollect needs the local environment: on a cluster, write to a sink',
      );
    }
    const sink = new CollectSink<T>();
    this.sinkTo(sink).name('Collect').setParallelism(1);
    await this.builder.execute(jobName);
    return [...sink.values];
  }

  #partition(strategy: ShipStrategy): DataStream<T> {
    return new DataStream<T>(this.builder, {
      kind: 'partition',
      input: this.transformation,
      strategy,
    });
  }

  #transform<R>(operator: NewOperator): SingleOutputStreamOperator<R> {
    return addOperator<R>(this, operator);
  }
}

/** The result of an operator, which can be named and placed. Settings take effect in any order. */
export class SingleOutputStreamOperator<T> extends DataStream<T> {
  readonly #operator: OperatorTransformation;

  /** @internal */
  constructor(builder: StreamBuilder, operator: OperatorTransformation) {
    super(builder, operator);
    this.#operator = operator;
  }

  /** Shown in plans, logs and metrics; may change at any time. */
  name(name: string): this {
    this.#operator.name = name;
    return this;
  }

  /**
   * Names the operator's state in checkpoints: with it state is found again after the program has
   * changed. Unique in the job.
   */
  uid(uid: string): this {
    setUid(this.#operator, uid);
    return this;
  }

  setParallelism(parallelism: number): this {
    setParallelism(this.#operator, parallelism);
    return this;
  }

  /** Number of key groups: bounds the parallelism for the whole life of the operator's state. */
  setMaxParallelism(maxParallelism: number): this {
    this.#operator.maxParallelism = checkParallelism(
      maxParallelism,
      `maximum parallelism of "${this.#operator.name}"`,
    );
    return this;
  }

  /** Not chained to what is before it; what follows may be chained to it. */
  startNewChain(): this {
    this.#operator.chaining = 'head';
    return this;
  }

  /** A task of its own. */
  disableChaining(): this {
    this.#operator.chaining = 'never';
    return this;
  }

  /** Tasks of different groups never share a slot. Inherited by what follows. */
  slotSharingGroup(group: string): this {
    this.#operator.slotSharingGroup = requireText(group, 'a slot sharing group');
    return this;
  }

  /** What the operator emitted with `context.output(tag, ...)` or, in windows, what came too late. */
  getSideOutput<X>(tag: OutputTag<X>): DataStream<X> {
    return new DataStream<X>(this.builder, {
      kind: 'sideOutput',
      input: this.#operator,
      tag: tag.id,
    });
  }
}

/** The end of a stream. */
export class DataStreamSink<T> {
  readonly #operator: OperatorTransformation;
  /** Only a type: nothing is stored. */
  declare protected readonly elementType?: T;

  /** @internal */
  constructor(operator: OperatorTransformation) {
    this.#operator = operator;
  }

  name(name: string): this {
    this.#operator.name = name;
    return this;
  }

  /** Names the sink's pending output in checkpoints. Unique in the job. */
  uid(uid: string): this {
    setUid(this.#operator, uid);
    return this;
  }

  setParallelism(parallelism: number): this {
    setParallelism(this.#operator, parallelism);
    return this;
  }

  disableChaining(): this {
    this.#operator.chaining = 'never';
    return this;
  }

  slotSharingGroup(group: string): this {
    this.#operator.slotSharingGroup = requireText(group, 'a slot sharing group');
    return this;
  }
}

/** A stream partitioned by key: the place for state and timers. */
export class KeyedStream<T, K> extends DataStream<T> {
  readonly #selector: KeySelector<T, K>;

  /** @internal */
  constructor(stream: DataStream<T>, selector: KeySelector<T, K>) {
    super(stream.builder, {
      kind: 'partition',
      input: stream.transformation,
      strategy: 'HASH',
      keySelector: selector as (value: unknown) => unknown,
    });
    this.#selector = selector;
  }

  /** The general operator: keyed state, event-time and processing-time timers, side outputs. */
  override process<R>(
    fn: FunctionOf<KeyedProcessFunction<K, T, R>>,
  ): SingleOutputStreamOperator<R> {
    const selector = this.#selector;
    return addOperator<R>(this, {
      type: 'KeyedProcess',
      factory: () => new KeyedProcessOperator(selector, fn),
      functions: [fn],
    });
  }

  /** The rolling combination of all records of a key: emits the new value for every record. */
  reduce(fn: ReduceFunction<T>): SingleOutputStreamOperator<T> {
    const selector = this.#selector;
    return addOperator<T>(this, {
      type: 'Reduce',
      factory: () => new ReduceOperator(selector, fn),
      functions: [fn],
    });
  }

  /** Groups the records of a key by event time. */
  window(assigner: WindowAssigner): WindowedStream<T, K> {
    return new WindowedStream<T, K>(this, this.#selector, assigner);
  }
}

/** Records by key and window; ends in `reduce`, `aggregate` or `process`. */
export class WindowedStream<T, K> {
  readonly #stream: KeyedStream<T, K>;
  readonly #selector: KeySelector<T, K>;
  readonly #assigner: WindowAssigner;
  #allowedLatenessMs = 0;
  #lateOutputTag: OutputTag<T> | undefined;

  /** @internal */
  constructor(stream: KeyedStream<T, K>, selector: KeySelector<T, K>, assigner: WindowAssigner) {
    this.#stream = stream;
    this.#selector = selector;
    this.#assigner = assigner;
  }

  /**
   * How long a window is kept after the watermark passed its end: records that come so late make it
   * fire again. Default: 0.
   */
  allowedLateness(lateness: Duration): this {
    this.#allowedLatenessMs = durationMs(lateness, 'the allowed lateness');
    return this;
  }

  /** Records that come too late for their window go to this side output instead of being dropped. */
  sideOutputLateData(tag: OutputTag<T>): this {
    this.#lateOutputTag = tag;
    return this;
  }

  /** Combines the window's records one by one; `process` then sees the one result. */
  reduce(fn: ReduceFunction<T>): SingleOutputStreamOperator<T>;
  reduce<R>(
    fn: ReduceFunction<T>,
    process: ProcessWindowFunction<T, R, K>,
  ): SingleOutputStreamOperator<R>;
  reduce<R>(
    fn: ReduceFunction<T>,
    process?: ProcessWindowFunction<T, R, K>,
  ): SingleOutputStreamOperator<R> {
    return this.#apply(
      {
        kind: 'reduce',
        reduce: fn as ReduceFunction<unknown>,
        ...(process !== undefined && { process: process as ErasedProcess }),
      },
      [fn, process],
    );
  }

  /** Folds the window's records into an accumulator; `process` then sees the one result. */
  aggregate<ACC, R>(aggregate: AggregateFunction<T, ACC, R>): SingleOutputStreamOperator<R>;
  aggregate<ACC, M, R>(
    aggregate: AggregateFunction<T, ACC, M>,
    process: ProcessWindowFunction<M, R, K>,
  ): SingleOutputStreamOperator<R>;
  aggregate<R>(aggregate: unknown, process?: unknown): SingleOutputStreamOperator<R> {
    return this.#apply(
      {
        kind: 'aggregate',
        aggregate: aggregate as AggregateFunction<unknown, unknown, unknown>,
        ...(process !== undefined && { process: process as ErasedProcess }),
      },
      [aggregate, process],
    );
  }

  /** Keeps all records of the window until it fires. Prefer `aggregate` where it will do. */
  process<R>(fn: ProcessWindowFunction<T, R, K>): SingleOutputStreamOperator<R> {
    return this.#apply({ kind: 'process', process: fn as ErasedProcess }, [fn]);
  }

  #apply<R>(fn: WindowFunction, functions: readonly unknown[]): SingleOutputStreamOperator<R> {
    const lateOutputTag = this.#lateOutputTag;
    const options = {
      keySelector: this.#selector,
      assigner: this.#assigner,
      function: fn,
      allowedLatenessMs: this.#allowedLatenessMs,
      ...(lateOutputTag !== undefined && { lateOutputTag }),
    };
    return addOperator<R>(this.#stream, {
      type: this.#assigner.name,
      factory: () => new WindowOperator(options),
      functions,
    });
  }
}

type ErasedProcess = ProcessWindowFunction<unknown, unknown, unknown>;

function addOperator<R>(
  input: StreamHandle,
  { type, factory, functions }: NewOperator,
): SingleOutputStreamOperator<R> {
  const operator = input.builder.addOperator({
    operatorKind: 'operator',
    type,
    name: type,
    inputs: [input.transformation],
    factory,
    functions,
  });
  return new SingleOutputStreamOperator<R>(input.builder, operator);
}

function setParallelism(operator: OperatorTransformation, parallelism: number): void {
  const wanted = checkParallelism(parallelism, `parallelism of "${operator.name}"`);
  const fixed = operator.fixedParallelism;
  if (fixed !== undefined && wanted !== fixed) {
    throw new MillraceError(
      'JOB_INVALID',
      `"${operator.name}" always runs with parallelism ${fixed}; use rebalance() after it`,
    );
  }
  operator.parallelism = wanted;
}

function setUid(operator: OperatorTransformation, uid: string): void {
  operator.uid = requireText(uid, 'a uid');
}

function requireText(text: string, what: string): string {
  if (text === '') throw new MillraceError('JOB_INVALID', `${what} must not be empty`);
  return text;
}
