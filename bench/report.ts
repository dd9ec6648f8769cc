/** Results as a table to read and as a file to compare with. */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import type { BenchCase, Target } from './case.js';
import type { VariantResult } from './run-case.js';
import { ratioOf } from './targets.js';

export interface CaseResult {
  readonly bench: BenchCase;
  readonly results: readonly VariantResult[];
}

/** As committed; only ever compared with, so fields may come and go. */
export interface ResultFile {
  readonly takenAt: string;
  readonly machine: Readonly<Record<string, string | number | boolean>>;
  readonly options: Readonly<Record<string, string | number | boolean>>;
  readonly cases: readonly {
    readonly name: string;
    readonly unit: string;
    readonly variants: readonly VariantRecord[];
    readonly targets: readonly {
      readonly text: string;
      readonly got: string;
      readonly reached: boolean | null;
    }[];
    readonly cliffs: readonly string[];
  }[];
}

interface VariantRecord {
  readonly name: string;
  readonly median: number;
  readonly min: number;
  readonly max: number;
  readonly samples: number;
  readonly values: readonly number[];
  readonly facts: Readonly<Record<string, number>>;
  readonly failure?: string;
}

export function readResults(file: string): ResultFile | undefined {
  return existsSync(file) ? (JSON.parse(readFileSync(file, 'utf8')) as ResultFile) : undefined;
}

export function writeResults(file: string, results: ResultFile): void {
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(file, `${JSON.stringify(results, null, 1)}\n`);
}

/** Cases not measured this time stay as they were. */
export function mergeResults(before: ResultFile | undefined, now: ResultFile): ResultFile {
  const names = new Set(now.cases.map(({ name }) => name));
  const kept = (before?.cases ?? []).filter(({ name }) => !names.has(name));
  return { ...now, cases: [...kept, ...now.cases] };
}

export function recordOf({ bench, results }: CaseResult): ResultFile['cases'][number] {
  const medians = mediansOf(results);
  return {
    name: bench.name,
    unit: bench.unit === 'rate' ? 'records/s' : 'ms (99th percentile)',
    variants: results.map(({ variant, spread, samples, facts, failure }) => ({
      name: variant.name,
      ...rounded(spread),
      samples: samples.length,
      values: samples.map(({ value }) => significant(value)),
      facts: rounded(facts),
      ...(failure !== undefined && { failure }),
    })),
    targets: bench.targets.map((target) => ({
      text: target.text,
      got: target.got(medians),
      reached: target.reached(medians) ?? null,
    })),
    cliffs: cliffsOf({ bench, results }),
  };
}

/** Noise is larger than the fifth digit. */
function significant(value: number): number {
  return Number(value.toPrecision(5));
}

function rounded<T extends object>(values: T): T {
  return Object.fromEntries(
    Object.entries(values).map(([name, value]) => [name, significant(value as number)]),
  ) as T;
}

function mediansOf(results: readonly VariantResult[]): Map<string, VariantResult> {
  return new Map(
    results.filter((one) => one.samples.length > 0).map((one) => [one.variant.name, one]),
  );
}

/** Neighbours of a curve further apart than the cost model allows. */
export function cliffsOf({ bench, results }: CaseResult): string[] {
  if (bench.curve === undefined) return [];
  return bench.curve.mayGrow.flatMap((allowed, i) => {
    const [a, b] = [results[i], results[i + 1]];
    if (a === undefined || b === undefined) return [];
    const times = a.median / b.median;
    return times > allowed
      ? [
          `${a.variant.name} -> ${b.variant.name}: a record costs ${times.toFixed(1)} x as much (expected at most ${allowed.toFixed(1)} x)`,
        ]
      : [];
  });
}

export function formatCase(result: CaseResult, before: ResultFile | undefined): string {
  const { bench, results } = result;
  const last = before?.cases.find(({ name }) => name === bench.name);
  const ours = results.filter(({ variant }) => variant.isOurs);
  const medians = mediansOf(results);
  // Ratios of each way of ours to the naive ones; a curve has none.
  const columns = bench.curve === undefined && bench.unit === 'rate' ? ours : [];
  const rows = [
    bench.unit === 'rate'
      ? ['', 'M/s', 'min', 'max', 'n', 'CPU ns', 'cores', 'MB', ...columns.map(headOf), 'last']
      : ['', 'p99 ms', 'min', 'max', 'n', 'p50', 'p99.9', 'max', 'last'],
    ...results.map((one) =>
      bench.unit === 'rate'
        ? rateRow(one, columns, last?.variants)
        : latencyRow(one, last?.variants),
    ),
  ];
  return [
    `${bench.name}: ${bench.title}`,
    ...align(rows),
    ...results.flatMap(({ variant, failure }) =>
      failure === undefined ? [] : [`  FAILED ${variant.name}: ${failure.slice(0, 300)}`],
    ),
    ...bench.targets.map((target) => `  ${formatTarget(target, medians)}`),
    ...cliffsOf(result).map((cliff) => `  CLIFF  ${cliff}`),
    ...(bench.curve !== undefined && cliffsOf(result).length === 0 ? ['  no cliff'] : []),
    '',
  ].join('\n');
}

