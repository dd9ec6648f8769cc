/** Reads splits one after the other; the file is read ahead in the background, lines are cut on demand. */
import type { ReaderOutput, SourceReader, SourceReaderContext } from '../api/source.js';
import type { FileSplit } from './file-split.js';
import { LineReader } from './line-reader.js';
import { RateLimiter } from './rate-limiter.js';

export interface FileReaderOptions {
  /** Of this subtask; 0: no limit. */
  readonly recordsPerSecond: number;
  readonly maxLineBytes: number;
}

export class FileReader implements SourceReader<string, FileSplit> {
  readonly #context: SourceReaderContext;
  readonly #options: FileReaderOptions;
  readonly #limiter: RateLimiter | undefined;
  readonly #queue: FileSplit[] = [];
  #current: { readonly split: FileSplit; readonly lines: LineReader } | undefined;
  #isSplitRequested = false;
  #noMoreSplits = false;
  #cancelTimer: (() => void) | undefined;
  /** Closing of earlier splits' files. */
  readonly #closing = new Set<Promise<void>>();

  constructor(context: SourceReaderContext, options: FileReaderOptions) {
    this.#context = context;
    this.#options = options;
    if (options.recordsPerSecond > 0) this.#limiter = new RateLimiter(options.recordsPerSecond);
  }

  start(): void {}

  pollNext(output: ReaderOutput<string>): 'more' | 'nothing' | 'end' {
    if (this.#cancelTimer !== undefined) return 'nothing';
    const current = this.#current ?? this.#nextSplit();
    if (current === undefined) return this.#noMoreSplits ? 'end' : 'nothing';
    if (!current.lines.hasLine()) {
      if (!current.lines.isAtEnd) return 'nothing';
      this.#finishSplit(current.lines);
      output.releaseSplit(current.split.id);
      return 'more';
    }
    if (!this.#mayEmit()) return 'nothing';
    output.collect(current.lines.takeLine(), undefined, current.split.id);
    return 'more';
  }

  #nextSplit(): { readonly split: FileSplit; readonly lines: LineReader } | undefined {
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

  #mayEmit(): boolean {
    const waitMs = this.#limiter?.tryTake(this.#context.now()) ?? 0;
    if (waitMs === 0) return true;
    this.#cancelTimer = this.#context.setTimer(waitMs, () => {
      this.#cancelTimer = undefined;
      this.#context.wakeUp();
    });
    return false;
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
    this.#cancelTimer?.();
    if (this.#current !== undefined) this.#finishSplit(this.#current.lines);
    await Promise.all(this.#closing);
  }
}
