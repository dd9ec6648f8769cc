/**
 * What a new leader must know of the attempts of this TaskManager to go on with them, noted from what passes by between
 * the old leader and the tasks: it is complete also when there was nobody to tell. Pure.
 *
 * Splits are kept until a checkpoint that covers them completes. While none does the list grows with each split given,
 * as the enumerator's own list of splits that may come back does.
 */
import type { Failure } from '../base/errors.js';
import type { AllocationId, AttemptId, JobId, OperatorId } from '../base/ids.js';
import { isTerminal } from '../base/transitions.js';
import { executionTransitions, type ExecutionState } from '../gateway/execution-state.js';
import type { AttemptInventory, ReaderInventory } from '../gateway/taskmanager-gateway.js';
import type { SlotDeployment } from '../gateway/task-deployment-descriptor.js';
import type { OperatorEvent } from '../operators/stream-operator.js';

interface Reader {
  isRegistered: boolean;
  awaitsSplit: boolean;
  noMoreSplits: boolean;
  given: { readonly after: number; readonly splits: readonly unknown[] }[];
}

interface Attempt {
  readonly attemptId: AttemptId;
  readonly jobId: JobId;
  readonly allocationId: AllocationId;
  readonly slotIndex: number;
  state: ExecutionState;
  failure: Failure | undefined;
  /** The highest it acknowledged or was restored from. */
  lastCheckpointId: number;
  /** The highest it was told is complete, or was restored from. */
  completedCheckpointId: number;
  /** The latest it was told to begin, or the one it was restored from. */
  lastTriggeredId: number;
  endOfData: boolean;
  readonly readers: Map<OperatorId, Reader>;
}

export class AttemptInventories {
  readonly #attempts = new Map<AttemptId, Attempt>();

  /** Takes the place of what the slot ran before. */
  deployed(deployment: SlotDeployment, slotIndex: number): void {
    const { jobId, allocationId, tasks } = deployment;
    this.forget(allocationId);
    for (const { attemptId, vertex, restore } of tasks) {
      const restoredId = restore?.checkpointId ?? 0;
      const sources = vertex.operators.filter(({ kind }) => kind === 'source');
      this.#attempts.set(attemptId, {
        attemptId,
        jobId,
        allocationId,
        slotIndex,
        state: 'DEPLOYING',
        failure: undefined,
        lastCheckpointId: restoredId,
        completedCheckpointId: restoredId,
        lastTriggeredId: restoredId,
        endOfData: false,
        readers: new Map(sources.map(({ id }) => [id, newReader()])),
      });
    }
  }

  forget(allocationId: AllocationId): void {
    for (const attempt of this.#attempts.values()) {
      if (attempt.allocationId === allocationId) this.#attempts.delete(attempt.attemptId);
    }
  }

  /** They are asked to end, and say so when they have. */
  canceling(allocationId: AllocationId): void {
    for (const attempt of this.#attempts.values()) {
      if (attempt.allocationId !== allocationId) continue;
      if (!isTerminal(executionTransitions, attempt.state)) attempt.state = 'CANCELING';
    }
  }

  // ---- What tasks say --------------------------------------------------------------------------

  stateChanged(attemptId: AttemptId, state: ExecutionState, failure: Failure | undefined): void {
    const attempt = this.#attempts.get(attemptId);
    if (attempt === undefined) return;
    attempt.state = state;
    attempt.failure = failure;
  }

  acknowledged(attemptId: AttemptId, checkpointId: number): void {
    const attempt = this.#attempts.get(attemptId);
    if (attempt === undefined) return;
    attempt.lastCheckpointId = Math.max(attempt.lastCheckpointId, checkpointId);
  }

  endOfData(attemptId: AttemptId): void {
    const attempt = this.#attempts.get(attemptId);
    if (attempt !== undefined) attempt.endOfData = true;
  }

  fromReader(attemptId: AttemptId, operatorId: OperatorId, event: OperatorEvent): void {
    const reader = this.#reader(attemptId, operatorId);
    if (reader === undefined) return;
    if (event.kind === 'readerRegistered') reader.isRegistered = true;
    else if (event.kind === 'requestSplit') reader.awaitsSplit = true;
  }

  // ---- What the leader says --------------------------------------------------------------------

  /** Sources are where checkpoints begin: a trigger is the place of the snapshot among the events of the reader. */
  triggered(attemptId: AttemptId, checkpointId: number): void {
    const attempt = this.#attempts.get(attemptId);
    if (attempt === undefined) return;
    attempt.lastTriggeredId = Math.max(attempt.lastTriggeredId, checkpointId);
  }

  /** The event was handed to the task. */
  toReader(attemptId: AttemptId, operatorId: OperatorId, event: OperatorEvent): void {
    const after = this.#attempts.get(attemptId)?.lastTriggeredId ?? 0;
    const reader = this.#reader(attemptId, operatorId);
    if (reader === undefined) return;
    if (event.kind === 'addSplits') reader.given.push({ after, splits: event.splits });
    else if (event.kind === 'noMoreSplits') reader.noMoreSplits = true;
    else return;
    reader.awaitsSplit = false;
  }

  /** Its state holds the splits that came before its trigger. */
  completed(attemptId: AttemptId, checkpointId: number): void {
    const attempt = this.#attempts.get(attemptId);
    if (attempt === undefined) return;
    attempt.completedCheckpointId = Math.max(attempt.completedCheckpointId, checkpointId);
    for (const reader of attempt.readers.values()) {
      if (reader.given.some(({ after }) => after < checkpointId)) {
        reader.given = reader.given.filter(({ after }) => after >= checkpointId);
      }
    }
  }

  // ---- What a new leader asks -------------------------------------------------------------------

  of(jobId: JobId): AttemptInventory[] {
    return [...this.#attempts.values()].filter((one) => one.jobId === jobId).map(toInventory);
  }

  #reader(attemptId: AttemptId, operatorId: OperatorId): Reader | undefined {
    return this.#attempts.get(attemptId)?.readers.get(operatorId);
  }
}

function newReader(): Reader {
  return { isRegistered: false, awaitsSplit: false, noMoreSplits: false, given: [] };
}

function toInventory(attempt: Attempt): AttemptInventory {
  const { attemptId, allocationId, slotIndex, state, failure } = attempt;
  const { lastCheckpointId, completedCheckpointId, endOfData, readers } = attempt;
  return {
    attemptId,
    allocationId,
    slotIndex,
    state,
    ...(failure !== undefined && { failure }),
    lastCheckpointId,
    completedCheckpointId,
    endOfData,
    readers: Object.fromEntries(
      [...readers].map(([operatorId, reader]): [string, ReaderInventory] => [
        operatorId,
        { ...reader, given: [...reader.given] },
      ]),
    ),
  };
}
