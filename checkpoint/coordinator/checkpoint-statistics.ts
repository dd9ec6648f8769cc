import { parentPath } from '../storage/paths.js';
import type {
  CheckpointStatistics,
  CheckpointSummary,
  RestoredCheckpoint,
} from '../../lib/gateway/client-gateway.js';
import type { CompletedCheckpoint } from '../types.js';
import type { CoordinatorEvent } from './coordinator-messages.js';

/** What REST shows of a job's checkpoints: counts, the latest ones, and a bounded history. */
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

  constructor(historySize: number) {
    this.#historySize = historySize;
  }

  /** @param wallTime wall-clock ms of the event. */
  record(event: CoordinatorEvent, wallTime: number): void {
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

function describe({ failure }: Extract<CoordinatorEvent, { kind: 'aborted' }>): string {
  const cause = failure.cause?.message;
  return cause === undefined ? failure.message : `${failure.message}: ${cause}`;
}
