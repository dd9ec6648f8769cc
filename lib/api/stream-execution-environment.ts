import { MillraceError } from '../base/errors.js';
import { CollectionSource } from '../connectors/collection-source.js';
import { DataGeneratorSource, type DataGeneratorOptions } from '../connectors/datagen-source.js';
import { SequenceSource } from '../connectors/sequence-source.js';
import type { JobExecutionResult } from '../gateway/client-gateway.js';
import type { RestartStrategyConfig } from '../graph/job-graph.js';
import { SourceOperator } from '../operators/source-operator.js';
import { durationMs, type Duration } from '../time/duration.js';
import { WatermarkStrategy } from '../time/watermark-strategy.js';
import { SingleOutputStreamOperator } from './data-stream.js';
import {
  currentExecutionContext,
  loadRemoteExecutor,
  localContext,
  type ExecutionContext,
} from './execution-context.js';
import type { Source } from './source.js';
import { checkParallelism, StreamBuilder } from './stream-builder.js';

export interface CheckpointingOptions {
  /** A checkpoint that takes longer is aborted. Default: 10 min. */
  readonly timeout?: Duration;
  /** Least time between the end of one checkpoint and the start of the next. Default: 0. */
  readonly minPause?: Duration;
  /** Default: 1. */
  readonly maxConcurrent?: number;
  /** Failures in a row before the job is restarted. Default: 0. */
  readonly tolerableFailures?: number;
  /** Completed checkpoints that are kept. Default: 3. */
  readonly numRetained?: number;
}

export interface RemoteEnvironmentOptions {
  /** The program's file, which the cluster runs again. Default: the file this process was started with. */
  readonly jobFile?: string;
  /** `rest.token` of the cluster, where it has one. */
  readonly token?: string;
  readonly settings?: Readonly<Record<string, string>>;
}

/**
 * The entry point of a job: make streams, end them in sinks, call `execute()` once.
 *
 * Settings given with the job (`-D key=value`) are defaults: what code sets here wins.
 *
 * @example
 * const env = StreamExecutionEnvironment.getExecutionEnvironment();
 * env.fromElements('a', 'b').map((s) => s.toUpperCase()).print();
 * await env.execute('upper case');
 */
export class StreamExecutionEnvironment {
  readonly #builder: StreamBuilder;

  private constructor(context: ExecutionContext) {
    this.#builder = new StreamBuilder(context);
  }

  /** The surroundings decide: this process, or the cluster when started by `millrace run`. */
  static getExecutionEnvironment(): StreamExecutionEnvironment {
    return new StreamExecutionEnvironment(currentExecutionContext());
  }

  /** Runs in this process, unless `millrace run` submits the program to a cluster. */
  static createLocalEnvironment(
    settings: Readonly<Record<string, string>> = {},
  ): StreamExecutionEnvironment {
    const context = currentExecutionContext();
    return new StreamExecutionEnvironment(
      context.kind === 'local' ? localContext({ ...context.settings, ...settings }) : context,
    );
  }

  /**
   * `execute()` bundles the program's file, submits it to the cluster whose REST answers at `url`
   * (any of its JobManagers) and resolves with the job's result.
   */
  static createRemoteEnvironment(
    url: string,
    options: RemoteEnvironmentOptions = {},
  ): StreamExecutionEnvironment {
    const context = currentExecutionContext();
    // The cluster runs this very program again: then it only says what the job is.
    if (context.kind !== 'local') return new StreamExecutionEnvironment(context);
    const settings = { ...context.settings, ...options.settings };
    const execute = async (): Promise<JobExecutionResult> =>
      (await loadRemoteExecutor()).executeRemotely({
        url,
        jobFile: options.jobFile,
        token: options.token,
        settings,
      });
    return new StreamExecutionEnvironment(localContext(settings, { execute }));
  }

  /** Parallelism of operators that do not set their own. */
  setParallelism(parallelism: number): this {
    this.#builder.options.parallelism = checkParallelism(parallelism, 'the parallelism');
    return this;
  }

  getParallelism(): number {
    return this.#builder.options.parallelism;
  }

  /** Number of key groups of operators that do not set their own. Default: by Flink's formula, at least 128. */
  setMaxParallelism(maxParallelism: number): this {
    const checked = checkParallelism(maxParallelism, 'the maximum parallelism');
    this.#builder.options.maxParallelism = checked;
    return this;
  }

