/** The stateless operators: map, filter, flatMap. */
import type { Collector, FilterFunction, FlatMapFunction, MapFunction } from '../api/functions.js';
import { callee, type CodeScope, type GeneratesCode, type RecordNames } from './operator-code.js';
import { AbstractOperator } from './abstract-operator.js';
import { RecordCollector } from './record-collector.js';
import type { OperatorContext } from './stream-operator.js';
import { bindFunction } from './user-function.js';

export class MapOperator<T, R> extends AbstractOperator implements GeneratesCode {
  readonly #fn: MapFunction<T, R>;
  readonly #map: (value: T) => R;

  constructor(fn: MapFunction<T, R>) {
    super();
    const own = bindFunction(fn);
    this.#fn = own;
    this.#map = typeof own === 'function' ? own : (value) => own.map(value);
  }

  protected override functions(): readonly object[] {
    return [this.#fn];
  }

  processElement(value: unknown, timestamp: number): void {
    let result: R;
    try {
      result = this.#map(value as T);
    } catch (error) {
      throw this.blame(error);
    }
    this.context.output.collect(result, timestamp);
  }

  generate(scope: CodeScope, { value, timestamp }: RecordNames): string {
    const map = callee(scope, 'map', this.#fn, 'map');
    const result = scope.local('value');
    return `${scope.blame}
const ${result} = ${map}(${value});
${scope.emit({ value: result, timestamp })}`;
  }
}

export class FilterOperator<T> extends AbstractOperator implements GeneratesCode {
  readonly #fn: FilterFunction<T>;
  readonly #keeps: (value: T) => boolean;

  constructor(fn: FilterFunction<T>) {
    super();
    const own = bindFunction(fn);
    this.#fn = own;
    this.#keeps = typeof own === 'function' ? own : (value) => own.filter(value);
  }

  protected override functions(): readonly object[] {
    return [this.#fn];
  }

  processElement(value: unknown, timestamp: number): void {
    let isKept: boolean;
    try {
      isKept = this.#keeps(value as T);
    } catch (error) {
      throw this.blame(error);
    }
    if (isKept) this.context.output.collect(value, timestamp);
  }

  generate(scope: CodeScope, record: RecordNames): string {
    const filter = callee(scope, 'filter', this.#fn, 'filter');
    return `${scope.blame}
if (${filter}(${record.value})) {
${scope.emit(record)}
}`;
  }
}

export class FlatMapOperator<T, R> extends AbstractOperator implements GeneratesCode {
  readonly #fn: FlatMapFunction<T, R>;
  readonly #flatMap: (value: T, out: Collector<R>) => void | Iterable<R>;
  #collector!: RecordCollector<R>;

  constructor(fn: FlatMapFunction<T, R>) {
    super();
    const own = bindFunction(fn);
    this.#fn = own;
    this.#flatMap = typeof own === 'function' ? own : (value, out) => own.flatMap(value, out);
  }

  override setup(context: OperatorContext): void {
    super.setup(context);
    this.#collector = new RecordCollector<R>(context.output);
  }

  protected override functions(): readonly object[] {
    return [this.#fn];
  }

  processElement(value: unknown, timestamp: number): void {
    const collector = this.#collector;
    collector.timestamp = timestamp;
    try {
      const results = this.#flatMap(value as T, collector);
      if (results === undefined) return;
      for (const result of results) collector.collect(result);
    } catch (error) {
      throw this.blame(error);
    }
  }

  generate(scope: CodeScope, { value, timestamp }: RecordNames): string {
    const flatMap = callee(scope, 'flatMap', this.#fn, 'flatMap');
    const [out, results] = [scope.collector(), scope.local('results')];
    return `${scope.blame}
${out}.timestamp = ${timestamp};
const ${results} = ${flatMap}(${value}, ${out});
if (${results} !== undefined) {
for (const result of ${results}) ${scope.emitter()}(result, ${timestamp});
}`;
  }
}
