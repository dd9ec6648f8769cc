/**
 * Keyed event-time windows with allowed lateness. A window fires when the watermark reaches its last
 * millisecond: windows by end, keys of a window in order of their first element, resumable between keys. Within the allowed
 * lateness every late element fires its key again; after it elements go to the late output or are counted.
 */
import type {
  KeySelector,
  ProcessWindowContext,
  ProcessWindowFunction,
  WindowFunction,
} from '../api/functions.js';
import type { OutputTag } from '../api/side-output.js';
import { MillraceError } from '../base/errors.js';
import type { Counter } from '../base/metrics.js';
import { NO_TIMESTAMP } from '../record/stream-element.js';
import { identityOf, keyOf, type KeyIdentity } from '../state/key-identity.js';
import { keyGroupOf } from '../state/key-group.js';
import { HashMapStates } from '../state/hash-map-states.js';
import type { WindowAssigner } from '../windowing/assigners.js';
import type { TimeWindow } from '../windowing/window.js';
import { KeyedOperator } from './keyed-operator.js';
import { RecordCollector } from './record-collector.js';
import type { OperatorContext } from './stream-operator.js';
import { bindFunction } from './user-function.js';
import { WindowTable, type WindowContents } from './window-state.js';

export interface WindowOperatorOptions<T> {
  readonly keySelector: KeySelector<T, unknown>;
  readonly assigner: WindowAssigner;
  readonly function: WindowFunction;
  /** How long after its end a window still takes elements. */
  readonly allowedLatenessMs: number;
  /** Takes what is later than that; absent: counted and dropped. */
  readonly lateOutputTag?: OutputTag<T>;
}

type Process = ProcessWindowFunction<unknown, unknown, unknown>;

export class WindowOperator<T> extends KeyedOperator {
  readonly #options: WindowOperatorOptions<T>;
  readonly #process: Process | undefined;
  #table!: WindowTable;
  #collector!: RecordCollector<unknown>;
  #lateDropped!: Counter;
  #windowContext!: ProcessWindowContext;
  #window!: TimeWindow;
  /** Most elements fall into the window of the one before. */
  #recent: WindowContents | undefined;

  constructor(options: WindowOperatorOptions<T>) {
    super(options.keySelector as KeySelector<unknown, unknown>);
    this.#options = options;
    const { process } = options.function;
    this.#process = process === undefined ? undefined : bindFunction(process);
  }

  override setup(context: OperatorContext): void {
    super.setup(context);
    const { assigner, function: fn } = this.#options;
    this.#table = new WindowTable({
      kind: `${assigner.description} of ${fn.kind}`,
      range: this.backend.range,
      maxParallelism: context.maxParallelism,
    });
    this.#collector = new RecordCollector(context.output);
    this.#lateDropped = this.counter('numLateRecordsDropped');
    this.#windowContext = this.#createWindowContext();
  }

  protected override onRestored(): void {
    this.backend.declare(this.#table);
  }

  protected override functions(): readonly object[] {
    return this.#process === undefined ? [] : [this.#process];
  }

  processElement(value: unknown, timestamp: number): void {
    if (timestamp === NO_TIMESTAMP) throw this.#missingTimestamp();
    const key = this.selectKey(value);
    const identity = identityOf(key);
    const contents = this.#contentsAt(timestamp);
    if (contents === undefined) {
      this.#handleLate(value, timestamp);
      return;
    }
    const isComplete = contents.window.maxTimestamp <= this.currentWatermark;
    // A key still pending in a complete window is about to fire with this element.
    const firesNow = isComplete && !contents.pending.has(identity);
    const accumulators = firesNow ? contents.fired : contents.pending;
    let accumulator = accumulators.get(identity);
    const isNew = accumulator === undefined && !accumulators.has(identity);
    if (isNew) this.#table.checkOwned(key);
    accumulator = this.#add(value, accumulator, isNew);
    accumulators.set(identity, accumulator);
    if (firesNow) this.#fire(contents.window, identity, accumulator);
  }

  /** Undefined when the window is gone for good. */
  #contentsAt(timestamp: number): WindowContents | undefined {
    const recent = this.#recent?.window;
    if (recent !== undefined && timestamp >= recent.start && timestamp < recent.end) {
      return this.#recent;
    }
    const window = this.#options.assigner.assign(timestamp);
    if (window.maxTimestamp + this.#options.allowedLatenessMs <= this.currentWatermark) {
      return undefined;
    }
    this.#recent = this.#table.getOrAdd(window);
    return this.#recent;
  }

  #handleLate(value: unknown, timestamp: number): void {
    const tag = this.#options.lateOutputTag;
    if (tag === undefined) this.#lateDropped.inc();
    else this.context.output.collectSide(tag.id, value, timestamp);
  }

  #add(value: unknown, accumulator: unknown, isNew: boolean): unknown {
    const fn = this.#options.function;
    try {
      switch (fn.kind) {
        case 'process': {
          if (isNew) return [value];
          (accumulator as unknown[]).push(value);
          return accumulator;
        }
        case 'reduce': {
          const { reduce } = fn;
          return isNew ? value : reduce(accumulator, value);
        }
        case 'aggregate':
          return fn.aggregate.add(value, isNew ? fn.aggregate.createAccumulator() : accumulator);
      }
    } catch (error) {
      throw this.blame(error);
    }
  }

  protected override advanceEventTime(watermark: number): boolean {
    const lateness = this.#options.allowedLatenessMs;
    // It may be among those that fire and are removed.
    this.#recent = undefined;
    for (;;) {
      const next = this.#table.pollPending(watermark);
      if (next === undefined) break;
      const { contents, identity, accumulator } = next;
      const isKept = contents.window.maxTimestamp + lateness > watermark;
      if (isKept) contents.fired.set(identity, accumulator);
      this.#fire(contents.window, identity, accumulator);
      if (this.context.shouldYield()) return false;
    }
    this.#table.removeExpired(watermark, lateness);
    return true;
  }

  #fire(window: TimeWindow, identity: KeyIdentity, accumulator: unknown): void {
    const fn = this.#options.function;
    this.#collector.timestamp = window.maxTimestamp;
    try {
      const result = fn.kind === 'aggregate' ? fn.aggregate.getResult(accumulator) : accumulator;
      if (this.#process === undefined) {
        this.#collector.collect(result);
        return;
      }
      this.#window = window;
      const key = keyOf(identity);
      this.backend.setCurrentKeyIn(identity, keyGroupOf(key, this.backend.maxParallelism));
      const elements = fn.kind === 'process' ? (result as readonly unknown[]) : [result];
      const process = this.#process;
      if (typeof process === 'function') {
        process(key, this.#windowContext, elements, this.#collector);
      } else {
        process.process(key, this.#windowContext, elements, this.#collector);
      }
      this.backend.clearCurrentKey();
    } catch (error) {
      throw this.blame(error);
    }
  }

  #createWindowContext(): ProcessWindowContext {
    const { context } = this;
    const collector = this.#collector;
    const watermark = (): number => this.currentWatermark;
    const window = (): TimeWindow => this.#window;
    return {
      get window() {
        return window();
      },
      get currentWatermark() {
        return watermark();
      },
      get currentProcessingTime() {
        return context.processingTime.now();
      },
      globalState: new HashMapStates(this.backend, 'user/'),
      output: (tag, value) => {
        collector.collectSide(tag, value);
      },
    };
  }

  #missingTimestamp(): MillraceError {
    return new MillraceError(
      'JOB_INVALID',
      `${this.context.operatorName}: a record without a timestamp reached an event-time window; give the source a WatermarkStrategy with a timestamp assigner`,
    );
  }
}
