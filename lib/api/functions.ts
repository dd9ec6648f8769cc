/**
 * The functions a job author writes. Plain functions where nothing else is needed; objects with the
 * same method where `open` and `close` are. An object is copied (its own fields) for every subtask, so
 * that subtasks never share what `open` stored; give its class or a factory instead when it has `#private` fields.
 */
import type { TimeWindow } from '../windowing/window.js';
import type { OutputTag } from './side-output.js';
import type { KeyedStateStore, RuntimeContext } from './runtime-context.js';

/** Takes a function's results, during the call only. */
export interface Collector<T> {
  collect(value: T): void;
}

/** The life of a function object: `open` before the first record, `close` after the last, also after a failure. */
export interface RichFunction {
  open?(context: RuntimeContext): void | Promise<void>;
  close?(): void | Promise<void>;
}

/** A function object, its class, or a factory of it. Each subtask gets its own. */
export type FunctionOf<F extends object> = F | (() => F) | (new () => F);

export interface RichMapFunction<T, R> extends RichFunction {
  map(value: T): R;
}
export type MapFunction<T, R> = ((value: T) => R) | RichMapFunction<T, R>;

export interface RichFilterFunction<T> extends RichFunction {
  filter(value: T): boolean;
}
/** Keeps the records for which it answers true. */
export type FilterFunction<T> = ((value: T) => boolean) | RichFilterFunction<T>;

export interface RichFlatMapFunction<T, R> extends RichFunction {
  flatMap(value: T, out: Collector<R>): void | Iterable<R>;
}
/** Emits any number of records, by `out.collect` or by returning them (an array, a generator). */
export type FlatMapFunction<T, R> =
  ((value: T, out: Collector<R>) => void | Iterable<R>) | RichFlatMapFunction<T, R>;

/** Must be deterministic. Keys: numbers, strings, booleans, bigints, null and tuples (arrays) of these. */
export type KeySelector<T, K> = (value: T) => K;

/** Associative; must not change its arguments. */
export type ReduceFunction<T> = (accumulated: T, value: T) => T;

/** Incremental aggregation. `add` may change and return the accumulator it is given; accumulators are plain data. */
export interface AggregateFunction<IN, ACC, OUT> {
  createAccumulator(): ACC;
  add(value: IN, accumulator: ACC): ACC;
  getResult(accumulator: ACC): OUT;
  /** Needed only where windows merge. */
  merge?(a: ACC, b: ACC): ACC;
}

export interface ProcessWindowContext<W = TimeWindow> {
  readonly window: W;
  /** Event-time ms; -Infinity before the first watermark. */
  readonly currentWatermark: number;
  /** Wall-clock ms. */
  readonly currentProcessingTime: number;
  /** State of the key, shared by all its windows; it is never cleared by itself. */
  readonly globalState: KeyedStateStore;
  output<X>(tag: OutputTag<X>, value: X): void;
}

export interface RichProcessWindowFunction<IN, OUT, K, W = TimeWindow> extends RichFunction {
  process(
    key: K,
    context: ProcessWindowContext<W>,
    elements: readonly IN[],
    out: Collector<OUT>,
  ): void;
}
/** Sees all elements of a window, or the one result of the aggregation before it, when the window fires. */
export type ProcessWindowFunction<IN, OUT, K, W = TimeWindow> =
  | ((
      key: K,
      context: ProcessWindowContext<W>,
      elements: readonly IN[],
      out: Collector<OUT>,
    ) => void)
  | RichProcessWindowFunction<IN, OUT, K, W>;

/** What a window computes; made by the stream API. */
export type WindowFunction =
  | {
      readonly kind: 'reduce';
      readonly reduce: ReduceFunction<unknown>;
      readonly process?: ProcessWindowFunction<unknown, unknown, unknown>;
    }
  | {
      readonly kind: 'aggregate';
      readonly aggregate: AggregateFunction<unknown, unknown, unknown>;
      readonly process?: ProcessWindowFunction<unknown, unknown, unknown>;
    }
  | {
      readonly kind: 'process';
      readonly process: ProcessWindowFunction<unknown, unknown, unknown>;
    };
