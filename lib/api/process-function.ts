/** Functions with the whole toolbox: timestamps, timers, state and side outputs. */
import type { Collector, RichFunction } from './functions.js';
import type { OutputTag } from './side-output.js';

export type TimeDomain = 'event' | 'processing';

/**
 * Time and timers. A timer belongs to the current key; registering the same time again does nothing.
 * Timers are part of checkpoints. On a stream that is not keyed registering throws JOB_INVALID.
 */
export interface TimerService {
  /** Event-time ms; -Infinity before the first watermark. */
  readonly currentWatermark: number;
  /** Wall-clock ms. */
  readonly currentProcessingTime: number;
  /** Fires when the watermark reaches `timestamp`; one that already has fires with the next watermark. */
  registerEventTimeTimer(timestamp: number): void;
  /** Fires soon after the wall clock reaches `timestamp`. */
  registerProcessingTimeTimer(timestamp: number): void;
  deleteEventTimeTimer(timestamp: number): void;
  deleteProcessingTimeTimer(timestamp: number): void;
}

export interface ProcessContext {
  /** Event time of the record (or timer) in ms; undefined for a record without one. */
  readonly timestamp: number | undefined;
  readonly timerService: TimerService;
  output<X>(tag: OutputTag<X>, value: X): void;
}

export interface KeyedProcessContext<K> extends ProcessContext {
  getCurrentKey(): K;
}

export interface OnTimerContext<K> extends KeyedProcessContext<K> {
  readonly timeDomain: TimeDomain;
}

/** Contexts and collectors are valid during the call they are given to. */
export interface ProcessFunction<T, R> extends RichFunction {
  processElement(value: T, context: ProcessContext, out: Collector<R>): void;
}

export interface KeyedProcessFunction<K, T, R> extends RichFunction {
  processElement(value: T, context: KeyedProcessContext<K>, out: Collector<R>): void;
  onTimer?(timestamp: number, context: OnTimerContext<K>, out: Collector<R>): void;
}
