/**
 * Driver of the checkpoint coordinator: carries out what the machine decides and posts the outcomes
 * back. Belongs to one JobMaster under one leadership. While the leader is suspended (`mayAct` is false)
 * inputs wait; nothing is decided on their account until it may act again.
 */
import { createHash } from 'node:crypto';
import { Deferred } from '../../lib/base/deferred.js';
import type { CancelTimer } from '../../lib/base/clock.js';
import { childEnv, type Env } from '../../lib/base/env.js';
import { fromFailure, MillraceError, toFailure, type Failure } from '../../lib/base/errors.js';
import type { AttemptId, JobId } from '../../lib/base/ids.js';
import { CloseableRegistry, type Closeable } from '../../lib/base/lifecycle.js';
import type { CheckpointStatistics, CheckpointSummary } from '../../lib/gateway/client-gateway.js';
import type { CheckpointAck } from '../../lib/gateway/taskmanager-gateway.js';
import { checkpointFailureReasons } from '../failure-reason.js';
import { encodeMetadata } from '../format/metadata-v1.js';
import { loadCheckpoint, loadLatest } from '../restore.js';
import type { CheckpointStorage } from '../storage/checkpoint-storage.js';
import type {
  CheckpointedVertex,
  CheckpointGateway,
  CheckpointIdCounter,
  CheckpointMetadata,
  CheckpointPointer,
  CheckpointSettings,
  CompletedCheckpoint,
  PointerStore,
} from '../types.js';
import { CheckpointCoordinatorMachine } from './checkpoint-coordinator.machine.js';
import type { CheckpointStatisticsTracker } from './checkpoint-statistics.js';
import type {
  CoordinatorEffect,
  CoordinatorEvent,
  CoordinatorInput,
} from './coordinator-messages.js';

export interface CheckpointCoordinatorDeps {
  readonly pointers: PointerStore;
  readonly ids: CheckpointIdCounter;
  readonly storage: CheckpointStorage;
  readonly gateway: CheckpointGateway;
  /** Whether this process may still act as the leader; asked before every batch of effects. */
  readonly mayAct: () => boolean;
}

export interface CheckpointCoordinatorOptions {
  readonly jobId: JobId;
  readonly jobName: string;
  /** As in the names of checkpoint directories: `e<era>.<revision>`. */
  readonly epochLabel: string;
  readonly config: CheckpointSettings;
  /** With the parallelism the job really runs at. */
  readonly vertices: readonly CheckpointedVertex[];
  /** Outlives the coordinator: a job that restarts goes on counting. */
  readonly statistics: CheckpointStatisticsTracker;
}

/** How often a suspended coordinator looks whether it may act again. */
const suspendedPollMs = 100;
/** Inputs that may wait meanwhile; acknowledgements beyond it are lost and their checkpoints expire. */
const inboxLimit = 100_000;

export class CheckpointCoordinator implements Closeable {
  readonly #env: Env;
  readonly #deps: CheckpointCoordinatorDeps;
  readonly #options: CheckpointCoordinatorOptions;
  readonly #machine: CheckpointCoordinatorMachine;
  readonly #statistics: CheckpointStatisticsTracker;
  readonly #work: CloseableRegistry;
  readonly #waiting = new Map<number, Deferred<CompletedCheckpoint>>();
  #pointers: readonly CheckpointPointer[] = [];
  #tokens = 0;
  #inbox: CoordinatorInput[] = [];
  /** What tasks are to be told again: the deadline passed while they were being told. */
  #untold: CoordinatorEffect[] = [];
  #isDraining = false;
  #isClosed = false;
  #cancelTimer: CancelTimer | undefined;
  #cancelPoll: CancelTimer | undefined;
  #whenSettled: Deferred<void>[] = [];
  #garbage: Promise<void> = Promise.resolve();
  #collectAgain = false;

