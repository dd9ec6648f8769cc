/**
 * Timers of one time domain of one operator subtask: a set of (key, timestamp), fired in order of time
 * and, within a time, of registration. Buckets by timestamp and a heap of the distinct timestamps: timers
 * of windows and of rounded times share buckets (performance.md G). A part of the keyed state.
 */
import { identityOf, keyOf, type KeyIdentity } from '../state/key-identity.js';
import { keyGroupOf } from '../state/key-group.js';
import type { KeyedStatePart } from '../state/keyed-state-backend.js';
import { NumberHeap } from './number-heap.js';

export interface FiredTimer {
  readonly timestamp: number;
  readonly identity: KeyIdentity;
  readonly keyGroup: number;
}

interface Bucket {
  /** Key group by key. */
  readonly timers: Map<KeyIdentity, number>;
  /** Kept over calls: a new iterator would step over everything deleted before it, each time. */
  iterator: IterableIterator<[KeyIdentity, number]> | undefined;
}

export class TimerQueue implements KeyedStatePart {
  readonly name: string;
  readonly kind = 'timers';
  readonly #maxParallelism: number;
  readonly #buckets = new Map<number, Bucket>();
  /** Timestamps that have a bucket, perhaps an empty one. */
  readonly #timestamps = new NumberHeap();

  constructor(name: string, maxParallelism: number) {
    this.name = name;
    this.#maxParallelism = maxParallelism;
  }

  /** Registering a timer that is there does nothing. */
  register(identity: KeyIdentity, keyGroup: number, timestamp: number): void {
    let bucket = this.#buckets.get(timestamp);
    if (bucket === undefined) {
      bucket = { timers: new Map(), iterator: undefined };
      this.#buckets.set(timestamp, bucket);
      this.#timestamps.push(timestamp);
    }
    bucket.timers.set(identity, keyGroup);
  }

  delete(identity: KeyIdentity, timestamp: number): void {
    this.#buckets.get(timestamp)?.timers.delete(identity);
  }

  /** Earliest timestamp that has a timer. */
  next(): number | undefined {
    for (;;) {
      const timestamp = this.#timestamps.peek();
      if (timestamp === undefined) return undefined;
      if (this.#buckets.get(timestamp)!.timers.size > 0) return timestamp;
      this.#timestamps.pop();
      this.#buckets.delete(timestamp);
    }
  }

  /** Takes the next timer at or before `limit` out. */
  poll(limit: number): FiredTimer | undefined {
    const timestamp = this.next();
    if (timestamp === undefined || timestamp > limit) return undefined;
    const bucket = this.#buckets.get(timestamp)!;
    bucket.iterator ??= bucket.timers.entries();
    let step = bucket.iterator.next();
    if (step.done === true) {
      // An exhausted iterator stays so, though timers were added after it ended.
      bucket.iterator = bucket.timers.entries();
      step = bucket.iterator.next();
    }
    const [identity, keyGroup] = step.value as [KeyIdentity, number];
    bucket.timers.delete(identity);
    return { timestamp, identity, keyGroup };
  }

  capture(): Map<number, unknown> {
    const groups = new Map<number, unknown[]>();
    for (const [timestamp, { timers }] of this.#buckets) {
      for (const [identity, keyGroup] of timers) {
        const flat = groups.get(keyGroup);
        if (flat === undefined) groups.set(keyGroup, [timestamp, keyOf(identity)]);
        else flat.push(timestamp, keyOf(identity));
      }
    }
    return groups;
  }

  restore(_keyGroup: number, payload: unknown): void {
    const flat = payload as unknown[];
    for (let i = 0; i < flat.length; i += 2) {
      const key = flat[i + 1];
      this.register(identityOf(key), keyGroupOf(key, this.#maxParallelism), flat[i] as number);
    }
  }
}
