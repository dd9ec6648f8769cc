import { MAX_WATERMARK, MIN_WATERMARK } from '../record/stream-element.js';
import { SplitWatermarks } from '../time/watermark-generators.js';
import type { WatermarkStrategy } from '../time/watermark-strategy.js';
import type { CodeScope, GeneratesCode, RecordNames } from './operator-code.js';
import { AbstractOperator } from './abstract-operator.js';
import { TimestampReader } from './timestamp-reader.js';
import { WatermarkEmitter } from './watermark-emitter.js';
import type { OperatorContext } from './stream-operator.js';

/** Nothing tells records of one input apart by split here. */
const onlySplit = '';

/**
 * Gives records their event time and the stream its watermarks, in place of those from upstream; only
 * the end of the input (MAX_WATERMARK) is passed on.
 */
export class TimestampsAndWatermarksOperator extends AbstractOperator implements GeneratesCode {
  readonly #strategy: WatermarkStrategy<unknown>;
  #timestamps!: TimestampReader;
  #generator: SplitWatermarks | undefined;
  #emitter: WatermarkEmitter | undefined;

  constructor(strategy: WatermarkStrategy<unknown>) {
    super();
    this.#strategy = strategy;
  }

  override setup(context: OperatorContext): void {
    super.setup(context);
    this.#timestamps = new TimestampReader(this.#strategy.timestampAssigner, context.operatorName);
  }

  protected override onOpened(): void {
    const { outOfOrdernessMs, idlenessMs } = this.#strategy;
    if (outOfOrdernessMs === undefined) return;
    const options = { outOfOrdernessMs, ...(idlenessMs !== undefined && { idlenessMs }) };
    const now = this.context.processingTime.now();
    this.#generator = new SplitWatermarks(options, now);
    this.#generator.restoreWatermark(this.completedWatermark);
    this.#emitter = new WatermarkEmitter(this.context, this.#generator, (watermark) => {
      this.completedWatermark = watermark;
      this.currentWatermark = watermark;
    });
    this.#emitter.start(this.completedWatermark);
  }

  processElement(value: unknown, recordTimestamp: number): void {
    const timestamp = this.#timestamps.read(value, recordTimestamp);
    if (timestamp !== MIN_WATERMARK) this.#emitter?.onEvent(onlySplit, timestamp);
    this.context.output.collect(value, timestamp);
  }

  generate(scope: CodeScope, record: RecordNames): string {
    const reader = new TimestampReader(this.#strategy.timestampAssigner, scope.operatorName);
    const [timestamp, before] = [scope.local('timestamp'), scope.local('recordTimestamp')];
    const watermarks = scope.bind('watermarks', () => this.#emitter);
    return `${scope.blame}
const ${before} = ${record.timestamp} === -Infinity ? undefined : ${record.timestamp};
${reader.generate(scope, record.value, before, timestamp)}
if (${watermarks} !== undefined && ${timestamp} !== -Infinity) ${watermarks}.onEvent('', ${timestamp});
${scope.emit({ value: record.value, timestamp })}`;
  }

  override processWatermark(timestamp: number): void {
    if (timestamp !== MAX_WATERMARK) return;
    this.#emitter?.stop();
    super.processWatermark(timestamp);
  }

  override processWatermarkStatus(active: boolean): void {
    if (this.#generator === undefined) super.processWatermarkStatus(active);
  }

  override prepareSnapshotPreBarrier(): void {
    this.#emitter?.emit();
  }

  override close(): Promise<void> {
    this.#emitter?.stop();
    return super.close();
  }
}
