/**
 * The execution graph: the state of a job and of all its executions, and what has to be done next
 * (pure). Slots are the unit of deployment, cancellation and restart: the tasks of a shared slot start
 * together and end together.
 *
 * Restart set: slots that wait to be (re)started go through `waiting` (their old tasks end, the delay
 * elapses), `allocating`, `preparing` (attempts are recorded, state is assigned) and are deployed. A
 * failure on the way sends the whole set, widened, back to `waiting`; answers to an older round are
 * told by its number and dropped.
 */
import { invariant, unreachable } from '../../base/assert.js';
import { checkTransition } from '../../base/transitions.js';
import type { AllocationId, AttemptId } from '../../base/ids.js';
import type { Failure } from '../../base/errors.js';
import { isGloballyTerminal, jobTransitions, type JobStatus } from '../../gateway/job-status.js';
import type { ExecutionState } from '../../gateway/execution-state.js';
import type { ExecutionTopology } from './execution-topology.js';
import type { FailoverStrategy } from './failover-strategy.js';
import type { RestartStrategy } from './restart-strategy.js';
import type { SharedSlot } from './slot-sharing.js';
import { type ExceptionHistory, exceptionInfo } from './exception-history.js';
import { endedByTaskManager, givenUp, isRecoverable } from './failures.js';
import { taskName, type ExecutionVertex } from './execution-vertex.js';
import {
  canTransition,
  isExecutionTerminal,
  transitionExecution,
  type Execution,
  type SlotLocation,
} from './execution.js';

/** `now` is monotonic ms, for delays; `wall` is for stamps. */
export interface Instant {
  readonly now: number;
  readonly wall: number;
}

export type ExecutionGraphInput =
  /** The JobMaster has read what it needs. */
  | { readonly kind: 'started' }
  /** Instead of `started`: every task runs since an earlier leader, and goes on. By position. */
  | { readonly kind: 'adopted'; readonly attempts: ReadonlyMap<number, AdoptedExecution> }
  /** All TaskManagers have handed their tasks over to this leader. */
  | { readonly kind: 'adoptionCompleted' }
  /** Something kept the job from going on as it ran: all of it restarts, which counts as no failure of the job. */
  | { readonly kind: 'adoptionFailed'; readonly failure: Failure }
  | {
      readonly kind: 'slotsAllocated';
      readonly round: number;
      readonly slots: ReadonlyMap<string, SlotLocation>;
    }
  /** No slots within slot.request.timeout. */
  | { readonly kind: 'slotsUnavailable'; readonly round: number; readonly failure: Failure }
  | { readonly kind: 'deploymentPrepared'; readonly round: number }
  | { readonly kind: 'deploymentFailed'; readonly round: number; readonly failure: Failure }
  | {
      readonly kind: 'deploymentRejected';
      readonly slotKey: string;
      readonly allocationId: AllocationId;
      readonly failure: Failure;
    }
  | {
      readonly kind: 'taskStateChanged';
      readonly attemptId: AttemptId;
      readonly state: ExecutionState;
      readonly failure?: Failure;
    }
  | { readonly kind: 'endOfDataReported'; readonly attemptId: AttemptId }
  /** The tasks of a slot are gone. */
  | { readonly kind: 'slotCanceled'; readonly slotKey: string; readonly allocationId: AllocationId }
  /** Slots of a lost TaskManager, or one whose thread ended. */
  | {
      readonly kind: 'slotsLost';
      readonly allocationIds: ReadonlySet<AllocationId>;
      readonly failure: Failure;
    }
  | { readonly kind: 'cancelRequested' }
  /** Something that concerns the whole job failed: coordinator, checkpoint limit. */
  | { readonly kind: 'failedGlobally'; readonly failure: Failure }
  | { readonly kind: 'restartDelayElapsed'; readonly round: number }
  /** This JobManager no longer leads: nothing is cancelled. */
  | { readonly kind: 'suspended' };

