/** The reader of DataGeneratorSource: the loop every record of a generated stream begins in. */
import type { ReaderOutput, SourceReader, SourceReaderContext } from '../api/source.js';
import { ReaderPace } from './rate-limiter.js';

/**
 * The indices `next`, `next + stride`... below `end`. Strided rather than cut into ranges, so that
 * subtasks advance side by side and event time with them.
 */
export interface GeneratorSplit {
  readonly id: string;
  readonly next: number;
  readonly stride: number;
  readonly end: number;
}

interface OpenSplit {
  readonly id: string;
  next: number;
  readonly stride: number;
  readonly end: number;
}

type Generate<T> = (index: number) => T;

/** Emits records of a split until the output is full, the split is exhausted or `limit` are emitted; answers how many. */
type Loop<T> = (
  output: ReaderOutput<T>,
  split: OpenSplit,
  generate: Generate<T>,
  limit: number,
) => number;

let loops = 0;

/**
 * A loop of its own for each reader. V8 keeps what it learns about calls by source text: readers that shared one
 * would share that too, and none of their chains would be inlined. The position is moved on before a record is
 * handed out, so that it is exact wherever the loop ends.
 */
function createLoop<T>(): Loop<T> {
  loops += 1;
  const body = `
    const { id, stride, end } = split;
    let count = 0;
    for (let index = split.next; index < end && count < limit; index += stride) {
      split.next = index + stride;
      count += 1;
      output.collect(generate(index), undefined, id);
      if (output.isFull) break;
    }
    return count;
    //# sourceURL=millrace/generator-loop-${loops}.js`;
  // eslint-disable-next-line @typescript-eslint/no-implied-eval -- the text is ours alone
  return new Function('output', 'split', 'generate', 'limit', body) as Loop<T>;
}

export class GeneratorReader<T> implements SourceReader<T, GeneratorSplit> {
  readonly #context: SourceReaderContext;
  readonly #generate: Generate<T>;
  readonly #pace: ReaderPace;
  readonly #loop = createLoop<T>();
  /** Unfinished splits, taken in turn. */
  readonly #splits: OpenSplit[] = [];
  #turn = 0;
  #noMoreSplits = false;

  /** `recordsPerSecond` of this subtask; 0: no limit. */
  constructor(context: SourceReaderContext, generate: Generate<T>, recordsPerSecond: number) {
    this.#context = context;
    this.#generate = generate;
    this.#pace = new ReaderPace(context, recordsPerSecond);
  }

  start(): void {}

  pollNext(output: ReaderOutput<T>): 'more' | 'nothing' | 'end' {
    return this.#poll(output, 1);
  }

  pollBatch(output: ReaderOutput<T>): 'more' | 'nothing' | 'end' {
    return this.#poll(output, Number.MAX_SAFE_INTEGER);
  }

  #poll(output: ReaderOutput<T>, atMost: number): 'more' | 'nothing' | 'end' {
    let left = atMost;
    for (;;) {
      const split = this.#currentSplit(output);
      if (split === undefined) return this.#noMoreSplits ? 'end' : 'nothing';
      const allowed = Math.min(left, this.#pace.allowed());
      if (allowed === 0) return 'nothing';
      // Several splits (after a restore at another parallelism) advance side by side, and event time with them.
      const limit = this.#splits.length > 1 ? 1 : allowed;
      const count = this.#loop(output, split, this.#generate, limit);
      this.#pace.take(count);
      this.#turn += 1;
      left -= count;
      if (left <= 0 || output.isFull) return 'more';
    }
  }

  /** Drops finished splits on the way. */
  #currentSplit(output: ReaderOutput<T>): OpenSplit | undefined {
    while (this.#splits.length > 0) {
      const at = this.#turn % this.#splits.length;
      const split = this.#splits[at]!;
      if (split.next < split.end) return split;
      this.#splits.splice(at, 1);
      output.releaseSplit(split.id);
    }
    return undefined;
  }

  addSplits(splits: readonly GeneratorSplit[]): void {
    this.#splits.push(...splits.map(({ id, next, stride, end }) => ({ id, next, stride, end })));
    this.#context.wakeUp();
  }

  notifyNoMoreSplits(): void {
    this.#noMoreSplits = true;
    this.#context.wakeUp();
  }

  snapshotState(): GeneratorSplit[] {
    return this.#splits.map((split) => ({ ...split }));
  }

  close(): void {
    this.#pace.close();
  }
}
