/**
 * The Dispatcher of one leadership: takes jobs, starts a JobMaster for each, writes their results, and
 * answers clients. What it acknowledges is in HA first: a submission before it resolves, a wish to
 * cancel before it is acted on, a result before it is reported.
 */
import { FileCheckpointStorage } from '../../../checkpoint/storage/file-checkpoint-storage.js';
import type { CheckpointStorage } from '../../../checkpoint/storage/checkpoint-storage.js';
import { epochLabel, jobCheckpointDirectory } from '../../../checkpoint/storage/paths.js';
import type { ExecutionRecord, JobResult, Leadership, StoredJob } from '../../../ha/services.js';
import { sleep } from '../../base/clock.js';
import { childEnv, type Env } from '../../base/env.js';
import { hasCode, MillraceError, toFailure, type Failure } from '../../base/errors.js';
import type { Digest, JobId, TaskManagerId } from '../../base/ids.js';
import { CloseableRegistry, type Closeable } from '../../base/lifecycle.js';
import type { MetricSample } from '../../base/metrics.js';
import { backoffDelay } from '../../base/retry.js';
import type {
  CheckpointStatistics,
  CheckpointSummary,
  ClientGateway,
  ClusterOverview,
  JobDetails,
  JobExceptions,
  JobExecutionResult,
  JobSubmission,
  JobSummary,
  TaskManagerView,
} from '../../gateway/client-gateway.js';
import { isGloballyTerminal } from '../../gateway/job-status.js';
import type { JobGraph } from '../../graph/job-graph.js';
import { checkJobGraph, decodeJobGraph, encodeJobGraph } from '../../graph/job-graph-codec.js';
import type { CoordinatorHostFactory } from '../jobmaster/coordinator-host.js';
import { JobMaster } from '../jobmaster/job-master.js';
import type { JobEnd } from '../jobmaster/job-master-options.js';
import type { ResourceManager } from '../resourcemanager/resource-manager.js';
import type { TakeoverRecorder } from '../takeover-recorder.js';
import {
  archiveOf,
  archiveOfUnreadable,
  decodeArchive,
  resultOf,
  noCheckpoints,
  noExceptions,
  type ArchivedJob,
} from './archived-job.js';
import type { BlobChunk, BundleStore } from './bundle-store.js';
import { defaultSweepOptions, LeaderSweeper, type SweepOptions } from './leader-sweeper.js';
import { clusterMetrics, jobMetrics, taskManagerMetrics } from './cluster-metrics.js';
import { EndedJobs } from './ended-jobs.js';
import { cleanUpJob } from './job-cleanup.js';
import { shownDetails, shownSummary, unreadableSummary, type UnreadableJob } from './shown-jobs.js';

export interface DispatcherOptions {
  readonly clusterUid: string;
  /** Root of checkpoint directories: execution.checkpointing.dir, else the storage directory. Absolute. */
  readonly checkpointDir: string;
  readonly slotRequestTimeoutMs: number;
  readonly smallStateThresholdBytes: number;
  readonly exceptionHistorySize: number;
  readonly checkpointHistorySize: number;
  /** Default: `defaultSweepOptions`. */
  readonly sweep?: SweepOptions;
}

export interface DispatcherDeps {
  readonly leadership: Leadership;
  readonly resources: ResourceManager;
  readonly bundles: BundleStore;
  readonly coordinatorHosts: CoordinatorHostFactory;
  readonly takeover: TakeoverRecorder;
  /** One sentence while the leader may not act: etcd is out. */
  readonly suspension: () => string | undefined;
}

interface LiveJob {
  readonly submissionId: string;
  readonly graph: JobGraph;
  readonly master: JobMaster;
  /** Its result is being written. */
  isEnding: boolean;
  /** It is not run, but kept for somebody to act on. */
  recoveryFailure: Failure | undefined;
}

/** Jobs read at once. */
const recoveryWidth = 32;
const cleanupBackoff = { initialMs: 1_000, maxMs: 60_000, multiplier: 2, jitter: 0.1 };