export type ExecutionGraphEffect =
  | { readonly kind: 'requestSlots'; readonly round: number; readonly slotKeys: readonly string[] }
  /** Record the attempts durably and assign state; then post `deploymentPrepared`. Comes before `deploySlots`. */
  | {
      readonly kind: 'prepareDeployment';
      readonly round: number;
      readonly slotKeys: readonly string[];
      readonly isFull: boolean;
    }
  | { readonly kind: 'deploySlots'; readonly slotKeys: readonly string[] }
  | { readonly kind: 'cancelSlot'; readonly slotKey: string; readonly allocationId: AllocationId }
  | { readonly kind: 'armRestartTimer'; readonly round: number; readonly delayMs: number }
  /** Abort pending checkpoints and trigger no new ones. */
  | { readonly kind: 'stopCheckpoints' }
  | { readonly kind: 'startCheckpoints' }
  /** Every task runs or has finished. */
  | { readonly kind: 'allTasksRunning' }
  | { readonly kind: 'taskFailed'; readonly attemptId: AttemptId; readonly failure: Failure }
  | { readonly kind: 'taskFinished'; readonly attemptId: AttemptId }
  | { readonly kind: 'statusChanged'; readonly from: JobStatus; readonly to: JobStatus }
  /** Globally terminal: write the result, then clean up. */
  | {
      readonly kind: 'jobEnded';
      readonly status: 'FAILED' | 'CANCELED' | 'FINISHED';
      readonly failure?: Failure;
    };

/** Drawn by the driver, so that the machine stays free of randomness. */
export type AttemptIdFactory = (vertex: ExecutionVertex, generation: number) => AttemptId;

export interface ExecutionGraphOptions {
  readonly topology: ExecutionTopology;
  readonly slots: readonly SharedSlot[];
  readonly failover: FailoverStrategy;
  readonly restartStrategy: RestartStrategy;
  readonly history: ExceptionHistory;
  readonly newAttemptId: AttemptIdFactory;
  /** Generation of the first scheduling: 0, or one more than the last recorded one. */
  readonly firstGeneration: number;
  /** It has run before: a shortage of slots is then a failure to restart from, not the end of the job. */
  readonly isRecovered: boolean;
}

/** An attempt an earlier leader deployed. */
export interface AdoptedExecution {
  readonly attemptId: AttemptId;
  readonly attemptNumber: number;
  readonly generation: number;
  readonly state: 'RUNNING' | 'FINISHED';
  readonly location: SlotLocation;
  readonly endOfData: boolean;
}

type Phase = 'waiting' | 'allocating' | 'preparing';

interface SlotState {
  readonly slot: SharedSlot;
  location: SlotLocation | undefined;
  /** The TaskManager may hold a thread for it. */
  isDeployed: boolean;
  isCanceling: boolean;
}

export class ExecutionGraph {
  readonly #options: ExecutionGraphOptions;
  readonly #vertices: readonly ExecutionVertex[];
  readonly #slots: ReadonlyMap<string, SlotState>;
  readonly #byAttempt = new Map<AttemptId, ExecutionVertex>();
  readonly #timestamps: Partial<Record<JobStatus, number>> = {};
  #status: JobStatus = 'INITIALIZING';
  #generation: number;
  #hasRun: boolean;
  #failure: Failure | undefined;
  #areAllRunning = false;
  /** Slots to be (re)started; empty when nothing is pending. */
  readonly #pending = new Set<string>();
  #phase: Phase = 'waiting';
  #round = 0;
  #restartAt = -Infinity;
  #effects: ExecutionGraphEffect[] = [];

