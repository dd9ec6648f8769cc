/** The states of the hash-map backend: one Map per state and key group, keyed by identity. */
import { MillraceError } from '../base/errors.js';
import { identityOf, keyOf, type KeyIdentity } from './key-identity.js';
import type { KeyedStateBackend, KeyedStatePart } from './keyed-state-backend.js';
import type {
  ListState,
  ListStateDescriptor,
  MapState,
  MapStateDescriptor,
  ReducingState,
  ReducingStateDescriptor,
  StateKind,
  ValueState,
  ValueStateDescriptor,
} from './state-descriptor.js';

/** Per key group, as one Map holds at most 2^24 entries and snapshots are written by key group. */
class StateTable<V> implements KeyedStatePart {
  readonly name: string;
  readonly kind: StateKind;
  readonly #backend: KeyedStateBackend;
  readonly #maps: Map<KeyIdentity, V>[];
  /** Value to payload and back; identity unless the value is a structure of this file. */
  readonly #encode: (value: V) => unknown;
  readonly #decode: (payload: unknown) => V;

  constructor(
    backend: KeyedStateBackend,
    descriptor: { readonly name: string; readonly kind: StateKind },
    codec: { encode: (value: V) => unknown; decode: (payload: unknown) => V },
  ) {
    this.name = descriptor.name;
    this.kind = descriptor.kind;
    this.#backend = backend;
    this.#maps = Array.from({ length: backend.groupCount }, () => new Map<KeyIdentity, V>());
    this.#encode = codec.encode;
    this.#decode = codec.decode;
  }

  /** Map of the current key group; the caller looks up `backend.currentIdentity` in it. */
  current(): Map<KeyIdentity, V> {
    this.#backend.checkKey();
    return this.#maps[this.#backend.currentGroupIndex]!;
  }

