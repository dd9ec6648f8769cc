/**
 * The slots of a TaskManager and whose they are. Invariants: a slot belongs to at most one allocation, an
 * allocation to exactly one slot and one job, and a slot has at most one thread, which lives as long as
 * one deployment. The driver (task-executor.ts) starts and ends threads as the effects say.
 */
import type { ErrorCode } from '../base/error-codes.js';
import type { AllocationId, AttemptId, JobId } from '../base/ids.js';
import { checkTransition, defineTransitions, isTerminal } from '../base/transitions.js';
import { executionTransitions, type ExecutionState } from '../gateway/execution-state.js';
import type { SlotReport } from '../gateway/taskmanager-gateway.js';

/** allocated: reserved, without a thread; active: its thread runs; releasing: the thread ends, then the slot is free. */
export type SlotState = 'free' | 'allocated' | 'active' | 'releasing';

export const slotTransitions = defineTransitions<SlotState>({
  free: ['allocated'],
  allocated: ['active', 'free'],
  active: ['allocated', 'releasing'],
  releasing: ['free'],
});

export type SlotTableInput =
  | {
      readonly kind: 'slotRequested';
      readonly slotIndex: number;
      readonly jobId: JobId;
      readonly allocationId: AllocationId;
    }
  | {
      readonly kind: 'tasksSubmitted';
      readonly jobId: JobId;
      readonly allocationId: AllocationId;
      readonly attemptIds: readonly AttemptId[];
    }
  | {
      readonly kind: 'taskStateReported';
      readonly allocationId: AllocationId;
      readonly attemptId: AttemptId;
      readonly state: ExecutionState;
    }
  /** Nothing of the slot's thread is left; attempts that had not ended failed with it. */
  | { readonly kind: 'threadEnded'; readonly allocationId: AllocationId }
  | { readonly kind: 'slotFreed'; readonly allocationId: AllocationId };

export type SlotTableEffect =
  | { readonly kind: 'startThread'; readonly slotIndex: number }
  | { readonly kind: 'endThread'; readonly allocationId: AllocationId }
  /** The state of an attempt changed: tell the leader. */
  | {
      readonly kind: 'reportState';
      readonly jobId: JobId;
      readonly attemptId: AttemptId;
      readonly state: ExecutionState;
    }
  | { readonly kind: 'refuse'; readonly code: ErrorCode; readonly message: string };

interface Slot {
  readonly slotIndex: number;
  state: SlotState;
  allocationId: AllocationId | undefined;
  jobId: JobId | undefined;
  /** Of the latest deployment; kept after they ended, for the report. */
  attempts: Map<AttemptId, ExecutionState>;
}

export class TaskSlotTable {
  readonly #slots: readonly Slot[];

