/** Many random faults on one cluster under the access-log job; then the same verdict as after a single one. */
import { setTimeout as sleep } from 'node:timers/promises';
import { MillraceError, hasCode } from '../../lib/base/errors.js';
import { SeededRandom } from '../../lib/base/random.js';
import { LocalCluster } from '../local/local-cluster.js';
import { AccessLogRun } from './access-log-run.js';
import { restoreOrderFaults, storedFiles, unfinishedFiles, unforeseenLines } from './aftermath.js';
import type { DrillReport } from './drill.js';
import { Nemesis, planRounds, type PlannedRound } from './nemesis.js';
import { readWriteHistory } from './read-write-history.js';
import { checkWriteHistory } from './write-history.js';

export interface ChaosOptions {
  /** Folder for the cluster. */
  readonly folder: string;
  readonly rounds: number;
  readonly seed: number;
  /** Default: 1, 2 or 4, by the seed. */
  readonly parallelism?: number;
  /** Lines a second. Default: the job lasts about as long as the rounds. */
  readonly rate?: number;
  readonly progress?: (line: string) => void;
  /** Keep the cluster's folder afterwards. Default: only when something did not hold. */
  readonly keep?: boolean;
}

/** Longest time for a round's recovery and for the job's end. */
const recoveryMs = 120_000;
const roundMs = 6_000;
/** A result is reported before the job's files are deleted. */
const cleanUpMs = 15_000;

export async function runChaos(options: ChaosOptions): Promise<DrillReport> {
  const began = Date.now();
  const name = `random-${String(options.seed)}`;
  const progress = (line: string): void =>
    options.progress?.(`${((Date.now() - began) / 1000).toFixed(1)} s: ${line}`);
  const random = new SeededRandom(options.seed);
  const parallelism = options.parallelism ?? [1, 2, 4][Math.floor(random.next() * 3)] ?? 2;
  const intervalMs = Math.round(200 + random.next() * 300);
  const rounds = planRounds(options.rounds, random);
  const cluster = await LocalCluster.start(
    {
      folder: options.folder,
      clusterId: `${name}-${Date.now().toString(36)}`,
      jobManagers: 3,
      taskManagers: 3,
      slotsPerTaskManager: 2,
      etcd: { members: 3 },
      settings: {},
    },
    progress,
  );
  progress(`parallelism ${String(parallelism)}, a checkpoint every ${String(intervalMs)} ms`);
  const nemesis = new Nemesis(cluster, random, progress);
  const problems: string[] = [];
  let run: AccessLogRun | undefined;
  let committedLines = 0;
  try {
    run = await AccessLogRun.submit(cluster, {
      rate: options.rate ?? Math.ceil(10_000 / ((rounds.length * roundMs) / 1000 + 5)),
      parallelism,
      settings: {
        'execution.checkpointing.interval': `${String(intervalMs)}ms`,
        'restart-strategy.exponential-delay.initial-backoff': '100ms',
        'restart-strategy.exponential-delay.max-backoff': '2s',
      },
    });
    committedLines = await faultsAndVerdict(run, nemesis, rounds, problems, progress);
  } catch (error) {
    problems.push(
      error instanceof MillraceError ? `${error.code}: ${error.message}` : String(error),
    );
  } finally {
    await nemesis.stop();
    await run?.close();
    await cluster.stop();
  }
  problems.push(...unforeseenLines(cluster));
  problems.push(...nemesis.leftovers().map((one) => `${one.name} (${String(one.pid)}) still runs`));
  const passed = problems.length === 0;
  if (passed && options.keep !== true) cluster.remove();
  return {
    drill: name,
    passed,
    exactlyOnce: committedLines > 0,
    committedLines,
    findings: { rounds: rounds.length, parallelism, intervalMs },
    ...(!passed && { failure: `${problems.join('\n  ')}\n  (cluster: ${cluster.directory})` }),
    durationMs: Date.now() - began,
    timeline: [],
  };
}

/** Resolves with the number of committed lines; 0 when they are not exactly those expected. */
async function faultsAndVerdict(
  run: AccessLogRun,
  nemesis: Nemesis,
  rounds: readonly PlannedRound[],
  problems: string[],
  progress: (line: string) => void,
): Promise<number> {
  const { cluster } = run;
  await run.waitUntilUnderway(1);
  nemesis.start();
  await inflictAll(run, nemesis, rounds, progress);
  const result = await run.waitUntilEnd(recoveryMs);
  progress(`the job is ${result.state}`);
  if (result.state !== 'FINISHED')
    problems.push(`the job ended ${result.state}: ${result.failure?.message ?? ''}`);
  const { exactlyOnce, sessions, statusByMinute } = run.verify();
  if (!exactlyOnce)
    for (const [part, one] of Object.entries({ statusByMinute, sessions }))
      problems.push(
        `${part}: ${String(one.committedLines)} of ${String(one.expectedLines)} lines, missing ${JSON.stringify(one.missing.slice(0, 5))}, unexpected ${JSON.stringify(one.unexpected.slice(0, 5))}`,
      );
  const storedUntil = Date.now() + cleanUpMs;
  while (storedFiles(cluster, run.jobId).length > 0 && Date.now() < storedUntil) await sleep(100);
  problems.push(...storedFiles(cluster, run.jobId).map((path) => `still stored: ${path}`));
  problems.push(...unfinishedFiles(run.outputDirectory).map((path) => `left behind: ${path}`));
  problems.push(...restoreOrderFaults(cluster, run.jobId));
  await nemesis.stop();
  checkWriteHistory(await readWriteHistory(cluster));
  return exactlyOnce ? sessions.committedLines + statusByMinute.committedLines : 0;
}

/** Ends early when the job does. */
async function inflictAll(
  run: AccessLogRun,
  nemesis: Nemesis,
  rounds: readonly PlannedRound[],
  progress: (line: string) => void,
): Promise<void> {
  for (const [index, { faults, awaitRecovery, calmMs }] of rounds.entries()) {
    progress(`round ${String(index + 1)} of ${String(rounds.length)}`);
    for (const fault of faults) await nemesis.inflict(fault);
    await sleep(calmMs);
    if (!awaitRecovery) continue;
    try {
      await run.waitUntilRunning(-1, recoveryMs);
    } catch (error) {
      if (!hasCode(error, 'JOB_FAILED')) throw error;
      progress(`the job ended during round ${String(index + 1)}`);
      return;
    }
  }
}
