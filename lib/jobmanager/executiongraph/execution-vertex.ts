/** One subtask over all its attempts. */
import type { TopologySubtask } from './execution-topology.js';
import type { Execution } from './execution.js';

export interface ExecutionVertex {
  readonly subtask: TopologySubtask;
  /** Key of the shared slot it always runs in. */
  readonly slotKey: string;
  /** Undefined until the first scheduling. */
  current: Execution | undefined;
  attempts: number;
}

/** `window (2/4)`: what people see, 1-based as in Flink. */
export function taskName({ subtask }: ExecutionVertex): string {
  const { vertex, subtaskIndex } = subtask;
  return `${vertex.name} (${String(subtaskIndex + 1)}/${String(vertex.parallelism)})`;
}
