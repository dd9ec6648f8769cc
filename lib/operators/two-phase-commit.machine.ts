/**
 * Second phase of a sink's two-phase commit, per subtask. Committables are prepared at barriers; a
 * completed checkpoint commits everything up to its id, also what aborted checkpoints before it left. What
 * is not known to be committed is in every snapshot, and is committed again after a restore: commits are idempotent.
 */
import { InvariantError } from '../base/assert.js';
import { checkTransition, defineTransitions } from '../base/transitions.js';

export type CommitState = 'idle' | 'committing' | 'backingOff' | 'failed';

export const commitTransitions = defineTransitions<CommitState>({
  idle: ['committing'],
  committing: ['idle', 'committing', 'backingOff', 'failed'],
  backingOff: ['committing'],
  failed: [],
});

export interface PendingCommit {
  /** The checkpoint at whose barrier it was prepared. */
  readonly checkpointId: number;
  readonly committable: unknown;
}

export type CommitInput =
  /** From the snapshot this attempt starts from: that checkpoint is complete, so all of it is due. */
  | { readonly kind: 'restored'; readonly pending: readonly PendingCommit[] }
  | {
      readonly kind: 'prepared';
      readonly checkpointId: number;
      readonly committables: readonly unknown[];
    }
  | { readonly kind: 'checkpointCompleted'; readonly checkpointId: number }
  /** Changes nothing: its work belongs to the next completed one. */
  | { readonly kind: 'checkpointAborted'; readonly checkpointId: number }
  /** Answer to `commit`, one outcome per committable. */
  | { readonly kind: 'commitReturned'; readonly outcomes: readonly string[] }
  | { readonly kind: 'commitThrew'; readonly error: unknown }
  | { readonly kind: 'backoffElapsed' };

export type CommitEffect =
  /** At most one is under way. */
  | { readonly kind: 'commit'; readonly committables: readonly unknown[] }
  | { readonly kind: 'armBackoff'; readonly delayMs: number }
  /** Everything prepared up to this checkpoint is committed. */
  | { readonly kind: 'committedUpTo'; readonly checkpointId: number }
  | { readonly kind: 'fail'; readonly reason: CommitFailure };

export type CommitFailure =
  | { readonly kind: 'threw'; readonly error: unknown }
  | { readonly kind: 'retriesExhausted'; readonly attempts: number; readonly pendingCount: number }
  | { readonly kind: 'badAnswer'; readonly expected: number; readonly received: number };

export interface CommitOptions {
  /** Tries of the same work before the task fails over. */
  readonly attemptsMax: number;
  readonly initialBackoffMs: number;
  readonly maxBackoffMs: number;
}

/** About a minute in all. */
export const defaultCommitOptions: CommitOptions = {
  attemptsMax: 12,
  initialBackoffMs: 100,
  maxBackoffMs: 10_000,
};

export class TwoPhaseCommitMachine {
  readonly #options: CommitOptions;
  #state: CommitState = 'idle';
  /** In order of preparation: checkpoint ids ascend. */
  #pending: PendingCommit[] = [];
  /** Highest completed checkpoint. */
  #completedUpTo = -Infinity;
  #inFlight: readonly PendingCommit[] = [];
  /** Consecutive tries without any progress. */
  #attempts = 0;

  constructor(options: CommitOptions = defaultCommitOptions) {
    this.#options = options;
  }

  get state(): CommitState {
    return this.#state;
  }

  /** What a snapshot taken now must contain. */
  get uncommitted(): readonly PendingCommit[] {
    return this.#pending;
  }

