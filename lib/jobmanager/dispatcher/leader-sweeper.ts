/**
 * What a leader clears away from time to time: checkpoint directories and files that nothing names, which leaders before
 * it left when they died, and results of jobs that ended long ago. Nothing depends on it but space.
 */
import { sweepOrphans } from '../../../checkpoint/storage/orphan-sweep.js';
import type { Leadership } from '../../../ha/services.js';
import type { CancelTimer } from '../../base/clock.js';
import { childEnv, type Env } from '../../base/env.js';
import { hasCode } from '../../base/errors.js';
import type { JobId } from '../../base/ids.js';
import type { Closeable } from '../../base/lifecycle.js';

export interface SweepOptions {
  /** `high-availability.orphan-sweep.min-age`. */
  readonly orphanMinAgeMs: number;
  /** `jobstore.expiration-time`. */
  readonly resultMaxAgeMs: number;
  /** `jobstore.max-capacity`. */
  readonly resultMaxCount: number;
  /** Default: a sixth of the shorter age, at least a second, at most ten minutes. */
  readonly periodMs?: number;
}

export const defaultSweepOptions: SweepOptions = {
  orphanMinAgeMs: 3_600_000,
  resultMaxAgeMs: 3_600_000,
  resultMaxCount: 1_000,
};

export interface LeaderSweeperDeps {
  readonly leadership: Leadership;
  /** Of a job's checkpoints. */
  readonly checkpointDirectory: (jobId: JobId) => string;
  /** A result was deleted: the job is unknown from now on. */
  readonly onForgotten: (jobId: JobId) => void;
}

export interface SweepReport {
  readonly checkpoints: readonly string[];
  readonly values: readonly string[];
  readonly results: readonly JobId[];
}

export class LeaderSweeper implements Closeable {
  readonly #env: Env;
  readonly #deps: LeaderSweeperDeps;
  readonly #options: SweepOptions;
  #cancelTimer: CancelTimer | undefined;
  #sweeping: Promise<unknown> = Promise.resolve();
  #closed = false;

  constructor(env: Env, deps: LeaderSweeperDeps, options: SweepOptions) {
    this.#env = childEnv(env, 'sweeper');
    this.#deps = deps;
    this.#options = options;
  }

  /** The first sweep comes a period later: a takeover has other things to do. */
  start(): void {
    if (this.#cancelTimer === undefined && !this.#closed) this.#arm();
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#cancelTimer?.();
    await this.#sweeping;
  }

  /** One round. A job whose files cannot be looked through keeps no other from being swept. */
  async sweep(): Promise<SweepReport> {
    const { leadership, onForgotten } = this.#deps;
    const { resultMaxAgeMs: maxAgeMs, resultMaxCount: maxCount } = this.#options;
    const now = this.#env.clock.wallTime();
    const results = await leadership.results.expire({ maxCount, maxAgeMs, now });
    for (const jobId of results) onForgotten(jobId);
    const checkpoints: string[] = [];
    const values: string[] = [];
    const ended = new Set(await leadership.results.listIds());
    for (const jobId of await leadership.jobs.list()) {
      if (this.#closed || !leadership.mayAct()) break;
      // What has ended is cleaned up whole.
      if (ended.has(jobId)) continue;
      try {
        checkpoints.push(...(await this.#sweepCheckpoints(jobId, now)));
        values.push(...(await leadership.sweepValues(jobId, this.#options.orphanMinAgeMs)));
      } catch (err) {
        if (hasCode(err, 'LEADERSHIP_LOST')) throw err;
        this.#env.log.warn({ err, jobId }, 'files of a job could not be swept');
      }
    }
    this.#report({ checkpoints, values, results });
    return { checkpoints, values, results };
  }

  async #sweepCheckpoints(jobId: JobId, now: number): Promise<string[]> {
    const { leadership, checkpointDirectory } = this.#deps;
    const store = leadership.checkpointPointers(jobId);
    // In this order: what is subsumed meanwhile is in the second list.
    const pointers = await store.list();
    const garbage = await store.listGarbage();
    return sweepOrphans({
      directory: checkpointDirectory(jobId),
      epoch: leadership.epoch,
      known: [...pointers, ...garbage],
      minAgeMs: this.#options.orphanMinAgeMs,
      now,
      mayAct: () => leadership.mayAct(),
    });
  }

  #report({ checkpoints, values, results }: SweepReport): void {
    const { metrics, log } = this.#env;
    metrics.counter('orphanFilesDeleted').inc(checkpoints.length + values.length);
    metrics.counter('jobResultsExpired').inc(results.length);
    if (checkpoints.length + values.length + results.length === 0) return;
    log.info(
      { event: 'leader.swept', checkpoints, values: values.length, results: results.length },
      'files that nothing named and old results were deleted',
    );
  }

  #arm(): void {
    const { orphanMinAgeMs, resultMaxAgeMs } = this.#options;
    const shortest = Math.min(orphanMinAgeMs, resultMaxAgeMs);
    const periodMs =
      this.#options.periodMs ?? Math.min(600_000, Math.max(1_000, Math.round(shortest / 6)));
    this.#cancelTimer = this.#env.clock.setTimer(periodMs, () => {
      this.#sweeping = this.#sweepQuietly().finally(() => {
        if (!this.#closed) this.#arm();
      });
    });
  }

  async #sweepQuietly(): Promise<void> {
    if (!this.#deps.leadership.mayAct()) return;
    try {
      await this.sweep();
    } catch (err) {
      if (!hasCode(err, 'LEADERSHIP_LOST')) this.#env.log.warn({ err }, 'a sweep failed');
    }
  }
}
