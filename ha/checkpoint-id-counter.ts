import { MillraceError } from '../lib/base/errors.js';
import type { JobId } from '../lib/base/ids.js';
import type { FencedWriter } from './fencing.js';
import { jobExists, jobNotFound } from './job-store.js';
import type { Keys } from './keys.js';
import { SerialByKey } from './serial-by-key.js';
import type { CheckpointIdCounter } from './services.js';
import { decodeValue, encodeValue } from './values.js';

/** Ids taken per write; the unused rest of a leader's block is never used. */
const blockSize = 64;
const maxConflicts = 5;

/** CheckpointIdCounter over fenced transactions: the key holds the first id of no block yet. */
export class FencedCheckpointIdCounter implements CheckpointIdCounter {
  readonly #writer: FencedWriter;
  readonly #keys: Keys;
  readonly #jobId: JobId;
  readonly #serial = new SerialByKey();
  /** Of the block in use: [next, end). */
  #next = 1;
  #end = 1;
  /** As it was before the first block of this leader. */
  #highestBefore: number | undefined;

  constructor(writer: FencedWriter, keys: Keys, jobId: JobId) {
    this.#writer = writer;
    this.#keys = keys;
    this.#jobId = jobId;
  }

  next(): Promise<number> {
    return this.#serial.run('', async () => {
      if (this.#next >= this.#end) await this.#takeBlock(1);
      const id = this.#next;
      this.#next += 1;
      return id;
    });
  }

  raiseTo(checkpointId: number): Promise<void> {
    return this.#serial.run('', async () => {
      if (checkpointId < this.#next && this.#next < this.#end) return;
      if (checkpointId + 1 < this.#end) this.#next = checkpointId + 1;
      else await this.#takeBlock(checkpointId + 1);
    });
  }

  highestGiven(): Promise<number> {
    return this.#serial.run('', async () => {
      if (this.#highestBefore === undefined) {
        const entry = await this.#writer.readOne(this.#keys.checkpointId(this.#jobId));
        this.#highestBefore = (entry === undefined ? 1 : decodeValue(entry).integer('next')) - 1;
      }
      return this.#highestBefore;
    });
  }

  /** Takes a block that begins at `atLeast` or later. */
  async #takeBlock(atLeast: number): Promise<void> {
    const key = this.#keys.checkpointId(this.#jobId);
    for (let attempt = 0; attempt < maxConflicts; attempt += 1) {
      const entry = await this.#writer.readOne(key);
      const free = entry === undefined ? 1 : decodeValue(entry).integer('next');
      const first = Math.max(free, atLeast);
      const writeId = this.#writer.nextWriteId();
      const outcome = await this.#writer.write({
        compare: [
          jobExists(this.#keys, this.#jobId),
          { target: 'mod', key, op: '=', value: entry?.modRevision ?? 0 },
        ],
        then: [{ op: 'put', key, value: encodeValue({ next: first + blockSize, w: writeId }) }],
        read: [key, this.#keys.spec(this.#jobId)],
        writeId,
      });
      if (outcome.committed) {
        this.#highestBefore ??= free - 1;
        this.#next = first;
        this.#end = first + blockSize;
        return;
      }
      if (!outcome.current.has(this.#keys.spec(this.#jobId))) throw jobNotFound(this.#jobId);
    }
    throw new MillraceError('CONFLICT', `${key} is changed by somebody else at the same time`);
  }
}
