/** Lines of text files, read in parallel by byte ranges; replayed exactly from the checkpointed offsets. */
import { resolve } from 'node:path';
import { MillraceError } from '../base/errors.js';
import type {
  Source,
  SourceReader,
  SourceReaderContext,
  SplitEnumerator,
  SplitEnumeratorContext,
} from '../api/source.js';
import { userFunctions } from '../graph/function-digest.js';
import { FileEnumerator, type FileEnumeratorState } from './file-enumerator.js';
import { FileReader } from './file-reader.js';
import type { FileSplit } from './file-split.js';

export interface FileSourceOptions {
  /** Size of the byte ranges handed to readers. Default: 16 MiB. Small ranges balance better and cost more seeks. */
  readonly splitBytes?: number;
  /** Of the whole source, shared equally by its subtasks. Default (and 0): as fast as it goes. */
  readonly recordsPerSecond?: number;
  /** A longer line fails the job, as it must fit in memory. Default: 16 MiB. */
  readonly maxLineBytes?: number;
}

const defaultSplitBytes = 16 * 1024 ** 2;
const defaultMaxLineBytes = 16 * 1024 ** 2;

/**
 * A line ends with \n or \r\n, or at the end of the file; text is UTF-8. Of a directory all files are read,
 * those in folders below it too, in the order of their names, except ones that begin with `.` or `_`.
 * Files must not change while the job runs.
 */
export class FileSource implements Source<string, FileSplit, FileEnumeratorState> {
  readonly boundedness = 'bounded';
  readonly [userFunctions]: readonly unknown[] = [];
  readonly #path: string;
  readonly #splitBytes: number;
  readonly #recordsPerSecond: number;
  readonly #maxLineBytes: number;

  private constructor(path: string, options: FileSourceOptions) {
    this.#path = path;
    this.#splitBytes = positive(options.splitBytes ?? defaultSplitBytes, 'splitBytes');
    this.#maxLineBytes = positive(options.maxLineBytes ?? defaultMaxLineBytes, 'maxLineBytes');
    const { recordsPerSecond = 0 } = options;
    if (!(recordsPerSecond >= 0 && Number.isFinite(recordsPerSecond))) {
      throw new MillraceError(
        'JOB_INVALID',
        `recordsPerSecond of a file source is ${recordsPerSecond}`,
      );
    }
    this.#recordsPerSecond = recordsPerSecond;
  }

  /** A file or a directory; a relative path refers to the folder the job was submitted from. */
  static forLines(path: string, options: FileSourceOptions = {}): FileSource {
    if (path === '') throw new MillraceError('JOB_INVALID', 'the path of a file source is empty');
    return new FileSource(resolve(path), options);
  }

  createEnumerator(
    context: SplitEnumeratorContext<FileSplit>,
  ): SplitEnumerator<FileSplit, FileEnumeratorState> {
    return new FileEnumerator(context, { path: this.#path, splitBytes: this.#splitBytes });
  }

  restoreEnumerator(
    context: SplitEnumeratorContext<FileSplit>,
    state: FileEnumeratorState,
  ): SplitEnumerator<FileSplit, FileEnumeratorState> {
    return new FileEnumerator(context, { path: this.#path, splitBytes: this.#splitBytes }, state);
  }

  createReader(context: SourceReaderContext): SourceReader<string, FileSplit> {
    return new FileReader(context, {
      recordsPerSecond: this.#recordsPerSecond / context.parallelism,
      maxLineBytes: this.#maxLineBytes,
    });
  }
}

function positive(value: number, what: string): number {
  if (Number.isSafeInteger(value) && value > 0) return value;
  throw new MillraceError(
    'JOB_INVALID',
    `${what} of a file source is ${value}: expected at least 1`,
  );
}
