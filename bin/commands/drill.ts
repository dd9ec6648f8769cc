/** millrace drill: rehearse failures on a cluster of its own, with a verdict. */
import type { Command } from 'commander';
import { MillraceError } from '../../lib/base/errors.js';
import { drills } from '../drills/drills.js';
import type { DrillReport } from '../drills/drill.js';
import {
  bold,
  dim,
  formatElapsed,
  green,
  print,
  printError,
  printJson,
  red,
  table,
} from './output.js';

interface DrillCommandOptions {
  readonly dir: string;
  readonly rate?: string;
  readonly random?: string;
  readonly seed?: string;
  readonly json?: boolean;
}

export function registerDrill(program: Command): void {
  program
    .command('drill')
    .description('rehearse failures: a fresh local cluster, the access-log job, a fault, a verdict')
    .argument(
      '[names...]',
      `which drills (default: all): ${drills.map((drill) => drill.name).join(', ')}`,
    )
    .option('--list', 'print the drills and what must hold')
    .option('--dir <folder>', 'folder of local clusters', '.millrace')
    .option('--rate <n>', "lines a second of the 10,000 (default: each drill's own)")
    .option('--random <rounds>', 'instead: so many rounds of random faults on one cluster')
    .option('--seed <n>', 'seed of the random faults (default: by the clock)')
    .option('--json', 'print one JSON document')
    .action(drill);
}

async function drill(
  names: readonly string[],
  options: DrillCommandOptions & { readonly list?: boolean },
): Promise<void> {
  if (options.list === true) {
    if (options.json === true)
      printJson(drills.map(({ name, fault, mustHold }) => ({ name, fault, mustHold })));
    else
      print(
        table(
          ['DRILL', 'FAULT', 'MUST HOLD'],
          drills.map((one) => [one.name, one.fault, one.mustHold]),
        ),
      );
    return;
  }
  if (options.random !== undefined) {
    const outcome = await runRandom(options, Number(options.random));
    if (options.json !== true) print(formatReport(outcome));
    conclude(options, [outcome]);
    return;
  }
  const unknown = names.filter((name) => !drills.some((one) => one.name === name));
  if (unknown.length > 0)
    throw new MillraceError(
      'CONFIG',
      `no drill '${unknown.join(', ')}'; 'millrace drill --list' shows all`,
    );
  // With clients and a verifier that no other command needs.
  const { runDrill } = await import('../drills/run-drill.js');
  const reports: DrillReport[] = [];
  for (const one of drills) {
    if (names.length > 0 && !names.includes(one.name)) continue;
    if (options.json !== true) printError(`${bold(one.name)}: ${one.fault}`);
    const outcome = await runDrill(one, {
      folder: options.dir,
      ...(options.rate !== undefined && { rate: Number(options.rate) }),
      progress: (line) => {
        if (options.json !== true) printError(dim(`  ${line}`));
      },
    });
    reports.push(outcome);
    if (options.json !== true) print(formatReport(outcome));
  }
  conclude(options, reports);
}

async function runRandom(options: DrillCommandOptions, rounds: number): Promise<DrillReport> {
  const seed = options.seed === undefined ? Date.now() % 1_000_000 : Number(options.seed);
  for (const [name, value] of Object.entries({ random: rounds, seed }))
    if (!Number.isInteger(value) || value < 0)
      throw new MillraceError('CONFIG', `--${name} must be a whole number`);
  if (options.json !== true)
    printError(`${bold('random faults')}: ${String(rounds)} rounds, seed ${String(seed)}`);
  const { runChaos } = await import('../drills/chaos.js');
  return runChaos({
    folder: options.dir,
    rounds,
    seed,
    ...(options.rate !== undefined && { rate: Number(options.rate) }),
    progress: (line) => {
      if (options.json !== true) printError(dim(`  ${line}`));
    },
  });
}

function conclude(options: DrillCommandOptions, reports: readonly DrillReport[]): void {
  if (options.json === true) printJson(reports);
  const failed = reports.filter((report) => !report.passed);
  if (failed.length > 0)
    throw new MillraceError(
      'DRILL_FAILED',
      `${String(failed.length)} of ${String(reports.length)} drills did not pass: ${failed.map((report) => report.drill).join(', ')}`,
    );
}

export function formatReport(report: DrillReport): string {
  const verdict = report.passed ? green('passed') : red('FAILED');
  const facts = Object.entries(report.findings).map(([name, value]) => `${name}=${String(value)}`);
  return `${report.drill}: ${verdict} after ${formatElapsed(report.durationMs)}, exactly once: ${report.exactlyOnce ? 'yes' : 'NO'}, ${facts.join(' ')}${report.failure === undefined ? '' : `\n  ${report.failure}`}`;
}
