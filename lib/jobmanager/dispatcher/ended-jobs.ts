/**
 * Jobs that have a result. A takeover learns only which: what is listed of them is read once afterwards, and whole
 * archives when somebody asks for one, so that neither its time nor memory grows with the jobs of the past.
 */
import type { JobResult, JobResultStore } from '../../../ha/services.js';
import { MillraceError } from '../../base/errors.js';
import type { JobId } from '../../base/ids.js';
import type { JobExecutionResult, JobSummary } from '../../gateway/client-gateway.js';
import { decodeArchive, executionResult, type ArchivedJob } from './archived-job.js';

type Head = Pick<ArchivedJob, 'submissionId' | 'state' | 'failure' | 'summary'>;

/** Whole archives kept, the last used ones. */
const keptArchives = 8;

export class EndedJobs {
  readonly #results: JobResultStore;
  /** By job; undefined until its result was read. */
  readonly #heads = new Map<JobId, Head | undefined>();
  readonly #archives = new Map<JobId, ArchivedJob>();
  /** The latest try to read what lists show. */
  #loading: Promise<unknown> | undefined;

  constructor(results: JobResultStore) {
    this.#results = results;
  }

  /** What a takeover starts from: these never run again. Resolves with them. */
  async readIds(): Promise<ReadonlySet<JobId>> {
    const ids = new Set(await this.#results.listIds());
    for (const jobId of ids) this.#heads.set(jobId, undefined);
    return ids;
  }

  /** Reads what lists show. Resolves with the results that are not cleaned up after. May be repeated when it failed. */
  load(): Promise<(JobResult & { readonly dirty: boolean })[]> {
    const loading = this.#load();
    loading.catch(() => undefined);
    this.#loading = loading;
    return loading;
  }

  has(jobId: JobId): boolean {
    return this.#heads.has(jobId);
  }

  add(jobId: JobId, archive: ArchivedJob): void {
    this.#heads.set(jobId, headOf(archive));
    this.#keep(jobId, archive);
  }

  /** Its result was deleted. */
  forget(jobId: JobId): void {
    this.#heads.delete(jobId);
    this.#archives.delete(jobId);
  }

  /** Undefined when there is none. */
  async submissionId(jobId: JobId): Promise<string | undefined> {
    return (await this.#head(jobId))?.submissionId;
  }

  async summaries(): Promise<JobSummary[]> {
    try {
      await (this.#loading ?? this.load());
    } catch {
      // Perhaps long ago: whoever asks now gets an answer of now.
      await this.load();
    }
    return [...this.#heads.values()].flatMap((head) => (head === undefined ? [] : [head.summary]));
  }

  async result(jobId: JobId): Promise<JobExecutionResult | undefined> {
    const head = await this.#head(jobId);
    return head && executionResult(head);
  }

  /** Undefined when it has not ended. */
  async archive(jobId: JobId): Promise<ArchivedJob | undefined> {
    if (!this.#heads.has(jobId)) return undefined;
    const kept = this.#archives.get(jobId);
    if (kept !== undefined) {
      this.#keep(jobId, kept);
      return kept;
    }
    const result = await this.#results.get(jobId).catch((error: unknown) => {
      // Of a damaged result the outcome may still be known, and nothing else.
      if (error instanceof MillraceError && error.code === 'RECOVERY_FAILED') return undefined;
      throw error;
    });
    if (result === undefined) {
      await this.#loading;
      const head = this.#heads.get(jobId);
      return head && { version: 1, ...head };
    }
    const archive = decodeArchive(result);
    this.#heads.set(jobId, headOf(archive));
    this.#keep(jobId, archive);
    return archive;
  }

  async #load(): Promise<(JobResult & { readonly dirty: boolean })[]> {
    const results = await this.#results.list();
    for (const result of results) {
      const { jobId } = result;
      if (this.#heads.get(jobId) === undefined)
        this.#heads.set(jobId, headOf(decodeArchive(result)));
    }
    return results.filter(({ dirty }) => dirty);
  }

  async #head(jobId: JobId): Promise<Head | undefined> {
    return this.#heads.get(jobId) ?? this.archive(jobId);
  }

  #keep(jobId: JobId, archive: ArchivedJob): void {
    this.#archives.delete(jobId);
    this.#archives.set(jobId, archive);
    const [oldest] = this.#archives.keys();
    if (this.#archives.size > keptArchives && oldest !== undefined) this.#archives.delete(oldest);
  }
}

function headOf({ submissionId, state, failure, summary }: ArchivedJob): Head {
  return { submissionId, state, summary, ...(failure !== undefined && { failure }) };
}