  /** Takes a checkpoint every `interval`; 0 switches periodic ones off. Default: every 10 s. */
  enableCheckpointing(interval: Duration, options: CheckpointingOptions = {}): this {
    const { checkpointing } = this.#builder.options;
    const count = (value: number | undefined, fallback: number, least: number): number => {
      if (value === undefined) return fallback;
      if (Number.isSafeInteger(value) && value >= least) return value;
      throw new MillraceError(
        'JOB_INVALID',
        `checkpointing: expected a whole number of at least ${least}, got ${value}`,
      );
    };
    this.#builder.options.checkpointing = {
      intervalMs: durationMs(interval, 'the checkpoint interval'),
      timeoutMs: durationMs(options.timeout ?? checkpointing.timeoutMs, 'the checkpoint timeout'),
      minPauseMs: durationMs(options.minPause ?? checkpointing.minPauseMs, 'the minimum pause'),
      maxConcurrent: count(options.maxConcurrent, checkpointing.maxConcurrent, 1),
      tolerableFailures: count(options.tolerableFailures, checkpointing.tolerableFailures, 0),
      numRetained: count(options.numRetained, checkpointing.numRetained, 1),
    };
    return this;
  }

  /** Default: exponential delay; none when checkpointing is off. */
  setRestartStrategy(strategy: RestartStrategyConfig): this {
    this.#builder.options.restartStrategy = strategy;
    return this;
  }

  /** Longest time a record waits in a partly filled buffer. Default: 100 ms. */
  setBufferTimeout(timeout: Duration): this {
    this.#builder.options.bufferTimeoutMs = durationMs(timeout, 'the buffer timeout');
    return this;
  }

  setAutoWatermarkInterval(interval: Duration): this {
    const intervalMs = durationMs(interval, 'the watermark interval');
    if (intervalMs === 0) {
      throw new MillraceError('JOB_INVALID', 'the watermark interval must be at least 1 ms');
    }
    this.#builder.options.autoWatermarkIntervalMs = intervalMs;
    return this;
  }

  /** Every operator becomes a task of its own: only to find out which one is slow. */
  disableOperatorChaining(): this {
    this.#builder.options.isChainingEnabled = false;
    return this;
  }

  /**
   * Environment variables main depends on. Their values at submission travel with the job, so that
   * main finds them again on the cluster. Answers the values; unset ones are absent.
   */
  declareEnvironment(...names: readonly string[]): Readonly<Record<string, string>> {
    return this.#builder.context.declareEnvironment(names);
  }

  /** Any source; `strategy` says how the stream tells event time, per split. */
  fromSource<T, SplitT, EnumStateT>(
    source: Source<T, SplitT, EnumStateT>,
    strategy: WatermarkStrategy<T>,
    name: string,
  ): SingleOutputStreamOperator<T> {
    return this.#addSource({ source, strategy, name });
  }

  /** For tests and small inputs: the values travel with the program. Parallelism 1. */
  fromCollection<T>(values: readonly T[]): SingleOutputStreamOperator<T> {
    return this.#addSource({
      source: new CollectionSource(values),
      strategy: WatermarkStrategy.noWatermarks<T>(),
      name: 'Collection',
      fixedParallelism: 1,
    });
  }

  fromElements<T>(...values: readonly T[]): SingleOutputStreamOperator<T> {
    return this.fromCollection(values);
  }

  /** The whole numbers from `from` to `to`, both included, spread over the subtasks. */
  fromSequence(from: number, to: number): SingleOutputStreamOperator<number> {
    return this.#addSource({
      source: new SequenceSource(from, to),
      strategy: WatermarkStrategy.noWatermarks<number>(),
      name: 'Sequence',
    });
  }

  /**
   * `generate(0)`, `generate(1)`... at a rate, up to a count or without end; deterministic, so that
   * it is replayed exactly after a failure.
   */
  dataGenerator<T>(
    generate: (index: number) => T,
    options: DataGeneratorOptions & { readonly watermarks?: WatermarkStrategy<T> } = {},
  ): SingleOutputStreamOperator<T> {
    return this.#addSource({
      source: new DataGeneratorSource(generate, options),
      strategy: options.watermarks ?? WatermarkStrategy.noWatermarks<T>(),
      name: 'Data generator',
    });
  }

  /**
   * Runs the job; call it once, as the last thing of main. On a cluster nothing after it is reached.
   * Rejects with JOB_FAILED or JOB_CANCELED when the job does not finish.
   */
  execute(jobName?: string): Promise<JobExecutionResult> {
    return this.#builder.execute(jobName);
  }

  #addSource<T, SplitT, EnumStateT>(options: {
    readonly source: Source<T, SplitT, EnumStateT>;
    readonly strategy: WatermarkStrategy<T>;
    readonly name: string;
    readonly fixedParallelism?: number;
  }): SingleOutputStreamOperator<T> {
    const { name, fixedParallelism } = options;
    const source = options.source as unknown as Source<unknown, unknown, unknown>;
    const strategy = options.strategy as unknown as WatermarkStrategy<unknown>;
    const operator = this.#builder.addOperator({
      operatorKind: 'source',
      type: source.constructor.name === 'Object' ? 'Source' : source.constructor.name,
      name,
      inputs: [],
      factory: () => new SourceOperator(source, strategy),
      functions: [source, strategy.timestampAssigner],
      source,
      boundedness: source.boundedness,
      ...(fixedParallelism !== undefined && { fixedParallelism }),
    });
    return new SingleOutputStreamOperator<T>(this.#builder, operator);
  }
}