export class Dispatcher implements ClientGateway, Closeable {
  readonly #env: Env;
  /** For JobMasters, which log under their own name. */
  readonly #outerEnv: Env;
  readonly #deps: DispatcherDeps;
  readonly #options: DispatcherOptions;
  readonly #registry: CloseableRegistry;
  readonly #closing = new AbortController();
  /** Aborted when the leader may act again: what could not be done is tried at once. */
  #resumed = new AbortController();
  readonly #live = new Map<JobId, LiveJob>();
  readonly #unreadable = new Map<JobId, UnreadableJob>();
  readonly #ended: EndedJobs;
  readonly #sweeper: LeaderSweeper;
  /** Submissions on their way into HA, so that a repetition waits for the first. */
  readonly #submitting = new Map<JobId, Promise<unknown>>();

  constructor(env: Env, deps: DispatcherDeps, options: DispatcherOptions) {
    this.#outerEnv = env;
    this.#env = childEnv(env, 'dispatcher');
    this.#deps = deps;
    this.#options = options;
    this.#ended = new EndedJobs(deps.leadership.results);
    this.#registry = new CloseableRegistry(this.#env.log);
    const sweep = {
      leadership: deps.leadership,
      checkpointDirectory: (jobId: JobId) => this.#checkpointDirectory(jobId),
      onForgotten: (jobId: JobId) => {
        this.#ended.forget(jobId);
      },
    };
    this.#sweeper = new LeaderSweeper(env, sweep, options.sweep ?? defaultSweepOptions);
  }

  // ---- Lifetime --------------------------------------------------------------------------------

  /** Takes over what is in HA: a JobMaster for each job that has no result, begun as soon as it is read. */
  async recover(): Promise<void> {
    const [ended, jobIds] = await Promise.all([
      this.#ended.readIds(),
      this.#deps.leadership.jobs.list(),
    ]);
    await this.#readJobs(jobIds.filter((jobId) => !ended.has(jobId)));
    this.#deps.resources.jobsRecovered([...this.#live.keys()]);
  }

  /** What nobody has to wait for at a takeover. */
  onActive(): void {
    this.#sweeper.start();
    this.#registry.run('look after ended jobs', this.#lookAfterEndedJobs());
  }

  /** The leader may act again after this time, ms, in which it could not. */
  onResumed(suspendedMs: number): void {
    this.#resumed.abort();
    this.#resumed = new AbortController();
    for (const { master } of this.#live.values()) master.onResumed(suspendedMs);
  }

  /** Each is begun as soon as it and those before it are read: in the order of submission, in which jobs get slots. */
  async #readJobs(jobIds: readonly JobId[]): Promise<void> {
    const reads: Promise<() => void>[] = [];
    const readNext = (): void => {
      const jobId = jobIds[reads.length];
      if (jobId === undefined) return;
      const read = this.#readJob(jobId);
      // Awaited below in turn, unless an earlier one fails.
      read.catch(() => undefined);
      reads.push(read);
    };
    for (let i = 0; i < recoveryWidth; i += 1) readNext();
    // It grows while it is gone through.
    for (const read of reads) {
      const start = await read;
      start();
      readNext();
    }
  }

