/** A cluster with jobs on it, and what the rounds of a case do and ask. */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { candidates } from '../../bin/drills/etcd-keys.js';
import { attemptsOf, changedAttempts, type Attempts } from '../../bin/drills/observe.js';
import type { LoggedEvent } from '../../bin/drills/timeline.js';
import { isEtcdHealthy } from '../../bin/local/etcd-member.js';
import type { LocalCluster } from '../../bin/local/local-cluster.js';
import { MillraceError } from '../../lib/base/errors.js';
import type { JobId } from '../../lib/base/ids.js';
import type { RestClient } from '../../lib/rest/rest-client.js';
import type { TakeoverArguments } from '../jobs/takeover-arguments.js';
import { allRunning, startCluster, submit, waitFor, type BenchClusterOptions } from '../support.js';
import { EventTail } from './event-tail.js';
import { readStamps, verifyOutput } from './output.js';

export interface Load {
  readonly jobs: number;
  readonly parallelism: number;
  readonly recordsPerSecond: number;
  readonly keys: number;
  readonly bytesPerKey: number;
  readonly checkpointIntervalMs: number;
  readonly bufferTimeoutMs: number;
}

interface RunningJob {
  readonly id: JobId;
  readonly args: TakeoverArguments;
}

/** Between two looks at the logs: what was when is said in them. */
const pollMs = 50;
/** Fifty jobs are submitted one after the other, and slots' threads start on few cores. */
const startMs = 240_000;

export class Rig {
  readonly cluster: LocalCluster;
  readonly client: RestClient;
  readonly #load: Load;
  readonly #events: EventTail;
  readonly #processes: BenchClusterOptions;
  #jobs: RunningJob[] = [];

  private constructor(cluster: LocalCluster, load: Load, processes: BenchClusterOptions) {
    this.cluster = cluster;
    this.client = cluster.restClient();
    this.#load = load;
    this.#processes = processes;
    this.#events = new EventTail(cluster.logDir);
  }

  static async start(processes: BenchClusterOptions, load: Load): Promise<Rig> {
    const rig = new Rig(await startCluster(processes), load, processes);
    try {
      for (let i = 0; i < load.jobs; i += 1) rig.#jobs.push(await rig.#submit(i));
      await rig.#fill();
      return rig;
    } catch (error) {
      await rig.close();
      throw error;
    }
  }

  get jobIds(): JobId[] {
    return this.#jobs.map(({ id }) => id);
  }

  async close(): Promise<void> {
    await this.client.close();
    await this.cluster.stop();
    this.cluster.remove();
  }

  /** Everything is there again that a round needs, and each job completed a checkpoint since. */
  async settled(): Promise<void> {
    const { jobManagers = 3, taskManagers = 2 } = this.#processes;
    await waitFor('all processes', startMs, async () => {
      for (const one of this.cluster.processes())
        if (!one.alive) await this.cluster.restart(one.name);
      const [queue, overview] = await Promise.all([
        candidates(this.cluster),
        this.client.overview({ waitForLeaderMs: 0 }),
      ]);
      await sleep(pollMs);
      return queue.length === jobManagers && overview.taskmanagers === taskManagers
        ? true
        : undefined;
    });
    await this.nextCheckpoints();
    this.#events.forgetBefore(Date.now());
    // Whoever came back has started up by now.
    await sleep(500);
  }

  kill(name: string): void {
    this.cluster.signal(name, 'SIGKILL');
  }

  /** Nobody is left who sees the death. */
  killWithSupervisor(name: string): void {
    this.cluster.signalBoth(name, 'SIGKILL');
  }

