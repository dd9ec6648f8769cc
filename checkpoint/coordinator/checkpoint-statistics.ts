import { parentPath } from '../storage/paths.js';
import type {
  CheckpointStatistics,
  CheckpointSummary,
  RestoredCheckpoint,
} from '../../lib/gateway/client-gateway.js';
import type { CheckpointPointer, CompletedCheckpoint } from '../types.js';
import type { CoordinatorEvent } from './coordinator-messages.js';

/** What outlives the leader: plain data. */
export interface CheckpointStatisticsState {
  readonly total: number;
  readonly completed: number;
  readonly failed: number;
  readonly restored: number;
  readonly latestCompleted?: CheckpointSummary;
  readonly latestFailed?: CheckpointSummary;
  readonly latestRestored?: RestoredCheckpoint;
  /** Oldest first. */
  readonly history: readonly CheckpointSummary[];
}

/**
 * What REST shows of a job's checkpoints: counts, the latest ones, and a bounded history. It goes on from what an
 * earlier leader wrote down, corrected by the pointers in HA, which alone say what completed.
 */
export class CheckpointStatisticsTracker {
  readonly #historySize: number;
  /** Oldest first. */
  #history: CheckpointSummary[] = [];
  #total = 0;
  #completed = 0;
  #failed = 0;
  #restoredCount = 0;
  #latestCompleted: CheckpointSummary | undefined;
  #latestFailed: CheckpointSummary | undefined;
  #latestRestored: RestoredCheckpoint | undefined;
  #version = 0;

  constructor(historySize: number, past?: CheckpointStatisticsState) {
    this.#historySize = historySize;
    if (past !== undefined) this.#continue(past);
  }

  /** Grows with every change that is worth keeping; progress of a checkpoint is not. */
  get version(): number {
    return this.#version;
  }

