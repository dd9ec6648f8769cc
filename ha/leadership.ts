import type { CancelTimer } from '../lib/base/clock.js';
import type { Env } from '../lib/base/env.js';
import { hasCode } from '../lib/base/errors.js';
import type { JobId } from '../lib/base/ids.js';
import { FencedCheckpointIdCounter } from './checkpoint-id-counter.js';
import { FencedCheckpointPointerStore } from './checkpoint-pointer-store.js';
import { FencedWriter } from './fencing.js';
import type { HaStorage } from './ha-storage.js';
import { FencedJobHistoryStore, FencedTakeoverStore } from './history-stores.js';
import { FencedJobResultStore } from './job-result-store.js';
import { FencedJobStore, jobFolder } from './job-store.js';
import type { Keys } from './keys.js';
import type { KvStore, LeaseId } from './kv-store.js';
import { encodeLeader, type LeadershipWatch } from './leadership-watch.js';
import type {
  CandidateInfo,
  CheckpointIdCounter,
  CheckpointPointerStore,
  JobHistoryStore,
  JobResultStore,
  JobStore,
  LeaderEpoch,
  Leadership,
  LeadershipOrigin,
  TakeoverStore,
  TaskManagerInfo,
} from './services.js';
import { decodeTaskManager } from './task-manager-registry.js';
import { filesOf } from './values.js';

export interface LeadershipDeps {
  readonly kv: KvStore;
  readonly keys: Keys;
  readonly storage: HaStorage;
  readonly watch: LeadershipWatch;
}

export interface LeadershipOptions {
  readonly epoch: LeaderEpoch;
  readonly origin: LeadershipOrigin;
  readonly candidate: CandidateInfo;
  readonly candidateKey: string;
  readonly leaseId: LeaseId;
  readonly mayAct: () => boolean;
  readonly leaseSlackMs: () => number;
  readonly onLost: () => void;
  readonly outcomeTimeoutMs: number;
}

/** How long the leader's record may differ from what was published before it is published again. */
const republishMs = 1_000;

/** One leadership: everything written through it is fenced by its candidate key. */
export class ElectedLeadership implements Leadership {
  readonly epoch: LeaderEpoch;
  readonly origin: LeadershipOrigin;
  readonly jobs: JobStore;
  readonly results: JobResultStore;
  readonly history: JobHistoryStore;
  readonly takeovers: TakeoverStore;
  readonly #env: Env;
  readonly #deps: LeadershipDeps;
  readonly #options: LeadershipOptions;
  readonly #writer: FencedWriter;
  readonly #controller = new AbortController();
  readonly #since: number;
  #unsubscribe: () => void = () => undefined;
  #cancelRepublish: CancelTimer | undefined;

  constructor(env: Env, deps: LeadershipDeps, options: LeadershipOptions) {
    const { kv, keys, storage } = deps;
    this.#env = env;
    this.#deps = deps;
    this.#options = options;
    this.epoch = options.epoch;
    this.origin = options.origin;
    this.#since = options.origin.electedAt;
    this.#writer = new FencedWriter(env, kv, { ...options, signal: this.#controller.signal });
    this.jobs = new FencedJobStore(this.#writer, keys, storage);
    this.results = new FencedJobResultStore(this.#writer, keys, storage, env.log);
    this.history = new FencedJobHistoryStore(this.#writer, keys, storage, env.log);
    this.takeovers = new FencedTakeoverStore(this.#writer, keys, env.log);
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  mayAct(): boolean {
    return !this.signal.aborted && this.#options.mayAct();
  }

  leaseSlackMs(): number {
    return this.#options.leaseSlackMs();
  }

  async publishActive(): Promise<void> {
    try {
      await this.#publish();
    } catch (err) {
      // Without space etcd takes no record, but it keeps the candidate key, which names this leader.
      if (!hasCode(err, 'ETCD_NO_SPACE')) throw err;
      this.#env.log.warn({ err }, 'the leader record is published when etcd has space again');
    }
    this.#unsubscribe();
    this.#unsubscribe = this.#deps.watch.subscribe(() => {
      this.#checkPublished();
    });
  }

  async listTaskManagers(): Promise<TaskManagerInfo[]> {
    const entries = await this.#writer.list(this.#deps.keys.taskManagersPrefix);
    return entries.flatMap((entry) => {
      try {
        return [decodeTaskManager(entry)];
      } catch (err) {
        // Only whom to wait for is decided by it; a damaged entry must not keep a leader from leading.
        this.#env.log.warn({ err, key: entry.key }, 'a TaskManager entry cannot be read');
        return [];
      }
    });
  }

  checkpointPointers(jobId: JobId): CheckpointPointerStore {
    return new FencedCheckpointPointerStore(this.#writer, this.#deps.keys, jobId);
  }

  checkpointIds(jobId: JobId): CheckpointIdCounter {
    return new FencedCheckpointIdCounter(this.#writer, this.#deps.keys, jobId);
  }

  async sweepValues(jobId: JobId, minAgeMs: number): Promise<string[]> {
    const { keys, storage } = this.#deps;
    const files = await storage.list(jobFolder(jobId));
    if (files.length === 0) return [];
    // Read after the files: a value written meanwhile names a file that is too young.
    const entries = await this.#writer.list(keys.jobPrefix(jobId));
    const named = new Set(entries.flatMap(filesOf));
    const now = this.#env.clock.wallTime();
    const deleted: string[] = [];
    for (const { name, changedAt } of files) {
      if (named.has(name) || now - changedAt < minAgeMs || !this.mayAct()) continue;
      await storage.remove(name);
      deleted.push(name);
    }
    return deleted;
  }

  /** Over for good. */
  end(reason: string): void {
    this.#unsubscribe();
    this.#cancelRepublish?.();
    this.#controller.abort(new Error(reason));
  }

  async #publish(): Promise<void> {
    const writeId = this.#writer.nextWriteId();
    const { candidate, leaseId } = this.#options;
    const value = encodeLeader(
      {
        epoch: this.epoch,
        jobManagerId: candidate.jobManagerId,
        rpcAddress: candidate.rpcAddress,
        restAddress: candidate.restAddress,
        state: 'ACTIVE',
        since: this.#since,
      },
      writeId,
    );
    const { leader: key } = this.#deps.keys;
    // Putting the same record twice changes nothing, so there is nothing to compare.
    await this.#writer.write({ compare: [], then: [{ op: 'put', key, value, leaseId }] });
  }

  /** Somebody deleted or overwrote the record (or a delayed write did): publish it again. */
  #checkPublished(): void {
    if (this.#cancelRepublish !== undefined || this.#isPublished() || this.signal.aborted) return;
    this.#cancelRepublish = this.#env.clock.setTimer(republishMs, () => {
      this.#cancelRepublish = undefined;
      if (this.#isPublished() || !this.mayAct()) return;
      this.#publish().then(
        () => {
          this.#env.log.warn({ event: 'leader.republished' }, 'the leader record was put again');
          this.#checkPublished();
        },
        (err: unknown) => {
          this.#env.log.debug({ err }, 'publishing the leader record failed');
          this.#checkPublished();
        },
      );
    });
  }

  #isPublished(): boolean {
    const state = this.#deps.watch.state;
    return state?.isRecordCurrent === true && state.leader?.state === 'ACTIVE';
  }
}
