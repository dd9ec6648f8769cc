/**
 * Decides when a checkpoint of a job is triggered and what becomes of it. One machine per job and
 * leadership. Invariants: pointers are added in ascending order of ids and one at a time; tasks are told
 * of completion only after the pointer is stored; nothing that a stored pointer, or one whose outcome is
 * not known, refers to is deleted; between stop and start nothing is triggered.
 */
import { MillraceError, toFailure, type Failure } from '../../lib/base/errors.js';
import type { AttemptId, OperatorId } from '../../lib/base/ids.js';
import { checkTransition, defineTransitions } from '../../lib/base/transitions.js';
import { stateHandles } from '../../lib/state/state-handle.js';
import {
  checkpointFailureReasons,
  exceedsTolerance,
  type CheckpointFailureReason,
} from '../failure-reason.js';
import type { CheckpointPointer, CheckpointSettings, CheckpointSubtask } from '../types.js';
import { isEndOfData, planCheckpoint, type CheckpointPlan } from './checkpoint-plan.js';
import type { CoordinatorEffect, CoordinatorInput } from './coordinator-messages.js';
import { PendingCheckpoint, type PendingJob } from './pending-checkpoint.js';

/** IDLE: not all tasks run. ACTIVE: checkpoints are triggered. HALTED: leadership is over. */
export type CoordinatorState = 'IDLE' | 'ACTIVE' | 'HALTED' | 'CLOSED';

export const coordinatorTransitions = defineTransitions<CoordinatorState>({
  IDLE: ['ACTIVE', 'HALTED', 'CLOSED'],
  ACTIVE: ['IDLE', 'HALTED', 'CLOSED'],
  HALTED: ['CLOSED'],
  CLOSED: [],
});

/** Wait before the next try of something that is worth trying soon: 100 ms doubling up to 10 s. */
function retryDelay(attempt: number): number {
  return Math.min(10_000, 100 * 2 ** Math.min(attempt, 10));
}

const rememberedAborts = 64;

/** Codes with which an add, or the taking of an id, says that this leadership is over. */
function saysLeadershipLost(failure: Failure): boolean {
  return failure.code === 'LEADERSHIP_LOST' || failure.code === 'STALE_EPOCH';
}

/** When a pending checkpoint needs attention. What is stored no longer expires: only the pointer store is awaited. */
function dueAt(pending: PendingCheckpoint): number {
  if (pending.state === 'COMMITTING') return pending.addAgainAt ?? Infinity;
  return pending.state === 'STORED' ? Infinity : pending.deadline;
}

export class CheckpointCoordinatorMachine {
  readonly #job: PendingJob;
  readonly #settings: CheckpointSettings;
  readonly #taskCount: number;
  #state: CoordinatorState = 'IDLE';
  #out: CoordinatorEffect[] = [];
  /** Ascending by id: the order of their triggers. */
  #pending: PendingCheckpoint[] = [];
  #retained: CheckpointPointer[] = [];
  readonly #aborted: number[] = [];
  /** Aborted while their metadata was being written: deleted when that is over. */
  readonly #abortedWhileStoring = new Set<number>();

  #idRequest: number | undefined;
  #requests = 0;
  #waitingTokens: number[] = [];
  #idTokens: readonly number[] = [];

  #nextPeriodicAt = Infinity;
  #lastEndAt = -Infinity;
  #consecutiveFailures = 0;
  #earlyAttempts = 0;
  #triggerAgain = false;

  #endReached = false;
  #endCovered = false;
  #finalAttempts = 0;
  #finalNotBefore = -Infinity;
  #finalInFlight: number | undefined;

  #armedAt: number | undefined;

  constructor(job: PendingJob, settings: CheckpointSettings) {
    this.#job = job;
    this.#settings = settings;
    this.#taskCount = job.vertices.reduce((sum, vertex) => sum + vertex.parallelism, 0);
  }

  get state(): CoordinatorState {
    return this.#state;
  }

  /** A pointer's outcome is not known yet: what is the latest checkpoint cannot be said. */
  get isCommitting(): boolean {
    return this.#pending.some((pending) => pending.state === 'COMMITTING');
  }

  step(input: CoordinatorInput, now: number): CoordinatorEffect[] {
    this.#out = [];
    if (this.#state === 'HALTED' || this.#state === 'CLOSED') this.#stepAfterTheEnd(input);
    else {
      this.#handle(input, now);
      if (this.#isLive()) {
        this.#commitNext();
        this.#triggerWhenDue(now);
        this.#arm();
      }
    }
    return this.#out;
  }

  #isLive(): boolean {
    return this.#state === 'IDLE' || this.#state === 'ACTIVE';
  }

