/**
 * The figures of the record path beside their naive variants. Nothing here is a test: run it alone on the machine.
 *
 *   npm run bench -- [--only NAME] [--quick] [--rounds 5] [--json FILE] [--save] [--profile] [--compile false]
 */
import { existsSync, mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { MillraceError } from '../lib/base/errors.js';
import type { BenchCase, RunContext } from './case.js';
import { cases } from './cases.js';
import { chooseCases, progress } from './choose-cases.js';
import { BenchClusters } from './macro/clusters.js';
import { sampleJob, warmShare } from './macro/job-sample.js';
import { machineFacts } from './machine.js';
import { summarizeProfiles } from './profile.js';
import {
  cliffsOf,
  formatCase,
  formatMarkdown,
  mergeResults,
  readResults,
  recordOf,
  writeResults,
  type CaseResult,
  type ResultFile,
} from './report.js';
import { runCase } from './run-case.js';

const { values: options } = parseArgs({
  options: {
    only: { type: 'string', multiple: true },
    quick: { type: 'boolean', default: false },
    rounds: { type: 'string' },
    seconds: { type: 'string' },
    json: { type: 'string' },
    save: { type: 'boolean', default: false },
    profile: { type: 'boolean', default: false },
    compile: { type: 'string', default: 'true' },
    set: { type: 'string', short: 'D', multiple: true, default: [] },
    markdown: { type: 'boolean', default: false },
    list: { type: 'boolean', default: false },
  },
  allowPositionals: true,
});

const isCompiled = options.compile !== 'false';
const rounds = Number(options.rounds ?? (options.quick ? 1 : 5));
const windowSeconds = Number(options.seconds ?? (options.quick ? 0.8 : 2));
const root = fileURLToPath(new URL('../../', import.meta.url));
const savedFile = join(root, 'bench/results', isCompiled ? 'latest.json' : 'interpreted.json');

function chosenCases(): BenchCase[] {
  const chosen = chooseCases(cases, options.only);
  if (isCompiled) return chosen;
  // Everything is interpreted then: there is nothing to set beside it.
  return chosen.map((bench) => ({
    ...bench,
    title: `${bench.title}; interpreted`,
    variants: bench.variants.filter(({ name }) => name !== 'interpreted'),
    targets: bench.targets.filter(({ text }) => !text.endsWith('interpreted')),
  }));
}

function settings(): Record<string, string> {
  return Object.fromEntries([
    ...(isCompiled ? [] : [['pipeline.compile', 'false']]),
    ...options.set.map((one) => [one.slice(0, one.indexOf('=')), one.slice(one.indexOf('=') + 1)]),
  ]) as Record<string, string>;
}

async function measure(chosen: readonly BenchCase[], context: RunContext): Promise<CaseResult[]> {
  const before = readResults(savedFile);
  const all: CaseResult[] = [];
  for (const bench of chosen) {
    const own = Math.max(1, Math.round(rounds * (bench.rounds ?? 1)));
    const result = { bench, results: await runCase(bench, own, context, progress) };
    all.push(result);
    console.log(formatCase(result, before));
  }
  return all;
}

/** One sample of each job of the cases, with a profile of every thread that takes part. */
async function profile(chosen: readonly BenchCase[], context: RunContext): Promise<void> {
  for (const { name, variants } of chosen) {
    for (const variant of variants) {
      if (variant.job === undefined) continue;
      const out = mkdtempSync(join(tmpdir(), 'millrace-profile-'));
      const clusters = new BenchClusters(out);
      const job = { ...variant.job, settings: { ...context.settings, ...variant.job.settings } };
      const records = variant.guess * (job.recordsPerSecond === undefined ? 6 : 10);
      try {
        const { value } = await sampleJob(clusters, job, records, out);
        console.log(`${name}, ${variant.name}: ${value.toPrecision(4)}`);
      } finally {
        // Main threads write their profiles when they end.
        await clusters.close();
      }
      console.log(`${summarizeProfiles(out)}\n`);
    }
  }
}

async function main(): Promise<void> {
  if (options.markdown) {
    const saved = readResults(options.json ?? savedFile);
    if (saved === undefined) throw new MillraceError('CONFIG', `there is no ${savedFile}`);
    console.log(formatMarkdown(saved));
    return;
  }
  if (options.list) {
    for (const { name, title } of cases) console.log(`${name.padEnd(20)} ${title}`);
    return;
  }
  const chosen = chosenCases();
  const clusters = new BenchClusters();
  const context: RunContext = {
    clusters,
    windowMs: windowSeconds * 1000,
    warmMs: (windowSeconds * 1000 * warmShare) / (1 - warmShare),
    settings: settings(),
    isQuick: options.quick,
    latencySeconds: options.quick ? 7 : 22,
  };
  const machine = machineFacts();
  const takenAt = new Date().toISOString();
  try {
    if (options.profile) {
      await profile(chosen, context);
      return;
    }
    const results = await measure(chosen, context);
    const file: ResultFile = {
      takenAt,
      machine,
      options: { rounds, windowSeconds, compile: isCompiled, ...context.settings },
      cases: results.map(recordOf),
    };
    summarize(results);
    if (options.json !== undefined) writeResults(options.json, file);
    if (options.save) writeResults(savedFile, mergeResults(readResults(savedFile), file));
  } finally {
    await clusters.close();
  }
}

function summarize(results: readonly CaseResult[]): void {
  const targets = results.flatMap((one) => recordOf(one).targets);
  const reached = targets.filter((one) => one.reached === true).length;
  const cliffs = results.flatMap(cliffsOf).length;
  console.log(
    `${String(reached)} of ${String(targets.length)} figures reached, ${String(cliffs)} cliffs. "last": compared with ${existsSync(savedFile) ? savedFile : 'nothing: no result is saved yet'}`,
  );
}

await main();
