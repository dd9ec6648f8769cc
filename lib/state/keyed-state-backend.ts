/**
 * Keyed state of one operator subtask: named parts (states, timers, windows) over one index of its keys.
 * The backend knows the current key, begins snapshots (see keyed-snapshot.ts) and hands restored data to the parts as
 * they are declared. What a job does not declare stays encoded and is written again, so that nothing is lost by
 * leaving a state out for a while.
 */
import { InvariantError } from '../base/assert.js';
import { MillraceError } from '../base/errors.js';
import { decodeValue } from '../record/codec/value-codec.js';
import { hashKey, keyGroupOfHash } from './key-group.js';
import { canonicalKey, KeyIndex } from './key-index.js';
import { KeyedSnapshot, type PartSnapshot } from './keyed-snapshot.js';
import {
  checkSnapshotHeader,
  decodeSection,
  snapshotKind,
  type StateEntry,
} from './snapshot-format.js';
import type { KeyedStateHandle, KeyGroupRange } from './state-handle.js';

/** One named thing that lives by key group. Its payload is plain data for the value codec. */
export interface KeyedStatePart {
  readonly name: string;
  /** What it is; a restored part of the same name must have the same kind. */
  readonly kind: string;
  /** Begins a snapshot of what is there now: takes no time to speak of, whatever the size. */
  snapshot(): PartSnapshot;
  restore(keyGroup: number, payload: unknown): void;
}

/** `currentSlot` of a key that has no slot yet, and without a key. */
const noSlot = -1;
const noKey = -2;

export class KeyedStateBackend {
  readonly range: KeyGroupRange;
  readonly maxParallelism: number;
  /** Keys that have state or timers. */
  readonly index = new KeyIndex();
  /** Slot of the current key; negative when it has none yet or there is no key. States read it for each access. */
  currentSlot = noKey;
  #key: unknown;
  #hash = 0;
  readonly #parts = new Map<string, KeyedStatePart>();
  /** Restored and not declared yet: by name, then key group. */
  readonly #undeclared = new Map<string, Map<number, StateEntry>>();

  constructor(range: KeyGroupRange, maxParallelism: number) {
    this.range = range;
    this.maxParallelism = maxParallelism;
  }

  get groupCount(): number {
    return this.range.end - this.range.start + 1;
  }

  /**
   * RECORD_UNSUPPORTED for what cannot be a key; INVARIANT for a key of another subtask, which is checked
   * as long as the key has no state.
   * @param hash `hashKey(key)`, where it is known
   */
  setCurrentKey(key: unknown, hash = hashKey(key)): void {
    const slot = this.index.find(key, hash);
    if (slot < 0) this.checkOwned(hash);
    this.currentSlot = slot;
    this.#key = key;
    this.#hash = hash;
  }

  /** The current key becomes the one that holds the slot. */
  setCurrentSlot(slot: number): void {
    this.currentSlot = slot;
    this.#key = this.index.keyAt(slot);
    this.#hash = this.index.hashAt(slot);
  }

  /** INVARIANT for (the hash of) a key of another subtask, which a snapshot would lose. */
  checkOwned(hash: number): void {
    const keyGroup = keyGroupOfHash(hash, this.maxParallelism);
    const { start, end } = this.range;
    if (keyGroup >= start && keyGroup <= end) return;
    throw new InvariantError(
      `a key of key group ${keyGroup} reached the subtask of key groups ${start} to ${end}: the key selectors of the partitioning and of the operator disagree, or do not always give the same key`,
    );
  }

  /** Gives the current key a slot, which it has not. INVARIANT or USER_FUNCTION as above. */
  insertCurrent(): number {
    this.checkKey();
    const slot = this.index.insert(this.#key, this.#hash);
    this.currentSlot = slot;
    return slot;
  }

  /** A state of the current key has no value any more. */
  releaseCurrent(): void {
    if (this.index.release(this.currentSlot)) this.currentSlot = noSlot;
  }

  get currentKey(): unknown {
    this.checkKey();
    const key = this.#key;
    if (typeof key === 'object') return canonicalKey(key);
    return key === 0 ? 0 : key;
  }

  /** State is read and written only while a record or a timer is being handled. */
  checkKey(): void {
    if (this.currentSlot === noKey) {
      throw new MillraceError('USER_FUNCTION', 'keyed state was used outside a record or timer');
    }
  }

  /** Ends the key's context, so that its use in open or close is found out. */
  clearCurrentKey(): void {
    this.currentSlot = noKey;
  }

  /** Key group of a slot, relative to the start of the range. */
  groupOf(slot: number): number {
    return keyGroupOfHash(this.index.hashAt(slot), this.maxParallelism) - this.range.start;
  }

  /** The part declared under this name, if any. */
  part(name: string): KeyedStatePart | undefined {
    return this.#parts.get(name);
  }

  /** Adds a part and gives it what was restored under its name. */
  declare<P extends KeyedStatePart>(part: P): P {
    if (this.#parts.has(part.name)) {
      throw new MillraceError('JOB_INVALID', `state "${part.name}" is declared twice`);
    }
    const restored = this.#undeclared.get(part.name) ?? new Map<number, StateEntry>();
    for (const [keyGroup, entry] of restored) {
      if (entry.kind !== part.kind) {
        throw new MillraceError(
          'CHECKPOINT_INCOMPATIBLE',
          `state "${part.name}" is ${entry.kind} state in the checkpoint and ${part.kind} state in the job; give the new state another name`,
        );
      }
      part.restore(keyGroup, decodeValue(entry.bytes));
    }
    this.#undeclared.delete(part.name);
    this.#parts.set(part.name, part);
    // A part declared while a record is handled may have restored the current key.
    if (this.currentSlot === noSlot) this.currentSlot = this.index.find(this.#key, this.#hash);
    return part;
  }

  /** Begins a snapshot of everything; later changes are not part of it. */
  snapshot(): KeyedSnapshot {
    const parts = Array.from(this.#parts.values(), (part) => part.snapshot());
    return new KeyedSnapshot(this.range, parts, [...this.#undeclared.values()]);
  }

  /** Before any part is declared. Takes the key groups of its own range and leaves the others. */
  restore(handle: KeyedStateHandle, data: Uint8Array): void {
    checkSnapshotHeader(data, snapshotKind.keyed);
    for (const { keyGroup, offset, length } of handle.sections) {
      if (keyGroup < this.range.start || keyGroup > this.range.end) continue;
      for (const entry of decodeSection(data, offset, length)) {
        const byGroup = this.#undeclared.get(entry.name) ?? new Map<number, StateEntry>();
        if (byGroup.has(keyGroup)) {
          throw new MillraceError(
            'CHECKPOINT_CORRUPT',
            `state "${entry.name}" has key group ${keyGroup} twice`,
          );
        }
        byGroup.set(keyGroup, entry);
        this.#undeclared.set(entry.name, byGroup);
      }
    }
  }
}
