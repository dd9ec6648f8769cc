/**
 * Runs a sink's writer and committer in one operator. At a barrier the writer's output is prepared
 * and, in the asynchronous part of the snapshot, made durable; when the checkpoint is complete it is committed
 * (two-phase-commit.machine.ts). A restored operator first commits again what its checkpoint lists.
 */
import type { Committer, Sink, SinkContext, SinkWriter } from '../api/sink.js';
import { invariant } from '../base/assert.js';
import { Deferred } from '../base/deferred.js';
import { MillraceError } from '../base/errors.js';
import type { OperatorListState } from '../state/operator-state-backend.js';
import type { CodeScope, GeneratesCode, RecordNames } from './operator-code.js';
import { AbstractOperator } from './abstract-operator.js';
import {
  TwoPhaseCommitMachine,
  type CommitEffect,
  type CommitFailure,
  type PendingCommit,
} from './two-phase-commit.machine.js';

interface CommitWaiter {
  readonly checkpointId: number;
  readonly committed: Deferred<void>;
}

export class SinkOperator extends AbstractOperator implements GeneratesCode {
  readonly #sink: Sink<unknown, unknown>;
  readonly #machine = new TwoPhaseCommitMachine();
  #writer: SinkWriter<unknown, unknown> | undefined;
  #committer: Committer<unknown> | undefined;
  #writerState!: OperatorListState<unknown>;
  #committables!: OperatorListState<PendingCommit>;
  #waiters: CommitWaiter[] = [];
  #failure: MillraceError | undefined;
  #cancelBackoff: () => void = () => undefined;
  #isClosed = false;

  constructor(sink: Sink<unknown, unknown>) {
    super();
    this.#sink = sink;
  }

  override async open(): Promise<void> {
    await super.open();
    const context = this.#sinkContext();
    try {
      this.#committer = this.#sink.createCommitter?.(context);
      await this.#recommit();
      this.#writer = this.#sink.createWriter(context, this.#writerState.get());
      await this.#writer.open?.();
    } catch (error) {
      throw this.blame(error);
    }
  }

  /** The job may have failed between its last checkpoint and the commit of what is in it. */
  async commitRestored(): Promise<void> {
    await super.open();
    try {
      this.#committer = this.#sink.createCommitter?.(this.#sinkContext());
      await this.#recommit();
    } catch (error) {
      throw this.blame(error);
    }
  }

  protected override onRestored(): void {
    this.#writerState = this.operatorState.listState('writer');
    this.#committables = this.operatorState.listState<PendingCommit>('committables');
  }

