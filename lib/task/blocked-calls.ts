/** Turns of tasks that held up the slot's thread, and so every other task in it: counted, and logged now and then. */
import type { Env } from '../base/env.js';
import type { AttemptId } from '../base/ids.js';
import type { MetricSample } from '../base/metrics.js';
import type { TaskDeploymentDescriptor } from '../gateway/task-deployment-descriptor.js';

/** Between two lines about one task. */
const logPauseMs = 10_000;

interface Seen {
  calls: number;
  /** Since the last line. */
  unlogged: number;
  longestMs: number;
  loggedAt: number;
}

export class BlockedCalls {
  readonly #env: Env;
  readonly #thresholdMs: number;
  readonly #seen = new Map<AttemptId, Seen>();

  /** @param thresholdMs 0: never. */
  constructor(env: Env, thresholdMs: number) {
    this.#env = env;
    this.#thresholdMs = thresholdMs > 0 ? thresholdMs : Infinity;
  }

  /** A turn of this task took `ms`. */
  onTurn(task: TaskDeploymentDescriptor, ms: number): void {
    if (ms >= this.#thresholdMs) this.#note(task, ms);
  }

  metricsOf(attemptId: AttemptId): MetricSample[] {
    const seen = this.#seen.get(attemptId);
    if (seen === undefined) return [];
    return [counter('numBlockingCalls', seen.calls)];
  }

  #note({ attemptId, vertex, subtaskIndex }: TaskDeploymentDescriptor, ms: number): void {
    const seen = this.#seen.get(attemptId) ?? {
      calls: 0,
      unlogged: 0,
      longestMs: 0,
      loggedAt: -Infinity,
    };
    this.#seen.set(attemptId, seen);
    seen.calls += 1;
    seen.unlogged += 1;
    seen.longestMs = Math.max(seen.longestMs, ms);
    const now = this.#env.clock.now();
    if (now - seen.loggedAt < logPauseMs) return;
    const operators = vertex.operators.map(({ name }) => name);
    this.#env.log.warn(
      {
        event: 'slot.blocked',
        vertex: vertex.name,
        subtask: subtaskIndex,
        operators,
        blockedMs: Math.round(seen.longestMs),
        calls: seen.unlogged,
      },
      `${vertex.name} (${String(subtaskIndex)}) held up its slot's thread for ${String(Math.round(ms))} ms: a call of user code in ${operators.join(', ')} takes that long`,
    );
    seen.loggedAt = now;
    seen.unlogged = 0;
    seen.longestMs = 0;
  }
}

function counter(name: string, value: number): MetricSample {
  return { name, type: 'counter', labels: {}, value };
}