  async #lookAfterEndedJobs(): Promise<void> {
    await this.#retry('read the results of ended jobs', async () => {
      for (const result of await this.#ended.load()) {
        const { graph } = decodeArchive(result);
        this.#registry.run('clean up a job', this.#cleanUp(result, graph));
      }
    });
  }

  /** A submission whose outcome could not be learned may have been stored. */
  async #startUnknownJobs(): Promise<void> {
    await this.#retry('look for jobs', async () => {
      const jobIds = await this.#deps.leadership.jobs.list();
      await Promise.allSettled(this.#submitting.values());
      await this.#readJobs(
        jobIds.filter(
          (jobId) =>
            !this.#live.has(jobId) && !this.#unreadable.has(jobId) && !this.#ended.has(jobId),
        ),
      );
    });
  }

  /** JobMasters are closed as SUSPENDED: nothing is cancelled, nothing deleted. */
  async close(): Promise<void> {
    this.#closing.abort();
    await this.#sweeper.close();
    await Promise.all([...this.#live.values()].map(({ master }) => master.close()));
    this.#live.clear();
    await this.#registry.close();
  }

  jobMaster(jobId: JobId): JobMaster | undefined {
    return this.#live.get(jobId)?.master;
  }

  /** Resolves with what starts it; a job that cannot be read is listed as such and keeps no other from starting. */
  async #readJob(jobId: JobId): Promise<() => void> {
    const { jobs, history } = this.#deps.leadership;
    try {
      const [stored, lastExecution, pastHistory] = await Promise.all([
        jobs.get(jobId),
        jobs.getExecution(jobId),
        history.get(jobId),
      ]);
      if (stored === undefined) return () => undefined;
      const graph = decodeJobGraph(Buffer.from(stored.graph).toString('utf8'));
      return () => {
        try {
          this.#startJob(stored, graph, { lastExecution, pastHistory });
        } catch (error) {
          this.#setAside(jobId, error);
        }
      };
    } catch (error) {
      // etcd is away: the whole recovery is tried again, by whoever leads then.
      if (!isJobsOwnFault(error)) throw error;
      this.#setAside(jobId, error);
      return () => undefined;
    }
  }

  #setAside(jobId: JobId, error: unknown): void {
    const message = `job ${jobId} cannot be recovered: ${toFailure(error).message}`;
    const failure = toFailure(
      hasCode(error, 'RECOVERY_FAILED')
        ? error
        : new MillraceError('RECOVERY_FAILED', message, { cause: error }),
    );
    this.#unreadable.set(jobId, { jobId, failure, since: this.#env.clock.wallTime() });
    this.#deps.takeover.expect(jobId);
    this.#deps.takeover.settled(jobId, 'failed');
    const event = { err: error, event: 'job.recovery-failed', jobId };
    this.#env.log.error(event, 'job cannot be recovered');
  }

  #startJob(
    stored: StoredJob,
    graph: JobGraph,
    past: {
      readonly lastExecution: ExecutionRecord | undefined;
      readonly pastHistory: string | undefined;
    },
  ): void {
    const { lastExecution } = past;
    const { leadership, resources, coordinatorHosts } = this.#deps;
    const { jobId } = stored;
    if (this.#closing.signal.aborted || this.#live.has(jobId)) return;
    const master = new JobMaster(
      this.#outerEnv,
      graph,
      {
        leadership,
        resources,
        coordinatorHosts,
        storage: this.#checkpointStorage(jobId),
        onEnded: (end) => {
          this.#onEnded(jobId, end);
        },
        onSettled: (how) => {
          if (how !== 'new') this.#deps.takeover.settled(jobId, how);
        },
      },
      {
        ...this.#options,
        submittedAt: stored.submittedAt,
        ...past,
        checkpointDirectory: this.#checkpointDirectory(jobId),
        epochLabel: epochLabel(leadership.epoch),
      },
    );
    const { submissionId } = stored;
    this.#live.set(jobId, {
      submissionId,
      graph,
      master,
      isEnding: false,
      recoveryFailure: undefined,
    });
    const event = lastExecution === undefined ? 'job.started' : 'job.recovered';
    const generation = (lastExecution?.generation ?? -1) + 1;
    this.#env.log.info(
      { event, jobId, generation, wallTime: this.#env.clock.wallTime() },
      'job master started',
    );
    if (stored.desired === 'CANCELED') master.cancel();
    else {
      if (lastExecution !== undefined) this.#deps.takeover.expect(jobId);
      master.start();
    }
  }

  #checkpointDirectory(jobId: JobId): string {
    return jobCheckpointDirectory(this.#options.checkpointDir, this.#options.clusterUid, jobId);
  }

  #checkpointStorage(jobId: JobId): CheckpointStorage {
    return new FileCheckpointStorage(
      this.#checkpointDirectory(jobId),
      epochLabel(this.#deps.leadership.epoch),
    );
  }

  // ---- The end of a job ------------------------------------------------------------------------

  #onEnded(jobId: JobId, end: JobEnd): void {
    const job = this.#live.get(jobId);
    if (job === undefined || job.isEnding || this.#closing.signal.aborted) return;
    if (end.isRecoveryFailure) {
      job.recoveryFailure = end.failure;
      this.#env.log.error(
        { event: 'job.recovery-failed', jobId, failure: end.failure?.message },
        'job cannot be recovered; its data is kept',
      );
      return;
    }
    job.isEnding = true;
    this.#registry.run('end a job', this.#endJob(job, end));
  }

  async #endJob(job: LiveJob, end: JobEnd): Promise<void> {
    const { master, graph, submissionId } = job;
    const archive = archiveOf(master, submissionId, end);
    const result = resultOf(graph.jobId, graph.name, archive, this.#env.clock.wallTime());
    // Fault: job.finished
    this.#env.fault?.('job.finished');
    await this.#writeResult(result, archive);
    // A checkpoint that is being completed is settled before its files are looked at.
    await master.close();
    await this.#cleanUp(result, graph);
  }

  /** The terminal fact; reported only when it is there. Repeated until it is, or the leadership is over. */
  async #writeResult(result: JobResult, archive: ArchivedJob): Promise<void> {
    const { jobId } = result;
    await this.#retry('write the result of a job', () =>
      this.#deps.leadership.results.createDirty(result),
    );
    // Fault: job.result-written
    this.#env.fault?.('job.result-written');
    if (this.#closing.signal.aborted) return;
    this.#ended.add(jobId, archive);
    this.#live.delete(jobId);
    this.#unreadable.delete(jobId);
    const event = {
      event: 'job.ended',
      jobId,
      state: result.state,
      failure: archive.failure?.message,
    };
    this.#env.log.info(event, 'job ended');
  }

  async #cleanUp(result: JobResult, graph: JobGraph | undefined): Promise<void> {
    const { leadership, bundles } = this.#deps;
    const { jobId } = result;
    const storage = this.#checkpointStorage(jobId);
    const checkpointDirectory = this.#checkpointDirectory(jobId);
    await this.#retry('clean up a job', () =>
      cleanUpJob({ leadership, bundles, storage, checkpointDirectory }, result, graph),
    );
  }

  async #retry(what: string, work: () => Promise<void>): Promise<void> {
    for (let attempt = 0; !this.#closing.signal.aborted; attempt++) {
      try {
        await work();
        return;
      } catch (err) {
        if (this.#closing.signal.aborted || hasCode(err, 'LEADERSHIP_LOST')) return;
        this.#env.log.warn({ err, attempt }, `could not ${what} yet`);
        const delay = backoffDelay(cleanupBackoff, attempt, this.#env.random);
        const wakeUp = AbortSignal.any([this.#closing.signal, this.#resumed.signal]);
        await sleep(this.#env.clock, delay, wakeUp);
        if (wakeUp.aborted) attempt = -1;
      }
    }
  }

  // ---- Commands of clients ---------------------------------------------------------------------

  async submitJob(submission: JobSubmission): Promise<{ jobId: JobId }> {
    this.#throwIfClosed();
    const graph = checkJobGraph(submission.jobGraph);
    const { jobId } = graph;
    const ended = await this.#ended.submissionId(jobId);
    await this.#submitting.get(jobId)?.catch(() => undefined);
    const known = this.#live.get(jobId)?.submissionId ?? ended;
    if (known !== undefined) {
      if (known === submission.submissionId) return { jobId };
      throw new MillraceError('JOB_DUPLICATE', `a job ${jobId} exists or has ended`, {
        details: { jobId },
      });
    }
    const submitting = this.#submit(submission, graph);
    this.#submitting.set(jobId, submitting);
    try {
      await submitting;
    } finally {
      this.#submitting.delete(jobId);
    }
    return { jobId };
  }

  async #submit({ submissionId, bundle }: JobSubmission, graph: JobGraph): Promise<void> {
    const { jobId, name } = graph;
    if (graph.bundle !== undefined) {
      if (bundle === undefined)
        throw new MillraceError(
          'JOB_INVALID',
          `the job graph names bundle ${graph.bundle.digest}, which was not sent along`,
        );
      await this.#deps.bundles.store(jobId, graph.bundle.digest, bundle);
    }
    const stored: StoredJob = {
      jobId,
      submissionId,
      name,
      graph: Buffer.from(encodeJobGraph(graph), 'utf8'),
      desired: 'RUNNING',
      submittedAt: this.#env.clock.wallTime(),
    };
    try {
      await this.#deps.leadership.jobs.put(stored);
    } catch (error) {
      if (hasCode(error, 'ETCD_UNAVAILABLE'))
        this.#registry.run('look for jobs', this.#startUnknownJobs());
      throw error;
    }
    // Fault: job.submitted
    this.#env.fault?.('job.submitted');
    this.#env.log.info({ event: 'job.submitted', jobId, name }, 'job submitted');
    this.#startJob(stored, graph, { lastExecution: undefined, pastHistory: undefined });
  }

  async cancelJob(jobId: JobId): Promise<void> {
    this.#throwIfClosed();
    const job = this.#live.get(jobId);
    if (job === undefined && !this.#unreadable.has(jobId)) {
      if (this.#ended.has(jobId)) return;
      throw jobNotFound(jobId);
    }
    if (job?.isEnding === true) return;
    await this.#deps.leadership.jobs.setDesired(jobId, 'CANCELED');
    // Fault: job.cancel-stored
    this.#env.fault?.('job.cancel-stored');
    this.#env.log.info({ event: 'job.cancel-requested', jobId }, 'job is to be cancelled');
    if (job !== undefined && job.recoveryFailure === undefined) job.master.cancel();
    else this.#registry.run('give up a job', this.#giveUp(jobId));
  }

  /** Somebody decided that a job that cannot be recovered need not be. */
  async #giveUp(jobId: JobId): Promise<void> {
    const job = this.#live.get(jobId);
    if (job !== undefined) {
      job.isEnding = true;
      await this.#endJob(job, {
        status: 'CANCELED',
        isRecoveryFailure: false,
        ...(job.recoveryFailure && { failure: job.recoveryFailure }),
      });
      return;
    }
    const unreadable = this.#unreadable.get(jobId);
    if (unreadable === undefined) return;
    const finishedAt = this.#env.clock.wallTime();
    const archive = archiveOfUnreadable(unreadable, finishedAt);
    const result = resultOf(jobId, jobId, archive, finishedAt);
    await this.#writeResult(result, archive);
    await this.#cleanUp(result, undefined);
  }

  // ---- Questions of clients --------------------------------------------------------------------

  async listJobs(): Promise<JobSummary[]> {
    this.#throwIfClosed();
    const now = this.#env.clock.wallTime();
    const suspension = this.#deps.suspension();
    return [
      ...[...this.#live.values()].map((job) => shownSummary(job, suspension)),
      ...[...this.#unreadable.values()].map((job) => unreadableSummary(job, now)),
      ...(await this.#ended.summaries()),
    ];
  }

  async overview(): Promise<ClusterOverview> {
    const states = (await this.listJobs()).map(({ state }) => state);
    const count = (state: string): number => states.filter((one) => one === state).length;
    const { total, free } = this.#deps.resources.slotCounts();
    const suspension = this.#deps.suspension();
    return {
      taskmanagers: this.#deps.resources.taskManagerCount(),
      'slots-total': total,
      'slots-available': free,
      'jobs-running': states.filter((state) => !isGloballyTerminal(state)).length,
      'jobs-finished': count('FINISHED'),
      'jobs-cancelled': count('CANCELED'),
      'jobs-failed': count('FAILED'),
      'leader-state': suspension === undefined ? 'ACTIVE' : 'SUSPENDED',
      ...(suspension !== undefined && { 'leader-reason': suspension }),
    };
  }

  async jobDetails(jobId: JobId): Promise<JobDetails> {
    this.#throwIfClosed();
    const job = this.#live.get(jobId);
    if (job !== undefined) return shownDetails(job, this.#deps.suspension());
    return this.#archivedPart(jobId, ({ details }) => details);
  }

  async jobExceptions(jobId: JobId, maxExceptions: number): Promise<JobExceptions> {
    this.#throwIfClosed();
    const job = this.#live.get(jobId);
    if (job !== undefined) return job.master.exceptions(maxExceptions);
    const kept = await this.#archivedPart(jobId, ({ exceptions }) => exceptions ?? noExceptions);
    const { entries, truncated } = kept.exceptionHistory;
    return {
      ...kept,
      exceptionHistory: {
        entries: entries.slice(0, maxExceptions),
        truncated: truncated || entries.length > maxExceptions,
      },
    };
  }

  async jobCheckpoints(jobId: JobId): Promise<CheckpointStatistics> {
    this.#throwIfClosed();
    const job = this.#live.get(jobId);
    if (job !== undefined) return job.master.checkpointStatistics();
    return this.#archivedPart(jobId, ({ checkpoints }) => checkpoints ?? noCheckpoints);
  }

  async checkpointDetails(jobId: JobId, checkpointId: number): Promise<CheckpointSummary> {
    const known = this.#live.get(jobId)?.master.checkpointDetails(checkpointId);
    const found =
      known ?? (await this.jobCheckpoints(jobId)).history.find(({ id }) => id === checkpointId);
    if (found !== undefined) return found;
    throw new MillraceError(
      'CHECKPOINT_NOT_FOUND',
      `checkpoint ${String(checkpointId)} of job ${jobId} is not remembered (web.checkpoints.history)`,
    );
  }

  async jobGraph(jobId: JobId): Promise<JobGraph> {
    this.#throwIfClosed();
    return this.#live.get(jobId)?.graph ?? this.#archivedPart(jobId, ({ graph }) => graph);
  }

  async jobResult(jobId: JobId): Promise<JobExecutionResult | undefined> {
    this.#throwIfClosed();
    const result = await this.#ended.result(jobId);
    if (result !== undefined) return result;
    if (this.#live.has(jobId) || this.#unreadable.has(jobId)) return undefined;
    throw jobNotFound(jobId);
  }

  async taskManagers(): Promise<TaskManagerView[]> {
    this.#throwIfClosed();
    return this.#deps.resources.views();
  }

  async taskManagerLog(
    id: TaskManagerId,
    options: { jobId?: JobId; maxLines: number; stream: 'log' | 'stdout' },
  ): Promise<readonly string[]> {
    this.#throwIfClosed();
    const gateway = this.#deps.resources.gateway(id);
    if (gateway === undefined)
      throw new MillraceError('RPC_DISCONNECTED', `TaskManager ${id} is not registered`);
    return (await gateway.requestLog(options)).lines;
  }

  async metrics(): Promise<MetricSample[]> {
    const now = this.#env.clock.wallTime();
    return [
      ...this.#env.metrics.samples(),
      ...clusterMetrics(await this.overview()),
      ...taskManagerMetrics(await this.taskManagers()),
      ...[...this.#live.values()].flatMap(({ master }) => jobMetrics(master, now)),
    ];
  }

  async fetchBlob(jobId: JobId, digest: Digest, offset: number): Promise<BlobChunk> {
    this.#throwIfClosed();
    return this.#deps.bundles.read(jobId, digest, offset);
  }

  async #archivedPart<T>(
    jobId: JobId,
    select: (archive: ArchivedJob) => T | undefined,
  ): Promise<T> {
    const unreadable = this.#unreadable.get(jobId);
    if (unreadable !== undefined)
      throw new MillraceError('RECOVERY_FAILED', unreadable.failure.message);
    const archive = await this.#ended.archive(jobId);
    const part = archive && select(archive);
    if (part === undefined) throw jobNotFound(jobId);
    return part;
  }

  #throwIfClosed(): void {
    if (this.#closing.signal.aborted)
      throw new MillraceError('NO_LEADER', 'this JobManager no longer leads');
  }
}

function isJobsOwnFault(error: unknown): boolean {
  if (!(error instanceof MillraceError)) return true;
  return error.retry === 'never' && error.code !== 'LEADERSHIP_LOST' && error.code !== 'CLOSED';
}

function jobNotFound(jobId: JobId): MillraceError {
  return new MillraceError('JOB_NOT_FOUND', `there is no job ${jobId}`);
}
