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
import { isRealNaN } from '../state/column.js';
import { hashKey } from '../state/key-group.js';
import { canonicalKey } from '../state/key-index.js';
import { HashMapStates } from '../state/hash-map-states.js';
import { ownStrings } from '../state/own.js';
import type { WindowAssigner } from '../windowing/assigners.js';
import { TimeWindow } from '../windowing/window.js';
import { generateHash, KeyedOperator } from './keyed-operator.js';
import type { CodeScope, GeneratesCode, RecordNames } from './operator-code.js';
import { RecordCollector } from './record-collector.js';
import type { OperatorContext } from './stream-operator.js';
import { bindFunction } from './user-function.js';
import { WindowContents } from './window-contents.js';
import { WindowTable } from './window-state.js';

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

/** Takes no element: in place of the recent window when there is none. */
const noWindow = new WindowContents(new TimeWindow(Infinity, -Infinity));

export class WindowOperator<T> extends KeyedOperator implements GeneratesCode {
  /** Most elements fall into the window of the one before. For generated code too, as all that is public here. */
  recent = noWindow;
  table!: WindowTable;
  readonly #options: WindowOperatorOptions<T>;
  readonly #process: Process | undefined;
  #collector!: RecordCollector<unknown>;
  #lateDropped!: Counter;
  #windowContext!: ProcessWindowContext;
  #window!: TimeWindow;

  constructor(options: WindowOperatorOptions<T>) {
    super(options.keySelector as KeySelector<unknown, unknown>);
    this.#options = options;
    const { process } = options.function;
    this.#process = process === undefined ? undefined : bindFunction(process);
  }

  override setup(context: OperatorContext): void {
    super.setup(context);
    const { assigner, function: fn } = this.#options;
    this.table = new WindowTable(`${assigner.description} of ${fn.kind}`, this.backend);
    this.#collector = new RecordCollector(context.output);
    this.#lateDropped = this.counter('numLateRecordsDropped');
    this.#windowContext = this.#createWindowContext();
  }

  protected override onRestored(): void {
    this.backend.declare(this.table);
  }

  protected override functions(): readonly object[] {
    return this.#process === undefined ? [] : [this.#process];
  }

  processElement(value: unknown, timestamp: number): void {
    if (timestamp === NO_TIMESTAMP) throw this.missingTimestamp();
    const key = this.selectKey(value);
    const hash = hashKey(key);
    const contents = this.contentsAt(timestamp);
    if (contents === undefined) this.handleLate(value, timestamp);
    else if (contents.end - 1 > this.currentWatermark) {
      const slot = this.table.slotOf(contents, key, hash);
      if (contents.isFired(slot)) contents.setFired(slot, false);
      this.#add(contents, slot, value);
    } else this.addToComplete(contents, key, hash, value);
  }

  /** An element within the allowed lateness. */
  addToComplete(contents: WindowContents, key: unknown, hash: number, value: unknown): void {
    const slot = this.table.slotOf(contents, key, hash);
    // A key still pending in a complete window is about to fire with this element.
    const isPending = contents.has(slot) && !contents.isFired(slot);
    this.#add(contents, slot, value);
    if (isPending) return;
    contents.setFired(slot, true);
    this.#fire(contents, slot, contents.peek(slot));
  }

  /** Undefined when the window is gone for good. */
  contentsAt(timestamp: number): WindowContents | undefined {
    const { recent } = this;
    if (timestamp >= recent.start && timestamp < recent.end) return recent;
    const window = this.#options.assigner.assign(timestamp);
    if (window.maxTimestamp + this.#options.allowedLatenessMs <= this.currentWatermark) {
      return undefined;
    }
    this.recent = this.table.getOrAdd(window);
    return this.recent;
  }

  handleLate(value: unknown, timestamp: number): void {
    const tag = this.#options.lateOutputTag;
    if (tag === undefined) this.#lateDropped.inc();
    else this.context.output.collectSide(tag.id, value, timestamp);
  }

