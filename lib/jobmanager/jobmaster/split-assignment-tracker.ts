/**
 * Splits handed out since the last completed checkpoint (FLIP-27's SplitAssignmentTracker): those of a
 * restarted reader that the restored checkpoint does not cover go back to the enumerator, in order.
 */
export class SplitAssignmentTracker {
  /** Since the last snapshot of the enumerator, by subtask. */
  #uncheckpointed = new Map<number, unknown[]>();
  /** By the checkpoint whose snapshot covers them, ascending. */
  readonly #byCheckpoint = new Map<number, Map<number, unknown[]>>();

  record(subtask: number, splits: readonly unknown[]): void {
    const known = this.#uncheckpointed.get(subtask);
    if (known === undefined) this.#uncheckpointed.set(subtask, [...splits]);
    else known.push(...splits);
  }

  /** The enumerator's snapshot was taken: what was assigned before belongs to this checkpoint. */
  onSnapshot(checkpointId: number): void {
    this.#byCheckpoint.set(checkpointId, this.#uncheckpointed);
    this.#uncheckpointed = new Map();
  }

  onCheckpointComplete(checkpointId: number): void {
    for (const id of this.#byCheckpoint.keys())
      if (id <= checkpointId) this.#byCheckpoint.delete(id);
  }

  /** Takes out what was assigned to the subtask and is not in the restored checkpoint. */
  takeBack(subtask: number, restoredCheckpointId: number | undefined): unknown[] {
    const taken: unknown[] = [];
    for (const [id, assignments] of this.#byCheckpoint) {
      if (restoredCheckpointId === undefined || id > restoredCheckpointId) {
        taken.push(...(assignments.get(subtask) ?? []));
      }
      assignments.delete(subtask);
    }
    taken.push(...(this.#uncheckpointed.get(subtask) ?? []));
    this.#uncheckpointed.delete(subtask);
    return taken;
  }

  clear(): void {
    this.#uncheckpointed = new Map();
    this.#byCheckpoint.clear();
  }
}
