/**
 * Keeps the record of one takeover: when each phase ended, and what became of the jobs. Written after ACTIVE and again
 * when all jobs have settled; for people, so a write that fails is only logged.
 */
import { formatEpoch, type Leadership, type TakeoverRecord } from '../../ha/services.js';
import type { Env } from '../base/env.js';
import type { JobId, JobManagerId } from '../base/ids.js';
import type { Logger } from '../base/logger.js';

/** How a job that had run before came up under this leader. */
export type JobSettlement = 'adopted' | 'restored' | 'failed';

export class TakeoverRecorder {
  readonly #env: Env;
  readonly #log: Logger;
  readonly #leadership: Leadership;
  readonly #jobManagerId: JobManagerId;
  /** Jobs whose outcome is awaited. */
  readonly #open = new Set<JobId>();
  readonly #counts: Record<JobSettlement, number> = { adopted: 0, restored: 0, failed: 0 };
  #recoveredAt = 0;
  #activeAt = 0;
  #settledAt: number | undefined;
  #writing: Promise<void> = Promise.resolve();

  constructor(env: Env, leadership: Leadership, jobManagerId: JobManagerId) {
    this.#env = env;
    this.#log = env.log;
    this.#leadership = leadership;
    this.#jobManagerId = jobManagerId;
  }

  /** A job that had run is taken over. */
  expect(jobId: JobId): void {
    if (this.#activeAt === 0) this.#open.add(jobId);
  }

  /** Jobs, results and TaskManagers were read. */
  recovered(): void {
    this.#recoveredAt = this.#env.clock.wallTime();
  }

  /** ACTIVE was published. */
  active(): void {
    this.#activeAt = this.#env.clock.wallTime();
    if (this.#open.size > 0) this.#write();
    else this.#settle();
  }

  /** Only the first word about an expected job counts: what happens to it later is its own history. */
  settled(jobId: JobId, how: JobSettlement): void {
    if (!this.#open.delete(jobId)) return;
    this.#counts[how] += 1;
    if (this.#activeAt > 0 && this.#open.size === 0) this.#settle();
  }

  #settle(): void {
    this.#settledAt = this.#env.clock.wallTime();
    this.#write();
  }

  #write(): void {
    this.#writing = this.#writing.then(async () => {
      try {
        const { takeovers } = this.#leadership;
        const earlier = (await takeovers.list()).find(
          ({ epoch }) => formatEpoch(epoch) !== formatEpoch(this.#leadership.epoch),
        );
        const record = this.#record(earlier);
        if (record.settledAt !== undefined) this.#report(record);
        await takeovers.put(record);
      } catch (err) {
        this.#log.warn({ err, event: 'leader.takeover-not-recorded' }, 'takeover not recorded');
      }
    });
  }

  #record(earlier: TakeoverRecord | undefined): TakeoverRecord {
    const { epoch, origin } = this.#leadership;
    // Who led last may have gone long before this process came.
    const previous =
      origin.previous ?? (earlier && { epoch: earlier.epoch, jobManagerId: earlier.jobManagerId });
    return {
      epoch,
      jobManagerId: this.#jobManagerId,
      cause: previous === undefined ? 'first' : origin.cause,
      ...(previous !== undefined && { previous }),
      ...(origin.noticedAt !== undefined && { noticedAt: origin.noticedAt }),
      electedAt: origin.electedAt,
      recoveredAt: this.#recoveredAt,
      activeAt: this.#activeAt,
      ...(this.#settledAt !== undefined && { settledAt: this.#settledAt }),
      jobsAdopted: this.#counts.adopted,
      jobsRestored: this.#counts.restored,
      jobsFailed: this.#counts.failed,
    };
  }

  #report(record: TakeoverRecord): void {
    const { previous, noticedAt, electedAt, recoveredAt, activeAt, settledAt } = record;
    const from = noticedAt ?? electedAt;
    this.#log.info(
      {
        event: 'leader.takeover',
        cause: record.cause,
        previous: previous && formatEpoch(previous.epoch),
        wallTime: from,
        electedMs: electedAt - from,
        recoveredMs: recoveredAt - from,
        activeMs: activeAt - from,
        settledMs: (settledAt ?? activeAt) - from,
        jobsAdopted: record.jobsAdopted,
        jobsRestored: record.jobsRestored,
        jobsFailed: record.jobsFailed,
      },
      'takeover is complete',
    );
  }
}