  processElement(value: unknown, timestamp: number): void {
    invariant(this.#writer !== undefined, 'the sink is not open');
    try {
      this.#writer.write(value, timestamp);
    } catch (error) {
      throw this.blame(error);
    }
  }

  generate(scope: CodeScope, { value, timestamp }: RecordNames): string {
    const writer = scope.bind('writer', () => this.#writer);
    return `${scope.blame}
${writer}.write(${value}, ${timestamp});`;
  }

  protected override onSnapshot(checkpointId: number): void {
    const writer = this.#writer;
    invariant(writer !== undefined, 'the sink is not open');
    try {
      if (this.#committer !== undefined) {
        const committables = writer.prepareCommit?.(checkpointId) ?? [];
        this.#run(this.#machine.step({ kind: 'prepared', checkpointId, committables }));
      }
      this.#writerState.update(writer.snapshotState?.(checkpointId) ?? []);
    } catch (error) {
      throw this.blame(error);
    }
    this.#committables.update(this.#machine.uncommitted);
  }

  protected override async syncSideEffects(): Promise<void> {
    await this.guard(() => this.#writer?.sync?.());
  }

  /** Resolves when everything up to the checkpoint is committed. */
  override notifyCheckpointComplete(checkpointId: number): Promise<void> {
    if (this.#committer === undefined) return Promise.resolve();
    return this.#commit(checkpointId, { kind: 'checkpointCompleted', checkpointId });
  }

  override notifyCheckpointAborted(checkpointId: number): void {
    this.#run(this.#machine.step({ kind: 'checkpointAborted', checkpointId }));
  }

  override async close(): Promise<void> {
    this.#isClosed = true;
    this.#cancelBackoff();
    this.#settle(new MillraceError('CLOSED', `${this.context.operatorName} was closed`));
    await this.guard(() => this.#writer?.close());
    await this.guard(() => this.#committer?.close?.());
    await super.close();
  }

  /** Before the writer starts: its pending names must not meet those of the attempt before. */
  async #recommit(): Promise<void> {
    const pending = this.#committables.get();
    if (pending.length === 0) return;
    if (this.#committer === undefined) {
      throw new MillraceError(
        'CHECKPOINT_INCOMPATIBLE',
        `${this.context.operatorName} has ${pending.length} uncommitted outputs in the checkpoint, but its sink has no committer; restore with the old sink first`,
      );
    }
    // Dealt out from several old subtasks they may be out of order.
    const ordered = [...pending].sort((a, b) => a.checkpointId - b.checkpointId);
    const checkpointId = ordered.at(-1)?.checkpointId ?? 0;
    await this.#commit(checkpointId, { kind: 'restored', pending: ordered });
  }

  async #commit(
    checkpointId: number,
    input: Parameters<TwoPhaseCommitMachine['step']>[0],
  ): Promise<void> {
    if (this.#failure !== undefined) throw this.#failure;
    const committed = new Deferred<void>();
    this.#waiters.push({ checkpointId, committed });
    this.#run(this.#machine.step(input));
    await committed.promise;
  }

  #run(effects: readonly CommitEffect[]): void {
    for (const effect of effects) {
      switch (effect.kind) {
        case 'commit':
          void this.#callCommitter(effect.committables);
          break;
        case 'armBackoff':
          this.context.log.warn(
            { operator: this.context.operatorName, delayMs: effect.delayMs },
            'sink could not commit everything, trying again',
          );
          this.#cancelBackoff = this.context.clock.setTimer(effect.delayMs, () => {
            this.#run(this.#machine.step({ kind: 'backoffElapsed' }));
          });
          break;
        case 'committedUpTo':
          this.#resolveUpTo(effect.checkpointId);
          break;
        case 'fail':
          this.#failure = this.#failureOf(effect.reason);
          this.#settle(this.#failure);
          break;
      }
    }
  }

  /** Never rejects: its outcome goes to the machine. */
  async #callCommitter(committables: readonly unknown[]): Promise<void> {
    let input: Parameters<TwoPhaseCommitMachine['step']>[0];
    try {
      const outcomes = await this.#committer!.commit(committables);
      input = { kind: 'commitReturned', outcomes };
    } catch (error) {
      input = { kind: 'commitThrew', error };
    }
    if (!this.#isClosed) this.#run(this.#machine.step(input));
  }

  #resolveUpTo(checkpointId: number): void {
    const isDone = (waiter: CommitWaiter): boolean => waiter.checkpointId <= checkpointId;
    for (const { committed } of this.#waiters.filter(isDone)) committed.resolve();
    this.#waiters = this.#waiters.filter((waiter) => !isDone(waiter));
  }

  #settle(error: MillraceError): void {
    for (const { committed } of this.#waiters) committed.reject(error);
    this.#waiters = [];
  }

  #failureOf(reason: CommitFailure): MillraceError {
    const { operatorName } = this.context;
    switch (reason.kind) {
      case 'threw':
        return this.blame(reason.error);
      case 'badAnswer':
        return new MillraceError(
          'USER_FUNCTION',
          `${operatorName}: the committer answered ${reason.received} outcomes, or unknown ones, for ${reason.expected} committables`,
        );
      case 'retriesExhausted':
        return new MillraceError(
          'COMMIT_FAILED',
          `${operatorName} could not commit ${reason.pendingCount} outputs in ${reason.attempts} tries; they stay pending and are committed after the restart`,
        );
    }
  }

  #sinkContext(): SinkContext {
    const { jobId, operatorId, subtaskIndex, parallelism, generation, attemptId } = this.context;
    const { processingTime, restoredCheckpointId } = this.context;
    return {
      jobId,
      operatorId,
      subtaskIndex,
      parallelism,
      generation,
      attemptId,
      ...(restoredCheckpointId !== undefined && { restoredCheckpointId }),
      now: () => processingTime.now(),
    };
  }
}
