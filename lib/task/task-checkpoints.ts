/** A task's part in checkpoints: alignment, the snapshot of its chain, what became of it. */
import type { Clock } from '../base/clock.js';
import { MillraceError, toFailure } from '../base/errors.js';
import type { AttemptId } from '../base/ids.js';
import {
  BarrierAligner,
  type BarrierEffect,
  type BarrierInput,
} from '../../checkpoint/barrier/barrier-aligner.machine.js';
import type { OperatorSnapshotInProgress } from '../operators/stream-operator.js';
import type { ControlEvent } from '../record/stream-element.js';
import type { OperatorSubtaskState } from '../state/state-handle.js';
import type { OperatorChain } from './operator-chain.js';
import type { SlotReportMessage } from './slot-api.js';

export interface CheckpointPorts {
  readonly attemptId: AttemptId;
  readonly clock: Clock;
  readonly report: (message: SlotReportMessage) => void;
  readonly chain: () => OperatorChain;
  /** To every output channel, at once. */
  readonly broadcast: (event: ControlEvent) => void;
  readonly setBlocked: (channel: number, isBlocked: boolean) => void;
  /** The operators were finished before this snapshot. */
  readonly isFinished: () => boolean;
  readonly isRunning: () => boolean;
  /** `notifyCheckpointComplete` was awaited. */
  readonly onCommitted: (checkpointId: number) => void;
  readonly fail: (error: unknown) => void;
  /** The task may be able to go on. */
  readonly wake: () => void;
}

export class TaskCheckpoints {
  readonly #ports: CheckpointPorts;
  readonly #aligner: BarrierAligner;
  /** Snapshots whose asynchronous part runs; an aborted one is taken out and its result dropped. */
  readonly #pending = new Set<number>();
  /** First checkpoint taken after the operators finished. */
  #finalCheckpointId: number | undefined;
  /** Newest completed checkpoint the operators have not been told of: a completion covers all before it. */
  #toNotify: number | undefined;
  #isNotifying = false;
  #lastNotified = 0;

  constructor(ports: CheckpointPorts, channels: number) {
    this.#ports = ports;
    this.#aligner = new BarrierAligner(channels);
  }

  get finalCheckpointId(): number | undefined {
    return this.#finalCheckpointId;
  }

  step(input: BarrierInput): void {
    const effects = this.#aligner.step(input, this.#ports.clock.now());
    for (const effect of effects) this.#execute(effect);
    if (input.kind !== 'abortedByCoordinator') return;
    const wasGivenUp = effects.some(
      (effect) => effect.kind === 'giveUp' && effect.checkpointId === input.checkpointId,
    );
    // Taken already, so no alignment ended: the operators must still hear of it.
    if (!wasGivenUp) this.#aborted(input.checkpointId);
  }

  /** Everything an older leader began is over, also what this task has not heard of. */
  abortUpTo(checkpointId: number): void {
    this.forgetUpTo(checkpointId);
    this.step({ kind: 'abortedUpTo', checkpointId });
  }

  complete(checkpointId: number): void {
    if (checkpointId <= this.#lastNotified) return;
    this.#toNotify = Math.max(checkpointId, this.#toNotify ?? 0);
    if (!this.#isNotifying) void this.#notify();
  }

  #execute(effect: BarrierEffect): void {
    switch (effect.kind) {
      case 'blockChannel':
        this.#ports.setBlocked(effect.channel, true);
        break;
      case 'unblockChannels':
        for (const channel of effect.channels) this.#ports.setBlocked(channel, false);
        break;
      case 'takeSnapshot':
        this.#takeSnapshot(effect);
        break;
      case 'giveUp':
        this.#ports.broadcast({ kind: 'cancelBarrier', checkpointId: effect.checkpointId });
        this.#aborted(effect.checkpointId);
        if (effect.superseded) {
          this.#decline(
            effect.checkpointId,
            new Error('a newer checkpoint began before its barriers were aligned'),
          );
        }
        break;
    }
  }

