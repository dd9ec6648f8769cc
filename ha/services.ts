/**
 * What the rest of Millrace sees of high availability: election, leader retrieval, and the stores a
 * leader writes. The etcd and the in-memory `KvStore` both serve it; "no HA" is the in-memory one.
 *
 * Every store of a `Leadership` writes through a transaction that compares the create revision of this
 * leader's candidate key (docs/adr/0003). A call rejects with LEADERSHIP_LOST once that key is gone,
 * CONFLICT when the object changed meanwhile, ETCD_UNAVAILABLE when the outcome could not be learned
 * within its bound; it never reports a failure for a write that happened.
 */
import type { Closeable } from '../lib/base/lifecycle.js';
import type { JobId, JobManagerId, TaskManagerId } from '../lib/base/ids.js';

/** A leadership. Ordered by era, then by the create revision of the leader's candidate key. Both are safe integers. */
export interface LeaderEpoch {
  readonly era: number;
  readonly revision: number;
}

/** Negative when `a` is older than `b`, 0 when equal. */
export function compareEpochs(a: LeaderEpoch, b: LeaderEpoch): number {
  return a.era - b.era || a.revision - b.revision;
}

/** `1.4711`: for logs, paths and headers. */
export function formatEpoch(epoch: LeaderEpoch): string {
  return `${String(epoch.era)}.${String(epoch.revision)}`;
}

/** Of a text that begins with a formatted epoch, as write ids do; undefined for any other. */
export function parseEpoch(text: string | undefined): LeaderEpoch | undefined {
  const found = /^(\d+)\.(\d+)(?:\.|$)/.exec(text ?? '');
  return found === null ? undefined : { era: Number(found[1]), revision: Number(found[2]) };
}

export interface LeaderInfo {
  readonly epoch: LeaderEpoch;
  readonly jobManagerId: JobManagerId;
  /** `host:port` of the control plane. */
  readonly rpcAddress: string;
  /** `http://host:port` of REST. */
  readonly restAddress: string;
  readonly state: 'RECOVERING' | 'ACTIVE' | 'SUSPENDED';
  /** Wall-clock ms of the grant. */
  readonly since: number;
}

/** Who leads, as a state (list + watch + resync), never an older epoch after a newer one. */
export interface LeaderRetrieval extends Closeable {
  current(): LeaderInfo | undefined;
  /** Calls `listener` with the current state at once and on every change; returns the unsubscriber. */
  subscribe(listener: (leader: LeaderInfo | undefined) => void): () => void;
}

/** Candidate data put under the election prefix. */
export interface CandidateInfo {
  readonly jobManagerId: JobManagerId;
  readonly rpcAddress: string;
  readonly restAddress: string;
}

/** A place in the queue of candidates. */
export interface Candidacy {
  /** Its candidate key in the store, which nobody else ever uses. */
  readonly key: string;
  /** Absent while the key is being put: it may be there, or come yet. */
  readonly epoch?: LeaderEpoch;
}

export interface LeaderContender {
  /** Called once per leadership. Recover, then `leadership.publishActive()`. */
  grantLeadership(leadership: Leadership): void;
  /** The local lease deadline passed: no writes, no commands, but state is kept; etcd is being probed. */
  suspendLeadership(leadership: Leadership): void;
  /** The candidate key was still there and a guarded transaction succeeded: go on. */
  resumeLeadership(leadership: Leadership): void;
  /** The candidate key is gone: this leadership is over for good. `reason` is one sentence. */
  revokeLeadership(leadership: Leadership, reason: string): void;
  /** Another candidate leads, or nobody does. */
  leaderChanged?(leader: LeaderInfo | undefined): void;
  /** This process is about to enter the queue, entered it, or left it: what a supervisor deposes when the process dies. */
  candidacyChanged?(candidacy: Candidacy | undefined): void;
}

/** How a candidate came to lead, as far as its process saw. Wall-clock ms. */
export interface LeadershipOrigin {
  /** Who led before, as last seen; absent when this process saw nobody lead. */
  readonly previous?: { readonly epoch: LeaderEpoch; readonly jobManagerId: JobManagerId };
  /** This process deposed it (`peer`), or found its key gone. */
  readonly cause: 'peer' | 'gone';
  /** Its connection or key was seen to be gone. */
  readonly noticedAt?: number;
  readonly electedAt: number;
}

