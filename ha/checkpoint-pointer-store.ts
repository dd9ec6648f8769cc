import { MillraceError } from '../lib/base/errors.js';
import type { JobId } from '../lib/base/ids.js';
import type { FencedWriter } from './fencing.js';
import { jobExists, jobNotFound } from './job-store.js';
import type { Keys } from './keys.js';
import { prefixEnd, type KvEntry, type TxnOp } from './kv-store.js';
import type { CheckpointPointer, CheckpointPointerStore } from './services.js';
import { decodeValue, encodeValue } from './values.js';

/** Two operations each, and etcd takes 128 in a transaction. */
const maxSubsumedPerTxn = 50;

/** CheckpointPointerStore over fenced transactions; the latest is the highest id, there is no other pointer. */
export class FencedCheckpointPointerStore implements CheckpointPointerStore {
  readonly #writer: FencedWriter;
  readonly #keys: Keys;
  readonly #jobId: JobId;

  constructor(writer: FencedWriter, keys: Keys, jobId: JobId) {
    this.#writer = writer;
    this.#keys = keys;
    this.#jobId = jobId;
  }

  async add(pointer: CheckpointPointer, subsumed: readonly number[]): Promise<void> {
    const key = this.#keys.checkpoint(this.#jobId, pointer.checkpointId);
    const rangeEnd = prefixEnd(this.#keys.checkpointsPrefix(this.#jobId));
    const writeId = this.#writer.nextWriteId();
    const outcome = await this.#writer.write({
      compare: [
        jobExists(this.#keys, this.#jobId),
        // Neither this id nor a higher one: a late repetition cannot bring a subsumed pointer back.
        { target: 'create', key, rangeEnd, op: '=', value: 0 },
      ],
      then: [
        { op: 'put', key, value: encodeValue({ ...pointer, w: writeId }) },
        ...(await this.#toGarbage(subsumed.slice(0, maxSubsumedPerTxn), writeId)),
      ],
      read: [key, this.#keys.spec(this.#jobId)],
      writeId,
    });
    if (!outcome.committed) {
      this.#throwUnlessSame(pointer, outcome.current);
    }
    for (let i = maxSubsumedPerTxn; i < subsumed.length; i += maxSubsumedPerTxn) {
      const ops = await this.#toGarbage(subsumed.slice(i, i + maxSubsumedPerTxn), writeId);
      await this.#writer.write({ compare: [jobExists(this.#keys, this.#jobId)], then: ops });
    }
  }

  async list(): Promise<CheckpointPointer[]> {
    const entries = await this.#writer.list(this.#keys.checkpointsPrefix(this.#jobId));
    return entries.map(decodePointer);
  }

  async listGarbage(): Promise<CheckpointPointer[]> {
    const entries = await this.#writer.list(this.#keys.garbagePrefix(this.#jobId));
    return entries.map(decodePointer);
  }

  async removeGarbage(checkpointId: number): Promise<void> {
    const key = this.#keys.garbage(this.#jobId, checkpointId);
    await this.#writer.write({ compare: [], then: [{ op: 'delete', key }] });
  }

  /** Moves pointers to the garbage; those that are not there any more are left out. */
  async #toGarbage(ids: readonly number[], writeId: string): Promise<TxnOp[]> {
    if (ids.length === 0) return [];
    const ranges = await this.#writer.read(
      ids.map((id) => ({ key: this.#keys.checkpoint(this.#jobId, id) })),
    );
    return ranges.flatMap(({ entries }): TxnOp[] => {
      const entry = entries[0];
      if (entry === undefined) return [];
      const pointer = decodePointer(entry);
      const key = this.#keys.garbage(this.#jobId, pointer.checkpointId);
      return [
        { op: 'put', key, value: encodeValue({ ...pointer, w: writeId }) },
        { op: 'delete', key: entry.key },
      ];
    });
  }

  /** A caller that was told ETCD_UNAVAILABLE may add the same pointer again. */
  #throwUnlessSame(pointer: CheckpointPointer, current: ReadonlyMap<string, KvEntry>): void {
    if (!current.has(this.#keys.spec(this.#jobId))) throw jobNotFound(this.#jobId);
    const existing = current.get(this.#keys.checkpoint(this.#jobId, pointer.checkpointId));
    if (existing !== undefined) {
      const stored = decodePointer(existing);
      if (stored.sha256 === pointer.sha256 && stored.metadataPath === pointer.metadataPath) return;
    }
    throw new MillraceError(
      'CONFLICT',
      `job ${this.#jobId} has a completed checkpoint ${String(pointer.checkpointId)} or a later one`,
    );
  }
}

export function decodePointer(entry: KvEntry): CheckpointPointer {
  const fields = decodeValue(entry);
  return {
    checkpointId: fields.integer('checkpointId'),
    metadataPath: fields.text('metadataPath'),
    sha256: fields.text('sha256'),
    timestamp: fields.integer('timestamp'),
    sizeBytes: fields.integer('sizeBytes'),
    kind: fields.oneOf('kind', ['checkpoint', 'savepoint']),
  };
}