  step(input: CommitInput): CommitEffect[] {
    if (this.#state === 'failed') return [];
    switch (input.kind) {
      case 'restored': {
        this.#pending = [...input.pending];
        for (const { checkpointId } of input.pending) this.#complete(checkpointId);
        return this.#commitDue();
      }
      case 'prepared':
        return this.#prepare(input.checkpointId, input.committables);
      case 'checkpointCompleted':
        this.#complete(input.checkpointId);
        return this.#commitDue();
      case 'checkpointAborted':
        return [];
      case 'commitReturned':
        return this.#onReturned(input.outcomes);
      case 'commitThrew':
        this.#expect('committing');
        return this.#fail({ kind: 'threw', error: input.error });
      case 'backoffElapsed':
        this.#expect('backingOff');
        return this.#startCommit();
    }
  }

  #prepare(checkpointId: number, committables: readonly unknown[]): CommitEffect[] {
    const last = this.#pending.at(-1)?.checkpointId ?? -Infinity;
    if (checkpointId < last || checkpointId <= this.#completedUpTo) {
      throw new InvariantError('committables of an older checkpoint were prepared', {
        checkpointId,
        last,
        completedUpTo: this.#completedUpTo,
      });
    }
    for (const committable of committables) this.#pending.push({ checkpointId, committable });
    return [];
  }

  #complete(checkpointId: number): void {
    this.#completedUpTo = Math.max(this.#completedUpTo, checkpointId);
  }

  #due(): PendingCommit[] {
    return this.#pending.filter(({ checkpointId }) => checkpointId <= this.#completedUpTo);
  }

  /** Starts a commit unless one is under way, which looks again when it returns. */
  #commitDue(): CommitEffect[] {
    if (this.#state !== 'idle') return [];
    if (this.#due().length === 0) {
      return [{ kind: 'committedUpTo', checkpointId: this.#completedUpTo }];
    }
    return this.#startCommit();
  }

  #startCommit(): CommitEffect[] {
    this.#become('committing');
    this.#attempts += 1;
    this.#inFlight = this.#due();
    return [{ kind: 'commit', committables: this.#inFlight.map(({ committable }) => committable) }];
  }

  #onReturned(outcomes: readonly string[]): CommitEffect[] {
    this.#expect('committing');
    const expected = this.#inFlight.length;
    const isKnown = outcomes.every((outcome) =>
      ['committed', 'alreadyCommitted', 'retry'].includes(outcome),
    );
    if (outcomes.length !== expected || !isKnown) {
      return this.#fail({ kind: 'badAnswer', expected, received: outcomes.length });
    }
    const done = new Set(this.#inFlight.filter((_, i) => outcomes[i] !== 'retry'));
    const upTo = this.#inFlight.at(-1)?.checkpointId ?? -Infinity;
    this.#pending = this.#pending.filter((pending) => !done.has(pending));
    this.#inFlight = [];
    if (done.size > 0) this.#attempts = 0;
    if (done.size < expected) return this.#retryLater();
    this.#attempts = 0;
    if (this.#due().length > 0) {
      return [{ kind: 'committedUpTo', checkpointId: upTo }, ...this.#startCommit()];
    }
    this.#become('idle');
    return [{ kind: 'committedUpTo', checkpointId: this.#completedUpTo }];
  }

  #retryLater(): CommitEffect[] {
    const { attemptsMax, initialBackoffMs, maxBackoffMs } = this.#options;
    if (this.#attempts >= attemptsMax) {
      const pendingCount = this.#due().length;
      return this.#fail({ kind: 'retriesExhausted', attempts: this.#attempts, pendingCount });
    }
    this.#become('backingOff');
    const doublings = Math.max(0, this.#attempts - 1);
    return [
      { kind: 'armBackoff', delayMs: Math.min(maxBackoffMs, initialBackoffMs * 2 ** doublings) },
    ];
  }

  #fail(reason: CommitFailure): CommitEffect[] {
    this.#become('failed');
    return [{ kind: 'fail', reason }];
  }

  #become(next: CommitState): void {
    checkTransition('two-phase commit', commitTransitions, this.#state, next);
    this.#state = next;
  }

  #expect(state: CommitState): void {
    if (this.#state !== state) {
      throw new InvariantError(`two-phase commit: expected to be ${state}, not ${this.#state}`);
    }
  }
}