export interface Leadership {
  readonly epoch: LeaderEpoch;
  readonly origin: LeadershipOrigin;
  /** Aborts on revocation, not on suspension. */
  readonly signal: AbortSignal;
  /** True while the local lease deadline has not passed; asked before every RPC and every batch of effects. */
  mayAct(): boolean;
  /**
   * Ms until the local lease deadline; negative when it passed. What is left of it bounds how long etcd may be silent
   * before this leader suspends itself.
   */
  leaseSlackMs(): number;
  /**
   * Publishes state ACTIVE under the leader key. Resolves as well when etcd has no space left: the record follows as
   * soon as it has, and observers find this leader by its candidate key until then.
   */
  publishActive(): Promise<void>;
  readonly jobs: JobStore;
  readonly results: JobResultStore;
  readonly history: JobHistoryStore;
  readonly takeovers: TakeoverStore;
  /** Registered TaskManagers (their own leases): the expected set at a takeover. */
  listTaskManagers(): Promise<TaskManagerInfo[]>;
  checkpointPointers(jobId: JobId): CheckpointPointerStore;
  checkpointIds(jobId: JobId): CheckpointIdCounter;
  /**
   * Deletes files with large values of a job that no key names any more (overwritten values, writes that failed) and
   * that are older than `minAgeMs`. Resolves with their names.
   */
  sweepValues(jobId: JobId, minAgeMs: number): Promise<string[]>;
}

export interface LeaderElection extends Closeable {
  /** Campaigns until closed. `close` resigns (deletes the candidate key, revokes the lease): ~20 ms hand-over. */
  start(contender: LeaderContender): void;
}

/** What etcd keeps of a submitted job. */
export interface StoredJob {
  readonly jobId: JobId;
  /** Given by the client: repeating a submission with the same one is answered as the first. */
  readonly submissionId: string;
  readonly name: string;
  /** The encoded JobGraph. Inline (gzip) up to 64 KiB in etcd, else a digest-checked file in the storage directory. */
  readonly graph: Uint8Array;
  /** Wishes of people, written before they are acted on. */
  readonly desired: 'RUNNING' | 'CANCELED';
  /** Wall-clock ms. */
  readonly submittedAt: number;
}

/** The current attempts of a job, recorded before they are deployed: a new leader compares them with what runs. */
export interface ExecutionRecord {
  /** Of the latest (re)start; attempts of regions that were not restarted are older, as their ids say. */
  readonly generation: number;
  /** By attempt id. */
  readonly attempts: Readonly<
    Record<
      string,
      {
        readonly taskManagerId: TaskManagerId;
        readonly allocationId: string;
        /** 0-based count of executions of the subtask. */
        readonly attemptNumber: number;
      }
    >
  >;
}

/**
 * What people are shown of a job's past under earlier leaders: checkpoint statistics and exceptions, as JSON text
 * (<= 64 KiB inline after compression, else a file). Written at most once a second; losing the last write costs
 * nothing but the view.
 */
export interface JobHistoryStore {
  put(jobId: JobId, history: string): Promise<void>;
  /** `undefined` when there is none or it cannot be read: a view never keeps a job from being recovered. */
  get(jobId: JobId): Promise<string | undefined>;
}

/** How one leadership began, for people. Wall-clock ms throughout. */
export interface TakeoverRecord {
  readonly epoch: LeaderEpoch;
  readonly jobManagerId: JobManagerId;
  /** Who led before; absent for the first leader. */
  readonly previous?: { readonly epoch: LeaderEpoch; readonly jobManagerId: JobManagerId };
  /** Why the one before was gone, as far as this process knows: it deposed it (`peer`), or found its key gone. */
  readonly cause: 'first' | 'peer' | 'gone';
  /** The predecessor's connection or key was seen to be gone; absent for the first leader. */
  readonly noticedAt?: number;
  readonly electedAt: number;
  /** Jobs, results and TaskManagers were read. */
  readonly recoveredAt: number;
  /** ACTIVE was published. */
  readonly activeAt: number;
  /** Every job that had run was adopted, restored, or given up; absent until then. */
  readonly settledAt?: number;
  readonly jobsAdopted: number;
  readonly jobsRestored: number;
  readonly jobsFailed: number;
}

/** The last 10 takeovers, the newest first. */
export interface TakeoverStore {
  put(record: TakeoverRecord): Promise<void>;
  list(): Promise<TakeoverRecord[]>;
}

export interface JobStore {
  /** CONFLICT -> JOB_DUPLICATE when another submission holds the id or a result exists; resolves for a repetition of the same submission. */
  put(job: StoredJob): Promise<void>;
  get(jobId: JobId): Promise<StoredJob | undefined>;
  /** Job ids in submission order. A job whose data cannot be decoded is still listed; `get` of it rejects with RECOVERY_FAILED. */
  list(): Promise<JobId[]>;
  setDesired(jobId: JobId, desired: 'RUNNING' | 'CANCELED'): Promise<void>;
  putExecution(jobId: JobId, execution: ExecutionRecord): Promise<void>;
  getExecution(jobId: JobId): Promise<ExecutionRecord | undefined>;
}

export interface JobResult {
  readonly jobId: JobId;
  readonly name: string;
  readonly state: 'FINISHED' | 'CANCELED' | 'FAILED';
  /** JSON text: the archived execution graph (<= 16 KiB inline, else a file in the storage directory). */
  readonly archive: string;
  readonly finishedAt: number;
}

/** Which results of ended jobs are kept. */
export interface ResultRetention {
  /** The newest ones. */
  readonly maxCount: number;
  /** Ms since the job ended. */
  readonly maxAgeMs: number;
  /** Wall-clock ms. */
  readonly now: number;
}

