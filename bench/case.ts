/** What a benchmark case is: variants that take turns, and what one of them is to reach. */
import type { BenchClusters } from './macro/clusters.js';
import type { JobSpec } from './macro/job-sample.js';

/** `rate`: records a second, more is better. `latency`: ms, less is better; the value is the 99th percentile. */
export type Unit = 'rate' | 'latency';

/** A process that measures something by itself: a file in bench/micro and what it is told. */
export interface MicroSpec {
  readonly program: 'codec' | 'naive-chain' | 'naive-exchange' | 'naive-latency' | 'naive-state';
  readonly args: Readonly<Record<string, string | number>>;
}

export type Variant = {
  /** Unique in its case. */
  readonly name: string;
  /** Its ratio to every other variant of the case is printed; a case may have several. */
  readonly isOurs: boolean;
} & (
  | {
      readonly job: JobSpec;
      /** Records a second to expect, before anything was measured. */
      readonly guess: number;
      readonly micro?: never;
    }
  | { readonly micro: MicroSpec; readonly job?: never; readonly guess?: never }
);

/** By variant. */
export type Medians = ReadonlyMap<string, VariantFigures>;

export interface VariantFigures {
  readonly median: number;
  /** One a round. */
  readonly values: readonly number[];
  readonly facts: Readonly<Record<string, number>>;
}

export interface Target {
  /** As printed, such as `>= 15 M/s`. */
  readonly text: string;
  /** Undefined while a variant it needs was not measured. */
  reached(medians: Medians): boolean | undefined;
  /** What there is instead of it. */
  got(medians: Medians): string;
}

export interface BenchCase {
  readonly name: string;
  readonly title: string;
  readonly unit: Unit;
  readonly variants: readonly Variant[];
  readonly targets: readonly Target[];
  /** Of a curve: points in order; the cost of a record may grow by this much from one to the next. */
  readonly curve?: { readonly mayGrow: readonly number[] };
  /** Rounds of this case, as a share of all. Default 1. */
  readonly rounds?: number;
}

export interface RunContext {
  readonly clusters: BenchClusters;
  readonly warmMs: number;
  readonly windowMs: number;
  /** Settings for every job. */
  readonly settings: Readonly<Record<string, string>>;
  /** Fewer records to find out how many a sample needs. */
  readonly isQuick: boolean;
  /** Seconds of one latency sample. */
  readonly latencySeconds: number;
}
