/**
 * Emits what a generator has, every `autoWatermarkIntervalMs` and when asked: only what is new, never
 * anything lower, and idleness as it comes and goes.
 */
import { MIN_WATERMARK } from '../record/stream-element.js';
import type { SplitWatermarks } from '../time/watermark-generators.js';
import type { OperatorContext } from './stream-operator.js';

export class WatermarkEmitter {
  readonly #context: OperatorContext;
  readonly #generator: SplitWatermarks;
  readonly #onEmitted: (watermark: number) => void;
  #emitted = MIN_WATERMARK;
  /** A restored watermark has to be told to downstream again, once. */
  #announce: number | undefined;
  #isIdle = false;
  #tickedAt = 0;
  #isStopped = false;
  #cancel: () => void = () => undefined;
  #hasSilenceExcuse: () => boolean = () => false;

  constructor(
    context: OperatorContext,
    generator: SplitWatermarks,
    onEmitted: (watermark: number) => void,
  ) {
    this.#context = context;
    this.#generator = generator;
    this.#onEmitted = onEmitted;
  }

  /** @param hasSilenceExcuse whether, since it was last asked, records could not have come */
  start(restoredWatermark: number, hasSilenceExcuse = (): boolean => false): void {
    this.#hasSilenceExcuse = hasSilenceExcuse;
    this.#tickedAt = this.#context.processingTime.now();
    if (restoredWatermark !== MIN_WATERMARK) this.#announce = restoredWatermark;
    if (this.#context.autoWatermarkIntervalMs > 0) this.#arm();
  }

  onEvent(splitId: string, timestamp: number): void {
    this.#generator.onEvent(splitId, timestamp);
    if (this.#isIdle) this.#setIdle(false);
  }

  /** The split's records count up to here, then it holds nothing back. */
  releaseSplit(splitId: string): void {
    this.emit();
    this.#generator.release(splitId);
    this.emit();
  }

  emit(): void {
    if (this.#isStopped) return;
    const watermark = this.#generator.current();
    if (watermark <= this.#emitted && this.#announce === undefined) return;
    this.#emitted = Math.max(watermark, this.#announce ?? MIN_WATERMARK);
    this.#announce = undefined;
    this.#onEmitted(this.#emitted);
    this.#context.output.emitWatermark(this.#emitted);
  }

  stop(): void {
    this.#isStopped = true;
    this.#cancel();
  }

  #arm(): void {
    const { processingTime, autoWatermarkIntervalMs } = this.#context;
    this.#cancel = processingTime.registerTimer(
      processingTime.now() + autoWatermarkIntervalMs,
      () => {
        if (this.#isStopped) return;
        this.#tick();
        this.#arm();
      },
    );
  }

  #tick(): void {
    const now = this.#context.processingTime.now();
    const elapsedMs = Math.max(0, now - this.#tickedAt);
    this.#tickedAt = now;
    if (this.#hasSilenceExcuse()) this.#generator.excuseSilence(elapsedMs);
    this.#generator.checkIdleness(now);
    this.emit();
    if (this.#generator.isIdle !== this.#isIdle) this.#setIdle(this.#generator.isIdle);
  }

  #setIdle(isIdle: boolean): void {
    this.#isIdle = isIdle;
    this.#context.output.emitWatermarkStatus(!isIdle);
  }
}
