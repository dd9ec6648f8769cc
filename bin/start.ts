/**
 * The main job, `npm start`: a cluster on real etcd runs the access-log example, loses its leader to
 * SIGKILL in the middle, and the committed output is compared with an independent computation.
 */
import { watch } from 'node:fs';
import { parseArgs } from 'node:util';
import { setTimeout as sleep } from 'node:timers/promises';
import { MillraceError } from '../lib/base/errors.js';
import { SystemRandom } from '../lib/base/system-random.js';
import type { Verdict } from '../examples/access-log/verify.js';
import {
  bold,
  describeError,
  dim,
  formatElapsed,
  green,
  print,
  printError,
  printJson,
  red,
  table,
} from './commands/output.js';
import { AccessLogRun } from './drills/access-log-run.js';
import { attemptsOf, changedAttempts } from './drills/observe.js';
import { readTakeover, type Takeover } from './drills/timeline.js';
import { LocalCluster } from './local/local-cluster.js';
import { exitCodeOf } from './exit-codes.js';

const usage = `npm start [-- options]

Starts 3 etcd members, 3 JobManagers and 2 TaskManagers, runs examples/access-log on them, kills the leading
JobManager with SIGKILL, prints the takeover timeline (tasks go on meanwhile), waits for the end and checks
the output.

  --rate N         lines a second of the 10,000 [1000]
  --parallelism N  [2]
  --keep           leave the cluster running afterwards
  --dir FOLDER     folder of local clusters [.millrace]
  --json           print one JSON document
  --help

Exit code 0 only if the committed output is exactly what it should be.`;

const { values: options } = parseArgs({
  options: {
    rate: { type: 'string', default: '1000' },
    parallelism: { type: 'string', default: '2' },
    dir: { type: 'string', default: '.millrace' },
    keep: { type: 'boolean', default: false },
    json: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  },
});

interface Outcome {
  readonly takeover: Takeover & {
    readonly firstOutput: number | undefined;
    readonly tasks: number;
    /** Tasks that run as another attempt than before. */
    readonly attemptsChanged: number;
  };
  readonly verdict: Verdict;
  readonly jobState: string;
}

const step = (line: string): void => {
  printError(`${dim(new Date().toISOString().slice(11, 23))} ${line}`);
};

async function main(): Promise<void> {
  const clusterId = `demo-${new SystemRandom().hex(6)}`;
  const began = Date.now();
  const cluster = await LocalCluster.start(
    {
      folder: options.dir,
      clusterId,
      jobManagers: 3,
      taskManagers: 2,
      slotsPerTaskManager: 2,
      etcd: { members: 3 },
      settings: {},
    },
    step,
  );
  // An interrupted demo leaves nothing behind.
  const onSignal = (): void => {
    void cluster.stop(step).finally(() => process.exit(130));
  };
  process.once('SIGINT', onSignal).once('SIGTERM', onSignal);
  step(`cluster ${bold(clusterId)} is ready after ${formatElapsed(Date.now() - began)}`);
  let outcome: Outcome;
  try {
    outcome = await killLeaderMidRun(cluster);
  } catch (error) {
    if (!options.keep) await cluster.stop(step);
    printError(dim(`logs: ${cluster.logDir}`));
    throw error;
  }
  if (options.keep) {
    print(
      `the cluster goes on: millrace cluster status --cluster ${clusterId}, millrace cluster stop --cluster ${clusterId}`,
    );
  } else {
    await cluster.stop(step);
    if (outcome.verdict.exactlyOnce) cluster.remove();
  }
  report(outcome, cluster);
  if (!outcome.verdict.exactlyOnce || outcome.jobState !== 'FINISHED') process.exitCode = 1;
}