  #handle(input: CoordinatorInput, now: number): void {
    switch (input.type) {
      case 'started':
        return this.#onStarted(input.subtasks, now);
      case 'stopped':
        return this.#onStopped(input.reason, now);
      case 'closed':
        return this.#end('CLOSED', 'CLOSED');
      case 'pointersLoaded':
        this.#retained = [...input.pointers];
        return;
      case 'checkpointRequested':
        return this.#onRequested(input.token);
      case 'idTaken':
        return this.#onIdTaken(input, now);
      case 'idFailed':
        return this.#onIdFailed(input.request, input.failure, now);
      case 'coordinatorsSnapshotted':
        return this.#onCoordinatorsSnapshotted(input, now);
      case 'coordinatorsFailed':
        return this.#failIf(input, 'PREPARING', 'COORDINATOR_SNAPSHOT', now);
      case 'taskAcknowledged':
        return this.#onAcknowledged(input);
      case 'taskDeclined':
        return this.#onDeclined(input, now);
      case 'subtaskFinished':
        return this.#onSubtaskFinished(input.attemptId, now);
      case 'endOfDataReported':
        this.#endReached ||= this.#state === 'ACTIVE' && isEndOfData(input.subtasks);
        return;
      case 'metadataStored':
        return this.#onMetadataStored(input);
      case 'metadataFailed':
        this.#failIf(input, 'STORING', 'METADATA', now);
        return this.#deleteIfAbortedWhileStoring(input.checkpointId);
      case 'pointerAdded':
        return this.#onPointerAdded(input.checkpointId, now);
      case 'pointerFailed':
        return this.#onPointerFailed(input.checkpointId, input.failure, now);
      case 'timerFired':
        return this.#onTimer(now);
      case 'resumed':
        // Acknowledgements waited as well: time in which nothing could be decided expires nothing.
        for (const pending of this.#pending) pending.deadline += input.suspendedMs;
        return;
      case 'triggerUncertain': {
        const pending = this.#find(input.checkpointId, 'TRIGGERED');
        if (pending !== undefined) this.#fail(pending, 'LEADER_SUSPENDED', now);
      }
    }
  }

  /** Nothing is done any more; only whoever asks is answered. */
  #stepAfterTheEnd(input: CoordinatorInput): void {
    if (input.type === 'closed' && this.#state === 'HALTED') this.#go('CLOSED');
    if (input.type === 'checkpointRequested') {
      const reason = this.#state === 'HALTED' ? 'LEADERSHIP_LOST' : 'CLOSED';
      this.#settleFailed([input.token], this.#failure(reason, undefined));
    }
  }

  // ---- Life ------------------------------------------------------------------------------------

  #onStarted(subtasks: readonly CheckpointSubtask[], now: number): void {
    if (this.#state === 'ACTIVE') return;
    this.#go('ACTIVE');
    const { intervalMs } = this.#settings;
    this.#nextPeriodicAt = intervalMs > 0 ? now + intervalMs : Infinity;
    this.#consecutiveFailures = 0;
    this.#earlyAttempts = 0;
    this.#triggerAgain = false;
    this.#endReached = isEndOfData(subtasks);
    this.#endCovered = false;
    this.#finalAttempts = 0;
    this.#finalNotBefore = -Infinity;
    this.#finalInFlight = undefined;
  }

