/** Finds the files and hands their byte ranges out in ascending order, one at a time, to whoever asks. */
import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { MillraceError } from '../base/errors.js';
import type { SplitEnumerator, SplitEnumeratorContext } from '../api/source.js';
import type { FileSplit } from './file-split.js';
import { fileError } from './file-errors.js';

export interface FileEnumeratorState {
  /** False until the files were listed: a restore lists them then. */
  readonly isDiscovered: boolean;
  /** Not with any reader, ascending. */
  readonly remaining: readonly FileSplit[];
}

export class FileEnumerator implements SplitEnumerator<FileSplit, FileEnumeratorState> {
  readonly #context: SplitEnumeratorContext<FileSplit>;
  readonly #input: { readonly path: string; readonly splitBytes: number };
  #isDiscovered: boolean;
  #remaining: FileSplit[];
  /** Readers that asked before there was an answer. */
  readonly #waiting = new Set<number>();
  /** Ids of splits that are with readers and will be found once more, until the files are listed. */
  readonly #adopted = new Set<string>();

  constructor(
    context: SplitEnumeratorContext<FileSplit>,
    input: { readonly path: string; readonly splitBytes: number },
    state: FileEnumeratorState = { isDiscovered: false, remaining: [] },
  ) {
    this.#context = context;
    this.#input = input;
    this.#isDiscovered = state.isDiscovered;
    this.#remaining = [...state.remaining];
  }

  start(): void {
    if (this.#isDiscovered) return;
    this.#context.callAsync(async () => {
      const splits = await findSplits(this.#input.path, this.#input.splitBytes);
      this.#isDiscovered = true;
      this.#remaining = splits.filter(({ id }) => !this.#adopted.has(id));
      this.#adopted.clear();
      this.#serveWaiting();
    });
  }

  /** A reader asks by itself when it has nothing left. */
  addReader(_subtask: number): void {}

  handleSplitRequest(subtask: number): void {
    this.#waiting.add(subtask);
    if (this.#isDiscovered) this.#serveWaiting();
  }

  /**
   * Back to their places in the order: the next reader that asks gets the earliest one. NB: a reader
   * that was told of no more splits has ended; the failed reader's new attempt asks again.
   */
  addSplitsBack(splits: readonly FileSplit[], subtask: number): void {
    this.#waiting.delete(subtask);
    this.#remaining = [...this.#remaining, ...splits].sort((a, b) => a.index - b.index);
    if (this.#isDiscovered) this.#serveWaiting();
  }

  adoptSplits(splits: readonly FileSplit[]): void {
    const ids = new Set(splits.map(({ id }) => id));
    this.#remaining = this.#remaining.filter(({ id }) => !ids.has(id));
    if (!this.#isDiscovered) for (const id of ids) this.#adopted.add(id);
  }

  snapshotState(): FileEnumeratorState {
    return { isDiscovered: this.#isDiscovered, remaining: [...this.#remaining] };
  }

  close(): void {
    this.#waiting.clear();
  }

  #serveWaiting(): void {
    for (const subtask of this.#waiting) {
      this.#waiting.delete(subtask);
      const split = this.#remaining.shift();
      if (split === undefined) this.#context.signalNoMoreSplits(subtask);
      else this.#context.assignSplits(subtask, [split]);
    }
  }
}

/** FILE_NOT_FOUND names the path. */
export async function findSplits(path: string, splitBytes: number): Promise<FileSplit[]> {
  const splits: FileSplit[] = [];
  for (const file of await findFiles(path)) {
    for (let start = 0; start < file.sizeBytes; start += splitBytes) {
      const end = Math.min(start + splitBytes, file.sizeBytes);
      splits.push({
        id: `${file.path}:${start}`,
        index: splits.length,
        path: file.path,
        start,
        end,
      });
    }
  }
  return splits;
}

interface FoundFile {
  readonly path: string;
  readonly sizeBytes: number;
}

async function findFiles(path: string): Promise<FoundFile[]> {
  try {
    const stats = await stat(path);
    if (!stats.isDirectory()) return [{ path, sizeBytes: stats.size }];
    const names = (await readdir(path)).filter((name) => !/^[._]/.test(name)).sort();
    const found: FoundFile[] = [];
    for (const name of names) found.push(...(await findFiles(join(path, name))));
    return found;
  } catch (error) {
    throw error instanceof MillraceError ? error : fileError(error, path, 'read');
  }
}
