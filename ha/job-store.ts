import { MillraceError } from '../lib/base/errors.js';
import { parseJobId, type JobId, type TaskManagerId } from '../lib/base/ids.js';
import { damaged } from './damaged.js';
import type { FencedWriter } from './fencing.js';
import type { HaStorage } from './ha-storage.js';
import type { Keys } from './keys.js';
import { decodeText, encodeText, type Compare, type KvEntry } from './kv-store.js';
import { SerialByKey } from './serial-by-key.js';
import type { ExecutionRecord, JobStore, StoredJob } from './services.js';
import { decodeValue, encodeValue, packBytes, unpackBytes, type JsonObject } from './values.js';

/** Tries against changes from outside (an administrator with etcdctl); a leader alone has no conflicts. */
const maxConflicts = 3;

/** The folder of the HA storage that holds a job's large values. */
export function jobFolder(jobId: JobId): string {
  return `jobs/${jobId}`;
}

/** Holds while the job exists: keeps writes for an ended job from leaving keys behind. */
export function jobExists(keys: Keys, jobId: JobId): Compare {
  return { target: 'create', key: keys.spec(jobId), op: '>', value: 0 };
}

export function jobNotFound(jobId: JobId): MillraceError {
  return new MillraceError('JOB_NOT_FOUND', `no job ${jobId} is stored`);
}

/** JobStore over fenced transactions: `spec`, `graph` and `exec` keys of a job (ha/keys.ts). */
export class FencedJobStore implements JobStore {
  readonly #writer: FencedWriter;
  readonly #keys: Keys;
  readonly #storage: HaStorage;
  readonly #serial = new SerialByKey();

  constructor(writer: FencedWriter, keys: Keys, storage: HaStorage) {
    this.#writer = writer;
    this.#keys = keys;
    this.#storage = storage;
  }

