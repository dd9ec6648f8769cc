/** What happened after a fault, read from the events the processes logged. Wall-clock stamps of one machine. */
import { existsSync, readFileSync, readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import type { LocalCluster } from '../local/local-cluster.js';
import type { TimelineEntry } from './drill.js';

export interface LoggedEvent {
  readonly process: string;
  readonly event: string;
  /** Wall-clock ms. */
  readonly at: number;
  readonly fields: Readonly<Record<string, unknown>>;
}

/** All events of a cluster's JobManagers and TaskManagers at or after `since`, in order of time. */
export function readEvents(cluster: LocalCluster, since: number): LoggedEvent[] {
  const events: LoggedEvent[] = [];
  for (const { name, role } of cluster.processes()) {
    if (role === 'etcd') continue;
    for (const file of logFiles(join(cluster.logDir, name))) {
      for (const line of readFileSync(file, 'utf8').split('\n')) {
        if (!line.includes('"event"')) continue;
        const event = parseEvent(name, line);
        if (event !== undefined && event.at >= since) events.push(event);
      }
    }
  }
  return events.sort((a, b) => a.at - b.at);
}

function logFiles(folder: string): string[] {
  if (!existsSync(folder)) return [];
  return readdirSync(folder)
    .map((name) => join(folder, name))
    .filter((path) => statSync(path).isFile());
}

export function parseEvent(process: string, line: string): LoggedEvent | undefined {
  try {
    const fields = JSON.parse(line) as Record<string, unknown>;
    const { event, time } = fields;
    if (typeof event !== 'string' || typeof time !== 'string') return undefined;
    return { process, event, at: Date.parse(time), fields };
  } catch {
    // The last line of a killed process may be torn.
    return undefined;
  }
}

/** ms after the fault; undefined for what did not happen (or not yet). */
export interface Takeover {
  /** Its supervisor saw it end, or a standby its connection; undefined: nobody did, the lease ran out. */
  readonly seenDead: number | undefined;
  /** The dead leader's candidate key was seen to be gone. */
  readonly noticed: number | undefined;
  readonly elected: number | undefined;
  readonly newLeader: string | undefined;
  /** The new leader acts: jobs and TaskManagers are read, it is ACTIVE in etcd. */
  readonly active: number | undefined;
  /** Its tasks go on under the new leader as they were. */
  readonly adopted: number | undefined;
  /** The job is back: graph and checkpoint pointer read, JobMaster started. */
  readonly recovered: number | undefined;
  readonly restoredCheckpoint: number | undefined;
  /** All tasks of the job run again. */
  readonly running: number | undefined;
}

export function readTakeover(cluster: LocalCluster, deathAt: number, jobId: string): Takeover {
  const events = readEvents(cluster, deathAt);
  const granted = events.find((one) => one.event === 'leader.granted');
  const ofJob = (event: string): LoggedEvent | undefined =>
    events.find(
      (one) =>
        one.event === event &&
        one.fields['jobId'] === jobId &&
        (granted === undefined || one.at >= granted.at),
    );
  const seenDead = events.find(
    (one) => one.event === 'supervisor.child-exited' || one.event === 'peer.closed',
  );
  const noticed = events.find((one) => one.event === 'election.predecessor-gone');
  const restored = ofJob('checkpoint.restored');
  const after = (one: LoggedEvent | undefined): number | undefined =>
    one === undefined ? undefined : one.at - deathAt;
  const checkpoint = restored?.fields['checkpointId'];
  return {
    seenDead: after(seenDead),
    noticed: after(noticed),
    elected: after(granted),
    newLeader: granted?.process,
    active: after(events.find((one) => one.event === 'leader.active')),
    adopted: after(ofJob('job.adopted')),
    recovered: after(ofJob('job.recovered')),
    restoredCheckpoint: typeof checkpoint === 'number' ? checkpoint : undefined,
    running: after(ofJob('job.running')),
  };
}

/** What a drill did. */
export interface Deed {
  /** Wall-clock ms. */
  readonly at: number;
  readonly what: string;
}

/** A timeline is for reading: beyond so many events of one kind and process, they are counted only. */
const shownPerKind = 6;
const plainFields: readonly string[] = [
  'level',
  'time',
  'event',
  'msg',
  'role',
  'pid',
  'hostname',
  'component',
  'err',
  // One job, and the process is named.
  'jobId',
  'taskManagerId',
  'wallTime',
];

/** Deeds and events in order of time, in ms since `since`. */
export function timelineOf(
  deeds: readonly Deed[],
  events: readonly LoggedEvent[],
  since: number,
): TimelineEntry[] {
  const seen = new Map<string, number>();
  const entries: TimelineEntry[] = deeds.map(({ at, what }) => ({
    ms: at - since,
    process: 'drill',
    event: '',
    text: what,
  }));
  for (const { process, event, at, fields } of events) {
    const kind = `${process} ${event}`;
    const count = (seen.get(kind) ?? 0) + 1;
    seen.set(kind, count);
    if (count > shownPerKind) continue;
    entries.push({ ms: at - since, process, event, text: textOf(fields) });
  }
  for (const [kind, count] of seen) {
    if (count <= shownPerKind) continue;
    const [process = '', event = ''] = kind.split(' ');
    const last = events.findLast((one) => one.process === process && one.event === event);
    entries.push({
      ms: (last?.at ?? since) - since,
      process,
      event,
      text: `${String(count - shownPerKind)} more of these up to now`,
    });
  }
  return entries.sort((a, b) => a.ms - b.ms);
}

function textOf(fields: Readonly<Record<string, unknown>>): string {
  const said = Object.entries(fields)
    .filter(([name, value]) => !plainFields.includes(name) && typeof value !== 'object')
    .map(([name, value]) => `${name}=${String(value)}`);
  const message = fields['msg'];
  return [typeof message === 'string' ? message : '', ...said].join(' ').slice(0, 240);
}