export interface JobResultStore {
  /** The terminal fact: atomic, once; a job with a result never runs again. Resolves for a repetition of the same outcome. */
  createDirty(result: JobResult): Promise<void>;
  /** After cleanup: marks CLEAN and deletes every key under the job. */
  markClean(jobId: JobId): Promise<void>;
  get(jobId: JobId): Promise<(JobResult & { readonly dirty: boolean }) | undefined>;
  list(): Promise<(JobResult & { readonly dirty: boolean })[]>;
  /** Jobs that have a result, in no order. Reads keys only: what a takeover waits for does not grow with archives. */
  listIds(): Promise<JobId[]>;
  /** Deletes results of cleaned up jobs that need not be kept; those jobs are forgotten. Resolves with their ids. */
  expire(retention: ResultRetention): Promise<JobId[]>;
}

/** Pointer to a completed checkpoint's metadata; adding it is the commit point. */
export interface CheckpointPointer {
  readonly checkpointId: number;
  /** Path or URI of the metadata file. */
  readonly metadataPath: string;
  /** Hex SHA-256 of the metadata file. */
  readonly sha256: string;
  /** Wall-clock ms of the trigger. */
  readonly timestamp: number;
  readonly sizeBytes: number;
  readonly kind: 'checkpoint' | 'savepoint';
}

export interface CheckpointPointerStore {
  /** One fenced transaction: adds the pointer (refusing an existing or lower id), turns `subsumed` into garbage markers. */
  add(pointer: CheckpointPointer, subsumed: readonly number[]): Promise<void>;
  /** Ascending by id; the last is the latest. Linearizable. */
  list(): Promise<CheckpointPointer[]>;
  /** Subsumed pointers whose files remain to be deleted. */
  listGarbage(): Promise<CheckpointPointer[]>;
  removeGarbage(checkpointId: number): Promise<void>;
}

export interface CheckpointIdCounter {
  /** Strictly increasing over leaders, from 1; gaps are allowed (ids are taken from etcd in blocks). */
  next(): Promise<number>;
  /** Makes later ids greater than `checkpointId` (after a restore from a given path). */
  raiseTo(checkpointId: number): Promise<void>;
  /**
   * No less than any id earlier leaders gave, less than any of this one; 0 when there is none. Only reads: it is there
   * when etcd takes no writes.
   */
  highestGiven(): Promise<number>;
}

/** Put under the TaskManager's own lease. */
export interface TaskManagerInfo {
  readonly taskManagerId: TaskManagerId;
  /** `host:port` of its data plane. */
  readonly dataAddress: string;
  readonly slots: number;
  readonly pid: number;
}

export interface TaskManagerRegistration extends Closeable {
  /** Aborts when the lease could not be kept; the registry registers again by itself. */
  readonly registered: boolean;
}

/** A candidate of the election queue, the leader first. */
export interface CandidateView extends CandidateInfo {
  /** The epoch it leads in, or would. */
  readonly epoch: LeaderEpoch;
  /** Wall-clock ms at which its process began to stand. */
  readonly since: number;
}

/** One member of the store, as it answers now. */
export interface StoreMember {
  readonly endpoint: string;
  /** It answers, sees a leader, raises no alarm and reads linearizably. */
  readonly isHealthy: boolean;
  /** Empty when it does not answer; so are the other texts. */
  readonly version: string;
  /** Decimal. */
  readonly memberId: string;
  readonly isLeader: boolean;
  /** Bytes of its database file; 0 when it does not answer. */
  readonly dbSizeBytes: number;
  /** Bytes of it in use: what is left after a defragmentation. */
  readonly dbSizeInUseBytes: number;
  /** Ms until its status and a linearizable read were answered. */
  readonly latencyMs: number;
  /** Such as `NOSPACE` or `CORRUPT`. */
  readonly alarms: readonly string[];
  /** Why it is not healthy, one sentence. */
  readonly error?: string;
}

export interface HighAvailability extends Closeable {
  /** Random, created with the cluster; part of every storage path. */
  readonly clusterUid: string;
  createElection(candidate: CandidateInfo): LeaderElection;
  leaderRetrieval(): LeaderRetrieval;
  registerTaskManager(info: TaskManagerInfo): Promise<TaskManagerRegistration>;
  /** Resolves when a linearizable read was answered; ETCD_UNAVAILABLE when none was in time. */
  probe(): Promise<void>;
  /** The queue as last seen, ascending by epoch: the leader and its standbys. Empty before it was read. */
  candidates(): readonly CandidateView[];
  /** Asks every member of the store, each within 2 s; never rejects. Absent where the store is in memory. */
  storeHealth?(): Promise<StoreMember[]>;
  /** The last takeovers, the newest first, for people: read without leading. ETCD_UNAVAILABLE when not answered in time. */
  takeovers(options?: { readonly timeoutMs?: number }): Promise<TakeoverRecord[]>;
}
