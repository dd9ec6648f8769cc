/**
 * One source on the JobMaster: carries events between its readers and its enumerator, and keeps splits
 * and barriers in order. Events to readers pass a gate, which is closed the moment the enumerator's
 * snapshot arrives and opened when the sources acknowledged or the checkpoint is gone: a split is either
 * in the snapshot's past, delivered and acknowledged before the barrier, or comes after it.
 */
import { Deferred } from '../../base/deferred.js';
import { MillraceError } from '../../base/errors.js';
import type { AttemptId, OperatorId } from '../../base/ids.js';
import type { ReaderInventory } from '../../gateway/taskmanager-gateway.js';
import type { OperatorEvent } from '../../operators/stream-operator.js';
import type { CoordinatorCommand } from './coordinator-host.js';
import { SplitAssignmentTracker } from './split-assignment-tracker.js';

export interface SourceCoordinatorDeps {
  /** To the enumerator. */
  command(command: CoordinatorCommand): void;
  /** To a reader, in order; resolves when its task has taken the event. */
  sendEvent(attemptId: AttemptId, event: OperatorEvent): Promise<void>;
  onSendFailed(attemptId: AttemptId, error: unknown): void;
}

/** A reader that runs since an earlier leader, as its TaskManager tells it. */
export interface AdoptedReader {
  readonly subtask: number;
  readonly attemptId: AttemptId;
  /** Its task has ended: it wants nothing any more. */
  readonly isFinished: boolean;
  readonly inventory: ReaderInventory;
}

interface Reader {
  readonly attemptId: AttemptId;
  /** Held back by the gate. */
  held: OperatorEvent[];
}

export class SourceCoordinator {
  readonly operatorId: OperatorId;
  readonly #deps: SourceCoordinatorDeps;
  readonly #tracker = new SplitAssignmentTracker();
  readonly #readers = new Map<number, Reader>();
  /** By subtask: readers the enumerator was told of and has not seen yet. */
  readonly #unseen = new Map<number, number>();
  #closedBy: number | undefined;
  #inFlight = 0;
  #snapshot: { readonly checkpointId: number; readonly taken: Deferred<Uint8Array> } | undefined;
  #whenOpen: Deferred<void>[] = [];
  #whenQuiet: Deferred<void>[] = [];
  #isClosed = false;

  constructor(operatorId: OperatorId, deps: SourceCoordinatorDeps) {
    this.operatorId = operatorId;
    this.#deps = deps;
  }

  // ---- Readers ---------------------------------------------------------------------------------

