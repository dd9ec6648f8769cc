/**
 * Timers of one time domain of one operator subtask: a set of (key, timestamp), fired in order of time
 * and, within a time, of registration. One list of timers per timestamp and a heap of the distinct timestamps: timers
 * of windows and of rounded times share lists, a timer of its own time is one row. A part of the
 * keyed state: keys are slots of the backend's index, which a timer holds.
 */
import { fmix32, hashKey } from '../state/key-group.js';
import { IntRows } from '../state/int-rows.js';
import { KeyCells } from '../state/key-cells.js';
import { KeyIndex } from '../state/key-index.js';
import type { KeyedStateBackend, KeyedStatePart } from '../state/keyed-state-backend.js';
import type { PartSnapshot } from '../state/keyed-snapshot.js';
import { NumberHeap } from './number-heap.js';
import { TimerSnapshot } from './timer-snapshot.js';

/** Columns of a timer. A freed row has the next free one in `next`. */
const slotOf = 0;
const next = 1;
const previous = 2;
/** How many snapshots had begun when it was registered. */
const bornAt = 3;

/** Columns of a timestamp's list. */
const head = 0;
const tail = 1;
const count = 2;

const none = -1;

/** Longer lists have a table from slots to timers, instead of being searched. */
const searchMax = 16;

export class TimerQueue implements KeyedStatePart {
  readonly name: string;
  readonly kind = 'timers';
  /** Timestamp of what `poll` took out last. */
  polledAt = 0;
  readonly #backend: KeyedStateBackend;
  readonly #timers = new IntRows(4);
  /** Rows in use or freed. */
  #timerLimit = 0;
  #freeTimer = none;
  /** Timestamps that have a list, perhaps an empty one; the slots of this index number the lists. */
  readonly #times = new KeyIndex();
  readonly #lists = new IntRows(3);
  /** By list, from slots: fmix32 gives each a hash of its own. */
  readonly #tables = new Map<number, KeyCells>();
  readonly #heap = new NumberHeap();
  /** Many timers are of the same time as the one before. */
  #recentTime = NaN;
  #recentList = none;
  #snapshotCount = 0;
  #snapshots: readonly TimerSnapshot[] = [];

  constructor(name: string, backend: KeyedStateBackend) {
    this.name = name;
    this.#backend = backend;
  }

  /** For the current key. Registering a timer that is there does nothing. */
  register(timestamp: number): void {
    let slot = this.#backend.currentSlot;
    if (slot < 0) slot = this.#backend.insertCurrent();
    this.#add(slot, timestamp);
  }

  /** For the current key. */
  delete(timestamp: number): void {
    const slot = this.#backend.currentSlot;
    if (slot < 0) return;
    const list = this.#times.find(timestamp, hashKey(timestamp));
    if (list < 0) return;
    const timer = this.#find(list, slot);
    if (timer < 0) return;
    this.#remove(list, timer);
    this.#backend.releaseCurrent();
  }

