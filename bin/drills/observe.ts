/** What drills look at: who leads, which attempts run, what the processes said; and the checks of "nothing happened". */
import { setTimeout as sleep } from 'node:timers/promises';
import { compareEpochs, parseEpoch } from '../../ha/services.js';
import { MillraceError } from '../../lib/base/errors.js';
import type { JobDetails } from '../../lib/gateway/client-gateway.js';
import { etcdMemberStatus } from '../local/etcd-member.js';
import type { LocalCluster } from '../local/local-cluster.js';
import type { DrillContext } from './drill.js';
import { readEvents, type LoggedEvent } from './timeline.js';

/** Lease of a local cluster's leader. ms */
export const leaseTtlMs = 3000;

/** The JobManager that leads; waits up to 15 s for one. */
export async function leaderOf(cluster: LocalCluster): Promise<string> {
  const deadline = Date.now() + 15_000;
  for (;;) {
    const name = await cluster.leaderName();
    if (name !== undefined) return name;
    if (Date.now() > deadline)
      throw new MillraceError('NO_LEADER', 'no JobManager leads after 15 s');
    await sleep(20);
  }
}

/** JobManagers that run and do not lead. */
export async function standbysOf(cluster: LocalCluster): Promise<string[]> {
  const leader = await leaderOf(cluster);
  return cluster
    .processes()
    .filter((one) => one.role === 'jobmanager' && one.alive && one.name !== leader)
    .map((one) => one.name);
}

/** The etcd member that leads its cluster. */
export async function etcdLeaderName(cluster: LocalCluster): Promise<string> {
  for (const [i, endpoint] of cluster.endpoints.entries()) {
    const status = await etcdMemberStatus(endpoint).catch(() => undefined);
    if (status !== undefined && status.memberId === status.leaderId) return etcdName(i);
  }
  throw new MillraceError('ETCD_UNAVAILABLE', 'no etcd member says that it leads');
}

/** An etcd member of a local cluster by its index from 0. */
export function etcdName(index: number): string {
  return `etcd-${String(index + 1)}`;
}

/** A TaskManager that runs tasks of the job. */
export async function busyTaskManager({ cluster, run }: DrillContext): Promise<string> {
  const { vertices } = await run.details();
  const used = vertices.flatMap((vertex) =>
    vertex.subtasks.map((subtask) => subtask['taskmanager-id']),
  );
  const found = cluster
    .processes()
    .find((one) => one.role === 'taskmanager' && used.includes(one.name));
  if (found === undefined)
    throw new MillraceError('INVARIANT', 'no TaskManager runs a task of the job');
  return found.name;
}

/** The first event at or after `since` (wall-clock ms) that is wanted; TIMEOUT when none comes. */
export async function waitForEvent(
  cluster: LocalCluster,
  since: number,
  wanted: string | ((event: LoggedEvent) => boolean),
  timeoutMs: number,
): Promise<LoggedEvent> {
  const matches =
    typeof wanted === 'string' ? (one: LoggedEvent): boolean => one.event === wanted : wanted;
  const deadline = Date.now() + timeoutMs;
  for (;;) {
    const found = readEvents(cluster, since).find(matches);
    if (found !== undefined) return found;
    if (Date.now() > deadline)
      throw new MillraceError(
        'TIMEOUT',
        `no ${typeof wanted === 'string' ? `event ${wanted}` : 'such event'} within ${String(timeoutMs)} ms`,
      );
    await sleep(20);
  }
}

/** The events of one process at or after `since`. */
export function eventsOf(cluster: LocalCluster, process: string, since: number): LoggedEvent[] {
  return readEvents(cluster, since).filter((one) => one.process === process);
}

/** `vertex/subtask` -> attempt id. */
export type Attempts = ReadonlyMap<string, string>;

export function attemptsOf(job: JobDetails): Attempts {
  return new Map(
    job.vertices.flatMap((vertex) =>
      vertex.subtasks.map((subtask) => [
        `${vertex.name}/${String(subtask.subtask)}`,
        subtask['attempt-id'],
      ]),
    ),
  );
}

/** Tasks that do not run as the attempt that ran before: place, attempt before. */
export function changedAttempts(before: Attempts, now: Attempts): [string, string][] {
  return [...before].filter(([place, id]) => now.get(place) !== id);
}

/** How things were before the fault. */
export interface Before {
  readonly leader: string;
  /** Of the leader that runs the job. */
  readonly epoch: string;
  readonly generation: number;
  readonly attempts: Attempts;
  readonly completedCheckpoints: number;
}

export async function lookBefore({ cluster, run }: DrillContext): Promise<Before> {
  const leader = await leaderOf(cluster);
  const job = await run.waitUntilRunning();
  return {
    leader,
    epoch: job.epoch,
    generation: job.generation,
    attempts: attemptsOf(job),
    completedCheckpoints: (await run.checkpoints()).counts.completed,
  };
}