  #onStopped(reason: string, now: number): void {
    if (this.#state !== 'ACTIVE') return;
    this.#go('IDLE');
    this.#nextPeriodicAt = Infinity;
    this.#endReached = false;
    const cause = new MillraceError('ABORTED', reason);
    for (const pending of [...this.#pending]) {
      // A pointer on its way cannot be called back: it completes or not, and restore waits for it.
      if (pending.state !== 'COMMITTING')
        this.#fail(pending, 'JOB_FAILOVER', now, toFailure(cause));
    }
    const tokens = [...this.#idTokens, ...this.#waitingTokens];
    this.#idRequest = undefined;
    this.#idTokens = [];
    this.#waitingTokens = [];
    this.#settleFailed(tokens, this.#failure('JOB_FAILOVER', undefined, toFailure(cause)));
  }

  /** No commands and no deletions any more: a successor may already build on what is there. */
  #end(to: 'HALTED' | 'CLOSED', reason: CheckpointFailureReason): void {
    this.#go(to);
    const tokens = [...this.#idTokens, ...this.#waitingTokens];
    for (const pending of this.#pending) {
      tokens.push(...pending.tokens);
      pending.go(pending.state === 'COMMITTING' ? 'ABANDONED' : 'ABORTED');
      const { checkpointId } = pending;
      const failure = this.#failure(reason, checkpointId);
      this.#emit({ type: 'report', event: { kind: 'aborted', checkpointId, reason, failure } });
    }
    this.#pending = [];
    this.#waitingTokens = [];
    this.#idTokens = [];
    // Making a failure reads a stack, which takes milliseconds that a takeover does not have.
    if (tokens.length > 0) this.#settleFailed(tokens, this.#failure(reason, undefined));
    this.#emit({ type: 'cancelTimer' });
  }

  // ---- Trigger ---------------------------------------------------------------------------------

  #onRequested(token: number): void {
    if (this.#state === 'ACTIVE') this.#waitingTokens.push(token);
    else this.#settleFailed([token], this.#failure('NOT_STARTED', undefined));
  }

  /** Earliest moment at which a checkpoint is wanted; one moment for every kind of wish. */
  #wantedAt(): number {
    if (this.#state !== 'ACTIVE') return Infinity;
    if (this.#waitingTokens.length > 0 || this.#triggerAgain) return -Infinity;
    if (this.#endReached && !this.#endCovered && this.#finalInFlight === undefined) {
      return this.#finalNotBefore;
    }
    // The end is covered: tasks commit and finish, further checkpoints would only disturb them.
    if (this.#endCovered) return Infinity;
    return Math.max(this.#nextPeriodicAt, this.#lastEndAt + this.#settings.minPauseMs);
  }

  /** One trigger at a time up to the moment its sources acknowledged, as the gates are closed meanwhile. */
  #mayTrigger(): boolean {
    const { maxConcurrent, minPauseMs } = this.#settings;
    const limit = minPauseMs > 0 ? 1 : maxConcurrent;
    return (
      this.#idRequest === undefined &&
      this.#pending.length < limit &&
      !this.#pending.some((pending) => pending.gatesClosed)
    );
  }

  #triggerWhenDue(now: number): void {
    if (!this.#mayTrigger() || now < this.#wantedAt()) return;
    this.#triggerAgain = false;
    this.#requests += 1;
    this.#idRequest = this.#requests;
    this.#idTokens = this.#waitingTokens;
    this.#waitingTokens = [];
    const { intervalMs } = this.#settings;
    if (intervalMs > 0) this.#nextPeriodicAt = now + intervalMs;
    this.#emit({ type: 'takeId', request: this.#requests });
  }

  #onIdTaken(input: Extract<CoordinatorInput, { type: 'idTaken' }>, now: number): void {
    if (input.request !== this.#idRequest) return;
    this.#idRequest = undefined;
    const tokens = this.#idTokens;
    this.#idTokens = [];
    const { checkpointId, timestamp } = input;
    const planned = planCheckpoint(input.subtasks, this.#taskCount);
    if (planned.kind === 'impossible') {
      this.#failEarly(planned.reason, tokens, now, { checkpointId });
      return;
    }
    this.#earlyAttempts = 0;
    const pending = new PendingCheckpoint(planned.plan, {
      checkpointId,
      timestamp,
      startedAt: now,
      deadline: now + this.#settings.timeoutMs,
      tokens,
    });
    this.#pending.push(pending);
    if (this.#endReached) this.#finalInFlight = checkpointId;
    const tasks = planned.plan.toAwait.length;
    this.#emit({ type: 'report', event: { kind: 'triggered', checkpointId, timestamp, tasks } });
    this.#emit({ type: 'snapshotCoordinators', checkpointId });
  }

  #onIdFailed(request: number, failure: Failure, now: number): void {
    if (request !== this.#idRequest) return;
    this.#idRequest = undefined;
    const tokens = this.#idTokens;
    this.#idTokens = [];
    if (saysLeadershipLost(failure)) {
      this.#settleFailed(tokens, this.#failure('LEADERSHIP_LOST', undefined, failure));
      this.#end('HALTED', 'LEADERSHIP_LOST');
      return;
    }
    this.#failEarly('ID_UNAVAILABLE', tokens, now, { cause: failure });
  }

  /** Failed before anything was begun: tried again soon, and never counted. */
  #failEarly(
    reason: CheckpointFailureReason,
    tokens: readonly number[],
    now: number,
    about: { readonly checkpointId?: number; readonly cause?: Failure },
  ): void {
    const failure = this.#failure(reason, about.checkpointId, about.cause);
    this.#emit({
      type: 'report',
      event: {
        kind: 'aborted',
        reason,
        failure,
        ...(about.checkpointId !== undefined && { checkpointId: about.checkpointId }),
      },
    });
    this.#settleFailed(tokens, failure);
    const retryAt = now + retryDelay(this.#earlyAttempts);
    this.#earlyAttempts += 1;
    this.#nextPeriodicAt = Math.min(
      this.#nextPeriodicAt,
      this.#settings.intervalMs > 0 ? retryAt : Infinity,
    );
    this.#finalNotBefore = retryAt;
  }

  #onCoordinatorsSnapshotted(
    input: Extract<CoordinatorInput, { type: 'coordinatorsSnapshotted' }>,
    now: number,
  ): void {
    const pending = this.#find(input.checkpointId, 'PREPARING');
    if (pending === undefined) return;
    // Planned again: a task may have finished while the enumerators were snapshotted.
    const planned = planCheckpoint(input.subtasks, this.#taskCount);
    if (planned.kind === 'impossible') {
      this.#fail(pending, planned.reason, now);
      return;
    }
    this.#trigger(pending, planned.plan, input.states);
  }

  #trigger(
    pending: PendingCheckpoint,
    plan: CheckpointPlan,
    states: Readonly<Record<OperatorId, Uint8Array>>,
  ): void {
    pending.trigger(plan, states);
    const { checkpointId, timestamp } = pending;
    this.#emit({ type: 'triggerTasks', attempts: plan.toTrigger, checkpointId, timestamp });
  }

  // ---- Acknowledgement -------------------------------------------------------------------------

  #onAcknowledged(input: Extract<CoordinatorInput, { type: 'taskAcknowledged' }>): void {
    const { checkpointId, attemptId, snapshot } = input;
    const pending = this.#pending.find((candidate) => candidate.checkpointId === checkpointId);
    if (pending === undefined || !pending.isAwaiting(attemptId)) {
      // Of a completed checkpoint, or repeated: its files are or may be referred to.
      const isLate =
        pending === undefined
          ? this.#aborted.includes(checkpointId)
          : !pending.hasSnapshotOf(attemptId);
      const handles = stateHandles(snapshot).filter((handle) => handle.kind === 'file');
      if (isLate && handles.length > 0)
        this.#emit({ type: 'discardStates', checkpointId, handles });
      return;
    }
    pending.acknowledge(attemptId, snapshot);
    this.#emit({
      type: 'report',
      event: {
        kind: 'acknowledged',
        checkpointId,
        tasks: pending.acknowledgedCount,
        stateSize: pending.stateSize,
      },
    });
    if (pending.sourcesAcknowledged) this.#openGates(pending);
    if (!pending.isAcknowledged) return;
    pending.go('STORING');
    pending.metadata = pending.toMetadata(this.#job);
    this.#emit({ type: 'storeMetadata', metadata: pending.metadata });
  }