  /** Earliest timestamp that has a timer. */
  next(): number | undefined {
    for (;;) {
      const timestamp = this.#heap.peek();
      if (timestamp === undefined) return undefined;
      const list = this.#heap.peekValue();
      if (this.#lists.get(list, count) > 0) return timestamp;
      this.#heap.pop();
      this.#times.release(list);
      this.#tables.delete(list);
      this.#recentTime = NaN;
    }
  }

  /**
   * Takes the next timer at or before `limit` out: the slot of its key, -1 when there is none. The slot stays
   * held: release it in the index when the timer was handled.
   */
  poll(limit: number): number {
    const timestamp = this.next();
    if (timestamp === undefined || timestamp > limit) return none;
    this.polledAt = timestamp;
    const list = this.#heap.peekValue();
    const timer = this.#lists.get(list, head);
    const slot = this.#timers.get(timer, slotOf);
    this.#remove(list, timer);
    return slot;
  }

  snapshot(): PartSnapshot {
    this.#snapshotCount += 1;
    const timers = this.#timers;
    const bornBefore = this.#snapshotCount;
    const snapshot: TimerSnapshot = new TimerSnapshot({
      name: this.name,
      backend: this.#backend,
      listLimit: this.#times.limit,
      timerLimit: this.#timerLimit,
      firstOf: (list) => this.#lists.get(list, head),
      nextOf: (timer) => timers.get(timer, next),
      slotOf: (timer) => timers.get(timer, slotOf),
      isPart: (timer) => timers.get(timer, bornAt) < bornBefore,
      timeOf: (list) => this.#times.keyAt(list) as number,
      onEnd: () => {
        this.#snapshots = this.#snapshots.filter((other) => other !== snapshot);
      },
    });
    this.#snapshots = [...this.#snapshots, snapshot];
    return snapshot;
  }

  restore(_keyGroup: number, payload: unknown): void {
    const flat = payload as unknown[];
    const { index } = this.#backend;
    for (let i = 0; i < flat.length; i += 2) {
      const key = flat[i + 1];
      const hash = hashKey(key);
      const slot = index.find(key, hash);
      this.#add(slot < 0 ? index.insert(key, hash) : slot, flat[i] as number);
    }
  }

  #add(slot: number, timestamp: number): void {
    const list = this.#listAt(timestamp);
    if (this.#find(list, slot) >= 0) return;
    const timers = this.#timers;
    const lists = this.#lists;
    const timer = this.#allocate();
    const last = lists.get(list, tail);
    timers.set(timer, slotOf, slot);
    timers.set(timer, next, none);
    timers.set(timer, previous, last);
    timers.set(timer, bornAt, this.#snapshotCount);
    if (last < 0) lists.set(list, head, timer);
    else timers.set(last, next, timer);
    lists.set(list, tail, timer);
    const size = lists.get(list, count) + 1;
    lists.set(list, count, size);
    if (size > searchMax || this.#tables.size > 0) {
      this.#tableOf(list, size)?.insert(fmix32(slot), timer);
    }
    this.#backend.index.hold(slot);
  }

  #listAt(timestamp: number): number {
    if (timestamp === this.#recentTime) return this.#recentList;
    const hash = hashKey(timestamp);
    let list = this.#times.find(timestamp, hash);
    if (list < 0) {
      list = this.#times.insert(timestamp, hash);
      this.#times.hold(list);
      this.#lists.reach(list);
      this.#lists.set(list, head, none);
      this.#lists.set(list, tail, none);
      this.#lists.set(list, count, 0);
      this.#heap.push(timestamp, list);
    }
    this.#recentTime = timestamp;
    this.#recentList = list;
    return list;
  }

  /** The timer of a key in a list; -1 when there is none. */
  #find(list: number, slot: number): number {
    const table = this.#tables.size === 0 ? undefined : this.#tables.get(list);
    if (table !== undefined) return table.find(fmix32(slot));
    let timer = this.#lists.get(list, head);
    while (timer >= 0 && this.#timers.get(timer, slotOf) !== slot) {
      timer = this.#timers.get(timer, next);
    }
    return timer;
  }

  /** The table of a list that is or was long: made when it becomes so, with all timers but the last. */
  #tableOf(list: number, size: number): KeyCells | undefined {
    let table = this.#tables.get(list);
    if (table !== undefined || size <= searchMax) return table;
    table = new KeyCells();
    this.#tables.set(list, table);
    const last = this.#lists.get(list, tail);
    let timer = this.#lists.get(list, head);
    for (; timer !== last; timer = this.#timers.get(timer, next)) {
      table.insert(fmix32(this.#timers.get(timer, slotOf)), timer);
    }
    return table;
  }

  /** The slot stays held. */
  #remove(list: number, timer: number): void {
    for (const snapshot of this.#snapshots) snapshot.beforeRemoval(list, timer);
    const timers = this.#timers;
    const lists = this.#lists;
    const before = timers.get(timer, previous);
    const after = timers.get(timer, next);
    if (before < 0) lists.set(list, head, after);
    else timers.set(before, next, after);
    if (after < 0) lists.set(list, tail, before);
    else timers.set(after, previous, before);
    lists.set(list, count, lists.get(list, count) - 1);
    this.#tables.get(list)?.remove(fmix32(timers.get(timer, slotOf)), timer);
    timers.set(timer, next, this.#freeTimer);
    this.#freeTimer = timer;
  }

  #allocate(): number {
    const free = this.#freeTimer;
    if (free >= 0) {
      this.#freeTimer = this.#timers.get(free, next);
      return free;
    }
    const timer = this.#timerLimit;
    this.#timerLimit += 1;
    this.#timers.reach(timer);
    return timer;
  }
}
