import type { Counter, Gauge } from '../base/metrics.js';
import type {
  ListState,
  ListStateDescriptor,
  MapState,
  MapStateDescriptor,
  ReducingState,
  ReducingStateDescriptor,
  ValueState,
  ValueStateDescriptor,
} from '../state/state-descriptor.js';

/** Metrics of a user function; they appear under the operator's scope with the given name. */
export interface FunctionMetrics {
  counter(name: string): Counter;
  gauge(name: string): Gauge;
}

/** State scoped to the current key. */
export interface KeyedStateStore {
  getState<T, V>(descriptor: ValueStateDescriptor<T, V>): ValueState<T, V>;
  getListState<T>(descriptor: ListStateDescriptor<T>): ListState<T>;
  getMapState<K, V>(descriptor: MapStateDescriptor<K, V>): MapState<K, V>;
  getReducingState<T>(descriptor: ReducingStateDescriptor<T>): ReducingState<T>;
}

/**
 * What a function may ask for in `open`. State needs a keyed stream: elsewhere the getters throw
 * JOB_INVALID. A state may be asked for again; it is the same state.
 */
export interface RuntimeContext extends KeyedStateStore {
  readonly jobId: string;
  readonly jobName: string;
  readonly operatorName: string;
  /** From 0. */
  readonly subtaskIndex: number;
  readonly parallelism: number;
  readonly maxParallelism: number;
  /** (Re)starts of the job before this one. */
  readonly generation: number;
  readonly metrics: FunctionMetrics;
}