/** INVARIANT unless every attempt that ran before is the one that runs (or finished) now. Returns how many there are. */
export async function mustKeepAttempts({ run }: DrillContext, before: Before): Promise<number> {
  let job: JobDetails | undefined;
  await run.waitFor('the job’s attempts', 30_000, async () => {
    job = await run.details();
    // A new leader learns first what runs.
    return job.state !== 'INITIALIZING' && job.state !== 'RECONCILING';
  });
  if (job === undefined) throw new MillraceError('INVARIANT', 'no details after waiting');
  const now = attemptsOf(job);
  const changed = changedAttempts(before.attempts, now);
  if (changed.length > 0 || job.generation !== before.generation)
    throw new MillraceError(
      'INVARIANT',
      `${String(changed.length)} of ${String(now.size)} attempts changed (${changed
        .slice(0, 3)
        .map(([place, id]) => `${place}: ${id} -> ${now.get(place) ?? 'none'}`)
        .join(', ')}), generation ${String(before.generation)} -> ${String(job.generation)}`,
    );
  return now.size;
}

/** INVARIANT when somebody else leads than before, or the same one again under another epoch. */
export async function mustKeepLeader(
  { cluster, run }: DrillContext,
  before: Before,
): Promise<void> {
  const leader = await leaderOf(cluster);
  const { epoch } = await run.details();
  if (leader !== before.leader || epoch !== before.epoch)
    throw new MillraceError(
      'INVARIANT',
      `the leadership changed: ${before.leader} in epoch ${before.epoch} before, ${leader} in epoch ${epoch} now`,
    );
}

/** INVARIANT unless a later epoch leads. Returns it. */
export async function mustHaveFailedOver(
  { run }: DrillContext,
  before: Before,
  timeoutMs = 30_000,
): Promise<string> {
  let epoch = before.epoch;
  await run.waitFor('a new leader that knows the job', timeoutMs, async () => {
    ({ epoch } = await run.details());
    return epoch !== before.epoch;
  });
  const [older, newer] = [parseEpoch(before.epoch), parseEpoch(epoch)];
  if (older === undefined || newer === undefined || compareEpochs(newer, older) <= 0)
    throw new MillraceError('INVARIANT', `epoch ${epoch} follows epoch ${before.epoch}`);
  return epoch;
}

/** Waits until `more` checkpoints have completed since now, and returns the ms it took. */
export async function moreCheckpoints(
  { run }: DrillContext,
  more: number,
  timeoutMs = 30_000,
): Promise<number> {
  const began = Date.now();
  const ids = new Set<number>();
  let first = Infinity;
  await run.waitFor(`${String(more)} more checkpoints`, timeoutMs, async () => {
    const { latest } = await run.checkpoints();
    const id = latest.completed?.id;
    if (id === undefined) return false;
    first = Math.min(first, id);
    if (id > first) ids.add(id);
    return ids.size >= more || id - first >= more;
  });
  return Date.now() - began;
}

/** Longest time without a newly completed checkpoint, asked of the leader every 50 ms. */
export class CheckpointWatch {
  readonly #context: DrillContext;
  readonly #loop: Promise<void>;
  #isOver = false;
  #latest = -1;
  #since = Date.now();
  #longestMs = 0;

  constructor(context: DrillContext) {
    this.#context = context;
    this.#loop = this.#watch();
  }

  /** ms, up to now. */
  async stop(): Promise<number> {
    this.#isOver = true;
    await this.#loop;
    return Math.max(this.#longestMs, Date.now() - this.#since);
  }

  async #watch(): Promise<void> {
    while (!this.#isOver) {
      const id = await latestCheckpoint(this.#context).catch(() => undefined);
      if (id !== undefined && id !== this.#latest) {
        const now = Date.now();
        if (this.#latest >= 0) this.#longestMs = Math.max(this.#longestMs, now - this.#since);
        this.#latest = id;
        this.#since = now;
      }
      await sleep(50);
    }
  }
}

/** As the leader knows it; undefined when none has completed. */
export async function latestCheckpoint({ run }: DrillContext): Promise<number | undefined> {
  return (await run.checkpoints()).latest.completed?.id;
}

/** Records read by all sources so far, as the leader knows it from the last heartbeats. */
export async function recordsRead({ run }: DrillContext): Promise<number> {
  const job = await run.details();
  return job.vertices
    .flatMap((vertex) => vertex.subtasks)
    .reduce((sum, subtask) => sum + Number(subtask.metrics['write-records'] ?? 0), 0);
}

/** A finding that may be missing. */
export function present(name: string, value: number | undefined): Record<string, number> {
  return value === undefined ? {} : { [name]: value };
}
