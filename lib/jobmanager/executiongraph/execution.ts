/** One attempt of a subtask: plain data of the execution graph. */
import { checkTransition, isTerminal } from '../../base/transitions.js';
import type { AllocationId, AttemptId, TaskManagerId } from '../../base/ids.js';
import { executionTransitions, type ExecutionState } from '../../gateway/execution-state.js';

/** A slot of a TaskManager that a job holds. */
export interface SlotLocation {
  readonly allocationId: AllocationId;
  readonly taskManagerId: TaskManagerId;
  /** `host:port` of the TaskManager's data plane. */
  readonly dataAddress: string;
}

export interface Execution {
  readonly attemptId: AttemptId;
  /** 0-based count of executions of this subtask in this JobMaster. */
  readonly attemptNumber: number;
  readonly generation: number;
  state: ExecutionState;
  location: SlotLocation | undefined;
  /** It has processed all its input and waits for a final checkpoint. */
  endOfData: boolean;
  /** Wall-clock ms at which each state was entered. */
  readonly timestamps: Partial<Record<ExecutionState, number>>;
}

export function isExecutionTerminal(state: ExecutionState): boolean {
  return isTerminal(executionTransitions, state);
}

export function canTransition(from: ExecutionState, to: ExecutionState): boolean {
  return executionTransitions[from].includes(to);
}

export function transitionExecution(
  execution: Execution,
  to: ExecutionState,
  wallTime: number,
): void {
  checkTransition(`execution ${execution.attemptId}`, executionTransitions, execution.state, to);
  execution.state = to;
  execution.timestamps[to] = wallTime;
}
