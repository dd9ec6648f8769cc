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
  /** The task's code is about to run; returns whose code ran before, to be handed to `leave`. */
  enter(task: TaskContext): TaskContext | undefined;
  leave(before: TaskContext | undefined): void;
  /** A task reached a terminal state and its operators are closed. */
  onEnded(): void;
}
