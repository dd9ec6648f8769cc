/** From what the threads of one sample saw to its figures. */
import { percentile } from '../bin/percentile.js';
import type { Mark, MeterReport } from './jobs/meter.js';

/** One run of one variant. */
export interface Sample {
  /** Of the unit of its case: records a second, or ms. */
  readonly value: number;
  /** More about it, by name: CPU ns a record, seconds measured, resident MB, percentiles. */
  readonly facts: Readonly<Record<string, number>>;
}

/** Shorter than this a steady window says nothing. */
const leastSeconds = 0.05;

/**
 * Records a second of all threads together, between the moment the last of them was warm and the moment the first
 * of them had no more input. `isWarm` tells a thread's state from one of its marks and its first one. Undefined when
 * there was no such time.
 */
export function rateOf(
  reports: readonly MeterReport[],
  isWarm: (mark: Mark, first: Mark) => boolean,
): Sample | undefined {
  const windows = reports.map(({ marks }) => ({
    start: marks.find((mark) => isWarm(mark, marks[0] ?? mark))?.atMs ?? Infinity,
    end: marks.at(-1)?.atMs ?? -Infinity,
  }));
  const start = Math.max(...windows.map((one) => one.start));
  const end = Math.min(...windows.map((one) => one.end));
  const seconds = (end - start) / 1000;
  if (!(seconds >= leastSeconds)) return undefined;
  const records = sum(reports.map(({ marks }) => between(marks, start, end, countOf)));
  // One report of each process: CPU time is that of all its threads.
  const processes = [...new Map(reports.map((one) => [one.pid, one])).values()];
  const cpuMs = sum(processes.map(({ marks }) => between(marks, start, end, cpuOf)));
  return {
    value: records / seconds,
    facts: {
      seconds,
      records,
      cpuNs: (cpuMs * 1e6) / records,
      cores: cpuMs / 1000 / seconds,
      residentMb: sum(processes.map((one) => one.residentMb)),
    },
  };
}

/** From the first mark to the last: a first guess, with everything that was still cold. */
export function roughRateOf(reports: readonly MeterReport[]): Sample {
  const marks = reports.flatMap((one) => [...one.marks]);
  const times = marks.map(({ atMs }) => atMs);
  const seconds = (Math.max(...times) - Math.min(...times)) / 1000;
  const records = sum(reports.map(({ count }) => count));
  return { value: records / Math.max(seconds, 0.01), facts: { seconds, records } };
}

const countOf = (mark: Mark): number => mark.count;
const cpuOf = (mark: Mark): number => mark.cpuMs;
const sum = (values: readonly number[]): number => values.reduce((all, one) => all + one, 0);

function between(
  marks: readonly Mark[],
  start: number,
  end: number,
  of: (mark: Mark) => number,
): number {
  return at(marks, end, of) - at(marks, start, of);
}

/** Between two marks, as if it had grown evenly. */
function at(marks: readonly Mark[], time: number, of: (mark: Mark) => number): number {
  const next = marks.findIndex(({ atMs }) => atMs >= time);
  const [a, b] = [marks[next - 1], marks[next]];
  if (b === undefined) return of(marks.at(-1) ?? { atMs: 0, count: 0, cpuMs: 0 });
  if (a === undefined || b.atMs === a.atMs) return of(b);
  return of(a) + ((of(b) - of(a)) * (time - a.atMs)) / (b.atMs - a.atMs);
}

/** The value is the 99th percentile. */
export function latencyOf(latencies: readonly number[]): Sample {
  const sorted = [...latencies].sort((a, b) => a - b);
  const p99 = percentile(sorted, 0.99);
  return {
    value: p99,
    facts: {
      records: sorted.length,
      p50: percentile(sorted, 0.5),
      p99,
      p999: percentile(sorted, 0.999),
      max: sorted.at(-1) ?? NaN,
    },
  };
}