  constructor(options: ExecutionGraphOptions, at: Instant) {
    this.#options = options;
    this.#generation = options.firstGeneration - 1;
    this.#hasRun = options.isRecovered;
    const slotKeys = new Map<number, string>();
    for (const { key, positions } of options.slots)
      for (const position of positions) slotKeys.set(position, key);
    this.#vertices = options.topology.subtasks.map((subtask) => {
      const slotKey = slotKeys.get(subtask.position);
      invariant(slotKey !== undefined, 'every subtask has a slot', { position: subtask.position });
      return { subtask, slotKey, current: undefined, attempts: 0 };
    });
    this.#slots = new Map(
      options.slots.map((slot) => [
        slot.key,
        { slot, location: undefined, isDeployed: false, isCanceling: false },
      ]),
    );
    this.#timestamps.INITIALIZING = at.wall;
  }

  get status(): JobStatus {
    return this.#status;
  }

  get generation(): number {
    return Math.max(0, this.#generation);
  }

  get timestamps(): Readonly<Partial<Record<JobStatus, number>>> {
    return this.#timestamps;
  }

  /** Why the job failed, or fails over at last. */
  get failure(): Failure | undefined {
    return this.#failure;
  }

  get areAllRunning(): boolean {
    return this.#areAllRunning;
  }

  get vertices(): readonly ExecutionVertex[] {
    return this.#vertices;
  }

  /** What the pending slots wait for. */
  get pending():
    { readonly slotCount: number; readonly phase: Phase; readonly restartAt: number } | undefined {
    if (this.#pending.size === 0) return undefined;
    return { slotCount: this.#pending.size, phase: this.#phase, restartAt: this.#restartAt };
  }

  vertexOf(attemptId: AttemptId): ExecutionVertex | undefined {
    const vertex = this.#byAttempt.get(attemptId);
    return vertex?.current?.attemptId === attemptId ? vertex : undefined;
  }

  slot(slotKey: string): {
    readonly slot: SharedSlot;
    readonly location: SlotLocation | undefined;
  } {
    return this.#slotState(slotKey);
  }

  /** None of the slot's tasks has answered since it was deployed there. */
  isDeploying(slotKey: string, allocationId: AllocationId): boolean {
    return (
      this.#slotState(slotKey).location?.allocationId === allocationId &&
      this.#verticesOf(slotKey).every(({ current }) => current?.state === 'DEPLOYING')
    );
  }

  /** Every task of the slot has finished. */
  hasFinished(slotKey: string): boolean {
    return this.#verticesOf(slotKey).every(({ current }) => current?.state === 'FINISHED');
  }

  /** Every slot held or being started: how many the job needs. */
  get slotCount(): number {
    return this.#slots.size;
  }

  step(input: ExecutionGraphInput, at: Instant): readonly ExecutionGraphEffect[] {
    this.#effects = [];
    if (this.#status !== 'SUSPENDED' && !isGloballyTerminal(this.#status)) this.#take(input, at);
    return this.#effects;
  }

  #take(input: ExecutionGraphInput, at: Instant): void {
    switch (input.kind) {
      case 'started':
        return this.#onStarted(at);
      case 'adopted':
        return this.#onAdopted(input.attempts, at);
      case 'adoptionCompleted':
        return this.#onAdoptionCompleted(at);
      case 'adoptionFailed':
        return this.#onAdoptionFailed(input.failure, at);
      case 'slotsAllocated':
        return this.#onSlotsAllocated(input.round, input.slots);
      case 'slotsUnavailable':
        return this.#onSlotsUnavailable(input.round, input.failure, at);
      case 'deploymentPrepared':
        return this.#onPrepared(input.round, at);
      case 'deploymentFailed':
        if (this.#isCurrent(input.round, 'preparing'))
          this.#fail([...this.#pending], input.failure, at);
        return;
      case 'deploymentRejected':
        return this.#onRejected(input, at);
      case 'taskStateChanged':
        return this.#onTaskState(input, at);
      case 'endOfDataReported': {
        const execution = this.vertexOf(input.attemptId)?.current;
        if (execution !== undefined) execution.endOfData = true;
        return;
      }
      case 'slotCanceled':
        return this.#onSlotCanceled(input.slotKey, input.allocationId, at);
      case 'slotsLost':
        return this.#onSlotsLost(input.allocationIds, input.failure, at);
      case 'cancelRequested':
        return this.#onCancelRequested(at);
      case 'failedGlobally':
        return this.#onFailedGlobally(input.failure, at);
      case 'restartDelayElapsed':
        if (input.round === this.#round) this.#continueRestart(at, true);
        return;
      case 'suspended':
        return this.#transition('SUSPENDED', at);
      default:
        return unreachable(input);
    }
  }

  // ---- Scheduling ------------------------------------------------------------------------------

  #onStarted(at: Instant): void {
    invariant(this.#status === 'INITIALIZING', 'a job is started once', { status: this.#status });
    this.#transition('CREATED', at);
    for (const key of this.#slots.keys()) this.#pending.add(key);
    this.#continueRestart(at, true);
  }

  #onAdopted(attempts: ReadonlyMap<number, AdoptedExecution>, at: Instant): void {
    invariant(this.#status === 'INITIALIZING', 'a job is started once', { status: this.#status });
    this.#transition('RECONCILING', at);
    for (const vertex of this.#vertices) {
      const adopted = attempts.get(vertex.subtask.position);
      invariant(adopted !== undefined, 'every subtask is adopted', {
        position: vertex.subtask.position,
      });
      vertex.current = { ...adopted, timestamps: { [adopted.state]: at.wall } };
      vertex.attempts = adopted.attemptNumber + 1;
      this.#byAttempt.set(adopted.attemptId, vertex);
      const slot = this.#slotState(vertex.slotKey);
      slot.location = adopted.location;
      slot.isDeployed = true;
    }
    this.#hasRun = true;
  }

  #onAdoptionCompleted(at: Instant): void {
    if (this.#status !== 'RECONCILING') return;
    this.#transition('RUNNING', at);
    this.#checkProgress(at);
  }

  /** Not asked of the restart strategy, which may allow none: the leader was lost, nothing of the job failed. */
  #onAdoptionFailed(failure: Failure, at: Instant): void {
    if (this.#status === 'INITIALIZING' || this.#isEnding()) return;
    this.#options.history.addRoot(this.#describe(failure, at));
    this.#failure = failure;
    for (const key of this.#slots.keys()) this.#pending.add(key);
    this.#backToWaiting(at);
    this.#restartAt = Math.max(this.#restartAt, at.now);
    const delayMs = this.#restartAt - at.now;
    this.#effects.push({ kind: 'armRestartTimer', round: this.#round, delayMs });
  }

  /** Goes on to `allocating` when the old tasks are gone and the delay is over. */
  #continueRestart(at: Instant, isDue: boolean): void {
    if (this.#phase !== 'waiting' || this.#pending.size === 0 || this.#isEnding()) return;
    if (!isDue && at.now < this.#restartAt) return;
    if (isDue) this.#restartAt = Math.min(this.#restartAt, at.now);
    for (const key of this.#pending) if (this.#slotState(key).isDeployed) return;
    this.#phase = 'allocating';
    this.#generation += 1;
    for (const key of this.#pending)
      for (const vertex of this.#verticesOf(key)) this.#newExecution(vertex, at);
    this.#effects.push({ kind: 'requestSlots', round: this.#round, slotKeys: [...this.#pending] });
  }

  #newExecution(vertex: ExecutionVertex, at: Instant): void {
    if (vertex.current !== undefined) this.#byAttempt.delete(vertex.current.attemptId);
    const attemptId = this.#options.newAttemptId(vertex, this.#generation);
    const execution: Execution = {
      attemptId,
      attemptNumber: vertex.attempts,
      generation: this.#generation,
      state: 'CREATED',
      location: undefined,
      endOfData: false,
      timestamps: { CREATED: at.wall },
    };
    vertex.attempts += 1;
    vertex.current = execution;
    this.#byAttempt.set(attemptId, vertex);
    transitionExecution(execution, 'SCHEDULED', at.wall);
  }

  #onSlotsAllocated(round: number, slots: ReadonlyMap<string, SlotLocation>): void {
    if (!this.#isCurrent(round, 'allocating')) return;
    for (const key of this.#pending) {
      const location = slots.get(key);
      invariant(location !== undefined, 'every requested slot is allocated', { slot: key });
      this.#slotState(key).location = location;
      for (const { current } of this.#verticesOf(key))
        if (current !== undefined) current.location = location;
    }
    this.#phase = 'preparing';
    this.#effects.push({
      kind: 'prepareDeployment',
      round,
      slotKeys: [...this.#pending],
      isFull: this.#pending.size === this.#slots.size,
    });
  }

  #onSlotsUnavailable(round: number, failure: Failure, at: Instant): void {
    if (!this.#isCurrent(round, 'allocating')) return;
    if (this.#hasRun) this.#fail([...this.#pending], failure, at);
    else this.#giveUp([...this.#pending], failure, at);
  }

  #onPrepared(round: number, at: Instant): void {
    if (!this.#isCurrent(round, 'preparing')) return;
    const slotKeys = [...this.#pending];
    for (const key of slotKeys) {
      const slot = this.#slotState(key);
      slot.isDeployed = true;
      for (const { current } of this.#verticesOf(key))
        if (current) transitionExecution(current, 'DEPLOYING', at.wall);
    }
    this.#pending.clear();
    this.#phase = 'waiting';
    this.#restartAt = -Infinity;
    this.#hasRun = true;
    this.#transition('RUNNING', at);
    this.#effects.push({ kind: 'deploySlots', slotKeys });
  }

  #onRejected(
    input: Extract<ExecutionGraphInput, { kind: 'deploymentRejected' }>,
    at: Instant,
  ): void {
    const slot = this.#slotState(input.slotKey);
    if (slot.location?.allocationId !== input.allocationId || !slot.isDeployed || slot.isCanceling)
      return;
    for (const { current } of this.#verticesOf(input.slotKey))
      this.#endExecution(current, 'FAILED', at);
    this.#fail([input.slotKey], input.failure, at);
  }

  // ---- States of tasks -------------------------------------------------------------------------

  #onTaskState(
    input: Extract<ExecutionGraphInput, { kind: 'taskStateChanged' }>,
    at: Instant,
  ): void {
    const vertex = this.vertexOf(input.attemptId);
    const execution = vertex?.current;
    // Of an older attempt, or a late report about one that is being cancelled.
    if (
      vertex === undefined ||
      execution === undefined ||
      !canTransition(execution.state, input.state)
    )
      return;
    const wasCanceling = execution.state === 'CANCELING';
    transitionExecution(execution, input.state, at.wall);
    switch (input.state) {
      case 'FAILED':
      case 'CANCELED':
        if (wasCanceling) return this.#noteConcurrent(vertex, input.failure, at);
        return this.#failTask(vertex, execution, input.failure ?? endedByTaskManager, at);
      case 'FINISHED':
        this.#effects.push({ kind: 'taskFinished', attemptId: input.attemptId });
        return this.#checkProgress(at);
      default:
        return this.#checkProgress(at);
    }
  }

  #failTask(vertex: ExecutionVertex, execution: Execution, failure: Failure, at: Instant): void {
    this.#effects.push({ kind: 'taskFailed', attemptId: execution.attemptId, failure });
    this.#fail([vertex.slotKey], failure, at, vertex);
  }

  #noteConcurrent(vertex: ExecutionVertex, failure: Failure | undefined, at: Instant): void {
    if (failure !== undefined)
      this.#options.history.addConcurrent(this.#describe(failure, at, vertex));
  }

  #checkProgress(at: Instant): void {
    if (this.#status !== 'RUNNING') return;
    const states = this.#vertices.map(({ current }) => current?.state);
    if (states.every((state) => state === 'FINISHED')) return this.#end('FINISHED', at);
    if (
      this.#areAllRunning ||
      !states.every((state) => state === 'RUNNING' || state === 'FINISHED')
    )
      return;
    this.#areAllRunning = true;
    this.#effects.push({ kind: 'allTasksRunning' }, { kind: 'startCheckpoints' });
  }

  // ---- Failures --------------------------------------------------------------------------------

  /** The tasks of `slotKeys` failed: restart their regions, or give up. `at` decides the delay. */
  #fail(
    slotKeys: readonly string[],
    failure: Failure,
    at: Instant,
    vertex?: ExecutionVertex,
  ): void {
    const info = this.#describe(failure, at, vertex);
    const restarting = this.#phase === 'waiting' && slotKeys.every((key) => this.#pending.has(key));
    if (this.#isEnding() || restarting) {
      this.#options.history.addConcurrent(info);
      return this.#cancelSlots(slotKeys, at);
    }
    this.#options.history.addRoot(info);
    if (!isRecoverable(failure)) return this.#giveUp([], failure, at);
    const decision = this.#options.restartStrategy.onFailure(at.now);
    if (decision.kind === 'giveUp') return this.#giveUp([], givenUp(failure, decision.reason), at);
    this.#failure = failure;
    // Not all are handed over yet: those that are not cannot be told from the others later.
    const failed = this.#status === 'RECONCILING' ? this.#slots.keys() : slotKeys;
    for (const key of failed) {
      for (const other of this.#options.failover.slotsToRestart(key)) this.#pending.add(other);
    }
    this.#backToWaiting(at);
    this.#restartAt = Math.max(this.#restartAt, at.now + decision.delayMs);
    this.#effects.push({
      kind: 'armRestartTimer',
      round: this.#round,
      delayMs: this.#restartAt - at.now,
    });
  }

  /** The pending set changed: older answers no longer count, its tasks end first. */
  #backToWaiting(at: Instant): void {
    this.#round += 1;
    this.#phase = 'waiting';
    this.#stopCheckpoints();
    if (this.#status !== 'RESTARTING') this.#transition('RESTARTING', at);
    this.#cancelSlots([...this.#pending], at);
  }

  #giveUp(slotKeys: readonly string[], failure: Failure, at: Instant): void {
    if (slotKeys.length > 0) this.#options.history.addRoot(this.#describe(failure, at));
    this.#failure = failure;
    this.#stopCheckpoints();
    this.#transition('FAILING', at);
    this.#endAllSlots(at);
  }

  #onFailedGlobally(failure: Failure, at: Instant): void {
    if (this.#status === 'INITIALIZING') {
      this.#options.history.addRoot(this.#describe(failure, at));
      this.#failure = failure;
      return this.#end('FAILED', at);
    }
    this.#fail([...this.#slots.keys()], failure, at);
  }

  #onSlotsLost(allocationIds: ReadonlySet<AllocationId>, failure: Failure, at: Instant): void {
    const failed: string[] = [];
    let isPendingLost = false;
    for (const [key, slot] of this.#slots) {
      if (slot.location === undefined || !allocationIds.has(slot.location.allocationId)) continue;
      const isAlive = this.#verticesOf(key).some(
        ({ current }) => current !== undefined && !isExecutionTerminal(current.state),
      );
      // A slot whose tasks have all finished takes nothing with it.
      const wasRunning = slot.isDeployed && !slot.isCanceling && isAlive;
      slot.location = undefined;
      slot.isDeployed = false;
      slot.isCanceling = false;
      if (!wasRunning) {
        if (this.#pending.has(key) && this.#phase === 'preparing') isPendingLost = true;
        for (const { current } of this.#verticesOf(key))
          if (current?.state === 'CANCELING') this.#endExecution(current, 'CANCELED', at);
        continue;
      }
      failed.push(key);
      for (const { current } of this.#verticesOf(key)) {
        if (current === undefined || isExecutionTerminal(current.state)) continue;
        this.#endExecution(current, 'FAILED', at);
        this.#effects.push({ kind: 'taskFailed', attemptId: current.attemptId, failure });
      }
    }
    if (failed.length > 0) this.#fail(failed, failure, at);
    else if (isPendingLost && !this.#isEnding()) this.#reallocate(at);
    this.#afterSlotQuiet(at);
  }

  /** A slot went between allocation and deployment: nothing ran, so nothing failed. */
  #reallocate(at: Instant): void {
    for (const key of this.#pending)
      for (const { current } of this.#verticesOf(key)) this.#endExecution(current, 'CANCELED', at);
    this.#round += 1;
    this.#phase = 'waiting';
  }

  // ---- Cancelling and ending -------------------------------------------------------------------

  #onCancelRequested(at: Instant): void {
    if (this.#isEnding()) return;
    this.#stopCheckpoints();
    this.#transition('CANCELLING', at);
    this.#endAllSlots(at);
  }

  #endAllSlots(at: Instant): void {
    this.#round += 1;
    this.#pending.clear();
    this.#cancelSlots([...this.#slots.keys()], at);
    this.#afterSlotQuiet(at);
  }

  #cancelSlots(slotKeys: readonly string[], at: Instant): void {
    for (const key of slotKeys) {
      const slot = this.#slotState(key);
      for (const { current } of this.#verticesOf(key)) {
        if (
          current === undefined ||
          isExecutionTerminal(current.state) ||
          current.state === 'CANCELING'
        )
          continue;
        if (slot.isDeployed) transitionExecution(current, 'CANCELING', at.wall);
        else this.#endExecution(current, 'CANCELED', at);
      }
      if (!slot.isDeployed || slot.isCanceling || slot.location === undefined) continue;
      slot.isCanceling = true;
      this.#effects.push({
        kind: 'cancelSlot',
        slotKey: key,
        allocationId: slot.location.allocationId,
      });
    }
  }

  #onSlotCanceled(slotKey: string, allocationId: AllocationId, at: Instant): void {
    const slot = this.#slotState(slotKey);
    if (slot.location?.allocationId !== allocationId || !slot.isCanceling) return;
    slot.isDeployed = false;
    slot.isCanceling = false;
    for (const { current } of this.#verticesOf(slotKey))
      this.#endExecution(current, 'CANCELED', at);
    this.#afterSlotQuiet(at);
  }

  #afterSlotQuiet(at: Instant): void {
    if (!this.#isEnding()) return this.#continueRestart(at, false);
    for (const { isDeployed } of this.#slots.values()) if (isDeployed) return;
    this.#end(this.#status === 'CANCELLING' ? 'CANCELED' : 'FAILED', at);
  }

  #end(status: 'FAILED' | 'CANCELED' | 'FINISHED', at: Instant): void {
    this.#stopCheckpoints();
    this.#transition(status, at);
    const failure = status === 'FAILED' ? this.#failure : undefined;
    this.#effects.push({ kind: 'jobEnded', status, ...(failure !== undefined && { failure }) });
  }

  // ---- Parts of the steps -----------------------------------------------------------------------

  #endExecution(execution: Execution | undefined, to: 'CANCELED' | 'FAILED', at: Instant): void {
    if (execution !== undefined && !isExecutionTerminal(execution.state))
      transitionExecution(execution, to, at.wall);
  }

  #stopCheckpoints(): void {
    this.#areAllRunning = false;
    this.#effects.push({ kind: 'stopCheckpoints' });
  }

  #transition(to: JobStatus, at: Instant): void {
    const from = this.#status;
    checkTransition('job', jobTransitions, from, to);
    this.#status = to;
    this.#timestamps[to] = at.wall;
    this.#effects.push({ kind: 'statusChanged', from, to });
  }

  #isCurrent(round: number, phase: Phase): boolean {
    return round === this.#round && this.#phase === phase && this.#pending.size > 0;
  }

  #isEnding(): boolean {
    return this.#status === 'CANCELLING' || this.#status === 'FAILING';
  }

  #slotState(key: string): SlotState {
    const slot = this.#slots.get(key);
    invariant(slot !== undefined, 'a slot key is one of the job', { slot: key });
    return slot;
  }

  #verticesOf(slotKey: string): ExecutionVertex[] {
    return this.#slotState(slotKey).slot.positions.map((position) => {
      const vertex = this.#vertices[position];
      invariant(vertex !== undefined, 'a position is one of a vertex', { position });
      return vertex;
    });
  }

  #describe(
    failure: Failure,
    at: Instant,
    vertex?: ExecutionVertex,
  ): ReturnType<typeof exceptionInfo> {
    const location = vertex?.current?.location;
    return exceptionInfo(failure, at.wall, {
      ...(vertex !== undefined && { taskName: taskName(vertex) }),
      ...(location !== undefined && {
        endpoint: location.dataAddress,
        taskManagerId: location.taskManagerId,
      }),
    });
  }
}
