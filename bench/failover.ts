/**
 * What a fault costs: from the death of a process until its successor acts and all tasks run, and how long the output
 * paused. Stamps are those that processes log and the sink of the job takes; one machine, one clock.
 *
 *   npm run bench -- failover [--rounds N] [--only CASE] [--quick] [--json FILE] [--save] [--list]
 */
import { cpus } from 'node:os';
import { parseArgs } from 'node:util';
import { fileURLToPath } from 'node:url';
import { etcdMemberStatus } from '../bin/local/etcd-member.js';
import { MillraceError } from '../lib/base/errors.js';
import { chooseCases, progress } from './choose-cases.js';
import { cases, gapName, type FailoverCase, type RoundOutcome } from './failover/cases.js';
import { longestGap } from './failover/output.js';
import {
  formatCase,
  isReached,
  recordCase,
  saveResults,
  writeJson,
  type CaseResult,
} from './failover/report.js';
import { Rig } from './failover/rig.js';
import { machineFacts } from './machine.js';

const { values: options } = parseArgs({
  options: {
    rounds: { type: 'string' },
    only: { type: 'string', multiple: true },
    quick: { type: 'boolean', default: false },
    json: { type: 'string' },
    save: { type: 'boolean', default: false },
    list: { type: 'boolean', default: false },
  },
  allowPositionals: true,
});

const savedFile = fileURLToPath(new URL('../../bench/results/failover.json', import.meta.url));
const quickRounds = 3;
let etcdVersion = 'unknown';

function roundsOf({ rounds }: FailoverCase): number {
  if (options.rounds !== undefined) return Number(options.rounds);
  return options.quick ? Math.min(quickRounds, rounds) : rounds;
}

async function measure(failoverCase: FailoverCase): Promise<CaseResult> {
  const { name, cluster, load, figures, round } = failoverCase;
  progress(`${name}: starting`);
  const rig = await Rig.start(cluster, load);
  const outcomes: RoundOutcome[] = [];
  let exactlyOnceLines: number | undefined;
  let failure: string | undefined;
  try {
    etcdVersion = (await etcdMemberStatus(rig.cluster.endpoints[0] ?? '')).version;
    for (let i = 0; i < roundsOf(failoverCase); i += 1) {
      await rig.settled();
      const outcome = await round(rig, i);
      outcomes.push(outcome);
      const shown = Object.entries(outcome.values).map(
        ([what, value]) => `${what} ${String(value)}`,
      );
      progress(`${name}, round ${String(i + 1)}: ${shown.join(', ')}`);
    }
    await rig.settled();
    exactlyOnceLines = await rig.verify();
  } catch (error) {
    failure = error instanceof MillraceError ? `${error.code}: ${error.message}` : String(error);
  }
  const stamps = rig.stamps();
  await rig.close();
  const values = new Map(
    figures.map((figure) => [
      figure.name,
      outcomes.map((one) =>
        figure.name === gapName ? longestGap(stamps, one.window) : (one.values[figure.name] ?? NaN),
      ),
    ]),
  );
  return {
    failoverCase,
    values,
    rounds: outcomes.length,
    ...(exactlyOnceLines !== undefined && { exactlyOnceLines }),
    ...(failure !== undefined && { failure }),
  };
}

async function main(): Promise<void> {
  if (options.list) {
    for (const { name, title } of cases) console.log(`${name.padEnd(22)} ${title}`);
    return;
  }
  const machine = machineFacts();
  const takenAt = new Date().toISOString();
  const records = [];
  for (const one of chooseCases(cases, options.only)) {
    const record = recordCase(await measure(one));
    records.push(record);
    console.log(formatCase(record));
  }
  const reached = records.filter(isReached).length;
  const failed = records.filter(({ failure }) => failure !== undefined);
  console.log(
    `${takenAt.slice(0, 10)}, ${String(cpus().length)} cores, Node ${process.version}, etcd ${etcdVersion}: ${String(reached)} of ${String(records.length)} cases reached`,
  );
  const results = { takenAt, machine: { ...machine, etcd: etcdVersion }, cases: records };
  if (options.json !== undefined) writeJson(options.json, results);
  if (options.save) saveResults(savedFile, results);
  if (failed.length > 0)
    throw new MillraceError('INVARIANT', `failed: ${failed.map(({ name }) => name).join(', ')}`);
}

await main();
