/**
 * Slot sharing (pure): subtask i of every vertex of a group shares slot i, so a job needs as many slots
 * as the sum over its groups of the highest parallelism, and a slot holds a whole pipeline.
 */
import type { ExecutionTopology } from './execution-topology.js';

export interface SharedSlot {
  /** `<group>/<index>`: names the slot within its job, over all generations. */
  readonly key: string;
  /** Positions of its subtasks, in topological order. */
  readonly positions: readonly number[];
}

export function shareSlots(topology: ExecutionTopology): SharedSlot[] {
  const groups = new Map<string, number[][]>();
  for (const { position, vertex, subtaskIndex } of topology.subtasks) {
    const slots = groups.get(vertex.slotSharingGroup) ?? [];
    groups.set(vertex.slotSharingGroup, slots);
    const slot = slots[subtaskIndex];
    if (slot === undefined) slots[subtaskIndex] = [position];
    else slot.push(position);
  }
  return [...groups].flatMap(([group, slots]) =>
    slots.map((positions, index) => ({ key: `${group}/${String(index)}`, positions })),
  );
}
