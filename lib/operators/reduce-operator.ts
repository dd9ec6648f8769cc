import type { KeySelector, ReduceFunction } from '../api/functions.js';
import { ValueStateDescriptor, type ValueState } from '../state/state-descriptor.js';
import { KeyedOperator } from './keyed-operator.js';
import type { CodeScope, GeneratesCode, RecordNames } from './operator-code.js';

/** The rolling combination of a key's records: emits the new value for each of them. */
export class ReduceOperator<T> extends KeyedOperator implements GeneratesCode {
  readonly #reduce: ReduceFunction<T>;
  #value!: ValueState<T>;

  constructor(keySelector: KeySelector<T, unknown>, reduce: ReduceFunction<T>) {
    super(keySelector as KeySelector<unknown, unknown>);
    this.#reduce = reduce;
  }

  protected override onRestored(): void {
    this.#value = this.states.getState(new ValueStateDescriptor<T>('reduced'));
  }

  processElement(value: unknown, timestamp: number): void {
    this.backend.setCurrentKey(this.selectKey(value));
    const before = this.#value.value();
    let after = value as T;
    if (before !== undefined) {
      const reduce = this.#reduce;
      try {
        after = reduce(before, after);
      } catch (error) {
        throw this.blame(error);
      }
    }
    this.#value.update(after);
    this.context.output.collect(after, timestamp);
  }

  generate(scope: CodeScope, record: RecordNames): string {
    const state = scope.bind('state', () => this.#value);
    const reduce = scope.bind('reduce', () => this.#reduce);
    const before = scope.local('before');
    const after = scope.local('after');
    return `${this.generateKey(scope, record)}
const ${before} = ${state}.value();
const ${after} = ${before} === undefined ? ${record.value} : ${reduce}(${before}, ${record.value});
${state}.update(${after});
${scope.emit({ value: after, timestamp: record.timestamp })}`;
  }
}
