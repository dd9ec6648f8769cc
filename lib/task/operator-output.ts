/** An operator's results, passed on by direct virtual calls: to chained operators and to edges. */
import type { Output } from '../operators/stream-operator.js';
import { MIN_WATERMARK } from '../record/stream-element.js';

/** One way out of an operator: a chained operator or an edge. */
export interface OutputTarget {
  collect(value: unknown, timestamp: number): void;
  emitWatermark(timestamp: number): void;
  emitWatermarkStatus(active: boolean): void;
}

export class OperatorOutput implements Output {
  readonly #main: readonly OutputTarget[];
  readonly #only: OutputTarget | undefined;
  readonly #sides: ReadonlyMap<string, readonly OutputTarget[]>;
  readonly #all: readonly OutputTarget[];
  /** Generated code in place of the targets. */
  #emit: ((value: unknown, timestamp: number) => void) | undefined;
  #watermark = MIN_WATERMARK;

  constructor(main: readonly OutputTarget[], sides: ReadonlyMap<string, readonly OutputTarget[]>) {
    this.#main = main;
    this.#only = main.length === 1 ? main[0] : undefined;
    this.#sides = sides;
    this.#all = [...main, ...[...sides.values()].flat()];
  }

  /** From now on records of the main output go through generated code, which reaches the same targets. */
  useEmitter(emit: (value: unknown, timestamp: number) => void): void {
    this.#emit = emit;
  }

  collect(value: unknown, timestamp: number): void {
    if (this.#emit !== undefined) this.#emit(value, timestamp);
    else if (this.#only !== undefined) this.#only.collect(value, timestamp);
    else for (const target of this.#main) target.collect(value, timestamp);
  }

  /** A side output nobody takes is dropped, as in Flink. */
  collectSide(tag: string, value: unknown, timestamp: number): void {
    const targets = this.#sides.get(tag);
    if (targets === undefined) return;
    for (const target of targets) target.collect(value, timestamp);
  }

  /** Watermarks never go back: one that does not advance is not passed on. */
  emitWatermark(timestamp: number): void {
    if (timestamp <= this.#watermark) return;
    this.#watermark = timestamp;
    for (const target of this.#all) target.emitWatermark(timestamp);
  }

  emitWatermarkStatus(active: boolean): void {
    for (const target of this.#all) target.emitWatermarkStatus(active);
  }
}
