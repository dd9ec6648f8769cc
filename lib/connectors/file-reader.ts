/** Reads splits one after the other; the file is read ahead in the background, lines are cut on demand. */
import type { ReaderOutput, SourceReader, SourceReaderContext } from '../api/source.js';
import type { FileSplit } from './file-split.js';
import { LineReader } from './line-reader.js';
import { ReaderPace } from './rate-limiter.js';

export interface FileReaderOptions {
  /** Of this subtask; 0: no limit. */
  readonly recordsPerSecond: number;
  readonly maxLineBytes: number;
}

interface OpenSplit {
  readonly split: FileSplit;
  readonly lines: LineReader;
}

export class FileReader implements SourceReader<string, FileSplit> {
  readonly #context: SourceReaderContext;
  readonly #options: FileReaderOptions;
  readonly #pace: ReaderPace;
  readonly #queue: FileSplit[] = [];
  #current: OpenSplit | undefined;
  #isSplitRequested = false;
  #noMoreSplits = false;
  /** Closing of earlier splits' files. */
  readonly #closing = new Set<Promise<void>>();

  constructor(context: SourceReaderContext, options: FileReaderOptions) {
    this.#context = context;
    this.#options = options;
    this.#pace = new ReaderPace(context, options.recordsPerSecond);
  }

  start(): void {}

  pollNext(output: ReaderOutput<string>): 'more' | 'nothing' | 'end' {
    return this.#poll(output, true);
  }

  pollBatch(output: ReaderOutput<string>): 'more' | 'nothing' | 'end' {
    return this.#poll(output, false);
  }

  #poll(output: ReaderOutput<string>, onlyOne: boolean): 'more' | 'nothing' | 'end' {
    for (;;) {
      const current = this.#current ?? this.#nextSplit();
      if (current === undefined) return this.#noMoreSplits ? 'end' : 'nothing';
      const { lines, split } = current;
      if (!lines.hasLine()) {
        if (!lines.isAtEnd) return 'nothing';
        this.#finishSplit(lines);
        output.releaseSplit(split.id);
        continue;
      }
      const allowed = Math.min(onlyOne ? 1 : Infinity, this.#pace.allowed());
      if (allowed === 0) return 'nothing';
      const taken = this.#emit(output, current, allowed);
      this.#pace.take(taken);
      if (onlyOne || output.isFull) return 'more';
    }
  }

  /** At least the line that is there; answers how many. */
  #emit(output: ReaderOutput<string>, { lines, split }: OpenSplit, limit: number): number {
    let count = 0;
    do {
      count += 1;
      output.collect(lines.takeLine(), undefined, split.id);
    } while (!output.isFull && count < limit && lines.hasLine());
    return count;
  }

  #nextSplit(): OpenSplit | undefined {
    const split = this.#queue.shift();
    if (split === undefined) {
      if (!this.#isSplitRequested && !this.#noMoreSplits) {
        this.#isSplitRequested = true;
        this.#context.requestSplit();
      }
      return undefined;
    }
    const lines = new LineReader(split, {
      maxLineBytes: this.#options.maxLineBytes,
      onData: () => {
        this.#context.wakeUp();
      },
      onError: (error) => {
        this.#context.fail(error);
      },
    });
    this.#current = { split, lines };
    return this.#current;
  }

  #finishSplit(lines: LineReader): void {
    this.#current = undefined;
    const closing = lines.close();
    this.#closing.add(closing);
    void closing.finally(() => this.#closing.delete(closing));
  }

  addSplits(splits: readonly FileSplit[]): void {
    this.#isSplitRequested = false;
    this.#queue.push(...splits);
    // Restored at another parallelism a reader may get splits of several old ones.
    this.#queue.sort((a, b) => a.index - b.index);
    this.#context.wakeUp();
  }

  notifyNoMoreSplits(): void {
    this.#noMoreSplits = true;
    this.#context.wakeUp();
  }

  snapshotState(): FileSplit[] {
    if (this.#current === undefined) return [...this.#queue];
    const { split, lines } = this.#current;
    const { position } = lines;
    return [{ ...split, ...(position !== undefined && { position }) }, ...this.#queue];
  }

  async close(): Promise<void> {
    this.#pace.close();
    if (this.#current !== undefined) this.#finishSplit(this.#current.lines);
    await Promise.all(this.#closing);
  }
}
