/** Runs one drill, on a cluster of its own or on one that runs: load, fault, recovery, end of the job, verdict. */
import { resolve } from 'node:path';
import { MillraceError } from '../../lib/base/errors.js';
import { SystemRandom } from '../../lib/base/system-random.js';
import { exitCodes } from '../exit-codes.js';
import { LocalCluster, type LocalClusterOptions } from '../local/local-cluster.js';
import { AccessLogRun } from './access-log-run.js';
import { wordsNeverSaid } from './aftermath.js';
import { ClusterLinks } from './cluster-links.js';
import type { Drill, DrillCluster, DrillFindings, DrillJob, DrillReport } from './drill.js';
import { readEvents, timelineOf, type Deed } from './timeline.js';
import { checkWriteHistory } from './write-history.js';

export interface DrillOptions {
  /** Folder for the cluster. */
  readonly folder: string;
  /** Lines a second of the access log. Default: the drill's. */
  readonly rate?: number;
  readonly parallelism?: number;
  /** The long variant of faults that have one. */
  readonly soak?: boolean;
  readonly progress?: (line: string) => void;
  /** Keep the cluster's folder (logs, data) afterwards. Default: only when the drill did not pass. */
  readonly keep?: boolean;
}

const silent = (): void => undefined;

/** On a fresh cluster, which is stopped afterwards, and removed when the drill passed. */
export async function runDrill(drill: Drill, options: DrillOptions): Promise<DrillReport> {
  const progress = options.progress ?? silent;
  const began = Date.now();
  const clusterId = `drill-${drill.name}-${new SystemRandom().hex(6)}`;
  const wanted = drill.cluster ?? {};
  const names = (role: string, count: number): string[] =>
    Array.from({ length: count }, (_, i) => `${role}-${String(i + 1)}`);
  const jobManagers = wanted.jobManagers ?? 3;
  const taskManagers = wanted.taskManagers ?? 2;
  const members = wanted.etcdMembers ?? 3;
  const links = await ClusterLinks.open(wanted.links ?? [], {
    jobManagers: names('jobmanager', jobManagers),
    taskManagers: names('taskmanager', taskManagers),
    etcdMembers: members,
  });
  const forget = stopWhenInterrupted(options.folder, clusterId);
  try {
    const clusterOptions: LocalClusterOptions & Omit<DrillCluster, 'environment'> = {
      folder: options.folder,
      clusterId,
      jobManagers,
      taskManagers,
      slotsPerTaskManager: wanted.slotsPerTaskManager ?? 2,
      etcd: { members, ports: links.etcdPorts },
      settings: wanted.settings ?? {},
      processSettings: merged(links.processSettings, wanted.processSettings ?? {}),
      ...(wanted.supervised !== undefined && { supervised: wanted.supervised }),
      ...(wanted.environment !== undefined && {
        environment: wanted.environment(resolve(options.folder, clusterId)),
      }),
    };
    const cluster = await LocalCluster.start(clusterOptions, progress).catch(describe);
    if (typeof cluster === 'string') return notStarted(drill, cluster, began);
    let report: DrillReport | undefined;
    try {
      report = await new DrillRun(cluster, links, drill, options, began).run();
      return report;
    } finally {
      await links.heal();
      await cluster.stop();
      if (options.keep !== true && report?.passed === true) cluster.remove();
    }
  } finally {
    forget();
    await links.close();
  }
}

/** On a cluster somebody uses: its own job beside the others, and everything started again afterwards. */
export async function runDrillOn(
  cluster: LocalCluster,
  drill: Drill,
  options: Omit<DrillOptions, 'folder' | 'keep'>,
): Promise<DrillReport> {
  if (drill.strikes === undefined)
    throw new MillraceError(
      'CONFIG',
      `drill '${drill.name}' needs a cluster of its own: run it without --on`,
    );
  const links = await ClusterLinks.open([], { jobManagers: [], taskManagers: [], etcdMembers: 0 });
  const ran = cluster.processes().filter((one) => one.alive);
  try {
    return await new DrillRun(cluster, links, drill, options, Date.now()).run();
  } finally {
    const alive = cluster.processes().filter((one) => one.alive);
    for (const { name } of ran)
      if (!alive.some((one) => one.name === name)) await cluster.restart(name);
    await links.close();
  }
}

/** An interrupted drill leaves no process behind. Returns what ends the watch. */
function stopWhenInterrupted(folder: string, clusterId: string): () => void {
  const signals = ['SIGINT', 'SIGTERM'] as const;
  const onSignal = (): void => {
    const stopped = Promise.resolve().then(() => LocalCluster.open(folder, clusterId).stop());
    void stopped.catch(() => undefined).finally(() => process.exit(exitCodes.interrupted.code));
  };
  for (const one of signals) process.once(one, onSignal);
  return () => {
    for (const one of signals) process.off(one, onSignal);
  };
}

function notStarted(drill: Drill, failure: string, began: number): DrillReport {
  return {
    drill: drill.name,
    passed: false,
    exactlyOnce: false,
    committedLines: 0,
    findings: {},
    failure,
    durationMs: Date.now() - began,
    timeline: [],
  };
}

type PerProcess = Readonly<Record<string, Readonly<Record<string, string>>>>;

