/** What people are shown of a cluster's past: a view that is lost or damaged never keeps anything from going on. */
import type { JobId } from '../lib/base/ids.js';
import type { Logger } from '../lib/base/logger.js';
import type { FencedWriter } from './fencing.js';
import type { HaStorage } from './ha-storage.js';
import { jobExists, jobFolder } from './job-store.js';
import type { Keys } from './keys.js';
import { decodeText, encodeText, type KvEntry } from './kv-store.js';
import type { JobHistoryStore, TakeoverRecord, TakeoverStore } from './services.js';
import { decodeValue, encodeValue, packBytes, unpackBytes } from './values.js';

const rememberedTakeovers = 10;

/** JobHistoryStore: one key per job, overwritten. */
export class FencedJobHistoryStore implements JobHistoryStore {
  readonly #writer: FencedWriter;
  readonly #keys: Keys;
  readonly #storage: HaStorage;
  readonly #log: Logger;

  constructor(writer: FencedWriter, keys: Keys, storage: HaStorage, log: Logger) {
    this.#writer = writer;
    this.#keys = keys;
    this.#storage = storage;
    this.#log = log;
  }

  async put(jobId: JobId, history: string): Promise<void> {
    const packed = await packBytes(this.#storage, jobFolder(jobId), encodeText(history));
    const value = encodeValue({ w: this.#writer.nextWriteId(), history: packed });
    // Putting the same history twice changes nothing; of a job that is gone nothing is kept.
    await this.#writer.write({
      compare: [jobExists(this.#keys, jobId)],
      then: [{ op: 'put', key: this.#keys.history(jobId), value }],
    });
  }

  async get(jobId: JobId): Promise<string | undefined> {
    const entry = await this.#writer.readOne(this.#keys.history(jobId));
    if (entry === undefined) return undefined;
    try {
      return decodeText(await unpackBytes(this.#storage, decodeValue(entry).object('history')));
    } catch (err) {
      this.#log.warn({ err, jobId }, 'the history of a job cannot be read and begins anew');
      return undefined;
    }
  }
}

/** TakeoverStore: one key with a list. */
export class FencedTakeoverStore implements TakeoverStore {
  readonly #writer: FencedWriter;
  readonly #keys: Keys;
  readonly #log: Logger;

  constructor(writer: FencedWriter, keys: Keys, log: Logger) {
    this.#writer = writer;
    this.#keys = keys;
    this.#log = log;
  }

  async put(record: TakeoverRecord): Promise<void> {
    const { era, revision } = record.epoch;
    const earlier = (await this.list()).filter(
      ({ epoch }) => epoch.era !== era || epoch.revision !== revision,
    );
    const takeovers = [record, ...earlier].slice(0, rememberedTakeovers);
    const value = encodeValue({ w: this.#writer.nextWriteId(), takeovers });
    await this.#writer.write({
      compare: [],
      then: [{ op: 'put', key: this.#keys.takeovers, value }],
    });
  }

  async list(): Promise<TakeoverRecord[]> {
    return decodeTakeovers(this.#log, await this.#writer.readOne(this.#keys.takeovers));
  }
}

/** None, when there are none or they cannot be read. */
export function decodeTakeovers(log: Logger, entry: KvEntry | undefined): TakeoverRecord[] {
  if (entry === undefined) return [];
  try {
    const { takeovers } = decodeValue(entry).raw;
    return Array.isArray(takeovers) ? (takeovers as TakeoverRecord[]) : [];
  } catch (err) {
    log.warn({ err }, 'the list of takeovers cannot be read and begins anew');
    return [];
  }
}
