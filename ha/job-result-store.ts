import { hasCode, MillraceError } from '../lib/base/errors.js';
import type { JobId } from '../lib/base/ids.js';
import type { Logger } from '../lib/base/logger.js';
import type { FencedWriter } from './fencing.js';
import type { HaStorage } from './ha-storage.js';
import { jobFolder } from './job-store.js';
import type { Keys } from './keys.js';
import { decodeText, encodeText, prefixEnd, type KvEntry } from './kv-store.js';
import type { JobResult, JobResultStore, ResultRetention } from './services.js';
import { decodeValue, encodeValue, packBytes, unpackBytes } from './values.js';

const maxInlineArchiveBytes = 16_384;

/** The folder of the HA storage that holds a large archive. */
const resultFolder = (jobId: JobId): string => `results/${jobId}`;

/** JobResultStore over fenced transactions: one key per job that ended, kept until `expire`. */
export class FencedJobResultStore implements JobResultStore {
  readonly #writer: FencedWriter;
  readonly #keys: Keys;
  readonly #storage: HaStorage;
  readonly #log: Logger;

  constructor(writer: FencedWriter, keys: Keys, storage: HaStorage, log: Logger) {
    this.#log = log;
    this.#writer = writer;
    this.#keys = keys;
    this.#storage = storage;
  }

  async createDirty(result: JobResult): Promise<void> {
    const { jobId, name, state, archive, finishedAt } = result;
    const key = this.#keys.result(jobId);
    const writeId = this.#writer.nextWriteId();
    const bytes = encodeText(archive);
    const packed = await packBytes(
      this.#storage,
      resultFolder(jobId),
      bytes,
      maxInlineArchiveBytes,
    );
    const value = { w: writeId, name, state, finishedAt, cleanup: 'DIRTY', archive: packed };
    const outcome = await this.#writer.write({
      compare: [{ target: 'create', key, op: '=', value: 0 }],
      then: [
        { op: 'put', key, value: encodeValue(value) },
        { op: 'delete', key: this.#keys.execution(jobId) },
      ],
      read: [key],
      writeId,
    });
    if (outcome.committed) return;
    const existing = outcome.current.get(key);
    const stored = existing && decodeValue(existing).text('state');
    if (stored === state) return;
    throw new MillraceError(
      'CONFLICT',
      `job ${jobId} already has the result ${stored ?? 'unknown'}; it cannot become ${state}`,
    );
  }

  async markClean(jobId: JobId): Promise<void> {
    const key = this.#keys.result(jobId);
    const entry = await this.#writer.readOne(key);
    if (entry === undefined) {
      throw new MillraceError('JOB_NOT_FOUND', `job ${jobId} has no result`);
    }
    const writeId = this.#writer.nextWriteId();
    const value = { ...decodeValue(entry).raw, cleanup: 'CLEAN', w: writeId };
    const prefix = this.#keys.jobPrefix(jobId);
    const outcome = await this.#writer.write({
      compare: [{ target: 'mod', key, op: '=', value: entry.modRevision }],
      then: [
        { op: 'put', key, value: encodeValue(value) },
        { op: 'delete', key: prefix, rangeEnd: prefixEnd(prefix) },
      ],
      read: [key],
      writeId,
    });
    if (!outcome.committed) {
      throw new MillraceError('CONFLICT', `the result of job ${jobId} was changed meanwhile`);
    }
    await this.#storage.removeFolder(jobFolder(jobId));
  }

  async get(jobId: JobId): Promise<(JobResult & { readonly dirty: boolean }) | undefined> {
    const entry = await this.#writer.readOne(this.#keys.result(jobId));
    return entry && this.#decode(entry);
  }

  async list(): Promise<(JobResult & { readonly dirty: boolean })[]> {
    const entries = await this.#writer.list(this.#keys.resultsPrefix);
    const results: (JobResult & { readonly dirty: boolean })[] = [];
    for (const entry of entries) results.push(await this.#decodeForList(entry));
    return results.sort((a, b) => a.finishedAt - b.finishedAt);
  }

  async listIds(): Promise<JobId[]> {
    const entries = await this.#writer.list(this.#keys.resultsPrefix, { keysOnly: true });
    return entries.map((entry) => this.#jobIdOf(entry));
  }

  async expire({ maxCount, maxAgeMs, now }: ResultRetention): Promise<JobId[]> {
    const clean: { readonly entry: KvEntry; readonly jobId: JobId; readonly endedAt: number }[] =
      [];
    for (const entry of await this.#writer.list(this.#keys.resultsPrefix)) {
      const { jobId, finishedAt, dirty } = outcomeOrUnknown(entry, this.#jobIdOf(entry));
      // Of a damaged one it is not known that it was cleaned up after, nor how old it is.
      if (!dirty && finishedAt > 0) clean.push({ entry, jobId, endedAt: finishedAt });
    }
    clean.sort((a, b) => b.endedAt - a.endedAt);
    const expired = clean.filter(({ endedAt }, i) => i >= maxCount || now - endedAt > maxAgeMs);
    const deleted: JobId[] = [];
    for (const { entry, jobId } of expired) {
      const { key, modRevision } = entry;
      const outcome = await this.#writer.write({
        compare: [{ target: 'mod', key, op: '=', value: modRevision }],
        then: [{ op: 'delete', key }],
        read: [key],
      });
      // Gone as well when the answer to a first try was lost; somebody else's change is left alone.
      if (!outcome.committed && outcome.current.has(key)) continue;
      await this.#storage.removeFolder(resultFolder(jobId));
      deleted.push(jobId);
    }
    return deleted;
  }

  /** One damaged result must not keep a leader from its other jobs: what is readable of it is told. */
  async #decodeForList(entry: KvEntry): Promise<JobResult & { readonly dirty: boolean }> {
    try {
      return await this.#decode(entry);
    } catch (error) {
      if (!hasCode(error, 'RECOVERY_FAILED')) throw error;
      const jobId = this.#jobIdOf(entry);
      this.#log.error({ err: error, jobId }, 'the result of an ended job cannot be read');
      return { ...outcomeOrUnknown(entry, jobId), archive: '' };
    }
  }

  async #decode(entry: KvEntry): Promise<JobResult & { readonly dirty: boolean }> {
    const archive = await unpackBytes(this.#storage, decodeValue(entry).object('archive'));
    return { ...outcomeOf(entry, this.#jobIdOf(entry)), archive: decodeText(archive) };
  }

  #jobIdOf(entry: KvEntry): JobId {
    return entry.key.slice(this.#keys.resultsPrefix.length) as JobId;
  }
}

type Outcome = Omit<JobResult, 'archive'> & { readonly dirty: boolean };

function outcomeOf(entry: KvEntry, jobId: JobId): Outcome {
  const fields = decodeValue(entry);
  return {
    jobId,
    name: fields.text('name'),
    state: fields.oneOf('state', ['FINISHED', 'CANCELED', 'FAILED']),
    finishedAt: fields.integer('finishedAt'),
    dirty: fields.oneOf('cleanup', ['DIRTY', 'CLEAN']) === 'DIRTY',
  };
}

/** Of a damaged result it is certain only that the job ended: it must not run again, and nothing is cleaned up. */
function outcomeOrUnknown(entry: KvEntry, jobId: JobId): Outcome {
  try {
    return outcomeOf(entry, jobId);
  } catch {
    return { jobId, name: jobId, state: 'FAILED', finishedAt: 0, dirty: false };
  }
}
