/** Text files written exactly once: a line becomes visible when the checkpoint that contains it is complete. */
import { resolve } from 'node:path';
import { MillraceError } from '../base/errors.js';
import type { Committer, Sink, SinkContext, SinkWriter } from '../api/sink.js';
import { userFunctions } from '../graph/function-digest.js';
import { FileCommitter, type FileCommittable } from './file-committer.js';
import { type FileOperations, nodeFileOperations } from './file-operations.js';
import { FileSinkWriter } from './file-sink-writer.js';

export interface FileSinkOptions<T> {
  /** Beginning of file names. Default: `part`. */
  readonly prefix?: string;
  /** End of file names, with its dot. Default: `.txt`. */
  readonly suffix?: string;
  /** A record as a line, without the line break. Default: texts as they are, everything else as JSON. */
  readonly encoder?: (value: T) => string;
}

/**
 * Two-phase commit: lines go to a hidden file; at a barrier it is closed, synced and handed to the
 * checkpoint; when that is complete it is renamed to its final name. Every checkpoint with output makes
 * a file per subtask. Files that begin with `.` are not finished and not for readers.
 *
 * Finished files must stay where they are until the next checkpoint is complete: a recovery looks for them.
 *
 * @example
 * results.sinkTo(FileSink.forLines('/data/out')).uid('results');
 */
export class FileSink<T> implements Sink<T, FileCommittable> {
  readonly [userFunctions]: readonly unknown[];
  readonly #directory: string;
  readonly #prefix: string;
  readonly #suffix: string;
  readonly #encode: (value: T) => string;
  readonly #files: FileOperations;

  private constructor(
    directory: string,
    options: FileSinkOptions<T>,
    files: FileOperations = nodeFileOperations,
  ) {
    this.#directory = directory;
    this.#prefix = nameText(options.prefix ?? 'part', 'prefix');
    this.#suffix = nameText(options.suffix ?? '.txt', 'suffix');
    this.#encode = options.encoder ?? encodeText;
    this[userFunctions] = [options.encoder];
    this.#files = files;
  }

  /** A relative directory refers to the folder the job was submitted from; it is created. */
  static forLines<T>(directory: string, options: FileSinkOptions<T> = {}): FileSink<T> {
    return FileSink.on(nodeFileOperations, directory, options);
  }

  /** @internal With other file-system calls. */
  static on<T>(
    files: FileOperations,
    directory: string,
    options: FileSinkOptions<T> = {},
  ): FileSink<T> {
    if (directory === '')
      throw new MillraceError('JOB_INVALID', 'the directory of a file sink is empty');
    return new FileSink(resolve(directory), options, files);
  }

  createWriter(context: SinkContext): SinkWriter<T, FileCommittable> {
    return new FileSinkWriter<T>({
      context,
      directory: this.#directory,
      prefix: this.#prefix,
      suffix: this.#suffix,
      encode: this.#encode,
      files: this.#files,
    });
  }

  createCommitter(): Committer<FileCommittable> {
    return new FileCommitter(this.#files);
  }
}

function encodeText(value: unknown): string {
  return typeof value === 'string' ? value : JSON.stringify(value);
}

function nameText(text: string, what: string): string {
  if (/^[\w.-]*$/.test(text) && text.length <= 64 && !(what === 'prefix' && /^(\.|$)/.test(text))) {
    return text;
  }
  throw new MillraceError(
    'JOB_INVALID',
    `the ${what} "${text}" of a file sink: expected up to 64 letters, digits, "-", "_" and "."`,
  );
}