  async put(job: StoredJob): Promise<void> {
    const { jobId, graph, ...rest } = job;
    const writeId = this.#writer.nextWriteId();
    const spec: JsonObject = {
      w: writeId,
      submissionId: rest.submissionId,
      name: rest.name,
      desired: rest.desired,
      submittedAt: rest.submittedAt,
    };
    const packed = await packBytes(this.#storage, jobFolder(jobId), graph);
    const specKey = this.#keys.spec(jobId);
    const resultKey = this.#keys.result(jobId);
    const outcome = await this.#writer.write({
      compare: [
        { target: 'create', key: specKey, op: '=', value: 0 },
        { target: 'create', key: resultKey, op: '=', value: 0 },
      ],
      then: [
        { op: 'put', key: specKey, value: encodeValue(spec) },
        {
          op: 'put',
          key: this.#keys.graph(jobId),
          value: encodeValue({ w: writeId, graph: packed }),
        },
      ],
      read: [specKey, resultKey],
      writeId,
    });
    if (outcome.committed) return;
    const existing = outcome.current.get(specKey);
    const isEnded = outcome.current.has(resultKey);
    if (!isEnded && existing && decodeValue(existing).raw['submissionId'] === job.submissionId) {
      return;
    }
    throw new MillraceError(
      'JOB_DUPLICATE',
      isEnded ? `job ${jobId} has ended and never runs again` : `a job ${jobId} exists`,
      { details: { jobId, isEnded } },
    );
  }

  async get(jobId: JobId): Promise<StoredJob | undefined> {
    const [spec, graph] = await this.#writer.read([
      { key: this.#keys.spec(jobId) },
      { key: this.#keys.graph(jobId) },
    ]);
    const specEntry = spec?.entries[0];
    if (specEntry === undefined) return undefined;
    const graphEntry = graph?.entries[0];
    if (graphEntry === undefined) throw damaged(this.#keys.graph(jobId), 'is missing');
    const fields = decodeValue(specEntry);
    return {
      jobId,
      submissionId: fields.text('submissionId'),
      name: fields.text('name'),
      desired: fields.oneOf('desired', ['RUNNING', 'CANCELED']),
      submittedAt: fields.integer('submittedAt'),
      graph: await unpackBytes(this.#storage, decodeValue(graphEntry).object('graph')),
    };
  }

  async list(): Promise<JobId[]> {
    const entries = await this.#writer.list(this.#keys.jobsPrefix, { keysOnly: true });
    const specs = entries.flatMap((entry) => {
      const jobId = parseJobId(this.#keys.parseSpec(entry.key) ?? '');
      return jobId === undefined ? [] : [{ jobId, createRevision: entry.createRevision }];
    });
    return specs.sort((a, b) => a.createRevision - b.createRevision).map(({ jobId }) => jobId);
  }

  setDesired(jobId: JobId, desired: 'RUNNING' | 'CANCELED'): Promise<void> {
    return this.#serial.run(jobId, () =>
      this.#update(this.#keys.spec(jobId), jobId, async (entry) => {
        if (entry === undefined) throw jobNotFound(jobId);
        return { ...decodeValue(entry).raw, desired };
      }),
    );
  }

  putExecution(jobId: JobId, execution: ExecutionRecord): Promise<void> {
    return this.#serial.run(jobId, async () => {
      const bytes = encodeText(JSON.stringify(execution.attempts));
      const attempts = await packBytes(this.#storage, jobFolder(jobId), bytes);
      const { generation } = execution;
      await this.#update(this.#keys.execution(jobId), jobId, async () => ({
        generation,
        attempts,
      }));
    });
  }

  async getExecution(jobId: JobId): Promise<ExecutionRecord | undefined> {
    const entry = await this.#writer.readOne(this.#keys.execution(jobId));
    if (entry === undefined) return undefined;
    const fields = decodeValue(entry);
    const text = decodeText(await unpackBytes(this.#storage, fields.object('attempts')));
    return { generation: fields.integer('generation'), attempts: parseAttempts(entry.key, text) };
  }

  /** Compare-and-set of one key of an existing job. */
  async #update(
    key: string,
    jobId: JobId,
    change: (entry: KvEntry | undefined) => Promise<JsonObject>,
  ): Promise<void> {
    for (let attempt = 0; attempt < maxConflicts; attempt += 1) {
      const entry = await this.#writer.readOne(key);
      const writeId = this.#writer.nextWriteId();
      const value = encodeValue({ ...(await change(entry)), w: writeId });
      const outcome = await this.#writer.write({
        compare: [
          jobExists(this.#keys, jobId),
          { target: 'mod', key, op: '=', value: entry?.modRevision ?? 0 },
        ],
        then: [{ op: 'put', key, value }],
        read: [key, this.#keys.spec(jobId)],
        writeId,
      });
      if (outcome.committed) return;
      if (!outcome.current.has(this.#keys.spec(jobId))) throw jobNotFound(jobId);
    }
    throw new MillraceError('CONFLICT', `${key} is changed by somebody else at the same time`);
  }
}

export function parseAttempts(key: string, text: string): ExecutionRecord['attempts'] {
  const attempts: Record<string, ExecutionRecord['attempts'][string]> = {};
  let parsed: unknown;
  try {
    parsed = JSON.parse(text);
  } catch (cause) {
    throw damaged(key, 'has attempts that are not JSON', cause);
  }
  for (const [attemptId, value] of Object.entries(parsed as Record<string, unknown>)) {
    const { taskManagerId, allocationId, attemptNumber } = value as Record<string, unknown>;
    if (
      typeof taskManagerId !== 'string' ||
      typeof allocationId !== 'string' ||
      typeof attemptNumber !== 'number'
    ) {
      throw damaged(key, `has a bad attempt ${attemptId}`);
    }
    attempts[attemptId] = {
      taskManagerId: taskManagerId as TaskManagerId,
      allocationId,
      attemptNumber,
    };
  }
  return attempts;
}
