/** Runs one drill on a cluster of its own: start, load, fault, recovery, end of the job, verdict, stop. */
import { resolve } from 'node:path';
import { MillraceError } from '../../lib/base/errors.js';
import { SystemRandom } from '../../lib/base/system-random.js';
import { LocalCluster } from '../local/local-cluster.js';
import { AccessLogRun } from './access-log-run.js';
import type { Drill, DrillReport } from './drill.js';
import { checkWriteHistory } from './write-history.js';

export interface DrillOptions {
  /** Folder for the cluster. */
  readonly folder: string;
  /** Lines a second of the access log. Default: the drill's. */
  readonly rate?: number;
  readonly parallelism?: number;
  readonly progress?: (line: string) => void;
  /** Keep the cluster's folder (logs, data) afterwards. Default: only when the drill did not pass. */
  readonly keep?: boolean;
}

export async function runDrill(drill: Drill, options: DrillOptions): Promise<DrillReport> {
  const progress = options.progress ?? ((): void => undefined);
  const began = Date.now();
  const clusterId = `drill-${drill.name}-${new SystemRandom().hex(6)}`;
  const cluster = await LocalCluster.start(
    {
      folder: options.folder,
      clusterId,
      jobManagers: 3,
      taskManagers: 2,
      slotsPerTaskManager: 2,
      etcd: { members: 3 },
      settings: {},
      ...(drill.environment !== undefined && {
        environment: drill.environment(resolve(options.folder, clusterId)),
      }),
    },
    progress,
  );
  let report: DrillReport | undefined;
  try {
    report = await drillOn(cluster, drill, options, began);
    return report;
  } finally {
    await cluster.stop();
    if (options.keep !== true && report?.passed === true) cluster.remove();
  }
}

async function drillOn(
  cluster: LocalCluster,
  drill: Drill,
  options: DrillOptions,
  began: number,
): Promise<DrillReport> {
  const progress = options.progress ?? ((): void => undefined);
  const run = await AccessLogRun.submit(cluster, {
    rate: options.rate ?? drill.rate ?? 600,
    parallelism: options.parallelism ?? 2,
    settings: {
      'execution.checkpointing.interval': '300ms',
      'restart-strategy.exponential-delay.initial-backoff': '100ms',
    },
  });
  const failed = (failure: string): DrillReport => ({
    drill: drill.name,
    passed: false,
    exactlyOnce: false,
    committedLines: 0,
    findings: {},
    failure: `${failure} (cluster: ${cluster.directory})`,
    durationMs: Date.now() - began,
  });
  try {
    await run.waitUntilUnderway(2);
    progress('the job runs, checkpoints complete, output is committed');
    const findings = await drill.inject({ cluster, run, progress });
    const result = await run.waitUntilEnd();
    if (result.state !== 'FINISHED')
      return failed(`the job ended ${result.state}: ${result.failure?.message ?? ''}`);
    const verdict = run.verify();
    // etcd's client is loaded only by those who need it.
    const { readWriteHistory } = await import('./read-write-history.js');
    const leaders = checkWriteHistory(await readWriteHistory(cluster));
    const { statusByMinute, sessions } = verdict;
    return {
      drill: drill.name,
      passed: verdict.exactlyOnce,
      exactlyOnce: verdict.exactlyOnce,
      committedLines: statusByMinute.committedLines + sessions.committedLines,
      findings: { ...findings, leadersThatWrote: leaders },
      ...(!verdict.exactlyOnce && { failure: describe(verdict) }),
      durationMs: Date.now() - began,
    };
  } catch (error) {
    return failed(
      error instanceof MillraceError ? `${error.code}: ${error.message}` : String(error),
    );
  } finally {
    await run.close();
  }
}

function describe(verdict: ReturnType<AccessLogRun['verify']>): string {
  const part = (name: string, c: typeof verdict.sessions): string =>
    `${name}: ${String(c.committedLines)} of ${String(c.expectedLines)} lines, missing ${String(c.missing.length)}, unexpected ${String(c.unexpected.length)}, pending files ${String(c.pendingFiles.length)}`;
  return `${part('status by minute', verdict.statusByMinute)}; ${part('sessions', verdict.sessions)}`;
}
