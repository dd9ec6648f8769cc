/**
 * Operator state: named lists that belong to a subtask, not to a key (source splits, committables).
 * When the parallelism changes, the items of all old subtasks, in order, are dealt out in turn: item i to
 * subtask i mod parallelism. A `union` list then goes to every subtask whole. With unchanged parallelism
 * each subtask has its own items again. Lists a job does not declare are carried along.
 */
import { MillraceError } from '../base/errors.js';
import { decodeValue, encodeValue } from '../record/codec/value-codec.js';
import {
  checkSnapshotHeader,
  decodeOnlySection,
  encodeSections,
  snapshotKind,
  type StateEntry,
} from './snapshot-format.js';
import type { SnapshotStorage } from './snapshot-storage.js';
import type { StateHandle } from './state-handle.js';

export type ListMode = 'list' | 'union';

export interface OperatorSnapshot {
  /** Resolves when durable; undefined when all lists are empty. */
  write(
    storage: SnapshotStorage,
    checkpointId: number,
    name: string,
  ): Promise<StateHandle | undefined>;
}

interface RawList {
  readonly mode: ListMode;
  readonly items: Uint8Array[];
}

/** A named list; the operator sets it before (or while) a snapshot is taken. */
export class OperatorListState<T> {
  readonly name: string;
  readonly mode: ListMode;
  #items: readonly T[];

  constructor(name: string, mode: ListMode, items: readonly T[]) {
    this.name = name;
    this.mode = mode;
    this.#items = items;
  }

  get(): readonly T[] {
    return this.#items;
  }

  update(items: readonly T[]): void {
    this.#items = items;
  }
}

export class OperatorStateBackend {
  readonly #lists = new Map<string, OperatorListState<unknown>>();
  readonly #restored = new Map<string, RawList>();

  listState<T>(name: string, mode: ListMode = 'list'): OperatorListState<T> {
    const known = this.#lists.get(name);
    if (known !== undefined) return known as OperatorListState<T>;
    const raw = this.#restored.get(name);
    if (raw !== undefined && raw.mode !== mode) {
      throw new MillraceError(
        'CHECKPOINT_INCOMPATIBLE',
        `operator state "${name}" is a ${raw.mode} in the checkpoint and a ${mode} in the job`,
      );
    }
    const items = (raw?.items ?? []).map((bytes) => decodeValue(bytes) as T);
    const list = new OperatorListState<T>(name, mode, items);
    this.#restored.delete(name);
    this.#lists.set(name, list);
    return list;
  }

  /** Captures everything now. */
  snapshot(): OperatorSnapshot {
    const entries: StateEntry[] = [];
    const add = (name: string, mode: ListMode, items: readonly Uint8Array[]): void => {
      if (items.length > 0) entries.push({ name, kind: mode, bytes: encodeValue(items) });
    };
    for (const list of this.#lists.values()) {
      const what = `operator state "${list.name}"`;
      add(
        list.name,
        list.mode,
        list.get().map((item) => encodeValue(item, what)),
      );
    }
    for (const [name, { mode, items }] of this.#restored) add(name, mode, items);
    const { data } = encodeSections(snapshotKind.operator, [entries]);
    return {
      write: async (storage, checkpointId, name) =>
        entries.length === 0 ? undefined : storage.write(checkpointId, name, data),
    };
  }

  /**
   * Before any list is declared.
   * @param data files of this subtask (unchanged parallelism) or of all old subtasks in order
   * @param share undefined: take everything
   */
  restore(
    data: readonly Uint8Array[],
    share?: { readonly index: number; readonly parallelism: number },
  ): void {
    const all = new Map<string, RawList>();
    for (const bytes of data) {
      checkSnapshotHeader(bytes, snapshotKind.operator);
      for (const entry of decodeOnlySection(bytes)) {
        const list = all.get(entry.name) ?? { mode: entry.kind as ListMode, items: [] };
        for (const item of decodeValue(entry.bytes) as Uint8Array[]) list.items.push(item);
        all.set(entry.name, list);
      }
    }
    for (const [name, { mode, items }] of all) {
      const isDealt = share !== undefined && mode === 'list';
      const own = isDealt ? items.filter((_, i) => i % share.parallelism === share.index) : items;
      this.#restored.set(name, { mode, items: own });
    }
  }
}
