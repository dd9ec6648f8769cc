import type { KeySelector, ReduceFunction } from '../api/functions.js';
import { ValueStateDescriptor, type ValueState } from '../state/state-descriptor.js';
import { KeyedOperator } from './keyed-operator.js';

/** The rolling combination of a key's records: emits the new value for each of them. */
export class ReduceOperator<T> extends KeyedOperator {
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
}