  constructor(env: Env, deps: CheckpointCoordinatorDeps, options: CheckpointCoordinatorOptions) {
    const { jobId, jobName, epochLabel, vertices, config } = options;
    this.#env = childEnv(env, 'checkpoint-coordinator', { jobId });
    this.#deps = deps;
    this.#options = options;
    this.#machine = new CheckpointCoordinatorMachine(
      { jobId, jobName, epochLabel, vertices },
      config,
    );
    this.#statistics = options.statistics;
    this.#work = new CloseableRegistry(this.#env.log);
  }

  /**
   * The checkpoint with the highest id, read and verified; undefined when there is none. Waits until a pointer that is
   * being added is settled. An unreadable one is an error (CHECKPOINT_CORRUPT, CHECKPOINT_NOT_FOUND, CHECKPOINT_STORAGE)
   * that names what an administrator can do: never a silent fallback to an older one.
   */
  async restoreLatest(): Promise<CompletedCheckpoint | undefined> {
    await this.#commitsSettled();
    const pointers = await this.#deps.pointers.list();
    this.#throwIfClosed();
    this.#pointers = pointers;
    this.#post({ type: 'pointersLoaded', pointers });
    // What a predecessor did not get to delete.
    this.#collectGarbage();
    return loadLatest(this.#deps.storage, pointers, this.#options.jobId);
  }

  /** Instead of `restoreLatest`, when running tasks go on: `pointers` as they were read under this leadership. */
  goOn(pointers: readonly CheckpointPointer[]): void {
    this.#post({ type: 'pointersLoaded', pointers });
    this.#collectGarbage();
  }

  /** Those `restoreLatest` found last. */
  get pointers(): readonly CheckpointPointer[] {
    return this.#pointers;
  }

  /** A checkpoint by the path of its directory or metadata file (`run -s`), of this or another job. Later ids are greater. */
  async restoreFrom(path: string): Promise<CompletedCheckpoint> {
    const checkpoint = await loadCheckpoint(this.#deps.storage, path);
    await this.#deps.ids.raiseTo(checkpoint.metadata.checkpointId);
    return checkpoint;
  }

  /** All tasks run (or have finished): from now on checkpoints are triggered. */
  start(): void {
    this.#post({ type: 'started', subtasks: this.#deps.gateway.subtasks() });
  }

  /** Failover or end: aborts what is pending, triggers nothing until `start`. A pointer being added still settles. */
  stop(reason: string): void {
    this.#post({ type: 'stopped', reason });
  }

  /** Triggers one as soon as the number of concurrent ones allows. Rejects with CHECKPOINT_FAILED. */
  triggerNow(): Promise<CompletedCheckpoint> {
    const token = (this.#tokens += 1);
    const result = new Deferred<CompletedCheckpoint>();
    if (this.#isClosed) return Promise.reject(closed());
    this.#waiting.set(token, result);
    this.#post({ type: 'checkpointRequested', token });
    return result.promise;
  }

  acknowledge(ack: CheckpointAck): void {
    const { checkpointId, attemptId, snapshot } = ack;
    this.#post({ type: 'taskAcknowledged', checkpointId, attemptId, snapshot });
  }

  decline(decline: { attemptId: AttemptId; checkpointId: number; failure: Failure }): void {
    const { checkpointId, attemptId, failure } = decline;
    this.#post({ type: 'taskDeclined', checkpointId, attemptId, failure });
  }

  /** The gateway's view shows it as finished already. */
  subtaskFinished(attemptId: AttemptId): void {
    this.#post({ type: 'subtaskFinished', attemptId });
  }

  /** The gateway's view shows its `endOfData` already. */
  endOfData(_attemptId: AttemptId): void {
    this.#post({ type: 'endOfDataReported', subtasks: this.#deps.gateway.subtasks() });
  }

  /** The leader may act again after this time, ms, in which it could not. */
  onResumed(suspendedMs: number): void {
    if (this.#isClosed) return;
    // Before what waited: that must not find anything expired on account of the outage.
    this.#inbox.unshift({ type: 'resumed', suspendedMs });
    this.#drain();
  }

  statistics(): CheckpointStatistics {
    return this.#statistics.snapshot();
  }

  /** Undefined when it is not remembered. */
  details(checkpointId: number): CheckpointSummary | undefined {
    return this.#statistics.details(checkpointId);
  }

  /** The job runs again from this checkpoint: for the statistics. */
  reportRestored(checkpoint: CompletedCheckpoint): void {
    this.#statistics.restored(checkpoint, this.#env.clock.wallTime());
    const { checkpointId, metadataPath } = checkpoint.pointer;
    this.#env.log.info(
      { event: 'checkpoint.restored', checkpointId, path: metadataPath },
      'job restored from checkpoint',
    );
  }

  /** Ends without commands or deletions: a successor may go on from what is stored. */
  async close(): Promise<void> {
    if (!this.#isClosed) {
      this.#isClosed = true;
      this.#inbox = [];
      this.#untold = [];
      this.#run(this.#machine.step({ type: 'closed' }, this.#env.clock.now()));
      this.#cancelTimer?.();
      this.#cancelPoll?.();
      for (const waiting of this.#waiting.values()) waiting.reject(closed());
      this.#waiting.clear();
      for (const waiting of this.#whenSettled.splice(0)) waiting.reject(closed());
    }
    await this.#work.close();
  }

  // ---- Inputs ----------------------------------------------------------------------------------

  #post(input: CoordinatorInput): void {
    if (this.#isClosed) return;
    if (this.#inbox.length >= inboxLimit) {
      this.#env.log.warn({ input: input.type }, 'checkpoint input dropped, too many wait');
      return;
    }
    this.#inbox.push(input);
    this.#drain();
  }

  /** Not re-entered: a gateway that answers within the call only adds to the inbox. */
  #drain(): void {
    if (this.#isDraining) return;
    this.#isDraining = true;
    try {
      while (!this.#isClosed && this.#inbox.length + this.#untold.length > 0) {
        if (!this.#deps.mayAct()) {
          this.#pollLater();
          return;
        }
        this.#run(this.#untold.splice(0));
        const input = this.#inbox.shift();
        if (input?.type === 'pointersLoaded') this.#statistics.pointersKnown(input.pointers);
        if (input !== undefined) this.#run(this.#machine.step(input, this.#env.clock.now()));
      }
    } finally {
      this.#isDraining = false;
    }
    if (!this.#machine.isCommitting) {
      for (const waiting of this.#whenSettled.splice(0)) waiting.resolve();
    }
  }

  #pollLater(): void {
    this.#cancelPoll?.();
    this.#cancelPoll = this.#env.clock.setTimer(suspendedPollMs, () => {
      this.#drain();
    });
  }

  async #commitsSettled(): Promise<void> {
    this.#throwIfClosed();
    if (!this.#machine.isCommitting && this.#inbox.length === 0) return;
    const settled = new Deferred<void>();
    this.#whenSettled.push(settled);
    await settled.promise;
  }

  #throwIfClosed(): void {
    if (this.#isClosed) throw closed();
  }

  // ---- Effects ---------------------------------------------------------------------------------

  #run(effects: readonly CoordinatorEffect[]): void {
    for (const effect of effects) {
      this.#execute(effect);
      this.#checkTold(effect);
    }
  }

  /** A message is dropped when the leader's deadline passes between the decision and the sending. */
  #checkTold(effect: CoordinatorEffect): void {
    const isNotice = effect.type === 'notifyComplete' || effect.type === 'notifyAborted';
    if ((!isNotice && effect.type !== 'triggerTasks') || this.#isClosed) return;
    if (this.#deps.mayAct()) return;
    if (isNotice) this.#untold.push(effect);
    else this.#post({ type: 'triggerUncertain', checkpointId: effect.checkpointId });
  }

  #execute(effect: CoordinatorEffect): void {
    const { gateway, storage } = this.#deps;
    switch (effect.type) {
      case 'takeId':
        return this.#takeId(effect.request);
      case 'snapshotCoordinators':
        return this.#snapshotCoordinators(effect.checkpointId);
      case 'releaseCoordinators':
        gateway.releaseCoordinators(effect.checkpointId);
        return;
      case 'triggerTasks':
        gateway.trigger(effect.attempts, effect.checkpointId, effect.timestamp);
        return;
      case 'storeMetadata':
        return this.#storeMetadata(effect.metadata);
      case 'addPointer':
        return this.#addPointer(effect.pointer, effect.subsumed);
      case 'notifyComplete':
        gateway.notifyComplete(effect.attempts, effect.checkpointId);
        return;
      case 'notifyAborted':
        gateway.notifyAborted(effect.attempts, effect.checkpointId);
        return;
      case 'deleteCheckpoint':
        return this.#inBackground('delete aborted checkpoint', () =>
          storage.deleteCheckpoint(storage.checkpointDirectory(effect.checkpointId)),
        );
      case 'discardStates':
        return this.#inBackground('discard late state', () =>
          storage.discardStates(effect.checkpointId, effect.handles),
        );
      case 'collectGarbage':
        return this.#collectGarbage();
      case 'armTimer':
        return this.#armTimer(effect.at);
      case 'cancelTimer':
        this.#cancelTimer?.();
        this.#cancelTimer = undefined;
        return;
      case 'failJob':
        gateway.failJob(effect.failure);
        return;
      case 'report':
        return this.#report(effect.event);
      case 'settle':
        return this.#settle(effect);
    }
  }

  #takeId(request: number): void {
    this.#ask(
      'take checkpoint id',
      async () => ({
        type: 'idTaken',
        request,
        checkpointId: await this.#deps.ids.next(),
        timestamp: this.#env.clock.wallTime(),
        subtasks: this.#deps.gateway.subtasks(),
      }),
      (failure) => ({ type: 'idFailed', request, failure }),
    );
  }

  #snapshotCoordinators(checkpointId: number): void {
    this.#ask(
      'snapshot coordinators',
      async () => ({
        type: 'coordinatorsSnapshotted',
        checkpointId,
        states: await this.#deps.gateway.snapshotCoordinators(checkpointId),
        subtasks: this.#deps.gateway.subtasks(),
      }),
      (failure) => ({ type: 'coordinatorsFailed', checkpointId, failure }),
    );
  }

  #storeMetadata(metadata: CheckpointMetadata): void {
    const { checkpointId } = metadata;
    this.#ask(
      'store metadata',
      async () => {
        const bytes = encodeMetadata(metadata);
        const { metadataPath } = await this.#deps.storage.writeMetadata(checkpointId, bytes);
        const sha256 = createHash('sha256').update(bytes).digest('hex');
        return {
          type: 'metadataStored',
          checkpointId,
          metadataPath,
          sha256,
          metadataBytes: bytes.byteLength,
        };
      },
      (failure) => ({ type: 'metadataFailed', checkpointId, failure }),
    );
  }

  #addPointer(pointer: CheckpointPointer, subsumed: readonly number[]): void {
    const { checkpointId } = pointer;
    this.#ask(
      'add checkpoint pointer',
      async () => {
        this.#env.fault?.('checkpoint.files-written');
        await this.#deps.pointers.add(pointer, subsumed);
        this.#env.fault?.('checkpoint.pointer-added');
        return { type: 'pointerAdded', checkpointId };
      },
      (failure) => ({ type: 'pointerFailed', checkpointId, failure }),
    );
  }

  /** Asynchronous work whose outcome, either way, is an input. */
  #ask(
    what: string,
    work: () => Promise<CoordinatorInput>,
    onFailure: (failure: Failure) => CoordinatorInput,
  ): void {
    this.#work.run(
      what,
      Promise.resolve()
        .then(work)
        .catch((error: unknown) => onFailure(toFailure(error)))
        .then((input) => {
          this.#post(input);
        }),
    );
  }

  /** Work whose failure only leaves something behind. */
  #inBackground(what: string, work: () => Promise<void>): void {
    this.#work.run(
      what,
      work().catch((err: unknown) => {
        this.#env.log.warn({ err }, `could not ${what}`);
      }),
    );
  }

  /** Files first, marker last, so that whoever leads next can go on. One run at a time. */
  #collectGarbage(): void {
    if (this.#collectAgain) return;
    this.#collectAgain = true;
    this.#garbage = this.#garbage.then(async () => {
      this.#collectAgain = false;
      for (const pointer of await this.#deps.pointers.listGarbage()) {
        if (this.#isClosed || !this.#deps.mayAct()) return;
        await this.#deps.storage.deleteCheckpoint(pointer.metadataPath);
        await this.#deps.pointers.removeGarbage(pointer.checkpointId);
      }
    });
    this.#garbage = this.#garbage.catch((err: unknown) => {
      this.#collectAgain = false;
      if (!this.#isClosed) this.#env.log.warn({ err }, 'could not delete subsumed checkpoints yet');
    });
    this.#work.run('collect garbage', this.#garbage);
  }

  #armTimer(at: number): void {
    this.#cancelTimer?.();
    const delay = Math.max(0, at - this.#env.clock.now());
    this.#cancelTimer = this.#env.clock.setTimer(delay, () => {
      this.#cancelTimer = undefined;
      this.#post({ type: 'timerFired' });
    });
  }

  #settle({ tokens, outcome }: Extract<CoordinatorEffect, { type: 'settle' }>): void {
    for (const token of tokens) {
      const waiting = this.#waiting.get(token);
      this.#waiting.delete(token);
      if (outcome.kind === 'failed') waiting?.reject(fromFailure(outcome.failure));
      else waiting?.resolve(this.#completed(outcome.pointer, outcome.metadata));
    }
  }

  #completed(pointer: CheckpointPointer, metadata: CheckpointMetadata): CompletedCheckpoint {
    const baseDirectory = this.#deps.storage.checkpointDirectory(pointer.checkpointId);
    return { pointer, metadata, baseDirectory };
  }

  #report(event: CoordinatorEvent): void {
    this.#statistics.record(event, this.#env.clock.wallTime());
    const { log } = this.#env;
    switch (event.kind) {
      case 'triggered':
        log.debug(
          { event: 'checkpoint.triggered', checkpointId: event.checkpointId, tasks: event.tasks },
          'checkpoint triggered',
        );
        return;
      case 'acknowledged':
        log.trace(
          { checkpointId: event.checkpointId, tasks: event.tasks },
          'checkpoint acknowledged by a task',
        );
        return;
      case 'completed':
        log.debug(
          {
            event: 'checkpoint.completed',
            checkpointId: event.pointer.checkpointId,
            durationMs: Math.round(event.durationMs),
            bytes: event.stateSize,
            path: event.pointer.metadataPath,
          },
          'checkpoint completed',
        );
        return;
      case 'aborted': {
        const fields = {
          event: 'checkpoint.aborted',
          checkpointId: event.checkpointId,
          reason: event.reason,
          cause: event.failure.cause?.message,
        };
        // What does not count heals by itself, or somebody else says why.
        if (checkpointFailureReasons[event.reason].counted) log.warn(fields, 'checkpoint aborted');
        else log.debug(fields, 'checkpoint aborted');
      }
    }
  }
}

function closed(): MillraceError {
  return new MillraceError('CLOSED', 'the checkpoint coordinator is closed');
}