/** A saved result as tables for a document. */
export function formatMarkdown({ takenAt, machine, cases }: ResultFile): string {
  const facts = Object.values(machine).slice(0, 6).join(', ');
  return [
    `${takenAt.slice(0, 10)}, commit ${String(machine['commit'])}, ${facts}:`,
    ...cases.flatMap(({ name, unit, variants, targets, cliffs }) => [
      '',
      `**${name}**${targets.map((one) => `; ${one.text}: ${one.got}${one.reached === true ? '' : ' (missed)'}`).join('')}`,
      '',
      unit === 'records/s'
        ? '| | M/s | min | max | n | CPU ns |'
        : '| | p99 ms | min | max | n | p50 ms |',
      '|---|---:|---:|---:|---:|---:|',
      ...variants.map((one) => markdownRow(one, unit)),
      ...cliffs.map((cliff) => `\nCliff: ${cliff}`),
    ]),
  ].join('\n');
}

function markdownRow(
  { name, median, min, max, samples, facts }: VariantRecord,
  unit: string,
): string {
  const scale = unit === 'records/s' ? 1e6 : 1;
  const cells = [
    ...[median, min, max].map((value) => short(value / scale)),
    String(samples),
    short(unit === 'records/s' ? facts['cpuNs'] : facts['p50']),
  ];
  return `| ${name} | ${cells.join(' | ')} |`;
}

function formatTarget(target: Target, medians: Map<string, VariantResult>): string {
  const reached = target.reached(medians);
  const mark = reached === undefined ? '?      ' : reached ? 'reached' : 'MISSED ';
  return `${mark} ${target.text} (${target.got(medians)})`;
}

function headOf(_: VariantResult, index: number, all: readonly unknown[]): string {
  return all.length === 1 ? 'ours x' : `(${String(index + 1)}) x`;
}

function rateRow(
  result: VariantResult,
  ours: readonly VariantResult[],
  last: readonly VariantRecord[] | undefined,
): string[] {
  const { variant, spread, median, samples, facts } = result;
  const millions = (value: number): string => short(value / 1e6);
  const index = ours.findIndex((one) => one.variant === variant);
  const mark = index < 0 ? '  ' : ours.length === 1 ? '* ' : `(${String(index + 1)}) `;
  return [
    `${mark}${variant.name}`,
    ...[millions(median), millions(spread.min), millions(spread.max)],
    ...[String(samples.length), short(facts['cpuNs']), short(facts['cores'])],
    facts['residentMb'] === undefined ? '' : facts['residentMb'].toFixed(0),
    ...ours.map((one) => (one.variant === variant ? '' : short(ratioOf(one, result)))),
    comparison(variant.name, median, last),
  ];
}

function latencyRow(
  { variant, spread, median, samples, facts }: VariantResult,
  last: readonly VariantRecord[] | undefined,
): string[] {
  return [
    `${variant.isOurs ? '* ' : '  '}${variant.name}`,
    ...[short(median), short(spread.min), short(spread.max), String(samples.length)],
    ...[short(facts['p50']), short(facts['p999']), short(facts['max'])],
    comparison(variant.name, median, last),
  ];
}

/** Of the last committed result: 1.10 is ten per cent more. */
function comparison(
  name: string,
  median: number,
  last: readonly VariantRecord[] | undefined,
): string {
  const before = last?.find((one) => one.name === name)?.median;
  return before === undefined ? '' : `${(median / before).toFixed(2)} x`;
}

function short(value: number | undefined): string {
  if (value === undefined || !Number.isFinite(value)) return '-';
  if (value >= 100) return value.toFixed(0);
  return value.toFixed(value >= 10 ? 1 : 2);
}

function align(rows: readonly (readonly string[])[]): string[] {
  const widths = (rows[0] ?? []).map((_, i) =>
    Math.max(...rows.map((row) => (row[i] ?? '').length)),
  );
  return rows.map((row) =>
    `  ${row.map((cell, i) => (i === 0 ? cell.padEnd(widths[i] ?? 0) : cell.padStart(widths[i] ?? 0))).join('  ')}`.trimEnd(),
  );
}
