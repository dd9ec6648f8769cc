/** What `millrace drill list` and `millrace drill run` do. */
import { writeFileSync } from 'node:fs';
import { cpus } from 'node:os';
import { parseDuration } from '../../config/option-types.js';
import { MillraceError } from '../../lib/base/errors.js';
import { runChaos } from './chaos.js';
import type { Drill, DrillReport } from './drill.js';
import { drills } from './drills.js';
import { formatMarkdown } from './report.js';
import { runDrill, runDrillOn } from './run-drill.js';
import { runRounds, spreads, type SoakLimit } from './soak.js';
import type { LocalCluster } from '../local/local-cluster.js';
import {
  bold,
  confirm,
  countOf,
  dim,
  formatElapsed,
  green,
  print,
  printError,
  printJson,
  red,
  table,
} from '../commands/output.js';
import { findLocalCluster } from '../commands/target.js';

export interface DrillRunOptions {
  readonly dir: string;
  readonly all?: boolean;
  readonly on?: string;
  readonly yes?: boolean;
  readonly soak?: string | true;
  readonly rate?: string;
  readonly random?: string;
  readonly seed?: string;
  readonly report?: string;
  readonly keep?: boolean;
  readonly json?: boolean;
}

export function listDrills(options: { readonly json?: boolean }): void {
  if (options.json === true) {
    printJson(
      drills.map(({ name, fault, mustHold, strikes }) => ({
        name,
        fault,
        mustHold,
        onRunningCluster: strikes !== undefined,
      })),
    );
    return;
  }
  print(
    table(
      ['DRILL', 'FAULT', 'MUST HOLD'],
      drills.map((one) => [
        `${one.name}${one.strikes === undefined ? '' : ' *'}`,
        one.fault,
        one.mustHold,
      ]),
    ),
  );
  print(dim('* may also be run on a running cluster: millrace drill run NAME --on CLUSTER'));
}

/** @throws DRILL_FAILED when one did not pass. */
export async function runDrills(names: readonly string[], options: DrillRunOptions): Promise<void> {
  const began = Date.now();
  const reports =
    options.random === undefined
      ? await runChosen(names, options)
      : [await runRandom(options, Number(options.random))];
  if (options.report !== undefined) {
    const machine = `Node ${process.version} on ${process.platform} ${process.arch}, ${String(cpus().length)} cores`;
    const facts = { began, ended: Date.now(), machine };
    writeFileSync(options.report, formatMarkdown(reports, drills, facts));
  }
  const rounds = options.soak === undefined ? [] : spreads(reports);
  if (options.json === true)
    printJson(options.soak === undefined ? reports : { reports, spreads: rounds });
  else conclude(reports, rounds, Date.now() - began);
  const failed = reports.filter((report) => !report.passed);
  if (failed.length > 0)
    throw new MillraceError(
      'DRILL_FAILED',
      `${String(failed.length)} of ${countOf(reports.length, 'drill')} did not pass: ${[...new Set(failed.map((report) => report.drill))].join(', ')}`,
    );
}

async function runChosen(
  names: readonly string[],
  options: DrillRunOptions,
): Promise<DrillReport[]> {
  const chosen = choose(names, options);
  const cluster = options.on === undefined ? undefined : await openForDrills(chosen, options);
  const limit = soakLimit(options.soak);
  return runRounds(limit, async (round) => {
    const reports: DrillReport[] = [];
    for (const [i, one] of chosen.entries()) {
      const place = `${String(i + 1)}/${String(chosen.length)}`;
      say(
        options,
        `${place} ${bold(one.name)}: ${one.fault}${round > 1 ? ` (round ${String(round)})` : ''}`,
      );
      const report = await runOne(one, options, cluster);
      reports.push(report);
      if (options.json !== true) print(formatReport(report));
    }
    return reports;
  });
}

function choose(names: readonly string[], options: DrillRunOptions): readonly Drill[] {
  const unknown = names.filter((name) => !drills.some((one) => one.name === name));
  if (unknown.length > 0)
    throw new MillraceError(
      'CONFIG',
      `no drill '${unknown.join(', ')}'; 'millrace drill list' shows all`,
    );
  if (names.length === 0 && options.all !== true)
    throw new MillraceError(
      'CONFIG',
      "which drills? Name them ('millrace drill list' shows all), or take --all",
    );
  const chosen = drills.filter((one) => names.length === 0 || names.includes(one.name));
  if (options.on === undefined) return chosen;
  const unable = chosen.filter(({ strikes }) => strikes === undefined);
  if (unable.length > 0 && names.length > 0)
    throw new MillraceError(
      'CONFIG',
      `these need a cluster of their own, run them without --on: ${unable.map(({ name }) => name).join(', ')}`,
    );
  return chosen.filter(({ strikes }) => strikes !== undefined);
}

