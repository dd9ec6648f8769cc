/**
 * Runs a source's reader inside a task: forwards splits and requests between it and its coordinator,
 * gives records event time, makes watermarks per split, and keeps positions and watermarks in snapshots.
 */
import type { ReaderOutput, Source, SourceReader } from '../api/source.js';
import { invariant } from '../base/assert.js';
import { MAX_WATERMARK, MIN_WATERMARK, NO_TIMESTAMP } from '../record/stream-element.js';
import type { OperatorListState } from '../state/operator-state-backend.js';
import { SplitWatermarks } from '../time/watermark-generators.js';
import type { TimestampAssigner, WatermarkStrategy } from '../time/watermark-strategy.js';
import type { CodeScope, GeneratesSourceCode, RecordNames } from './operator-code.js';
import { AbstractOperator } from './abstract-operator.js';
import { TimestampReader } from './timestamp-reader.js';
import { WatermarkEmitter } from './watermark-emitter.js';
import type { OperatorContext, OperatorEvent, SourceStreamOperator } from './stream-operator.js';

/** A split with the highest event time seen in it, when its id is known. */
interface SplitState {
  readonly split: unknown;
  readonly maxTimestamp?: number;
}

/** Records that name no split share one watermark. */
const unnamedSplit = '';

export class SourceOperator<T, SplitT, EnumStateT>
  extends AbstractOperator
  implements SourceStreamOperator, GeneratesSourceCode
{
  readonly #source: Source<T, SplitT, EnumStateT>;
  readonly #strategy: WatermarkStrategy<T>;
  readonly #output: SourceOutput<T>;
  #reader: SourceReader<T, SplitT> | undefined;
  #timestamps!: TimestampReader;
  #splits!: OperatorListState<SplitState>;
  #generator: SplitWatermarks | undefined;
  #emitter: WatermarkEmitter | undefined;
  #failure: { readonly error: unknown } | undefined;
  #hasEnded = false;
  /** Since the last idleness check the reader was asked for records, or had none when asked last. */
  #wasPolled = false;
  #isStarved = false;
  readonly #cancelTimers = new Set<() => void>();

  constructor(source: Source<T, SplitT, EnumStateT>, strategy: WatermarkStrategy<T>) {
    super();
    this.#source = source;
    this.#strategy = strategy;
    this.#output = new SourceOutput<T>(
      (value, timestamp, splitId) => {
        this.#emit(value, timestamp, splitId);
      },
      (splitId) => this.#emitter?.releaseSplit(splitId),
    );
  }

  override setup(context: OperatorContext): void {
    super.setup(context);
    this.#timestamps = this.#timestampReader(context.operatorName);
    this.#output.quantum = context.quantum;
  }

  protected override onRestored(): void {
    this.#splits = this.operatorState.listState<SplitState>('splits');
    this.#startWatermarks();
    const reader = this.#createReader();
    this.#reader = reader;
    const restored = this.#splits.get();
    try {
      if (restored.length > 0) reader.addSplits(restored.map(({ split }) => split as SplitT));
      this.context.sendOperatorEvent({ kind: 'readerRegistered', host: '' });
      reader.start();
    } catch (error) {
      throw this.blame(error);
    }
  }

  emitNext(): 'more' | 'nothing' | 'end' {
    return this.#poll((reader) => reader.pollNext(this.#output));
  }

  emitBatch(): 'more' | 'nothing' | 'end' {
    return this.#poll((reader) => {
      const output = this.#output;
      if (reader.pollBatch !== undefined) return reader.pollBatch(output);
      for (;;) {
        const outcome = reader.pollNext(output);
        // A step for the call too: it may have emitted nothing.
        if (outcome !== 'more' || this.context.quantum.step()) return outcome;
      }
    });
  }

  #poll(
    poll: (reader: SourceReader<T, SplitT>) => 'more' | 'nothing' | 'end',
  ): 'more' | 'nothing' | 'end' {
    invariant(this.#reader !== undefined, 'the source is not open');
    if (this.#failure !== undefined) throw this.blame(this.#failure.error);
    if (this.#hasEnded) return 'end';
    this.#wasPolled = true;
    let outcome: 'more' | 'nothing' | 'end';
    try {
      outcome = poll(this.#reader);
    } catch (error) {
      throw this.blame(error);
    }
    this.#isStarved = outcome === 'nothing';
    if (outcome === 'end') this.#end();
    return outcome;
  }

  handleOperatorEvent(event: OperatorEvent): void {
    invariant(this.#reader !== undefined, 'the source is not open');
    try {
      if (event.kind === 'addSplits') this.#reader.addSplits(event.splits as readonly SplitT[]);
      else if (event.kind === 'noMoreSplits') this.#reader.notifyNoMoreSplits();
    } catch (error) {
      throw this.blame(error);
    }
    this.context.wakeUp();
  }

  processElement(): void {
    invariant(false, 'a source has no input');
  }

  override prepareSnapshotPreBarrier(): void {
    this.#emitter?.emit();
  }

  protected override onSnapshot(checkpointId: number): void {
    let splits: readonly SplitT[] = [];
    try {
      splits = this.#reader?.snapshotState(checkpointId) ?? [];
    } catch (error) {
      throw this.blame(error);
    }
    this.#splits.update(
      splits.map((split) => {
        const maxTimestamp = this.#generator?.maxTimestamp(splitIdOf(split) ?? unnamedSplit);
        return { split, ...(maxTimestamp !== undefined && { maxTimestamp }) };
      }),
    );
  }

  override notifyCheckpointComplete(checkpointId: number): void {
    try {
      this.#reader?.notifyCheckpointComplete?.(checkpointId);
    } catch (error) {
      throw this.blame(error);
    }
  }

  override async close(): Promise<void> {
    this.#emitter?.stop();
    for (const cancel of this.#cancelTimers) cancel();
    this.#cancelTimers.clear();
    await this.guard(() => this.#reader?.close());
    await super.close();
  }

  /** The task announces MAX_WATERMARK after this. */
  #end(): void {
    this.#emitter?.emit();
    this.#emitter?.stop();
    this.#hasEnded = true;
    this.currentWatermark = MAX_WATERMARK;
    this.completedWatermark = MAX_WATERMARK;
  }

  #emit(value: T, recordTimestamp: number | undefined, splitId: string | undefined): void {
    const timestamp = this.#timestamps.read(value, recordTimestamp ?? NO_TIMESTAMP);
    if (timestamp !== NO_TIMESTAMP) this.#emitter?.onEvent(splitId ?? unnamedSplit, timestamp);
    this.context.output.collect(value, timestamp);
    this.context.quantum.step();
  }

  generateCollect(scope: CodeScope, record: RecordNames, splitId: string): string {
    const timestamp = scope.local('timestamp');
    const reader = this.#timestampReader(scope.operatorName);
    const lines = [reader.generate(scope, record.value, record.timestamp, timestamp)];
    if (this.#strategy.outOfOrdernessMs !== undefined) {
      const watermarks = scope.bind('watermarks', () => this.#emitter);
      lines.push(
        `if (${timestamp} !== -Infinity) ${watermarks}.onEvent(${splitId} ?? '', ${timestamp});`,
      );
    }
    return [scope.blame, ...lines, scope.emit({ value: record.value, timestamp })].join('\n');
  }

  useCollect(collect: ReaderOutput<unknown>['collect']): void {
    this.#output.collect = collect;
  }

  #timestampReader(operatorName: string): TimestampReader {
    return new TimestampReader(
      this.#strategy.timestampAssigner as TimestampAssigner<unknown> | undefined,
      operatorName,
    );
  }

  #startWatermarks(): void {
    const { outOfOrdernessMs, idlenessMs } = this.#strategy;
    if (outOfOrdernessMs === undefined) return;
    const now = this.context.processingTime.now();
    const generator = new SplitWatermarks(
      { outOfOrdernessMs, ...(idlenessMs !== undefined && { idlenessMs }) },
      now,
    );
    generator.restoreWatermark(this.completedWatermark);
    for (const { split, maxTimestamp } of this.#splits.get()) {
      const splitId = splitIdOf(split) ?? unnamedSplit;
      if (maxTimestamp !== undefined) generator.restoreSplit(splitId, maxTimestamp, now);
    }
    this.#generator = generator;
    this.#emitter = new WatermarkEmitter(this.context, generator, (watermark) => {
      this.currentWatermark = watermark;
      this.completedWatermark = watermark;
    });
    const isRestored = this.completedWatermark !== MIN_WATERMARK;
    this.#emitter.start(isRestored ? this.completedWatermark : MIN_WATERMARK, () =>
      this.#takeSilenceExcuse(),
    );
  }

  /** Held back by its outputs the reader was not asked, and its splits are not idle for that. */
  #takeSilenceExcuse(): boolean {
    const wasAsked = this.#wasPolled || this.#isStarved;
    this.#wasPolled = false;
    return !wasAsked;
  }

  #createReader(): SourceReader<T, SplitT> {
    const { context } = this;
    try {
      return this.#source.createReader({
        subtaskIndex: context.subtaskIndex,
        parallelism: context.parallelism,
        now: () => context.processingTime.now(),
        setTimer: (delayMs, fn) => this.#setTimer(delayMs, fn),
        requestSplit: () => {
          context.sendOperatorEvent({ kind: 'requestSplit' });
        },
        wakeUp: () => {
          context.wakeUp();
        },
        fail: (error) => {
          this.#failure ??= { error };
          context.wakeUp();
        },
      });
    } catch (error) {
      throw this.blame(error);
    }
  }

  #setTimer(delayMs: number, fn: () => void): () => void {
    const { processingTime } = this.context;
    const cancel = processingTime.registerTimer(processingTime.now() + delayMs, () => {
      this.#cancelTimers.delete(cancel);
      try {
        fn();
      } catch (error) {
        throw this.blame(error);
      }
    });
    this.#cancelTimers.add(cancel);
    return () => {
      this.#cancelTimers.delete(cancel);
      cancel();
    };
  }
}

/** What a reader emits through. `collect` is replaced by generated code, before the first record. */
class SourceOutput<T> implements ReaderOutput<T> {
  collect: ReaderOutput<T>['collect'];
  readonly releaseSplit: ReaderOutput<T>['releaseSplit'];
  quantum: OperatorContext['quantum'] | undefined;

  constructor(collect: ReaderOutput<T>['collect'], releaseSplit: ReaderOutput<T>['releaseSplit']) {
    this.collect = collect;
    this.releaseSplit = releaseSplit;
  }

  get isFull(): boolean {
    return this.quantum!.isOver;
  }
}

/** By convention a split that is told apart in `ReaderOutput.collect` carries its id as `splitId` or `id`. */
function splitIdOf(split: unknown): string | undefined {
  if (typeof split !== 'object' || split === null) return undefined;
  const { splitId, id } = split as { readonly splitId?: unknown; readonly id?: unknown };
  if (typeof splitId === 'string') return splitId;
  return typeof id === 'string' ? id : undefined;
}
