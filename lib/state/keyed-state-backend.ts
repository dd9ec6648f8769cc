/**
 * Keyed state of one operator subtask: named parts (states, timers, windows), each divided by key
 * group. The backend knows the current key and key group, takes snapshots (synchronously captured, then
 * written) and hands restored data to the parts as they are declared. What a job does not declare stays
 * encoded and is written again, so that nothing is lost by leaving a state out for a while.
 */
import { MillraceError } from '../base/errors.js';
import { decodeValue, encodeValue } from '../record/codec/value-codec.js';
import { keyGroupOf } from './key-group.js';
import { identityOf, keyOf, type KeyIdentity } from './key-identity.js';
import {
  checkSnapshotHeader,
  decodeSection,
  encodeSections,
  snapshotKind,
  type StateEntry,
} from './snapshot-format.js';
import type { SnapshotStorage } from './snapshot-storage.js';
import type { KeyedStateHandle, KeyGroupRange } from './state-handle.js';

/** One named thing that lives by key group. Its payload is plain data for the value codec. */
export interface KeyedStatePart {
  readonly name: string;
  /** What it is; a restored part of the same name must have the same kind. */
  readonly kind: string;
  /** Payloads by key group; key groups without any state are left out. */
  capture(): Map<number, unknown>;
  restore(keyGroup: number, payload: unknown): void;
}

export interface KeyedSnapshot {
  /** Resolves when durable; undefined when there is no state at all. */
  write(
    storage: SnapshotStorage,
    checkpointId: number,
    name: string,
  ): Promise<KeyedStateHandle | undefined>;
}

export class KeyedStateBackend {
  readonly range: KeyGroupRange;
  readonly maxParallelism: number;
  /** Identity of the current key; states read it for each access. */
  currentIdentity: KeyIdentity = null;
  /** Key group of the current key, relative to the start of the range. */
  currentGroupIndex = 0;
  #hasKey = false;
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

  /** RECORD_UNSUPPORTED for what cannot be a key; INVARIANT for a key of another subtask. */
  setCurrentKey(key: unknown): void {
    this.setCurrentKeyIn(identityOf(key), keyGroupOf(key, this.maxParallelism));
  }

  setCurrentKeyIn(identity: KeyIdentity, keyGroup: number): void {
    if (keyGroup < this.range.start || keyGroup > this.range.end) {
      const { start, end } = this.range;
      throw new MillraceError(
        'INVARIANT',
        `a key of key group ${keyGroup} reached the subtask of key groups ${start} to ${end}: the key selectors of the partitioning and of the operator disagree`,
      );
    }
    this.currentIdentity = identity;
    this.currentGroupIndex = keyGroup - this.range.start;
    this.#hasKey = true;
  }

  get currentKeyGroup(): number {
    return this.currentGroupIndex + this.range.start;
  }

  get currentKey(): unknown {
    this.checkKey();
    return keyOf(this.currentIdentity);
  }

  /** State is read and written only while a record or a timer is being handled. */
  checkKey(): void {
    if (!this.#hasKey) {
      throw new MillraceError('USER_FUNCTION', 'keyed state was used outside a record or timer');
    }
  }

  /** Ends the key's context, so that its use in open or close is found out. */
  clearCurrentKey(): void {
    this.#hasKey = false;
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
    return part;
  }

  /** Captures everything now; later changes are not part of it. */
  snapshot(): KeyedSnapshot {
    const groups = new Map<number, StateEntry[]>();
    const add = (keyGroup: number, entry: StateEntry): void => {
      const entries = groups.get(keyGroup);
      if (entries === undefined) groups.set(keyGroup, [entry]);
      else entries.push(entry);
    };
    for (const part of this.#parts.values()) {
      const { name, kind } = part;
      for (const [keyGroup, payload] of part.capture()) {
        add(keyGroup, { name, kind, bytes: encodeValue(payload, `state "${name}"`) });
      }
    }
    for (const byGroup of this.#undeclared.values()) {
      for (const [keyGroup, entry] of byGroup) add(keyGroup, entry);
    }
    const keyGroups = [...groups.keys()].sort((a, b) => a - b);
    const { data, places } = encodeSections(
      snapshotKind.keyed,
      keyGroups.map((keyGroup) => groups.get(keyGroup) ?? []),
    );
    const { range } = this;
    return {
      write: async (storage, checkpointId, name) => {
        if (keyGroups.length === 0) return undefined;
        const handle = await storage.write(checkpointId, name, data);
        const sections = places.map((place, i) => ({ keyGroup: keyGroups[i] ?? 0, ...place }));
        return { range, sections, data: handle };
      },
    };
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