  #onDeclined(input: Extract<CoordinatorInput, { type: 'taskDeclined' }>, now: number): void {
    const pending = this.#find(input.checkpointId, 'TRIGGERED');
    if (pending === undefined || !pending.isAwaiting(input.attemptId)) return;
    const isNotReady = input.failure.code === 'ABORTED' || input.failure.code === 'CLOSED';
    this.#fail(pending, isNotReady ? 'DECLINED_NOT_READY' : 'DECLINED', now, input.failure);
  }

  #onSubtaskFinished(attemptId: AttemptId, now: number): void {
    const pending = this.#pending.filter((candidate) => candidate.isAwaiting(attemptId));
    for (const one of pending) this.#fail(one, 'TASK_FINISHED', now);
  }

  #openGates(pending: PendingCheckpoint): void {
    if (!pending.gatesClosed) return;
    pending.gatesClosed = false;
    this.#emit({ type: 'releaseCoordinators', checkpointId: pending.checkpointId });
  }

  // ---- Completion ------------------------------------------------------------------------------

  #onMetadataStored(input: Extract<CoordinatorInput, { type: 'metadataStored' }>): void {
    this.#deleteIfAbortedWhileStoring(input.checkpointId);
    const pending = this.#find(input.checkpointId, 'STORING');
    if (pending === undefined) return;
    pending.pointer = {
      checkpointId: pending.checkpointId,
      metadataPath: input.metadataPath,
      sha256: input.sha256,
      timestamp: pending.timestamp,
      sizeBytes: input.metadataBytes + pending.fileBytes,
      kind: 'checkpoint',
    };
    pending.go('STORED');
  }

  /** Pointers are added one at a time, so that none is added after a later one. */
  #commitNext(): void {
    if (this.isCommitting) return;
    const next = this.#pending.find((pending) => pending.state === 'STORED');
    if (next === undefined) return;
    next.go('COMMITTING');
    this.#addPointer(next);
  }

  #addPointer(pending: PendingCheckpoint): void {
    pending.addAgainAt = undefined;
    if (pending.pointer === undefined) return;
    this.#emit({
      type: 'addPointer',
      pointer: pending.pointer,
      subsumed: this.#subsumedBy(pending),
    });
  }

  /** Checkpoints beyond the retained number; savepoints are not ours to drop. */
  #subsumedBy(pending: PendingCheckpoint): number[] {
    const ids = this.#retained
      .filter((pointer) => pointer.kind === 'checkpoint')
      .map((pointer) => pointer.checkpointId)
      .filter((id) => id < pending.checkpointId);
    return ids.slice(0, Math.max(0, ids.length + 1 - this.#settings.numRetained));
  }

  #onPointerAdded(checkpointId: number, now: number): void {
    const pending = this.#find(checkpointId, 'COMMITTING');
    if (pending?.pointer === undefined || pending.metadata === undefined) return;
    const { pointer, metadata } = pending;
    const subsumed = this.#subsumedBy(pending);
    this.#retained = this.#retained.filter((one) => !subsumed.includes(one.checkpointId));
    this.#retained.push(pointer);
    pending.go('COMPLETED');
    this.#remove(pending, now);
    this.#consecutiveFailures = 0;
    this.#endCovered ||= this.#state === 'ACTIVE' && this.#endReached && pending.coversTheEnd;
    this.#emit({ type: 'notifyComplete', attempts: pending.participants, checkpointId });
    const durationMs = now - pending.startedAt;
    this.#emit({
      type: 'report',
      event: { kind: 'completed', pointer, durationMs, stateSize: pending.stateSize },
    });
    if (pending.tokens.length > 0) {
      this.#emit({
        type: 'settle',
        tokens: pending.tokens,
        outcome: { kind: 'completed', pointer, metadata },
      });
    }
    for (const earlier of this.#pending.filter((one) => one.checkpointId < checkpointId)) {
      this.#fail(earlier, 'SUBSUMED', now);
    }
    if (subsumed.length > 0) this.#emit({ type: 'collectGarbage' });
  }

  #onPointerFailed(checkpointId: number, failure: Failure, now: number): void {
    const pending = this.#find(checkpointId, 'COMMITTING');
    if (pending === undefined) return;
    if (saysLeadershipLost(failure)) {
      this.#end('HALTED', 'LEADERSHIP_LOST');
    } else if (failure.code === 'CONFLICT' || failure.retry === 'never') {
      this.#fail(pending, 'POINTER_REFUSED', now, failure);
    } else {
      // The outcome is not known. Adding the same pointer again settles it, however long that takes:
      // until then it counts as stored, so nothing is deleted and nothing later is begun.
      pending.addAgainAt = now + retryDelay(pending.addAttempts);
      pending.addAttempts += 1;
    }
  }

  // ---- Failure ---------------------------------------------------------------------------------

  #failIf(
    input: { readonly checkpointId: number; readonly failure: Failure },
    state: 'PREPARING' | 'STORING',
    reason: CheckpointFailureReason,
    now: number,
  ): void {
    const pending = this.#find(input.checkpointId, state);
    if (pending !== undefined) this.#fail(pending, reason, now, input.failure);
  }

  #fail(
    pending: PendingCheckpoint,
    reason: CheckpointFailureReason,
    now: number,
    cause?: Failure,
  ): void {
    const { checkpointId, state } = pending;
    if (state === 'ABORTED') return;
    pending.go('ABORTED');
    this.#remove(pending, now);
    this.#openGates(pending);
    if (state !== 'PREPARING') {
      this.#emit({ type: 'notifyAborted', attempts: pending.participants, checkpointId });
    }
    if (state === 'STORING') this.#abortedWhileStoring.add(checkpointId);
    if (state === 'TRIGGERED' || state === 'STORED')
      this.#emit({ type: 'deleteCheckpoint', checkpointId });
    this.#aborted.push(checkpointId);
    if (this.#aborted.length > rememberedAborts) this.#aborted.shift();
    const failure = this.#failure(reason, checkpointId, cause);
    this.#emit({ type: 'report', event: { kind: 'aborted', checkpointId, reason, failure } });
    if (reason === 'TASK_FINISHED') {
      this.#triggerAgain = true;
      this.#waitingTokens.push(...pending.tokens);
    } else {
      this.#settleFailed(pending.tokens, failure);
    }
    if (state !== 'PREPARING') this.#failEarlier(checkpointId, now);
    this.#count(reason, failure);
  }

  /** Tasks told of an abort drop the barriers of everything before it: what is not acknowledged never will be. */
  #failEarlier(checkpointId: number, now: number): void {
    const earlier = this.#pending.filter(
      (one) => one.checkpointId < checkpointId && one.state === 'TRIGGERED',
    );
    for (const one of earlier) this.#fail(one, 'LATER_ABORTED', now);
  }

  #count(reason: CheckpointFailureReason, failure: Failure): void {
    if (!checkpointFailureReasons[reason].counted) return;
    this.#consecutiveFailures += 1;
    if (!exceedsTolerance(this.#consecutiveFailures, this.#settings.tolerableFailures)) return;
    this.#consecutiveFailures = 0;
    const { tolerableFailures } = this.#settings;
    const message = `more than ${String(tolerableFailures)} consecutive checkpoints failed (execution.checkpointing.tolerable-failed-checkpoints)`;
    const error = toFailure(new MillraceError('CHECKPOINT_FAILED', message));
    this.#emit({ type: 'failJob', failure: { ...error, cause: failure } });
  }

  /** It is over, well or badly. */
  #remove(pending: PendingCheckpoint, now: number): void {
    this.#pending = this.#pending.filter((one) => one !== pending);
    this.#lastEndAt = now;
    if (this.#finalInFlight !== pending.checkpointId) return;
    this.#finalInFlight = undefined;
    this.#finalNotBefore = now + retryDelay(this.#finalAttempts);
    this.#finalAttempts += 1;
  }

  #deleteIfAbortedWhileStoring(checkpointId: number): void {
    if (!this.#abortedWhileStoring.delete(checkpointId)) return;
    this.#emit({ type: 'deleteCheckpoint', checkpointId });
  }

  // ---- Time ------------------------------------------------------------------------------------

  #onTimer(now: number): void {
    this.#armedAt = undefined;
    for (const pending of [...this.#pending]) {
      if (now < dueAt(pending)) continue;
      if (pending.state === 'COMMITTING') this.#addPointer(pending);
      else this.#fail(pending, 'EXPIRED', now);
    }
  }

  /** One timer for whatever comes first. */
  #arm(): void {
    let at = this.#mayTrigger() ? this.#wantedAt() : Infinity;
    for (const pending of this.#pending) at = Math.min(at, dueAt(pending));
    const wanted = at === Infinity ? undefined : at;
    if (wanted === this.#armedAt) return;
    this.#armedAt = wanted;
    this.#emit(wanted === undefined ? { type: 'cancelTimer' } : { type: 'armTimer', at: wanted });
  }

  // ---- Parts of the steps -----------------------------------------------------------------------

  #find(checkpointId: number, state: PendingCheckpoint['state']): PendingCheckpoint | undefined {
    return this.#pending.find((one) => one.checkpointId === checkpointId && one.state === state);
  }

  #failure(
    reason: CheckpointFailureReason,
    checkpointId: number | undefined,
    cause?: Failure,
  ): Failure {
    const which =
      checkpointId === undefined ? 'a checkpoint' : `checkpoint ${String(checkpointId)}`;
    const message = `${which} failed: ${checkpointFailureReasons[reason].message}`;
    const error = new MillraceError('CHECKPOINT_FAILED', message, {
      details: { reason, ...(checkpointId !== undefined && { checkpointId }) },
    });
    return { ...toFailure(error), ...(cause !== undefined && { cause }) };
  }

  #settleFailed(tokens: readonly number[], failure: Failure): void {
    if (tokens.length > 0)
      this.#emit({ type: 'settle', tokens, outcome: { kind: 'failed', failure } });
  }

  #emit(effect: CoordinatorEffect): void {
    this.#out.push(effect);
  }

  #go(to: CoordinatorState): void {
    checkTransition('checkpoint coordinator', coordinatorTransitions, this.#state, to);
    this.#state = to;
  }
}