  /** Attempts of all tasks of all jobs, by job, vertex and subtask. */
  async attempts(): Promise<Attempts> {
    const all = new Map<string, string>();
    for (const { id } of this.#jobs)
      for (const [place, attempt] of attemptsOf(await this.client.job(id)))
        all.set(`${id}/${place}`, attempt);
    return all;
  }

  /** Tasks that are not what they were. */
  async changedSince(before: Attempts): Promise<number> {
    return changedAttempts(before, await this.attempts()).length;
  }

  events(since: number): LoggedEvent[] {
    return this.#events.since(since);
  }

  /** The first event of that name since then. */
  async event(name: string, since: number, timeoutMs = 60_000): Promise<LoggedEvent> {
    return waitFor(`event ${name}`, timeoutMs, async () => {
      await sleep(pollMs);
      return this.events(since).find((one) => one.event === name);
    });
  }

  /** When the last job was said to be `how` since then. ms */
  async allJobs(how: readonly string[], since: number, timeoutMs = 60_000): Promise<number> {
    return waitFor(`${how.join(' or ')} of all jobs`, timeoutMs, async () => {
      await sleep(pollMs);
      const events = this.events(since).filter((one) => how.includes(one.event));
      const firsts = this.#jobs.map(({ id }) => events.find((one) => one.fields['jobId'] === id));
      return firsts.every((one) => one !== undefined)
        ? Math.max(...firsts.map(({ at }) => at))
        : undefined;
    });
  }

  /** Every job has completed a checkpoint since. */
  async nextCheckpoints(): Promise<void> {
    const first = await this.#completed();
    await waitFor('a checkpoint of each job', startMs, async () => {
      await sleep(pollMs);
      const now = await this.#completed();
      return now.every((id, i) => id > (first[i] ?? 0)) ? true : undefined;
    });
  }

  /** Watches the first job until `done`; resolves with the longest time without a completed checkpoint, ms. */
  async longestWithoutCheckpoint(done: () => boolean): Promise<number> {
    let [seen, seenAt, longest] = [0, Date.now(), 0];
    while (!done()) {
      const [id = 0] = await this.#completed().catch(() => [seen]);
      longest = Math.max(longest, Date.now() - seenAt);
      if (id > seen) [seen, seenAt] = [id, Date.now()];
      await sleep(100);
    }
    return longest;
  }

  /** Id of the newest completed checkpoint of each job. */
  async #completed(): Promise<number[]> {
    const all = await Promise.all(this.#jobs.map(({ id }) => this.client.checkpoints(id)));
    return all.map(({ latest }) => latest.completed?.id ?? 0);
  }

  async etcdHealthy(): Promise<void> {
    await waitFor('all etcd members', 60_000, async () => {
      const healthy = await Promise.all(this.cluster.endpoints.map(isEtcdHealthy));
      return healthy.every(Boolean) ? true : undefined;
    });
  }

  /** Arrivals at the sinks of the first job; read when the rounds are over. */
  stamps(): number[][] {
    const args = this.#jobs[0]?.args;
    return args === undefined ? [] : readStamps(args.stamps);
  }

  /** Ends the jobs and checks everything they committed; resolves with the number of lines. */
  async verify(): Promise<number> {
    for (const { id } of this.#jobs) await this.client.cancel(id);
    await waitFor('the end of the jobs', startMs, async () => {
      await sleep(pollMs);
      const states = await Promise.all(this.#jobs.map(({ id }) => this.client.jobStatus(id)));
      return states.every((state) => state === 'CANCELED') ? true : undefined;
    });
    const lines = this.#jobs.map(({ args, id }) => {
      const committed = verifyOutput(args.out, args.keys);
      if (committed < args.keys)
        throw new MillraceError('INVARIANT', `job ${id} committed ${String(committed)} lines only`);
      return committed;
    });
    return lines.reduce((all, one) => all + one, 0);
  }

  async #submit(index: number): Promise<RunningJob> {
    const { parallelism, recordsPerSecond, keys, bytesPerKey } = this.#load;
    const { checkpointIntervalMs, bufferTimeoutMs } = this.#load;
    const folder = join(this.cluster.directory, 'output', String(index));
    mkdirSync(folder, { recursive: true });
    const args = {
      ...{ recordsPerSecond, keys, bytesPerKey },
      ...{ out: join(folder, 'lines'), stamps: join(folder, 'stamps') },
    };
    const id = await submit(this.client, {
      job: 'takeover',
      args: [JSON.stringify(args)],
      parallelism,
      settings: {
        'execution.checkpointing.interval': `${String(checkpointIntervalMs)} ms`,
        'execution.buffer-timeout.interval': `${String(bufferTimeoutMs)} ms`,
        'restart-strategy.type': 'fixed-delay',
        'restart-strategy.fixed-delay.attempts': '1000',
        'restart-strategy.fixed-delay.delay': '0 ms',
      },
    });
    return { id, args };
  }

  /** All tasks run and every key has its state. */
  async #fill(): Promise<void> {
    const { keys, recordsPerSecond } = this.#load;
    await waitFor('all tasks running', startMs, async () => {
      const jobs = await Promise.all(this.#jobs.map(({ id }) => this.client.job(id)));
      return jobs.every(allRunning) ? true : undefined;
    });
    await sleep((keys / recordsPerSecond) * 1000 + 500);
  }
}