  #aborted(checkpointId: number): void {
    this.#pending.delete(checkpointId);
    this.#ports.wake();
    const chain = this.#ports.chain();
    for (const node of chain.nodes) {
      chain.guard(node, () => node.operator.notifyCheckpointAborted(checkpointId));
    }
  }

  #takeSnapshot(effect: Extract<BarrierEffect, { kind: 'takeSnapshot' }>): void {
    const { checkpointId, timestamp, alignmentMs } = effect;
    const { clock } = this.#ports;
    const chain = this.#ports.chain();
    const startDelayMs = Math.max(0, clock.wallTime() - alignmentMs - timestamp);
    const startedAt = clock.now();
    for (const node of chain.nodes) {
      chain.guard(node, () => node.operator.prepareSnapshotPreBarrier(checkpointId));
    }
    this.#ports.broadcast({ kind: 'barrier', checkpointId, timestamp });
    const parts = chain.nodes.map((node) => ({
      node,
      part: chain.guard(node, () => node.operator.snapshotState(checkpointId)),
    }));
    const finished = this.#ports.isFinished();
    if (finished) this.#finalCheckpointId ??= checkpointId;
    const syncMs = clock.now() - startedAt;
    this.#pending.add(checkpointId);
    void this.#finish(checkpointId, parts, (operators, asyncMs) => {
      const snapshot = { operators, finished };
      const times = { alignmentMs, syncMs, asyncMs, startDelayMs };
      const { attemptId } = this.#ports;
      this.#ports.report({ kind: 'checkpointAck', attemptId, checkpointId, snapshot, ...times });
    });
  }

  async #finish(
    checkpointId: number,
    parts: readonly {
      readonly node: { readonly id: string };
      readonly part: OperatorSnapshotInProgress;
    }[],
    acknowledge: (operators: Record<string, OperatorSubtaskState>, asyncMs: number) => void,
  ): Promise<void> {
    const startedAt = this.#ports.clock.now();
    try {
      // All settle before the verdict, so that no write is left running behind a decline.
      const results = await Promise.allSettled(parts.map(({ part }) => part.finish()));
      const operators: Record<string, OperatorSubtaskState> = {};
      results.forEach((result, i) => {
        if (result.status === 'rejected') throw result.reason;
        const id = parts[i]?.node.id;
        if (id !== undefined) operators[id] = result.value;
      });
      if (!this.#isWanted(checkpointId)) return;
      acknowledge(operators, this.#ports.clock.now() - startedAt);
    } catch (error) {
      if (this.#isWanted(checkpointId)) this.#decline(checkpointId, error);
    }
  }

  /** Given up by the coordinator while the task is ending: what is still being written need not be any more. */
  forget(checkpointId: number): void {
    if (this.#pending.has(checkpointId)) this.#aborted(checkpointId);
  }

  forgetUpTo(checkpointId: number): void {
    for (const pending of [...this.#pending]) if (pending <= checkpointId) this.#aborted(pending);
  }

  /** Snapshots that were taken are not all written and acknowledged. */
  get isWriting(): boolean {
    return this.#pending.size > 0;
  }

  #isWanted(checkpointId: number): boolean {
    const isPending = this.#pending.delete(checkpointId);
    this.#ports.wake();
    return isPending && this.#ports.isRunning();
  }

  #decline(checkpointId: number, cause: unknown): void {
    const text = cause instanceof Error ? cause.message : String(cause);
    const error = new MillraceError(
      'CHECKPOINT_FAILED',
      `checkpoint ${String(checkpointId)} failed in a task: ${text}`,
      { cause, details: { checkpointId } },
    );
    const { attemptId } = this.#ports;
    this.#ports.report({
      kind: 'checkpointDecline',
      attemptId,
      checkpointId,
      failure: toFailure(error),
    });
  }

  /** One checkpoint at a time; those that complete meanwhile are covered by the newest of them. */
  async #notify(): Promise<void> {
    this.#isNotifying = true;
    try {
      while (this.#toNotify !== undefined && this.#ports.isRunning()) {
        const checkpointId = this.#toNotify;
        this.#toNotify = undefined;
        this.#lastNotified = checkpointId;
        const chain = this.#ports.chain();
        for (const node of chain.nodes) {
          await chain.guardAsync(node, () => node.operator.notifyCheckpointComplete(checkpointId));
          if (!this.#ports.isRunning()) return;
        }
        this.#ports.onCommitted(checkpointId);
      }
    } catch (error) {
      this.#ports.fail(error);
    } finally {
      this.#isNotifying = false;
    }
  }
}
