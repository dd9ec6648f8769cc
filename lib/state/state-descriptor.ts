/**
 * Descriptors name a state and carry its type; the same name and kind is the same state, also after
 * a restore. The state interfaces are scoped to the current key and synchronous.
 */

export type StateKind = 'value' | 'list' | 'map' | 'reducing';

/** One value per key. `V` is what reading gives: with a default value never undefined. */
export interface ValueState<T, V = T | undefined> {
  value(): V;
  /**
   * The value is kept: do not change it afterwards but by another `update`. Reading gives it back, or an
   * object that is equal to it. `undefined` is a value like any other.
   */
  update(value: T): void;
  clear(): void;
}

/** A list per key, in order of addition. */
export interface ListState<T> {
  /** Empty when nothing was added. */
  get(): readonly T[];
  add(value: T): void;
  addAll(values: Iterable<T>): void;
  /** Replaces the list. */
  update(values: Iterable<T>): void;
  clear(): void;
}

/** A map per key, in order of insertion. Map keys follow the rules of keys (see key-group.ts). */
export interface MapState<K, V> {
  get(key: K): V | undefined;
  put(key: K, value: V): void;
  contains(key: K): boolean;
  /** True when the key was there. */
  remove(key: K): boolean;
  keys(): IterableIterator<K>;
  values(): IterableIterator<V>;
  entries(): IterableIterator<[K, V]>;
  readonly size: number;
  isEmpty(): boolean;
  clear(): void;
}

/** One value per key that grows by a reduce function. */
export interface ReducingState<T> {
  get(): T | undefined;
  add(value: T): void;
  clear(): void;
}

export interface ValueStateDescriptor<T, V = T | undefined> {
  readonly kind: 'value';
  readonly name: string;
  readonly defaultValue: V;
  /** Only a type. */
  readonly valueType?: T;
}

interface ValueStateDescriptorConstructor {
  new <T>(name: string): ValueStateDescriptor<T>;
  new <T>(name: string, defaultValue: T): ValueStateDescriptor<T, T>;
}

class ValueDescriptor {
  readonly kind = 'value';
  readonly name: string;
  readonly defaultValue: unknown;

  constructor(name: string, defaultValue?: unknown) {
    this.name = checkName(name);
    this.defaultValue = defaultValue;
  }
}

/**
 * @example
 * const seen = context.getState(new ValueStateDescriptor<number>('seen')); // seen.value(): number | undefined
 * const count = context.getState(new ValueStateDescriptor('count', 0)); // count.value(): number
 */
export const ValueStateDescriptor = ValueDescriptor as ValueStateDescriptorConstructor;

export class ListStateDescriptor<T> {
  readonly kind = 'list';
  readonly name: string;
  /** Only a type. */
  declare readonly elementType?: T;

  constructor(name: string) {
    this.name = checkName(name);
  }
}

export class MapStateDescriptor<K, V> {
  readonly kind = 'map';
  readonly name: string;
  /** Only a type. */
  declare readonly entryType?: [K, V];

  constructor(name: string) {
    this.name = checkName(name);
  }
}

export class ReducingStateDescriptor<T> {
  readonly kind = 'reducing';
  readonly name: string;
  readonly reduce: (accumulated: T, value: T) => T;

  constructor(name: string, reduce: (accumulated: T, value: T) => T) {
    this.name = checkName(name);
    this.reduce = reduce;
  }
}

function checkName(name: string): string {
  if (name === '') throw new RangeError('a state needs a name');
  return name;
}