  get(): V | undefined {
    return this.current().get(this.#backend.currentIdentity);
  }

  set(value: V): void {
    this.current().set(this.#backend.currentIdentity, value);
  }

  delete(): void {
    this.current().delete(this.#backend.currentIdentity);
  }

  capture(): Map<number, unknown> {
    const groups = new Map<number, unknown>();
    this.#maps.forEach((map, index) => {
      if (map.size === 0) return;
      const flat: unknown[] = [];
      for (const [identity, value] of map) flat.push(keyOf(identity), this.#encode(value));
      groups.set(index + this.#backend.range.start, flat);
    });
    return groups;
  }

  restore(keyGroup: number, payload: unknown): void {
    const flat = payload as unknown[];
    const map = this.#maps[keyGroup - this.#backend.range.start]!;
    for (let i = 0; i < flat.length; i += 2)
      map.set(identityOf(flat[i]), this.#decode(flat[i + 1]));
  }
}

const plain = { encode: (value: unknown) => value, decode: (payload: unknown) => payload };

class HashMapValueState<T, V> implements ValueState<T, V> {
  readonly #table: StateTable<unknown>;
  readonly #backend: KeyedStateBackend;
  readonly #defaultValue: V;

  constructor(backend: KeyedStateBackend, table: StateTable<unknown>, defaultValue: V) {
    this.#backend = backend;
    this.#table = table;
    this.#defaultValue = defaultValue;
  }

  value(): V {
    const map = this.#table.current();
    const value = map.get(this.#backend.currentIdentity);
    if (value !== undefined) return value as V;
    return map.has(this.#backend.currentIdentity) ? (value as V) : this.#defaultValue;
  }

  update(value: T): void {
    this.#table.set(value);
  }

  clear(): void {
    this.#table.delete();
  }
}

class HashMapListState<T> implements ListState<T> {
  readonly #table: StateTable<T[]>;

  constructor(table: StateTable<T[]>) {
    this.#table = table;
  }

  get(): readonly T[] {
    return this.#table.get() ?? [];
  }

  add(value: T): void {
    const list = this.#table.get();
    if (list === undefined) this.#table.set([value]);
    else list.push(value);
  }

  addAll(values: Iterable<T>): void {
    for (const value of [...values]) this.add(value);
  }

  update(values: Iterable<T>): void {
    const list = [...values];
    if (list.length === 0) this.#table.delete();
    else this.#table.set(list);
  }

  clear(): void {
    this.#table.delete();
  }
}

class HashMapMapState<K, V> implements MapState<K, V> {
  readonly #table: StateTable<Map<KeyIdentity, V>>;

  constructor(table: StateTable<Map<KeyIdentity, V>>) {
    this.#table = table;
  }

  get(key: K): V | undefined {
    return this.#table.get()?.get(identityOf(key));
  }

  put(key: K, value: V): void {
    const map = this.#table.get();
    if (map === undefined) this.#table.set(new Map([[identityOf(key), value]]));
    else map.set(identityOf(key), value);
  }

  contains(key: K): boolean {
    return this.#table.get()?.has(identityOf(key)) ?? false;
  }

  remove(key: K): boolean {
    const map = this.#table.get();
    if (map?.delete(identityOf(key)) !== true) return false;
    if (map.size === 0) this.#table.delete();
    return true;
  }

  *keys(): Generator<K> {
    for (const identity of this.#table.get()?.keys() ?? []) yield keyOf(identity) as K;
  }

  *values(): Generator<V> {
    yield* this.#table.get()?.values() ?? [];
  }

  *entries(): Generator<[K, V]> {
    for (const [identity, value] of this.#table.get() ?? []) yield [keyOf(identity) as K, value];
  }

  get size(): number {
    return this.#table.get()?.size ?? 0;
  }

  isEmpty(): boolean {
    return this.size === 0;
  }

  clear(): void {
    this.#table.delete();
  }
}

class HashMapReducingState<T> implements ReducingState<T> {
  readonly #table: StateTable<unknown>;
  readonly #reduce: (accumulated: T, value: T) => T;

  constructor(table: StateTable<unknown>, reduce: (accumulated: T, value: T) => T) {
    this.#table = table;
    this.#reduce = reduce;
  }

  get(): T | undefined {
    return this.#table.get() as T | undefined;
  }

  add(value: T): void {
    const before = this.#table.get();
    this.#table.set(before === undefined ? value : this.#reduce(before as T, value));
  }

  clear(): void {
    this.#table.delete();
  }
}

/** Declares and finds the states of one operator by descriptor. */
export class HashMapStates {
  readonly #backend: KeyedStateBackend;
  /** Names a user chose are kept apart from the runtime's own parts. */
  readonly #prefix: string;

  constructor(backend: KeyedStateBackend, prefix = 'user/') {
    this.#backend = backend;
    this.#prefix = prefix;
  }

  getState<T, V>(descriptor: ValueStateDescriptor<T, V>): ValueState<T, V> {
    const table = this.#table<unknown>(descriptor, plain);
    return new HashMapValueState<T, V>(this.#backend, table, descriptor.defaultValue);
  }

  getListState<T>(descriptor: ListStateDescriptor<T>): ListState<T> {
    const codec = { encode: (list: T[]) => list, decode: (payload: unknown) => payload as T[] };
    return new HashMapListState<T>(this.#table<T[]>(descriptor, codec));
  }

  getMapState<K, V>(descriptor: MapStateDescriptor<K, V>): MapState<K, V> {
    const codec = {
      encode: (map: Map<KeyIdentity, V>) =>
        new Map(Array.from(map, ([identity, value]) => [keyOf(identity), value])),
      decode: (payload: unknown) =>
        new Map(Array.from(payload as Map<unknown, V>, ([key, value]) => [identityOf(key), value])),
    };
    return new HashMapMapState<K, V>(this.#table<Map<KeyIdentity, V>>(descriptor, codec));
  }

  getReducingState<T>(descriptor: ReducingStateDescriptor<T>): ReducingState<T> {
    const table = this.#table<unknown>(descriptor, plain);
    return new HashMapReducingState<T>(table, descriptor.reduce);
  }

  #table<V>(
    descriptor: { readonly name: string; readonly kind: StateKind },
    codec: { encode: (value: V) => unknown; decode: (payload: unknown) => V },
  ): StateTable<V> {
    const name = this.#prefix + descriptor.name;
    const known = this.#backend.part(name);
    if (known === undefined) {
      const { kind } = descriptor;
      return this.#backend.declare(new StateTable<V>(this.#backend, { name, kind }, codec));
    }
    if (!(known instanceof StateTable) || known.kind !== descriptor.kind) {
      throw new MillraceError(
        'JOB_INVALID',
        `state "${descriptor.name}" is used as ${known.kind} and as ${descriptor.kind} state`,
      );
    }
    return known as StateTable<V>;
  }
}
