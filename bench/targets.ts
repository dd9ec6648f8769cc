/** What is to be reached, and whether it was. */
import type { Medians, Target } from './case.js';

const million = 1e6;

function format(value: number): string {
  return Number.isFinite(value) ? value.toPrecision(3) : 'not measured';
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
  const of = (medians: Medians): number =>
    (medians.get(variant)?.median ?? NaN) / (medians.get(other)?.median ?? NaN);
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