async function killLeaderMidRun(cluster: LocalCluster): Promise<Outcome> {
  const run = await AccessLogRun.submit(cluster, {
    rate: Number(options.rate),
    parallelism: Number(options.parallelism),
    settings: { 'execution.checkpointing.interval': '500ms' },
  });
  try {
    step(`job ${bold('access-log')} submitted as ${run.jobId}`);
    await run.waitUntilUnderway(3);
    const leader = await cluster.leaderName();
    if (leader === undefined) throw new MillraceError('NO_LEADER', 'no JobManager leads');
    step(
      `3 checkpoints completed, ${String(run.committedFiles().length)} files committed; killing the leader, ${bold(leader)}`,
    );
    const before = attemptsOf(await run.waitUntilRunning());
    const known = new Set(run.committedFiles());
    const deathAt = Date.now();
    cluster.signal(leader, 'SIGKILL');
    const firstOutput = await firstNewFile(run, known, deathAt);
    const takeover = {
      ...readTakeover(cluster, deathAt, run.jobId),
      firstOutput,
      tasks: before.size,
      attemptsChanged: changedAttempts(before, attemptsOf(await run.details())).length,
    };
    step(`${takeover.newLeader ?? '?'} took over; waiting for the end of the job`);
    const result = await run.waitUntilEnd();
    step(`the job is ${result.state}`);
    return { takeover, verdict: run.verify(), jobState: result.state };
  } finally {
    await run.close();
  }
}

/** ms from the death to the first file committed under the new leader. */
async function firstNewFile(
  run: AccessLogRun,
  known: ReadonlySet<string>,
  deathAt: number,
): Promise<number | undefined> {
  const watcher = watch(
    run.outputDirectory,
    { recursive: true, persistent: false },
    () => undefined,
  );
  try {
    const deadline = deathAt + 60_000;
    while (Date.now() < deadline) {
      const { adopted, running } = readTakeover(run.cluster, deathAt, run.jobId);
      const isBack = adopted !== undefined || running !== undefined;
      const fresh = isBack ? run.committedFiles().filter((file) => !known.has(file)) : [];
      if (fresh.length > 0) return Date.now() - deathAt;
      await sleep(10);
    }
    return undefined;
  } finally {
    watcher.close();
  }
}

function report({ takeover, verdict, jobState }: Outcome, cluster: LocalCluster): void {
  if (options.json) {
    printJson({ takeover, verdict, jobState });
    return;
  }
  const at = (ms: number | undefined): string =>
    ms === undefined ? '-' : `${String(Math.round(ms))} ms`;
  print();
  print(bold('Takeover, ms after the death of the leader'));
  print(
    table(
      ['', 'AFTER'],
      [
        takeover.seenDead === undefined
          ? ['noticed: its lease ran out in etcd', at(takeover.noticed)]
          : ['noticed by its supervisor or a standby', at(takeover.seenDead)],
        ['deposed: its candidate key is gone', at(takeover.noticed)],
        [`elected: ${takeover.newLeader ?? 'nobody'}`, at(takeover.elected)],
        ['ACTIVE: everything read, published', at(takeover.active)],
        takeover.adopted === undefined
          ? [
              `job restored: checkpoint ${String(takeover.restoredCheckpoint ?? '-')}`,
              at(takeover.running),
            ]
          : [
              `tasks adopted: ${String(takeover.attemptsChanged)} of ${String(takeover.tasks)} attempts changed`,
              at(takeover.adopted),
            ],
        ['first output committed', at(takeover.firstOutput)],
      ],
    ),
  );
  print();
  print(bold('Committed output against an independent computation'));
  const row = (name: string, c: Verdict['sessions']): (string | number)[] => [
    name,
    c.expectedLines,
    c.committedLines,
    c.missing.length,
    c.unexpected.length,
    c.pendingFiles.length,
  ];
  print(
    table(
      ['', 'EXPECTED', 'COMMITTED', 'MISSING', 'TWICE OR WRONG', 'PENDING FILES'],
      [
        row('status codes by the minute', verdict.statusByMinute),
        row('sessions by client', verdict.sessions),
      ],
    ),
  );
  print();
  print(
    verdict.exactlyOnce && jobState === 'FINISHED'
      ? green(bold('EXACTLY ONCE: every line is there, once.'))
      : `${red(bold('NOT EXACTLY ONCE'))}: the job ended ${jobState}; logs and output are in ${cluster.directory}`,
  );
}

if (options.help) {
  print(usage);
} else {
  try {
    await main();
  } catch (error) {
    printError(describeError(error, true));
    process.exitCode = exitCodeOf(error);
  }
}
