import type { Env } from '../base/env.js';
import type { Quantum } from './quantum.js';
import type { SlotPorts, TaskContext } from './slot-ports.js';

/** What a task needs of its slot. */
export interface TaskHost {
  readonly env: Env;
  readonly ports: SlotPorts;
  readonly quantum: Quantum;
  /** There may be something to do. */
  wake(): void;
  /** The task whose code runs; set by tasks around their own code. */
  current: TaskContext | undefined;
  /** A task reached a terminal state and its operators are closed. */
  onEnded(): void;
}
