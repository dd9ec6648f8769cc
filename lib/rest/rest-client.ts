/** HTTP to JobManagers for programs: the CLI, the remote environment. */
import { Agent, FormData, request } from 'undici';
import { sleep, type Clock } from '../base/clock.js';
import { fromFailure, MillraceError } from '../base/errors.js';
import type { JobId } from '../base/ids.js';
import { SystemClock } from '../base/system-clock.js';
import type {
  CheckpointStatistics,
  CheckpointSummary,
  ClusterOverview,
  JobDetails,
  JobExceptions,
  JobExecutionResult,
  JobPlan,
  JobSubmission,
  JobSummary,
  TaskManagerView,
  VertexDetails,
} from '../gateway/client-gateway.js';
import type { JobStatus } from '../gateway/job-status.js';
import type { LeaderInfo } from '../../ha/services.js';
import type { HaView } from './ha-view.js';
import { disconnected, suspendedHeader, type ErrorBody } from './rest-errors.js';
import type {
  CheckpointConfigView,
  ExecutionResultView,
  JobConfigView,
  WebConfigView,
} from './views.js';

export interface RestClientOptions {
  /** `rest.token` of the cluster. */
  readonly token?: string;
  /** How long to wait for a JobManager that answers and for a leader. Default 60 s. */
  readonly waitForLeaderMs?: number;
  /** Longest wait for one answer of one JobManager before another is asked. Default 10 s; a submission three times that. */
  readonly requestTimeoutMs?: number;
  /** Called with the reason before each wait. */
  readonly onWaiting?: (reason: string) => void;
  readonly clock?: Clock;
}

/** Overrides for one call. */
export interface RestCallOptions {
  readonly waitForLeaderMs?: number;
}

export interface TaskManagerLogOptions {
  readonly maxLines: number;
  readonly jobId?: JobId;
  /** Default `log`. */
  readonly stream?: 'log' | 'stdout';
}

interface Ask {
  readonly method: 'GET' | 'PATCH' | 'POST';
  readonly path: string;
  /** Made anew for every try. */
  readonly body?: () => FormData;
  readonly timeoutFactor?: number;
  readonly options?: RestCallOptions;
}

type Attempt =
  | { readonly kind: 'answer'; readonly text: string; readonly isSuspended: boolean }
  | { readonly kind: 'refused'; readonly error: MillraceError }
  /** Worth trying elsewhere, or later. */
  | { readonly kind: 'later'; readonly error: MillraceError };

const firstWaitMs = 50;
const longestWaitMs = 1_000;
/** A JobManager that has not answered a question by then is taken for stopped, and the next is asked as well. */
const hedgeMs = 1_000;

/**
 * Asks the given JobManagers in turn, the one that answered last first. Every JobManager hands requests on to the
 * leader, so any one will do. Rejects with the MillraceError of the answer, NO_LEADER or RPC_DISCONNECTED when the wait
 * is over. Every request may be repeated: a submission is told from another by its id.
 */
export class RestClient {
  readonly #bases: readonly string[];
  readonly #options: RestClientOptions;
  readonly #clock: Clock;
  readonly #agent = new Agent({ connect: { timeout: 3_000 }, connections: 16 });
  #preferred = 0;

  /** @param baseUrls `http://host:port` of the JobManagers, at least one. */
  constructor(baseUrls: readonly string[], options: RestClientOptions = {}) {
    if (baseUrls.length === 0) {
      throw new MillraceError('CONFIG', 'no address of a JobManager is given');
    }
    this.#bases = baseUrls.map((url) => checkedBase(url));
    this.#options = options;
    this.#clock = options.clock ?? new SystemClock();
  }

  overview(options?: RestCallOptions): Promise<ClusterOverview & { readonly version: string }> {
    return this.#get('/overview', options);
  }

  config(options?: RestCallOptions): Promise<WebConfigView> {
    return this.#get('/config', options);
  }