function soakLimit(soak: string | true | undefined): SoakLimit {
  if (soak === undefined) return {};
  if (soak === true) return { rounds: 10 };
  const rounds = Number(soak);
  if (Number.isInteger(rounds) && rounds > 0) return { rounds };
  return { durationMs: parseDuration(soak) };
}

async function runOne(
  drill: Drill,
  options: DrillRunOptions,
  cluster: LocalCluster | undefined,
): Promise<DrillReport> {
  const common = {
    ...(options.rate !== undefined && { rate: Number(options.rate) }),
    soak: options.soak !== undefined,
    progress: (line: string): void => {
      say(options, dim(`  ${line}`));
    },
  };
  return cluster === undefined
    ? runDrill(drill, { ...common, folder: options.dir, keep: options.keep === true })
    : runDrillOn(cluster, drill, common);
}

/** The running cluster, once the user has seen what will be struck and agreed. */
async function openForDrills(
  chosen: readonly Drill[],
  options: DrillRunOptions,
): Promise<LocalCluster> {
  const cluster = await findLocalCluster({
    dir: options.dir,
    ...(options.on !== undefined && { cluster: options.on }),
  });
  const client = cluster.restClient();
  const overview = await client.overview().finally(() => client.close());
  if (overview['slots-available'] < 2)
    throw new MillraceError(
      'CONFIG',
      `the drills' own job needs 2 free slots on cluster '${cluster.clusterId}', there are ${String(overview['slots-available'])}`,
    );
  printError(
    `cluster ${bold(cluster.clusterId)} (${countOf(overview['jobs-running'], 'running job')}) will be struck:`,
  );
  for (const drill of chosen)
    for (const victim of (await drill.strikes?.(cluster)) ?? [])
      printError(`  ${drill.name}: ${victim}`);
  if (options.yes !== true) await confirm('Go on?');
  return cluster;
}

async function runRandom(options: DrillRunOptions, rounds: number): Promise<DrillReport> {
  const seed = options.seed === undefined ? Date.now() % 1_000_000 : Number(options.seed);
  for (const [name, value] of Object.entries({ random: rounds, seed }))
    if (!Number.isInteger(value) || value < 0)
      throw new MillraceError('CONFIG', `--${name} must be a whole number`);
  say(options, `${bold('random faults')}: ${String(rounds)} rounds, seed ${String(seed)}`);
  const report = await runChaos({
    folder: options.dir,
    rounds,
    seed,
    keep: options.keep === true,
    ...(options.rate !== undefined && { rate: Number(options.rate) }),
    progress: (line) => {
      say(options, dim(`  ${line}`));
    },
  });
  if (options.json !== true) print(formatReport(report));
  return report;
}

function say(options: DrillRunOptions, line: string): void {
  if (options.json !== true) printError(line);
}

function conclude(
  reports: readonly DrillReport[],
  rounds: ReturnType<typeof spreads>,
  tookMs: number,
): void {
  if (rounds.length > 0)
    print(
      table(
        ['DRILL', 'FINDING', 'ROUNDS', 'P50', 'P99', 'WORST'],
        rounds.flatMap(({ drill, findings }) =>
          findings.map((one) => [drill, one.finding, one.rounds, one.p50, one.p99, one.worst]),
        ),
      ),
    );
  const passed = reports.filter((one) => one.passed).length;
  print(`${String(passed)} of ${String(reports.length)} passed in ${formatElapsed(tookMs)}`);
}

export function formatReport(report: DrillReport): string {
  const verdict = report.passed ? green('passed') : red('FAILED');
  const facts = Object.entries(report.findings).map(([name, value]) => `${name}=${String(value)}`);
  return `${report.drill}: ${verdict} after ${formatElapsed(report.durationMs)}, exactly once: ${report.exactlyOnce ? 'yes' : 'NO'}, ${facts.join(' ')}${report.failure === undefined ? '' : `\n  ${report.failure}`}`;
}
