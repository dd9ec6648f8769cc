/** What must be true of a cluster's files and logs after faults: nothing unforeseen was said, nothing is left behind. */
import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import type { LocalCluster } from '../local/local-cluster.js';
import { readEvents } from './timeline.js';

/** Errors a process may report when it is a fault's victim. */
const expectedErrors: readonly RegExp[] = [
  // A deposed leader ends with exit code 75 and says so.
  /"code":"LEADERSHIP_LOST"/,
  // A process that was started while etcd had no quorum gives up after 15 s and is started again.
  /"code":"ETCD_UNAVAILABLE"/,
];
const never =
  /unhandledRejection|UnhandledPromise|INVARIANT|uncaughtException|MaxListenersExceeded/;

/** Lines of level error, and words that must never be said, of every process but etcd's. */
export function unforeseenLines(cluster: LocalCluster): string[] {
  return logFiles(cluster).flatMap(({ name, path }) =>
    readFileSync(path, 'utf8')
      .split('\n')
      .filter((line) => {
        const isError =
          line.startsWith('{"level":"error"') && !expectedErrors.some((one) => one.test(line));
        return isError || never.test(line) || /^\s+at .*\.(ts|js):\d+/.test(line);
      })
      .map((line) => `${name}: ${line.slice(0, 600)}`),
  );
}

/** Lines of our processes, logged since then (wall-clock ms), that tell of a mistake of ours, whatever the fault. */
export function wordsNeverSaid(cluster: LocalCluster, since: number): string[] {
  return logFiles(cluster).flatMap(({ name, path }) =>
    readFileSync(path, 'utf8')
      .split('\n')
      .filter((line) => never.test(line) && !isBefore(line, since))
      .map((line) => `${name}: ${line.slice(0, 600)}`),
  );
}

function isBefore(line: string, since: number): boolean {
  const stamp = /"time":"([^"]+)"/.exec(line)?.[1];
  return stamp !== undefined && Date.parse(stamp) < since;
}

function logFiles(cluster: LocalCluster): { name: string; path: string }[] {
  return readdirSync(cluster.logDir, { withFileTypes: true, recursive: true })
    .filter((entry) => entry.isFile() && !entry.name.startsWith('etcd'))
    .map((entry) => {
      const path = join(entry.parentPath, entry.name);
      return { name: path.slice(cluster.logDir.length + 1), path };
    });
}

/** A later restore is never from an older checkpoint, whoever leads. */
export function restoreOrderFaults(cluster: LocalCluster, jobId: string): string[] {
  const faults: string[] = [];
  let newest = 0;
  for (const { event, fields, process } of readEvents(cluster, 0)) {
    const id = fields['checkpointId'];
    if (event !== 'checkpoint.restored' || fields['jobId'] !== jobId || typeof id !== 'number')
      continue;
    if (id < newest)
      faults.push(`${process}: checkpoint ${String(id)} restored after ${String(newest)}`);
    newest = Math.max(newest, id);
  }
  return faults;
}

/** Files whose names say that they were never finished. */
export function unfinishedFiles(directory: string): string[] {
  if (!existsSync(directory)) return [];
  return readdirSync(directory, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && /^[._]|\.(inprogress|pending|tmp|new)\b/.test(entry.name))
    .map((entry) => join(entry.parentPath, entry.name));
}

/** Checkpoints and bundle of a job that ended: a FINISHED one leaves nothing. Relative paths. */
export function storedFiles(cluster: LocalCluster, jobId: string): string[] {
  return readdirSync(cluster.storageDir, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name).slice(cluster.storageDir.length + 1))
    .filter((path) => path.includes(`/jobs/${jobId}/`));
}