  /** An event of the current attempt of `subtask`. */
  onReaderEvent(subtask: number, attemptId: AttemptId, event: OperatorEvent): void {
    const { operatorId } = this;
    switch (event.kind) {
      case 'readerRegistered':
        // Told again by a TaskManager that found a new leader.
        if (this.#readers.get(subtask)?.attemptId === attemptId) return;
        this.#addReader(subtask, attemptId);
        return;
      case 'requestSplit':
        if (this.#readers.get(subtask)?.attemptId !== attemptId) return;
        this.#deps.command({ kind: 'requestSplit', operatorId, subtask });
        return;
      default:
        return;
    }
  }

  #addReader(subtask: number, attemptId: AttemptId): void {
    const { operatorId } = this;
    this.#readers.set(subtask, { attemptId, held: [] });
    this.#unseen.set(subtask, (this.#unseen.get(subtask) ?? 0) + 1);
    this.#deps.command({ kind: 'addReader', operatorId, subtask });
  }

  /**
   * Readers go on under a new leader, whose enumerator begins from checkpoint `checkpointId` (0: from nothing). First it
   * learns of every split it does not know to be given, so that it gives none of them to a reader it is told of then.
   */
  adopt(readers: readonly AdoptedReader[], checkpointId: number): void {
    const { operatorId } = this;
    for (const { subtask, inventory } of readers) {
      const splits = inventory.given.flatMap((one) =>
        one.after >= checkpointId ? one.splits : [],
      );
      if (splits.length === 0) continue;
      this.#tracker.record(subtask, splits);
      this.#deps.command({ kind: 'adoptSplits', operatorId, subtask, splits });
    }
    // A reader that was told that no more will come must not get more.
    const open = readers.filter(
      ({ isFinished, inventory }) =>
        !isFinished && inventory.isRegistered && !inventory.noMoreSplits,
    );
    for (const { subtask, attemptId } of open) this.#addReader(subtask, attemptId);
    for (const { subtask, inventory } of open)
      if (inventory.awaitsSplit) this.#deps.command({ kind: 'requestSplit', operatorId, subtask });
  }

  /** The subtask is restarted from this checkpoint: what it was given since goes back, in order. */
  resetSubtask(subtask: number, restoredCheckpointId: number | undefined): void {
    const { operatorId } = this;
    this.#readers.delete(subtask);
    this.#deps.command({ kind: 'removeReader', operatorId, subtask });
    const splits = this.#tracker.takeBack(subtask, restoredCheckpointId);
    if (splits.length > 0)
      this.#deps.command({ kind: 'addSplitsBack', operatorId, subtask, splits });
  }

  /** Everything is restarted; the enumerator is replaced by one restored from the same checkpoint. */
  resetAll(): void {
    this.#readers.clear();
    this.#unseen.clear();
    this.#tracker.clear();
    this.#abandonSnapshot('the job is restarted');
    this.#open();
  }

  close(): void {
    this.#isClosed = true;
    this.resetAll();
    for (const quiet of this.#whenQuiet.splice(0)) quiet.resolve();
  }

  // ---- The enumerator's doings -----------------------------------------------------------------

  onAssigned(subtask: number, splits: readonly unknown[]): void {
    const { operatorId } = this;
    // Its reader went away while the assignment was on its way here.
    if (!this.#readers.has(subtask)) {
      this.#deps.command({ kind: 'addSplitsBack', operatorId, subtask, splits });
      return;
    }
    this.#tracker.record(subtask, splits);
    this.#toReader(subtask, { kind: 'addSplits', splits });
  }

  onReaderAdded(subtask: number): void {
    const left = (this.#unseen.get(subtask) ?? 1) - 1;
    if (left > 0) this.#unseen.set(subtask, left);
    else this.#unseen.delete(subtask);
  }

  onNoMoreSplits(subtask: number): void {
    // Said to the reader before this one, when its splits had not been given back yet: they would be lost.
    if (this.#unseen.has(subtask)) return;
    this.#toReader(subtask, { kind: 'noMoreSplits' });
  }

  onSnapshotTaken(checkpointId: number, state: Uint8Array): void {
    if (this.#snapshot?.checkpointId !== checkpointId) return;
    this.#closedBy = checkpointId;
    this.#tracker.onSnapshot(checkpointId);
    const { taken } = this.#snapshot;
    this.#snapshot = undefined;
    taken.resolve(state);
  }

  #toReader(subtask: number, event: OperatorEvent): void {
    const reader = this.#readers.get(subtask);
    if (reader === undefined) return;
    if (this.#closedBy === undefined) this.#deliver(reader, event);
    else reader.held.push(event);
  }

  #deliver(reader: Reader, event: OperatorEvent): void {
    this.#inFlight += 1;
    this.#deps
      .sendEvent(reader.attemptId, event)
      .catch((error: unknown) => {
        this.#deps.onSendFailed(reader.attemptId, error);
      })
      .finally(() => {
        this.#inFlight -= 1;
        if (this.#inFlight === 0) for (const quiet of this.#whenQuiet.splice(0)) quiet.resolve();
      });
  }

  // ---- Checkpoints -----------------------------------------------------------------------------

  /** Resolves with the enumerator's state when the gate is closed and no event is on its way. */
  async snapshot(checkpointId: number): Promise<Uint8Array> {
    while (this.#isClosed || this.#closedBy !== undefined || this.#snapshot !== undefined) {
      if (this.#isClosed) throw new MillraceError('CLOSED', 'the job ended');
      const open = new Deferred<void>();
      this.#whenOpen.push(open);
      await open.promise;
    }
    const taken = new Deferred<Uint8Array>();
    this.#snapshot = { checkpointId, taken };
    this.#deps.command({ kind: 'snapshot', operatorId: this.operatorId, checkpointId });
    const state = await taken.promise;
    while (this.#inFlight > 0 && !this.#isClosed) {
      const quiet = new Deferred<void>();
      this.#whenQuiet.push(quiet);
      await quiet.promise;
    }
    return state;
  }

  /** The sources acknowledged, or the checkpoint is gone. */
  release(checkpointId: number): void {
    if (this.#snapshot?.checkpointId === checkpointId) {
      this.#abandonSnapshot('the checkpoint was aborted');
      this.#wakeWaiting();
    }
    if (this.#closedBy === checkpointId) this.#open();
  }

  onCheckpointComplete(checkpointId: number): void {
    this.#tracker.onCheckpointComplete(checkpointId);
  }

  #open(): void {
    this.#closedBy = undefined;
    for (const reader of this.#readers.values()) {
      for (const event of reader.held.splice(0)) this.#deliver(reader, event);
    }
    this.#wakeWaiting();
  }

  #wakeWaiting(): void {
    for (const open of this.#whenOpen.splice(0)) open.resolve();
  }

  #abandonSnapshot(why: string): void {
    this.#snapshot?.taken.reject(
      new MillraceError(
        'CHECKPOINT_FAILED',
        `the snapshot of a source coordinator was dropped: ${why}`,
      ),
    );
    this.#snapshot = undefined;
  }
}
