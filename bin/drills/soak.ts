/** Rounds of drills, and the spread of what they found. */
import { percentile } from '../percentile.js';
import type { DrillReport } from './drill.js';

export interface Spread {
  readonly finding: string;
  readonly rounds: number;
  readonly p50: number;
  readonly p99: number;
  readonly worst: number;
}

export interface DrillSpread {
  readonly drill: string;
  readonly rounds: number;
  readonly failed: number;
  /** Of every numeric finding, by name, and of the drill's own duration. */
  readonly findings: readonly Spread[];
}

/** Until `rounds` are done or `durationMs` are over; every round runs every drill once. */
export interface SoakLimit {
  readonly rounds?: number;
  readonly durationMs?: number;
}

/** Runs at least one round. A round begun is finished. */
export async function runRounds(
  limit: SoakLimit,
  round: (number: number) => Promise<readonly DrillReport[]>,
): Promise<DrillReport[]> {
  const began = Date.now();
  const reports: DrillReport[] = [];
  for (let number = 1; ; number += 1) {
    reports.push(...(await round(number)));
    if (limit.rounds !== undefined && number >= limit.rounds) return reports;
    if (limit.durationMs !== undefined && Date.now() - began >= limit.durationMs) return reports;
    if (limit.rounds === undefined && limit.durationMs === undefined) return reports;
  }
}

/** In the order in which the drills were first run. */
export function spreads(reports: readonly DrillReport[]): DrillSpread[] {
  const names = [...new Set(reports.map(({ drill }) => drill))];
  return names.map((drill) => {
    const own = reports.filter((one) => one.drill === drill);
    const findings = [...new Set(own.flatMap(({ findings: found }) => Object.keys(found)))];
    return {
      drill,
      rounds: own.length,
      failed: own.filter(({ passed }) => !passed).length,
      findings: [
        ...findings.flatMap((finding) =>
          spreadOf(
            finding,
            own.map(({ findings: found }) => found[finding]),
          ),
        ),
        ...spreadOf(
          'durationMs',
          own.map(({ durationMs }) => durationMs),
        ),
      ],
    };
  });
}

function spreadOf(finding: string, found: readonly (number | string | undefined)[]): Spread[] {
  const values = found.filter((one) => typeof one === 'number');
  if (values.length === 0) return [];
  const [p50, p99] = [percentile(values, 0.5), percentile(values, 0.99)];
  return [{ finding, rounds: values.length, p50, p99, worst: Math.max(...values) }];
}