function merged(one: PerProcess, other: PerProcess): PerProcess {
  const names = new Set([...Object.keys(one), ...Object.keys(other)]);
  return Object.fromEntries([...names].map((name) => [name, { ...one[name], ...other[name] }]));
}

class DrillRun {
  readonly #cluster: LocalCluster;
  readonly #links: ClusterLinks;
  readonly #drill: Drill;
  readonly #options: Omit<DrillOptions, 'folder'>;
  readonly #began: number;
  readonly #deeds: Deed[] = [];
  readonly #runs: AccessLogRun[] = [];

  constructor(
    cluster: LocalCluster,
    links: ClusterLinks,
    drill: Drill,
    options: Omit<DrillOptions, 'folder'>,
    began: number,
  ) {
    this.#cluster = cluster;
    this.#links = links;
    this.#drill = drill;
    this.#options = options;
    this.#began = began;
  }

  async run(): Promise<DrillReport> {
    let findings: DrillFindings = {};
    let committedLines = 0;
    let failure: string | undefined;
    try {
      findings = await this.#inject();
      committedLines = await this.#awaitVerdict();
      const leaders = await this.#checkHistory();
      findings = { ...findings, leadersThatWrote: leaders };
    } catch (error) {
      failure = `${describe(error)} (cluster: ${this.#cluster.directory})`;
    } finally {
      for (const run of this.#runs) await run.close();
    }
    return {
      drill: this.#drill.name,
      passed: failure === undefined,
      exactlyOnce: committedLines > 0,
      committedLines,
      findings,
      ...(failure !== undefined && { failure }),
      durationMs: Date.now() - this.#began,
      timeline: this.#timeline(),
    };
  }

  #job(): DrillJob {
    const { job } = this.#drill;
    return typeof job === 'function' ? job(this.#options.soak === true) : (job ?? {});
  }

  async #inject(): Promise<DrillFindings> {
    const progress = this.#options.progress ?? silent;
    const job = this.#job();
    const submitted = await AccessLogRun.submit(this.#cluster, {
      rate: this.#options.rate ?? job.rate ?? 600,
      lines: job.lines ?? 7_000,
      parallelism: this.#options.parallelism ?? job.parallelism ?? 2,
      settings: {
        'execution.checkpointing.interval': '300ms',
        'restart-strategy.exponential-delay.initial-backoff': '100ms',
        ...job.settings,
      },
    });
    this.#runs.push(submitted);
    const underway = this.#drill.underway ?? 2;
    if (underway > 0) {
      await submitted.waitUntilUnderway(underway);
      progress('the job runs, checkpoints complete, output is committed');
    }
    return this.#drill.inject({
      cluster: this.#cluster,
      run: submitted,
      links: this.#links,
      soak: this.#options.soak === true,
      progress,
      did: (what) => {
        const at = Date.now();
        this.#deeds.push({ at, what });
        progress(what);
        return at;
      },
      follow: (run) => {
        this.#runs.push(run);
      },
    });
  }

  /** Resolves with the number of committed lines when they are right. */
  async #awaitVerdict(): Promise<number> {
    const run = this.#runs.at(-1);
    if (run === undefined) throw new MillraceError('INVARIANT', 'the drill has no job');
    const expected = this.#drill.ends ?? 'FINISHED';
    const result = await run.waitUntilEnd();
    if (result.state !== expected)
      throw new MillraceError(
        'INVARIANT',
        `the job ended ${result.state}: ${result.failure?.message ?? ''}`,
      );
    const { statusByMinute, sessions } = run.verify();
    const wrong = [
      ...comparison('status by minute', statusByMinute, expected),
      ...comparison('sessions', sessions, expected),
    ];
    if (wrong.length > 0) throw new MillraceError('INVARIANT', wrong.join('; '));
    return statusByMinute.committedLines + sessions.committedLines;
  }

  /** Resolves with the number of leaders that wrote. */
  async #checkHistory(): Promise<number> {
    // etcd's client is loaded only by those who need it.
    const { readWriteHistory } = await import('./read-write-history.js');
    const leaders = checkWriteHistory(await readWriteHistory(this.#cluster));
    const said = wordsNeverSaid(this.#cluster, this.#began);
    if (said.length > 0) throw new MillraceError('INVARIANT', said.slice(0, 5).join('\n  '));
    return leaders;
  }

  #timeline(): DrillReport['timeline'] {
    const since = this.#deeds[0]?.at;
    if (since === undefined) return [];
    return timelineOf(this.#deeds, readEvents(this.#cluster, since), since);
  }
}

function comparison(
  name: string,
  one: ReturnType<AccessLogRun['verify']>['sessions'],
  expected: 'FINISHED' | 'CANCELED',
): string[] {
  const isRight =
    one.unexpected.length === 0 &&
    (expected === 'CANCELED' ||
      (one.missing.length === 0 && one.pendingFiles.length === 0 && one.expectedLines > 0));
  if (isRight) return [];
  return [
    `${name}: ${String(one.committedLines)} of ${String(one.expectedLines)} lines, missing ${String(one.missing.length)}, unexpected ${String(one.unexpected.length)}, pending files ${String(one.pendingFiles.length)}`,
  ];
}

function describe(error: unknown): string {
  return error instanceof MillraceError ? `${error.code}: ${error.message}` : String(error);
}
