/**
 * Runs one operator without a task: time stands still until moved, output is kept in order, snapshots
 * are restored into other harnesses, at other parallelisms too.
 */
import type { Clock } from '../base/clock.js';
import type { JobId, OperatorId } from '../base/ids.js';
import { silentLogger } from '../base/logger.js';
import { MetricRegistry } from '../base/metrics.js';
import { computeKeyGroupRange, intersectRanges } from '../state/key-group-range.js';
import type { SnapshotStorage } from '../state/snapshot-storage.js';
import type { OperatorRestore, OperatorSubtaskState, StateHandle } from '../state/state-handle.js';
import type {
  OperatorContext,
  OperatorEvent,
  Output,
  SourceStreamOperator,
  StreamOperator,
} from '../operators/stream-operator.js';
import { ManualClock } from './manual-clock.js';

/** What an operator emitted, in order. */
export type HarnessOutput =
  | { readonly kind: 'record'; readonly value: unknown; readonly timestamp: number }
  | {
      readonly kind: 'side';
      readonly tag: string;
      readonly value: unknown;
      readonly timestamp: number;
    }
  | { readonly kind: 'watermark'; readonly timestamp: number }
  | { readonly kind: 'status'; readonly active: boolean };

export interface HarnessOptions {
  /** 1 */
  readonly parallelism?: number;
  /** 0 */
  readonly subtaskIndex?: number;
  /** 128 */
  readonly maxParallelism?: number;
  /** 0 */
  readonly generation?: number;
  /** Subtask states of the old parallelism, in order. */
  readonly restoreFrom?: readonly OperatorSubtaskState[];
  /** 200 */
  readonly autoWatermarkIntervalMs?: number;
  /** Answers `shouldYield`; never by default. */
  readonly shouldYield?: () => boolean;
  /** Unix ms at the start; 0. */
  readonly wallTime?: number;
}

/** Keeps everything inline. */
class InlineSnapshotStorage implements SnapshotStorage {
  write(_checkpointId: number, _name: string, bytes: Uint8Array): Promise<StateHandle> {
    return Promise.resolve({ kind: 'inline', bytes: Uint8Array.from(bytes) });
  }

  read(handle: StateHandle): Promise<Uint8Array> {
    if (handle.kind === 'inline') return Promise.resolve(handle.bytes);
    return Promise.reject(new RangeError(`no file ${handle.path} in a test harness`));
  }
}

export class OperatorTestHarness<Op extends StreamOperator = StreamOperator> {
  readonly operator: Op;
  readonly clock: ManualClock;
  readonly metrics = new MetricRegistry();
  readonly output: HarnessOutput[] = [];
  /** Events sent to the operator's coordinator. */
  readonly events: OperatorEvent[] = [];
  /** How often the operator asked to be woken. */
  wakeUps = 0;
  readonly #steps: (() => boolean)[] = [];

