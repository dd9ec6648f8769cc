/** What a task reports about itself: counters, watermarks, and where its time goes. */
import type { Clock } from '../base/clock.js';
import type { AttemptId } from '../base/ids.js';
import type { MetricSample } from '../base/metrics.js';
import type { TaskMetrics } from '../gateway/taskmanager-gateway.js';
import { MAX_WATERMARK, MIN_WATERMARK } from '../record/stream-element.js';
import type { EdgeOutput } from './edge-output.js';
import type { InputChannel } from './input-channel.js';
import type { OperatorNode } from './operator-chain.js';
import type { OutputChannel } from './output-channel.js';

/** Flink's name; operators count under it, the task reports it as a field of its own. */
const lateRecords = 'numLateRecordsDropped';

export type TaskActivity = 'busy' | 'backPressured' | 'idle';

/** Accumulates ms per activity; a change of activity is the only moment the clock is read. */
export class ActivityMeter {
  readonly #clock: Clock;
  readonly #ms = { busy: 0, backPressured: 0, idle: 0 };
  #activity: TaskActivity = 'idle';
  #since: number;

  constructor(clock: Clock) {
    this.#clock = clock;
    this.#since = clock.now();
  }

  set(activity: TaskActivity): void {
    if (activity === this.#activity) return;
    this.#account();
    this.#activity = activity;
  }

  read(): { readonly busyMs: number; readonly backPressuredMs: number; readonly idleMs: number } {
    this.#account();
    const { busy, backPressured, idle } = this.#ms;
    return { busyMs: busy, backPressuredMs: backPressured, idleMs: idle };
  }

  #account(): void {
    const now = this.#clock.now();
    this.#ms[this.#activity] += now - this.#since;
    this.#since = now;
  }
}

export interface MetricSources {
  readonly attemptId: AttemptId;
  readonly numRecordsIn: number;
  readonly inputWatermark: number;
  readonly activity: ActivityMeter;
  readonly inputs: readonly InputChannel[];
  readonly outputs: readonly OutputChannel[];
  readonly edges: readonly EdgeOutput[];
  readonly nodes: readonly OperatorNode[];
}

export function collectTaskMetrics(task: MetricSources): TaskMetrics {
  let late = 0;
  const user: MetricSample[] = [];
  for (const node of task.nodes) {
    for (const sample of node.metrics.samples()) {
      if (sample.name === lateRecords) late += sample.value;
      else user.push({ ...sample, labels: { ...sample.labels, operator_name: node.name } });
    }
  }
  const outputWatermark = task.edges.reduce(
    (lowest, edge) => Math.min(lowest, edge.watermark),
    task.edges.length === 0 ? MIN_WATERMARK : MAX_WATERMARK,
  );
  return {
    attemptId: task.attemptId,
    numRecordsIn: task.numRecordsIn,
    numRecordsOut: sum(task.edges, (edge) => edge.records),
    numBytesIn: sum(task.inputs, (input) => input.bytes),
    numBytesOut: sum(task.outputs, (output) => output.bytes),
    ...task.activity.read(),
    ...(task.inputWatermark > MIN_WATERMARK && {
      currentInputWatermark: finite(task.inputWatermark),
    }),
    ...(outputWatermark > MIN_WATERMARK && { currentOutputWatermark: finite(outputWatermark) }),
    numLateRecordsDropped: late,
    ...(user.length > 0 && { user }),
  };
}

/** Reports are JSON-like: the end of time is written as the largest safe integer. */
function finite(watermark: number): number {
  return Math.min(watermark, Number.MAX_SAFE_INTEGER);
}

function sum<T>(items: readonly T[], value: (item: T) => number): number {
  return items.reduce((total, item) => total + value(item), 0);
}
