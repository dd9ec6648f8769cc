import { DataGeneratorSource } from './datagen-source.js';

/** The elements of an array, in its order when read by one subtask. */
export class CollectionSource<T> extends DataGeneratorSource<T> {
  constructor(values: readonly T[]) {
    const copy = [...values];
    super((index) => copy[index] as T, { count: copy.length });
  }
}