  async jobs(options?: RestCallOptions): Promise<JobSummary[]> {
    return (await this.#get<{ jobs: JobSummary[] }>('/jobs/overview', options)).jobs;
  }

  async jobIds(options?: RestCallOptions): Promise<{ id: JobId; status: JobStatus }[]> {
    return (await this.#get<{ jobs: { id: JobId; status: JobStatus }[] }>('/jobs', options)).jobs;
  }

  job(jobId: JobId, options?: RestCallOptions): Promise<JobDetails> {
    return this.#get(`/jobs/${jobId}`, options);
  }

  async jobStatus(jobId: JobId, options?: RestCallOptions): Promise<JobStatus> {
    return (await this.#get<{ status: JobStatus }>(`/jobs/${jobId}/status`, options)).status;
  }

  async jobPlan(jobId: JobId, options?: RestCallOptions): Promise<JobPlan> {
    return (await this.#get<{ plan: JobPlan }>(`/jobs/${jobId}/plan`, options)).plan;
  }

  jobConfig(jobId: JobId, options?: RestCallOptions): Promise<JobConfigView> {
    return this.#get(`/jobs/${jobId}/config`, options);
  }

  exceptions(jobId: JobId, maxExceptions = 20, options?: RestCallOptions): Promise<JobExceptions> {
    return this.#get(`/jobs/${jobId}/exceptions?maxExceptions=${String(maxExceptions)}`, options);
  }

  checkpoints(jobId: JobId, options?: RestCallOptions): Promise<CheckpointStatistics> {
    return this.#get(`/jobs/${jobId}/checkpoints`, options);
  }

  checkpointConfig(jobId: JobId, options?: RestCallOptions): Promise<CheckpointConfigView> {
    return this.#get(`/jobs/${jobId}/checkpoints/config`, options);
  }

  checkpointDetails(
    jobId: JobId,
    id: number,
    options?: RestCallOptions,
  ): Promise<CheckpointSummary> {
    return this.#get(`/jobs/${jobId}/checkpoints/details/${String(id)}`, options);
  }

  /** Undefined while the job runs. */
  async jobResult(
    jobId: JobId,
    options?: RestCallOptions,
  ): Promise<JobExecutionResult | undefined> {
    const view = await this.#get<ExecutionResultView>(`/jobs/${jobId}/execution-result`, options);
    return view['job-execution-result'];
  }

  vertex(jobId: JobId, vertexId: string, options?: RestCallOptions): Promise<VertexDetails> {
    return this.#get(`/jobs/${jobId}/vertices/${encodeURIComponent(vertexId)}`, options);
  }

  /** Resolves once the wish is stored; the job is CANCELED some time later. */
  async cancel(jobId: JobId, options?: RestCallOptions): Promise<void> {
    await this.#ask({
      method: 'PATCH',
      path: `/jobs/${jobId}?mode=cancel`,
      ...(options && { options }),
    });
  }

  /** Resolves once the job is stored. Repeating it with the same submission id is answered as the first. */
  async submit(
    submission: Omit<JobSubmission, 'bundle'> & { readonly bundle?: Uint8Array | undefined },
    options?: RestCallOptions,
  ): Promise<{ jobId: JobId }> {
    const { submissionId, jobGraph, bundle } = submission;
    const body = (): FormData => {
      const form = new FormData();
      form.append('request', JSON.stringify({ submissionId, jobGraph }));
      // Copied: a Blob takes no bytes that might be shared.
      if (bundle !== undefined)
        form.append('bundle', new Blob([Uint8Array.from(bundle)]), 'bundle');
      return form;
    };
    const text = await this.#ask({
      method: 'POST',
      path: '/jobs',
      body,
      timeoutFactor: 3,
      ...(options && { options }),
    });
    return { jobId: (JSON.parse(text) as { jobid: JobId }).jobid };
  }

