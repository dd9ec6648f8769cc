/** Figures of the cases as a table to read and as a file. */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { percentile } from '../../bin/percentile.js';
import type { FailoverCase, Figure, Statistic } from './cases.js';

export interface CaseResult {
  readonly failoverCase: FailoverCase;
  /** By figure, one of each round. */
  readonly values: ReadonlyMap<string, readonly number[]>;
  readonly rounds: number;
  /** Committed lines, all of them right and there once. */
  readonly exactlyOnceLines?: number;
  readonly failure?: string;
}

interface FigureRecord {
  readonly name: string;
  readonly unit: string;
  readonly p50: number;
  readonly p99: number;
  readonly worst: number;
  readonly values: readonly number[];
  readonly targets: readonly { readonly text: string; readonly reached: boolean }[];
}

interface CaseRecord {
  readonly name: string;
  readonly title: string;
  readonly takenAt: string;
  readonly rounds: number;
  readonly figures: readonly FigureRecord[];
  readonly exactlyOnceLines: number | null;
  readonly failure?: string;
}

export interface FailoverResults {
  readonly takenAt: string;
  readonly machine: Readonly<Record<string, string | number | boolean>>;
  readonly cases: readonly CaseRecord[];
}

const statistics: Readonly<Record<Statistic, number>> = { p50: 0.5, p99: 0.99, worst: 1 };

function statistic(values: readonly number[], of: Statistic): number {
  return percentile(values, statistics[of]);
}

function recordFigure(figure: Figure, values: readonly number[]): FigureRecord {
  const targets = figure.targets.map(({ of, below }) => {
    const got = statistic(values, of);
    return {
      text: below === 0 ? 'none' : `${of} < ${String(below)}`,
      reached: below === 0 ? got === 0 : got < below,
    };
  });
  return {
    name: figure.name,
    unit: figure.unit,
    p50: statistic(values, 'p50'),
    p99: statistic(values, 'p99'),
    worst: statistic(values, 'worst'),
    values,
    targets,
  };
}

export function recordCase({
  failoverCase,
  values,
  rounds,
  exactlyOnceLines,
  failure,
}: CaseResult): CaseRecord {
  return {
    name: failoverCase.name,
    title: failoverCase.title,
    takenAt: new Date().toISOString(),
    rounds,
    figures: failoverCase.figures.map((one) => recordFigure(one, values.get(one.name) ?? [])),
    exactlyOnceLines: exactlyOnceLines ?? null,
    ...(failure !== undefined && { failure }),
  };
}

export function formatCase(one: CaseRecord): string {
  const rows = [
    [`${one.name} (${String(one.rounds)} rounds)`, 'p50', 'p99', 'worst', 'to reach'],
    ...one.figures.map((figure) => [
      `  ${figure.name}${figure.unit === '' ? '' : `, ${figure.unit}`}`,
      ...[figure.p50, figure.p99, figure.worst].map((value) =>
        Number.isNaN(value) ? '-' : String(Math.round(value)),
      ),
      figure.targets
        .map(({ text, reached }) => `${text}: ${reached ? 'reached' : 'MISSED'}`)
        .join(', '),
    ]),
  ];
  const widths = [0, 1, 2, 3].map((i) => Math.max(...rows.map((row) => (row[i] ?? '').length)));
  return [
    one.title,
    ...rows.map((row) =>
      row
        .map((cell, i) =>
          i === 0 ? cell.padEnd(widths[0] ?? 0) : i === 4 ? cell : cell.padStart(widths[i] ?? 0),
        )
        .join('  ')
        .trimEnd(),
    ),
    one.exactlyOnceLines === null
      ? '  output: NOT CHECKED'
      : `  output: exactly once (${String(one.exactlyOnceLines)} committed lines)`,
    ...(one.failure === undefined ? [] : [`  FAILED: ${one.failure}`]),
    '',
  ].join('\n');
}

export function isReached(one: CaseRecord): boolean {
  return (
    one.failure === undefined &&
    one.figures.every((figure) => figure.targets.every(({ reached }) => reached))
  );
}

/** Cases not measured this time stay as they were. */
export function saveResults(file: string, results: FailoverResults): void {
  const before = existsSync(file)
    ? (JSON.parse(readFileSync(file, 'utf8')) as FailoverResults).cases
    : [];
  const names = new Set(results.cases.map(({ name }) => name));
  const cases = [...before.filter(({ name }) => !names.has(name)), ...results.cases];
  writeJson(file, { ...results, cases });
}

export function writeJson(file: string, results: FailoverResults): void {
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(file, `${JSON.stringify(results, null, 1)}\n`);
}