  constructor(slotCount: number) {
    this.#slots = Array.from({ length: slotCount }, (_, slotIndex) => ({
      slotIndex,
      state: 'free' as const,
      allocationId: undefined,
      jobId: undefined,
      attempts: new Map<AttemptId, ExecutionState>(),
    }));
  }

  step(input: SlotTableInput): SlotTableEffect[] {
    switch (input.kind) {
      case 'slotRequested':
        return this.#onSlotRequested(input);
      case 'tasksSubmitted':
        return this.#onTasksSubmitted(input);
      case 'taskStateReported':
        return this.#onTaskState(input);
      case 'threadEnded':
        return this.#onThreadEnded(input.allocationId);
      case 'slotFreed':
        return this.#onSlotFreed(input.allocationId);
    }
  }

  /** What the leader is told. */
  report(): SlotReport {
    return {
      slots: this.#slots.map((slot) => ({
        slotIndex: slot.slotIndex,
        ...(slot.allocationId !== undefined && { allocationId: slot.allocationId }),
        ...(slot.jobId !== undefined && { jobId: slot.jobId }),
        attempts: [...slot.attempts].map(([attemptId, state]) => ({ attemptId, state })),
      })),
    };
  }

  allocations(): AllocationId[] {
    return this.#slots.flatMap(({ allocationId }) => allocationId ?? []);
  }

  /** How many slots are in a state. */
  count(state: SlotState): number {
    return this.#slots.filter((slot) => slot.state === state).length;
  }

  state(slotIndex: number): SlotState | undefined {
    return this.#slots[slotIndex]?.state;
  }

  /** Attempts of a slot that have not ended. */
  liveAttempts(allocationId: AllocationId): AttemptId[] {
    const slot = this.#find(allocationId);
    if (slot === undefined) return [];
    return [...slot.attempts].flatMap(([attemptId, state]) =>
      isTerminal(executionTransitions, state) ? [] : attemptId,
    );
  }

  /** Whether the allocation is this job's and its latest deployment has exactly these attempts, ended ones included. */
  holds(allocationId: AllocationId, jobId: JobId, attemptIds: readonly AttemptId[]): boolean {
    const slot = this.#find(allocationId);
    if (slot?.jobId !== jobId || slot.state === 'releasing') return false;
    const wanted = new Set(attemptIds);
    return wanted.size === slot.attempts.size && [...wanted].every((id) => slot.attempts.has(id));
  }

  /** Whether every task of the latest deployment ended well. */
  hasFinished(allocationId: AllocationId): boolean {
    const states = [...(this.#find(allocationId)?.attempts.values() ?? [])];
    return states.length > 0 && states.every((state) => state === 'FINISHED');
  }

  /** The slot an attempt of the latest deployment runs in. */
  allocationOf(attemptId: AttemptId): AllocationId | undefined {
    return this.#slots.find((slot) => slot.attempts.has(attemptId))?.allocationId;
  }

  #onSlotRequested(input: SlotTableInput & { kind: 'slotRequested' }): SlotTableEffect[] {
    const { slotIndex, allocationId, jobId } = input;
    const slot = this.#slots[slotIndex];
    if (slot === undefined) {
      return [refuse(`there is no slot ${slotIndex}: this TaskManager has ${this.#slots.length}`)];
    }
    const elsewhere = this.#find(allocationId);
    if (elsewhere === slot && slot.jobId === jobId) return []; // A repetition.
    if (elsewhere !== undefined) {
      return [refuse(`allocation ${allocationId} already has slot ${elsewhere.slotIndex}`)];
    }
    if (slot.state !== 'free') {
      return [refuse(`slot ${slotIndex} is ${slot.state} for job ${String(slot.jobId)}`)];
    }
    this.#enter(slot, 'allocated');
    slot.allocationId = allocationId;
    slot.jobId = jobId;
    return [];
  }

  #onTasksSubmitted(input: SlotTableInput & { kind: 'tasksSubmitted' }): SlotTableEffect[] {
    const slot = this.#find(input.allocationId);
    if (slot?.jobId !== input.jobId) {
      return [refuse(`allocation ${input.allocationId} holds no slot here for that job`)];
    }
    if (slot.state !== 'allocated') {
      return [
        refuse(`slot ${slot.slotIndex} is ${slot.state}: its tasks must end before new ones`),
      ];
    }
    this.#enter(slot, 'active');
    slot.attempts = new Map(input.attemptIds.map((id) => [id, 'DEPLOYING']));
    return [{ kind: 'startThread', slotIndex: slot.slotIndex }];
  }

  /** A report that is not a legal next step is old news (a thread that was ended) and is dropped. */
  #onTaskState(input: SlotTableInput & { kind: 'taskStateReported' }): SlotTableEffect[] {
    const slot = this.#find(input.allocationId);
    const known = slot?.attempts.get(input.attemptId);
    if (slot?.jobId === undefined || known === undefined) return [];
    if (!executionTransitions[known].includes(input.state)) return [];
    slot.attempts.set(input.attemptId, input.state);
    const { attemptId, state } = input;
    return [{ kind: 'reportState', jobId: slot.jobId, attemptId, state }];
  }

  #onThreadEnded(allocationId: AllocationId): SlotTableEffect[] {
    const slot = this.#find(allocationId);
    if (slot === undefined) return [];
    if (slot.state === 'releasing') this.#clear(slot);
    else if (slot.state === 'active') this.#enter(slot, 'allocated');
    return [];
  }

  #onSlotFreed(allocationId: AllocationId): SlotTableEffect[] {
    const slot = this.#find(allocationId);
    if (slot === undefined || slot.state === 'releasing') return []; // Idempotent.
    if (slot.state === 'allocated') {
      this.#clear(slot);
      return [];
    }
    this.#enter(slot, 'releasing');
    return [{ kind: 'endThread', allocationId }];
  }

  #clear(slot: Slot): void {
    this.#enter(slot, 'free');
    slot.allocationId = undefined;
    slot.jobId = undefined;
    slot.attempts = new Map();
  }

  #enter(slot: Slot, state: SlotState): void {
    checkTransition(`slot ${slot.slotIndex}`, slotTransitions, slot.state, state);
    slot.state = state;
  }

  #find(allocationId: AllocationId): Slot | undefined {
    return this.#slots.find((slot) => slot.allocationId === allocationId);
  }
}

function refuse(message: string): SlotTableEffect {
  return { kind: 'refuse', code: 'CONFLICT', message };
}