  async taskManagers(options?: RestCallOptions): Promise<TaskManagerView[]> {
    return (await this.#get<{ taskmanagers: TaskManagerView[] }>('/taskmanagers', options))
      .taskmanagers;
  }

  taskManager(id: string, options?: RestCallOptions): Promise<TaskManagerView> {
    return this.#get(`/taskmanagers/${encodeURIComponent(id)}`, options);
  }

  /** Newest last. */
  async taskManagerLog(
    id: string,
    log: TaskManagerLogOptions,
    options?: RestCallOptions,
  ): Promise<string[]> {
    const query = new URLSearchParams({ lines: String(log.maxLines) });
    if (log.jobId !== undefined) query.set('job', log.jobId);
    const path = `/taskmanagers/${encodeURIComponent(id)}/${log.stream ?? 'log'}?${query.toString()}`;
    const text = await this.#ask({ method: 'GET', path, ...(options && { options }) });
    return text === '' ? [] : text.replace(/\n$/, '').split('\n');
  }

  /** Of the cluster, its jobs and tasks: Prometheus text. */
  metrics(options?: RestCallOptions): Promise<string> {
    return this.#ask({
      method: 'GET',
      path: '/metrics?scope=cluster',
      ...(options && { options }),
    });
  }

  /** As the JobManager sees it that answers first, leader or not. */
  ha(options?: RestCallOptions): Promise<HaView> {
    return this.#get('/ha', options);
  }

  leader(options?: RestCallOptions): Promise<LeaderInfo> {
    return this.#get('/leader', options);
  }

  async close(): Promise<void> {
    await this.#agent.destroy();
  }

  async #get<T>(path: string, options: RestCallOptions | undefined): Promise<T> {
    const text = await this.#ask({ method: 'GET', path, ...(options && { options }) });
    return JSON.parse(text) as T;
  }

  async #ask(ask: Ask): Promise<string> {
    const waitMs = ask.options?.waitForLeaderMs ?? this.#options.waitForLeaderMs ?? 60_000;
    const deadline = this.#clock.now() + waitMs;
    for (let wait = firstWaitMs; ; wait = Math.min(wait * 2, longestWaitMs)) {
      const outcome = await this.#tryAll(ask);
      if (outcome.kind === 'answer') return outcome.text;
      const left = deadline - this.#clock.now();
      if (outcome.kind === 'refused' || left <= 0) throw outcome.error;
      this.#options.onWaiting?.(outcome.error.message);
      await sleep(this.#clock, Math.min(wait, left));
    }
  }

  /**
   * Each JobManager once; what a suspended leader says counts when nobody else answers. A question that one has not
   * answered for a while is put to the next as well: a stopped process takes connections and says nothing.
   */
  async #tryAll(ask: Ask): Promise<Attempt> {
    const done = new AbortController();
    const running = new Map<number, Promise<readonly [index: number, outcome: Attempt]>>();
    const count = this.#bases.length;
    const first = this.#preferred;
    let last: Attempt | undefined;
    let suspended: Attempt | undefined;
    try {
      for (let asked = 0; asked < count || running.size > 0;) {
        if (asked < count) {
          const index = (first + asked) % count;
          asked += 1;
          const trying = this.#tryOne(this.#bases[index] ?? '', ask, done.signal);
          running.set(
            index,
            trying.then((outcome) => [index, outcome] as const),
          );
        }
        const answered = await this.#firstOf(running, ask.method === 'GET' && asked < count);
        if (answered === undefined) continue;
        const [index, outcome] = answered;
        running.delete(index);
        if (outcome.kind === 'answer' && outcome.isSuspended) {
          suspended ??= outcome;
        } else if (outcome.kind !== 'later') {
          this.#preferred = index;
          return outcome;
        } else if (last?.kind !== 'later' || last.error.code === 'RPC_DISCONNECTED') {
          // An answer that says why tells more than a silent address.
          last = outcome;
        }
      }
    } finally {
      done.abort();
    }
    return (
      suspended ??
      last ?? { kind: 'later', error: new MillraceError('NO_LEADER', 'no JobManager was asked') }
    );
  }

  /** Undefined when none has answered for `hedgeMs` and another may be asked. */
  async #firstOf<T>(
    running: ReadonlyMap<number, Promise<T>>,
    mayHedge: boolean,
  ): Promise<T | undefined> {
    if (!mayHedge) return Promise.race(running.values());
    const answered = new AbortController();
    const patience = sleep(this.#clock, hedgeMs, answered.signal).then(() => undefined);
    try {
      return await Promise.race([...running.values(), patience]);
    } finally {
      answered.abort();
    }
  }

  async #tryOne(base: string, ask: Ask, signal: AbortSignal): Promise<Attempt> {
    const timeoutMs = (this.#options.requestTimeoutMs ?? 10_000) * (ask.timeoutFactor ?? 1);
    const { token } = this.#options;
    try {
      const response = await request(base + ask.path, {
        dispatcher: this.#agent,
        method: ask.method,
        headers: token === undefined ? {} : { authorization: `Bearer ${token}` },
        body: ask.body?.() ?? null,
        headersTimeout: timeoutMs,
        bodyTimeout: timeoutMs,
        signal,
      });
      const text = await response.body.text();
      if (response.statusCode < 300)
        return { kind: 'answer', text, isSuspended: suspendedHeader in response.headers };
      const error = toError(response.statusCode, text, base);
      return { kind: response.statusCode === 503 ? 'later' : 'refused', error };
    } catch (cause) {
      return { kind: 'later', error: disconnected(`no JobManager answers at ${base}`, cause) };
    }
  }
}

function checkedBase(url: string): string {
  if (!URL.canParse(url) || !/^https?:$/.test(new URL(url).protocol)) {
    throw new MillraceError(
      'CONFIG',
      `'${url}' is no address of a JobManager: http://host:port is wanted`,
    );
  }
  return url.replace(/\/+$/, '');
}

function toError(status: number, text: string, base: string): MillraceError {
  let body: Partial<ErrorBody> = {};
  try {
    body = JSON.parse(text) as Partial<ErrorBody>;
  } catch {
    // Not Millrace, or something between: the status has to do.
  }
  const [message = `${base} answered with status ${String(status)}`, ...causes] = body.errors ?? [];
  const { code, details } = body;
  return fromFailure({
    name: 'MillraceError',
    message: [message, ...causes].join(': '),
    ...(code !== undefined && code !== 'INTERNAL' && { code }),
    ...(details !== undefined && { details }),
  });
}
