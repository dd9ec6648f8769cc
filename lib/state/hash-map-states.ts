/** The states of the hash-map backend: a column per state over the backend's index of keys. */
import { MillraceError } from '../base/errors.js';
import { Column, isRealNaN } from './column.js';
import { ColumnSnapshot } from './column-snapshot.js';
import { identityOf, keyOf, type KeyIdentity } from './key-identity.js';
import { hashKey } from './key-group.js';
import type { KeyedStateBackend, KeyedStatePart } from './keyed-state-backend.js';
import type { PartSnapshot } from './keyed-snapshot.js';
import { own } from '../record/codec/owned-strings.js';
import { ownStrings } from './own.js';
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

/** Value to payload and back; identity unless the value is a structure of this file. */
interface ValueCodec<V> {
  readonly encode: (value: V) => unknown;
  readonly decode: (payload: unknown) => V;
}

/** The values of one state. Absent is told from undefined: NaN, as in the column. */
class StateTable<V> implements KeyedStatePart {
  readonly name: string;
  readonly kind: StateKind;
  readonly column: Column;
  readonly backend: KeyedStateBackend;
  readonly #codec: ValueCodec<V>;

  constructor(
    backend: KeyedStateBackend,
    descriptor: { readonly name: string; readonly kind: StateKind },
    codec: ValueCodec<V>,
  ) {
    this.name = descriptor.name;
    this.kind = descriptor.kind;
    this.backend = backend;
    // Lists and maps are changed in place.
    this.column = new Column(descriptor.kind === 'value' || descriptor.kind === 'reducing');
    this.#codec = codec;
  }

  /** Of the current key, as the column has it. An object may be changed in place: snapshots get it before that. */
  peek(): unknown {
    const slot = this.backend.currentSlot;
    if (slot < 0) return this.#noSlot();
    const value = this.column.peek(slot);
    if (this.column.isObserved && typeof value === 'object' && value !== null) {
      this.column.capture(slot);
    }
    return value;
  }

  /** For values that are never NaN, like the lists and maps of this file. */
  get(): V | undefined {
    const value = this.peek();
    return value === value ? (value as V) : undefined;
  }

  set(value: unknown): void {
    let slot = this.backend.currentSlot;
    if (slot < 0) slot = this.backend.insertCurrent();
    if (this.column.put(slot, value)) this.backend.index.hold(slot);
  }

  /** As `set`, for values that are not changed in place. */
  update(value: unknown): void {
    let slot = this.backend.currentSlot;
    if (slot < 0) slot = this.backend.insertCurrent();
    if (this.column.update(slot, value)) this.backend.index.hold(slot);
  }

  delete(): void {
    const slot = this.backend.currentSlot;
    if (slot < 0) this.#noSlot();
    else if (this.column.remove(slot)) this.backend.releaseCurrent();
  }

  #noSlot(): number {
    this.backend.checkKey();
    return NaN;
  }

  snapshot(): PartSnapshot {
    const { name, kind, column, backend } = this;
    const { index, groupCount } = backend;
    const snapshot = new ColumnSnapshot({
      what: `state "${name}"`,
      column,
      index,
      chains: groupCount,
      chainOf: (slot) => backend.groupOf(slot),
      encode: this.#codec.encode as (value: unknown) => unknown,
    });
    const { log } = snapshot;
    return {
      name,
      kind,
      encode: () => snapshot.encode(),
      groups: () => log.chains(),
      sizeOf: (group) => (log.has(group) ? log.sizeOf(group) : 0),
      payload: (group) => log.payload(group),
      end: () => {
        snapshot.end();
      },
    };
  }

  restore(_keyGroup: number, payload: unknown): void {
    const flat = payload as unknown[];
    const { index } = this.backend;
    for (let i = 0; i < flat.length; i += 2) {
      const key = flat[i];
      const hash = hashKey(key);
      let slot = index.find(key, hash);
      if (slot < 0) slot = index.insert(key, hash);
      if (this.column.update(slot, this.#codec.decode(flat[i + 1]))) index.hold(slot);
    }
  }
}

const plain = { encode: (value: unknown) => value, decode: (payload: unknown) => payload };

class HashMapValueState<T, V> implements ValueState<T, V> {
  readonly #table: StateTable<unknown>;
  readonly #defaultValue: V;
  /** Apart, so that reading numbers never boxes them; NaN when the default is none. */
  readonly #defaultNumber: number;

  constructor(table: StateTable<unknown>, defaultValue: V) {
    this.#table = table;
    this.#defaultValue = defaultValue;
    this.#defaultNumber = typeof defaultValue === 'number' ? defaultValue : NaN;
  }

  value(): V {
    const value = this.#table.peek();
    if (typeof value === 'number') {
      if (value === value) return value as V;
      const number = this.#defaultNumber;
      return number === number ? (number as V) : this.#defaultValue;
    }
    return isRealNaN(value) ? (NaN as V) : (value as V);
  }

  update(value: T): void {
    this.#table.update(value);
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
    const owned = ownStrings(value, undefined) as T;
    if (list === undefined) this.#table.set([owned]);
    else list.push(owned);
  }

  addAll(values: Iterable<T>): void {
    for (const value of [...values]) this.add(value);
  }

  update(values: Iterable<T>): void {
    const list = Array.from(values, (value) => ownStrings(value, undefined) as T);
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
    const identity = identityOf(key);
    const ownKey = typeof identity === 'string' ? own(identity) : identity;
    const ownValue = ownStrings(value, undefined) as V;
    if (map === undefined) this.#table.set(new Map([[ownKey, ownValue]]));
    else map.set(ownKey, ownValue);
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
    const value = this.#table.peek();
    if (typeof value === 'number') return value === value ? (value as T) : undefined;
    return isRealNaN(value) ? (NaN as T) : (value as T);
  }

  add(value: T): void {
    const before = this.get();
    this.#table.update(before === undefined ? value : this.#reduce(before, value));
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
    return new HashMapValueState<T, V>(table, descriptor.defaultValue);
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
    codec: ValueCodec<V>,
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
