import type { Env } from '../base/env.js';
import type { SnapshotStorage } from '../state/snapshot-storage.js';
import type { Quantum } from './quantum.js';
import type { SlotPorts } from './slot-ports.js';

/** What a task needs of its slot. */
export interface TaskHost {
  readonly env: Env;
  readonly ports: SlotPorts;
  /** Where snapshots are written and read. */
  readonly storage: SnapshotStorage;
  readonly quantum: Quantum;
  /** There may be something to do. */
  wake(): void;
  /** Element 0: number of the task whose code runs, -1 for none; set by tasks around their own code. Typed: it is written for each direct call. */
  readonly running: Int32Array;
  /** A task reached a terminal state and its operators are closed. */
  onEnded(): void;
}
