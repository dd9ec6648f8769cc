/**
 * Which slots restart after a failure (pure): those of the failed subtask's region, widened to the
 * regions that share a slot with it, since a failed task replaces its whole slot thread.
 */
import type { ExecutionTopology } from './execution-topology.js';
import { DisjointSets, uniteChannels } from './pipelined-regions.js';
import type { SharedSlot } from './slot-sharing.js';

export class FailoverStrategy {
  readonly #slotsOf: ReadonlyMap<string, readonly string[]>;

  constructor(topology: ExecutionTopology, slots: readonly SharedSlot[]) {
    const sets = new DisjointSets(topology.subtasks.length);
    uniteChannels(topology, sets);
    for (const { positions } of slots) {
      for (const position of positions) sets.unite(positions[0] ?? position, position);
    }
    const keysByRoot = new Map<number, string[]>();
    for (const { key, positions } of slots) {
      const root = sets.find(positions[0] ?? 0);
      const keys = keysByRoot.get(root);
      if (keys === undefined) keysByRoot.set(root, [key]);
      else keys.push(key);
    }
    this.#slotsOf = new Map(
      [...keysByRoot.values()].flatMap((keys) => keys.map((key) => [key, keys])),
    );
  }

  /** Keys of the slots to restart when the tasks of `slotKey` fail, itself included. */
  slotsToRestart(slotKey: string): readonly string[] {
    return this.#slotsOf.get(slotKey) ?? [slotKey];
  }
}