  state(): CheckpointStatisticsState {
    return {
      total: this.#total,
      completed: this.#completed,
      failed: this.#failed,
      restored: this.#restoredCount,
      ...(this.#latestCompleted && { latestCompleted: this.#latestCompleted }),
      ...(this.#latestFailed && { latestFailed: this.#latestFailed }),
      ...(this.#latestRestored && { latestRestored: this.#latestRestored }),
      history: [...this.#history],
    };
  }

  /** Ascending. What an earlier leader completed and did not get to write down is counted now. */
  pointersKnown(pointers: readonly CheckpointPointer[]): void {
    for (const pointer of pointers) {
      if (pointer.checkpointId <= (this.#latestCompleted?.id ?? 0)) continue;
      const known = this.details(pointer.checkpointId);
      // Its coordinator will say how it ended.
      if (known?.status === 'IN_PROGRESS') continue;
      if (known === undefined) this.#total += 1;
      else this.#failed -= 1;
      this.#completed += 1;
      this.#version += 1;
      this.#latestCompleted = completedByPointer(pointer, known);
      this.#replace(this.#latestCompleted);
      if (this.#latestFailed?.id === pointer.checkpointId) {
        this.#latestFailed = this.#history.findLast(({ status }) => status === 'FAILED');
      }
    }
  }

  /** @param wallTime wall-clock ms of the event. */
  record(event: CoordinatorEvent, wallTime: number): void {
    if (event.kind !== 'acknowledged') this.#version += 1;
    switch (event.kind) {
      case 'triggered':
        this.#total += 1;
        this.#add({
          id: event.checkpointId,
          status: 'IN_PROGRESS',
          is_savepoint: false,
          trigger_timestamp: event.timestamp,
          latest_ack_timestamp: -1,
          end_to_end_duration: 0,
          state_size: 0,
          num_subtasks: event.tasks,
          num_acknowledged_subtasks: 0,
        });
        return;
      case 'acknowledged':
        this.#update(event.checkpointId, (known) => ({
          latest_ack_timestamp: wallTime,
          end_to_end_duration: Math.max(0, wallTime - known.trigger_timestamp),
          state_size: event.stateSize,
          num_acknowledged_subtasks: event.tasks,
        }));
        return;
      case 'completed':
        this.#completed += 1;
        this.#latestCompleted = this.#update(event.pointer.checkpointId, () => ({
          status: 'COMPLETED',
          end_to_end_duration: Math.round(event.durationMs),
          state_size: event.stateSize,
          external_path: parentPath(event.pointer.metadataPath),
        }));
        return;
      case 'aborted':
        this.#onAborted(event, wallTime);
    }
  }

  restored(checkpoint: CompletedCheckpoint, wallTime: number): void {
    this.#restoredCount += 1;
    this.#version += 1;
    this.#latestRestored = {
      id: checkpoint.pointer.checkpointId,
      restore_timestamp: wallTime,
      is_savepoint: checkpoint.pointer.kind === 'savepoint',
      external_path: parentPath(checkpoint.pointer.metadataPath),
    };
  }

  snapshot(): CheckpointStatistics {
    return {
      counts: {
        restored: this.#restoredCount,
        total: this.#total,
        in_progress: this.#total - this.#completed - this.#failed,
        completed: this.#completed,
        failed: this.#failed,
      },
      latest: {
        ...(this.#latestCompleted && { completed: this.#latestCompleted }),
        ...(this.#latestFailed && { failed: this.#latestFailed }),
        ...(this.#latestRestored && { restored: this.#latestRestored }),
      },
      history: this.#history.slice(-this.#historySize).reverse(),
    };
  }

  details(checkpointId: number): CheckpointSummary | undefined {
    const known = this.#history.findLast((one) => one.id === checkpointId);
    if (known !== undefined) return known;
    return [this.#latestCompleted, this.#latestFailed].find((one) => one?.id === checkpointId);
  }

  /** What was in progress ended with its leader, as far as is known yet. */
  #continue(past: CheckpointStatisticsState): void {
    this.#total = past.total;
    this.#completed = past.completed;
    this.#failed = past.total - past.completed;
    this.#restoredCount = past.restored;
    this.#history = past.history.slice(-Math.max(1, this.#historySize)).map(abortedWithLeader);
    this.#latestCompleted = past.latestCompleted;
    this.#latestRestored = past.latestRestored;
    this.#latestFailed =
      this.#history.findLast(({ status }) => status === 'FAILED') ?? past.latestFailed;
  }

  /** In the order of ids. */
  #replace(summary: CheckpointSummary): void {
    const others = this.#history.filter(({ id }) => id !== summary.id);
    this.#history = others.filter(({ id }) => id < summary.id);
    this.#add(summary);
    for (const later of others.filter(({ id }) => id > summary.id)) this.#add(later);
  }

  #onAborted(event: Extract<CoordinatorEvent, { kind: 'aborted' }>, wallTime: number): void {
    // Without a record it failed before it was begun: Flink, too, counts only what was triggered.
    if (event.checkpointId === undefined) return;
    const updated = this.#update(event.checkpointId, (known) => ({
      status: 'FAILED',
      end_to_end_duration: Math.max(0, wallTime - known.trigger_timestamp),
      failure_message: describe(event),
    }));
    if (updated === undefined) return;
    this.#failed += 1;
    this.#latestFailed = updated;
  }

  #add(summary: CheckpointSummary): void {
    this.#history.push(summary);
    // Those in progress stay until they are over, whatever the size of the history.
    while (this.#history.length > Math.max(1, this.#historySize)) {
      const oldest = this.#history.findIndex((one) => one.status !== 'IN_PROGRESS');
      if (oldest < 0) return;
      this.#history.splice(oldest, 1);
    }
  }

  #update(
    id: number,
    change: (known: CheckpointSummary) => Partial<CheckpointSummary>,
  ): CheckpointSummary | undefined {
    const index = this.#history.findLastIndex((one) => one.id === id);
    const known = this.#history[index];
    if (known === undefined) return undefined;
    const updated: CheckpointSummary = { ...known, ...change(known) };
    this.#history[index] = updated;
    return updated;
  }
}

function abortedWithLeader(summary: CheckpointSummary): CheckpointSummary {
  if (summary.status !== 'IN_PROGRESS') return summary;
  return { ...summary, status: 'FAILED', failure_message: 'aborted: its leader was replaced' };
}

function completedByPointer(
  pointer: CheckpointPointer,
  known: CheckpointSummary | undefined,
): CheckpointSummary {
  const { failure_message: _, ...rest } = known ?? {
    id: pointer.checkpointId,
    trigger_timestamp: pointer.timestamp,
    latest_ack_timestamp: -1,
    end_to_end_duration: 0,
    num_subtasks: 0,
    num_acknowledged_subtasks: 0,
  };
  return {
    ...rest,
    status: 'COMPLETED',
    is_savepoint: pointer.kind === 'savepoint',
    state_size: pointer.sizeBytes,
    num_acknowledged_subtasks: rest.num_subtasks,
    external_path: parentPath(pointer.metadataPath),
  };
}

function describe({ failure }: Extract<CoordinatorEvent, { kind: 'aborted' }>): string {
  const cause = failure.cause?.message;
  return cause === undefined ? failure.message : `${failure.message}: ${cause}`;
}