  constructor(operator: Op, options: HarnessOptions = {}) {
    this.operator = operator;
    this.clock = new ManualClock(options.wallTime ?? 0);
    operator.setup(this.#createContext(options));
  }

  async open(): Promise<this> {
    await this.operator.open();
    return this;
  }

  processElement(value: unknown, timestamp = -Infinity): void {
    this.operator.processElement(value, timestamp);
  }

  processWatermark(timestamp: number): void {
    this.operator.processWatermark(timestamp);
  }

  /** Polls a source until it has nothing or ends; the last answer. */
  pollAll(): 'nothing' | 'end' {
    for (;;) {
      const outcome = (this.operator as StreamOperator as SourceStreamOperator).emitNext();
      if (outcome !== 'more') return outcome;
    }
  }

  /** Moves wall-clock and monotonic time on. */
  advanceTime(ms: number): void {
    this.clock.advance(ms);
  }

  /** Runs what the operator put off; each step once. True when nothing is left. */
  runContinuation(): boolean {
    const count = this.#steps.length;
    for (let i = 0; i < count; i += 1) {
      const step = this.#steps.shift()!;
      if (!step()) this.#steps.push(step);
    }
    return this.#steps.length === 0;
  }

  async snapshot(checkpointId: number): Promise<OperatorSubtaskState> {
    this.operator.prepareSnapshotPreBarrier(checkpointId);
    return this.operator.snapshotState(checkpointId).finish();
  }

  /** Values of the main output. */
  get values(): unknown[] {
    return this.output.flatMap((item) => (item.kind === 'record' ? [item.value] : []));
  }

  get watermarks(): number[] {
    return this.output.flatMap((item) => (item.kind === 'watermark' ? [item.timestamp] : []));
  }

  sideValues(tag: string): unknown[] {
    return this.output.flatMap((item) =>
      item.kind === 'side' && item.tag === tag ? [item.value] : [],
    );
  }

  /** Takes the output so far. */
  takeOutput(): HarnessOutput[] {
    return this.output.splice(0);
  }

  async close(): Promise<void> {
    await this.operator.close();
  }

  #createContext(options: HarnessOptions): OperatorContext {
    const { parallelism = 1, subtaskIndex = 0, maxParallelism = 128, generation = 0 } = options;
    const { restoreFrom, autoWatermarkIntervalMs = 200, shouldYield = () => false } = options;
    const restore =
      restoreFrom && restoreOf(restoreFrom, { parallelism, subtaskIndex, maxParallelism });
    return {
      jobId: '0'.repeat(32) as JobId,
      jobName: 'test',
      operatorId: '1'.repeat(32) as OperatorId,
      operatorName: 'operator',
      subtaskIndex,
      parallelism,
      maxParallelism,
      generation,
      attemptId: `test_${subtaskIndex}_${generation}`,
      output: collectInto(this.output),
      processingTime: processingTimeOf(this.clock),
      clock: this.clock,
      metrics: this.metrics,
      log: silentLogger,
      autoWatermarkIntervalMs,
      ...(restore !== undefined && { restore }),
      storage: new InlineSnapshotStorage(),
      shouldYield,
      quantum: { isOver: false, step: () => false },
      inBackground: async (step) => {
        while (!step()) await Promise.resolve();
      },
      continueLater: (step) => {
        this.#steps.push(step);
      },
      wakeUp: () => {
        this.wakeUps += 1;
      },
      sendOperatorEvent: (event) => {
        this.events.push(event);
      },
    };
  }
}

function collectInto(output: HarnessOutput[]): Output {
  return {
    collect: (value, timestamp) => output.push({ kind: 'record', value, timestamp }),
    collectSide: (tag, value, timestamp) => output.push({ kind: 'side', tag, value, timestamp }),
    emitWatermark: (timestamp) => output.push({ kind: 'watermark', timestamp }),
    emitWatermarkStatus: (active) => output.push({ kind: 'status', active }),
  };
}

function processingTimeOf(clock: Clock): OperatorContext['processingTime'] {
  return {
    now: () => clock.wallTime(),
    registerTimer: (timestamp, callback) => clock.setTimer(timestamp - clock.wallTime(), callback),
  };
}

/** What one subtask is given of the states of all old ones. */
export function restoreOf(
  states: readonly OperatorSubtaskState[],
  target: {
    readonly parallelism: number;
    readonly subtaskIndex: number;
    readonly maxParallelism: number;
  },
): OperatorRestore {
  const { parallelism, subtaskIndex, maxParallelism } = target;
  const unchangedParallelism = states.length === parallelism;
  const range = computeKeyGroupRange(maxParallelism, parallelism, subtaskIndex);
  const sources = unchangedParallelism ? states.slice(subtaskIndex, subtaskIndex + 1) : states;
  const watermarks = states.map(({ watermark }) => watermark ?? -Infinity);
  const watermark = Math.min(...watermarks);
  return {
    keyed: states.flatMap(({ keyed }) =>
      keyed !== undefined && intersectRanges(keyed.range, range) !== undefined ? [keyed] : [],
    ),
    operator: sources.flatMap(({ operator }) => (operator === undefined ? [] : [operator])),
    unchangedParallelism,
    ...(watermark !== -Infinity && { watermark }),
  };
}
