/**
 * The first phase of the file sink. Names of hidden files say how far they got (`writer` is a digest of
 * the operator, by which a sink knows its own, and one of attempt and operator):
 *
 *   .<prefix>-<job>-<generation>-<subtask>-<writer>-<seq>.inprogress          being written
 *   .<prefix>-<job>-<generation>-<subtask>-<writer>-<seq>.<checkpoint>.pending  closed at a barrier
 *   <prefix>-<job>-<generation>-<subtask>-<writer>-<seq><suffix>              committed
 *
 * An in-progress file is in no checkpoint; a pending one is in every checkpoint from its number on until
 * it is committed. That is what makes removing leftovers safe, see `removeLeftovers`.
 */
import { createHash } from 'node:crypto';
import { join } from 'node:path';
import type { SinkContext, SinkWriter } from '../api/sink.js';
import type { FileCommittable } from './file-committer.js';
import { fileError, systemCode } from './file-errors.js';
import type { FileOperations } from './file-operations.js';

export interface FileSinkWriterOptions<T> {
  readonly context: SinkContext;
  readonly directory: string;
  readonly prefix: string;
  readonly suffix: string;
  readonly encode: (value: T) => string;
  readonly files: FileOperations;
}

interface OpenFile {
  readonly path: string;
  readonly baseName: string;
  readonly descriptor: number;
  sizeBytes: number;
}

const bufferChars = 64 * 1024;
/** Of each of the two digests. */
const digestDigits = 6;
const hiddenName = /-(\d+)-(\d+)-([0-9a-f]{6})[0-9a-f]{6}-\d+\.(?:inprogress|(\d+)\.pending)$/;

export class FileSinkWriter<T> implements SinkWriter<T, FileCommittable> {
  readonly #options: FileSinkWriterOptions<T>;
  /** Lines not yet written to the open file. */
  #buffer = '';
  #file: OpenFile | undefined;
  #sequence = 0;
  /** Closed at a barrier, not yet synced. */
  #unsynced: string[] = [];
  #syncing: Promise<void> = Promise.resolve();

  constructor(options: FileSinkWriterOptions<T>) {
    this.#options = options;
  }

  async open(): Promise<void> {
    const { files, directory } = this.#options;
    try {
      await files.makeDirectory(directory);
    } catch (error) {
      throw fileError(error, directory, 'create');
    }
    await this.#removeLeftovers();
  }

  write(value: T): void {
    this.#buffer += this.#options.encode(value) + '\n';
    if (this.#buffer.length >= bufferChars) this.#flush();
  }

  prepareCommit(checkpointId: number): readonly FileCommittable[] {
    this.#flush();
    const file = this.#file;
    if (file === undefined) return [];
    const { files, directory, suffix } = this.#options;
    const pending = join(directory, `.${file.baseName}.${checkpointId}.pending`);
    try {
      files.closeSync(file.descriptor);
      this.#file = undefined;
      files.renameSync(file.path, pending);
    } catch (error) {
      throw fileError(error, file.path, 'close');
    }
    this.#unsynced.push(pending);
    const target = join(directory, file.baseName + suffix);
    return [{ pending, target, sizeBytes: file.sizeBytes }];
  }

  /** One after the other: a checkpoint contains what earlier ones closed, so it must find that synced. */
  sync(): Promise<void> {
    const run = this.#syncing.then(() => this.#syncClosed());
    this.#syncing = run.catch(() => undefined);
    return run;
  }

  async #syncClosed(): Promise<void> {
    const { files, directory } = this.#options;
    const closed = this.#unsynced;
    this.#unsynced = [];
    if (closed.length === 0) return;
    try {
      for (const path of closed) await files.sync(path);
      await files.sync(directory);
    } catch (error) {
      // The next checkpoint contains them too, so it must sync them.
      this.#unsynced.unshift(...closed);
      throw fileError(error, directory, 'sync');
    }
  }

  /** What is not in a checkpoint is written again by whoever takes over. */
  async close(): Promise<void> {
    const { files } = this.#options;
    const file = this.#file;
    this.#file = undefined;
    this.#buffer = '';
    if (file !== undefined) {
      files.closeSync(file.descriptor);
      await this.#remove(file.path);
    }
    // Of an attempt that was cut off and came back while this one ran. Hidden files are no reason to fail at the end.
    await this.#removeLeftovers().catch(() => undefined);
  }

  #flush(): void {
    if (this.#buffer === '') return;
    const { files } = this.#options;
    const bytes = Buffer.from(this.#buffer, 'utf8');
    this.#buffer = '';
    const file = (this.#file ??= this.#createFile());
    try {
      let written = 0;
      while (written < bytes.length) {
        written += files.writeSync(file.descriptor, bytes.subarray(written));
      }
      file.sizeBytes += written;
    } catch (error) {
      throw fileError(error, file.path, 'write');
    }
  }

  #createFile(): OpenFile {
    const { files, directory, prefix, context } = this.#options;
    const { jobId, generation, subtaskIndex, attemptId, operatorId } = context;
    const writer = digest(operatorId) + digest(`${attemptId} ${operatorId}`);
    const parts = [prefix, jobId, generation, subtaskIndex, writer];
    const baseName = [...parts, this.#sequence].join('-');
    const path = join(directory, `.${baseName}.inprogress`);
    this.#sequence += 1;
    try {
      return { path, baseName, descriptor: files.createSync(path), sizeBytes: 0 };
    } catch (error) {
      throw fileError(error, path, 'create');
    }
  }

  /**
   * Removes what earlier generations of this sink left behind and no recovery can ask for again:
   * in-progress files, which are in no checkpoint, and pending ones of checkpoints after the restored
   * one, which can no longer complete; all of them, when no checkpoint had completed. Pending files up to
   * the restored checkpoint are left to the committers, also to those of other subtasks.
   * Another sink of the job may write to this folder and go on while this one is restarted.
   */
  async #removeLeftovers(): Promise<void> {
    const { context, files, directory, prefix } = this.#options;
    if (context.generation === 0) return;
    const restoredFrom = context.restoredCheckpointId ?? -Infinity;
    const own = `.${prefix}-${context.jobId}-`;
    const names = await files.list(directory).catch((error: unknown) => {
      throw fileError(error, directory, 'list');
    });
    for (const name of names.filter((candidate) => candidate.startsWith(own))) {
      const match = hiddenName.exec(name.slice(own.length - 1));
      if (match === null) continue;
      const [, generation, subtask, operator, checkpoint] = match;
      // Every name has one subtask that looks after it, at any parallelism.
      const isMine =
        operator === digest(context.operatorId) &&
        Number(subtask) % context.parallelism === context.subtaskIndex;
      const isOlder = Number(generation) < context.generation;
      const isDead = checkpoint === undefined || Number(checkpoint) > restoredFrom;
      if (isMine && isOlder && isDead) await this.#remove(join(directory, name));
    }
  }

  async #remove(path: string): Promise<void> {
    try {
      await this.#options.files.unlink(path);
    } catch (error) {
      if (systemCode(error) !== 'ENOENT') throw fileError(error, path, 'remove');
    }
  }
}

function digest(text: string): string {
  return createHash('sha256').update(text).digest('hex').slice(0, digestDigits);
}