  #add(contents: WindowContents, slot: number, value: unknown): void {
    const { accumulators } = contents;
    const before = accumulators.peek(slot);
    const isNew = before !== before;
    if (accumulators.isObserved) accumulators.capture(slot);
    let after: unknown;
    try {
      after = this.#combine(isRealNaN(before) ? NaN : before, isNew, value);
    } catch (error) {
      throw this.blame(error);
    }
    const owned = this.#options.function.kind === 'process' ? after : ownStrings(after, before);
    if (isNew || owned !== before) accumulators.put(slot, owned);
  }

  #combine(accumulator: unknown, isNew: boolean, value: unknown): unknown {
    const fn = this.#options.function;
    switch (fn.kind) {
      case 'process': {
        const owned = ownStrings(value, undefined);
        if (isNew) return [owned];
        (accumulator as unknown[]).push(owned);
        return accumulator;
      }
      case 'reduce': {
        const { reduce } = fn;
        return isNew ? value : reduce(accumulator, value);
      }
      case 'aggregate':
        return fn.aggregate.add(value, isNew ? fn.aggregate.createAccumulator() : accumulator);
    }
  }

  generate(scope: CodeScope, record: RecordNames): string {
    // What fires goes through a function of the same code.
    scope.emitter();
    const { value, timestamp } = record;
    const operator = scope.bind('window', () => this);
    const table = scope.bind('table', () => this.table);
    const select = scope.bind('keyOf', () => this.keySelector);
    const [key, hash, contents, slot, before, after] = [
      ...['key', 'hash', 'contents', 'slot', 'before', 'after'].map((hint) => scope.local(hint)),
    ] as [string, string, string, string, string, string];
    return `${scope.blame}
if (${timestamp} === -Infinity) throw ${operator}.missingTimestamp();
const ${key} = ${select}(${value});
const ${hash} = ${generateHash(scope, key, record.keyHash)};
let ${contents} = ${operator}.recent;
if (!(${timestamp} >= ${contents}.start && ${timestamp} < ${contents}.end)) {
${contents} = ${operator}.contentsAt(${timestamp});
}
if (${contents} === undefined) {
${operator}.handleLate(${value}, ${timestamp});
} else if (${contents}.end - 1 > ${operator}.currentWatermark) {
const ${slot} = ${table}.slotOf(${contents}, ${key}, ${hash});
const ${before} = ${contents}.begin(${slot});
${this.#generateCombine(scope, { value, before, after })}
if (${before} !== ${after}) ${contents}.accumulators.put(${slot}, ${after});
} else {
${operator}.addToComplete(${contents}, ${key}, ${hash}, ${value});
}`;
  }

  /** Declares `after`, whose strings are its own; `before` is NaN when there was none. */
  #generateCombine(
    scope: CodeScope,
    names: { readonly value: string; readonly before: string; readonly after: string },
  ): string {
    const { value, before, after } = names;
    const own = scope.bind('ownStrings', () => ownStrings);
    const known = `${scope.bind('isRealNaN', () => isRealNaN)}(${before}) ? NaN : ${before}`;
    const isNew = `${before} !== ${before}`;
    const fn = this.#options.function;
    if (fn.kind === 'process') {
      return `let ${after} = ${before};
if (${isNew}) ${after} = [${own}(${value})];
else ${before}.push(${own}(${value}));`;
    }
    let combined: string;
    if (fn.kind === 'reduce') {
      combined = `${scope.bind('reduce', () => fn.reduce)}(${known}, ${value})`;
      combined = `${isNew} ? ${value} : ${combined}`;
    } else {
      // Always an object with these methods, though it may be a function (a class with static ones).
      const aggregate = scope.bind('aggregate', () => fn.aggregate);
      combined = `${aggregate}.add(${value}, ${isNew} ? ${aggregate}.createAccumulator() : ${known})`;
    }
    return `let ${after} = ${combined};
if (typeof ${after} !== 'number') ${after} = ${own}(${after}, ${before});`;
  }

  protected override advanceEventTime(watermark: number): boolean {
    const lateness = this.#options.allowedLatenessMs;
    // It may be among those that fire and are removed.
    this.recent = noWindow;
    for (;;) {
      const contents = this.table.nextPending(watermark);
      if (contents === undefined) break;
      const slot = contents.cursor;
      const accumulator = contents.peek(slot);
      contents.cursor += 1;
      if (contents.end - 1 + lateness > watermark) contents.setFired(slot, true);
      else contents.accumulators.remove(slot);
      this.#fire(contents, slot, accumulator);
      if (this.context.shouldYield()) return false;
    }
    this.table.removeExpired(watermark, lateness);
    return true;
  }

  #fire(contents: WindowContents, slot: number, accumulator: unknown): void {
    const fn = this.#options.function;
    const { window } = contents;
    this.#collector.timestamp = window.maxTimestamp;
    try {
      const result = fn.kind === 'aggregate' ? fn.aggregate.getResult(accumulator) : accumulator;
      if (this.#process === undefined) {
        this.#collector.collect(result);
        return;
      }
      this.#window = window;
      const kept = contents.index.keyAt(slot);
      const key = typeof kept === 'object' ? canonicalKey(kept) : kept;
      this.backend.setCurrentKey(key, contents.index.hashAt(slot));
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

  missingTimestamp(): MillraceError {
    return new MillraceError(
      'JOB_INVALID',
      `${this.context.operatorName}: a record without a timestamp reached an event-time window; give the source a WatermarkStrategy with a timestamp assigner`,
    );
  }
}
