/** What is to be reached, and whether it was. */
import type { Medians, Target, VariantFigures } from './case.js';
import { spread } from './support.js';

const million = 1e6;

function format(value: number): string {
  return Number.isFinite(value) ? value.toPrecision(3) : 'not measured';
}

/**
 * How many times as much one variant makes as another: the median of the ratios within each round, whose samples
 * were taken one after the other and saw about the same machine.
 */
export function ratioOf(
  one: VariantFigures | undefined,
  other: VariantFigures | undefined,
): number {
  const ratios = (one?.values ?? []).map((value, round) => value / (other?.values[round] ?? NaN));
  return spread(ratios.filter((ratio) => !Number.isNaN(ratio))).median;
}

export function atLeastRate(variant: string, millions: number): Target {
  const of = (medians: Medians): number => (medians.get(variant)?.median ?? NaN) / million;
  return {
    text: `${variant}: >= ${String(millions)} M/s`,
    reached: (medians) => (Number.isNaN(of(medians)) ? undefined : of(medians) >= millions),
    got: (medians) => `${format(of(medians))} M/s`,
  };
}

export function atLeastTimes(variant: string, times: number, other: string): Target {
  const of = (medians: Medians): number => ratioOf(medians.get(variant), medians.get(other));
  return {
    text: `${variant}: >= ${String(times)} x ${other}`,
    reached: (medians) => (Number.isNaN(of(medians)) ? undefined : of(medians) >= times),
    got: (medians) => `${format(of(medians))} x`,
  };
}

export function fasterThan(variant: string, fact: 'p50' | 'p99', ms: number): Target {
  const of = (medians: Medians): number => medians.get(variant)?.facts[fact] ?? NaN;
  return {
    text: `${variant}: ${fact} < ${String(ms)} ms`,
    reached: (medians) => (Number.isNaN(of(medians)) ? undefined : of(medians) < ms),
    got: (medians) => `${format(of(medians))} ms`,
  };
}
