/** Records computed from their index: the same again after a restore, at any parallelism. */
import { MillraceError } from '../base/errors.js';
import { userFunctions } from '../graph/function-digest.js';
import type {
  Boundedness,
  Source,
  SourceReader,
  SourceReaderContext,
  SplitEnumerator,
  SplitEnumeratorContext,
} from '../api/source.js';
import { GeneratorReader, type GeneratorSplit } from './generator-reader.js';

export interface DataGeneratorOptions {
  /** Of the whole source, shared equally by its subtasks. Default (and 0): as fast as it goes. */
  readonly recordsPerSecond?: number;
  /** Number of records; absent: without end. */
  readonly count?: number;
}

/** Splits no reader has. */
export interface GeneratorEnumeratorState {
  readonly unassigned: readonly OwnedSplit[];
}

interface OwnedSplit {
  readonly owner: number;
  readonly split: GeneratorSplit;
}

/**
 * @example
 * new DataGeneratorSource((i) => ({ user: i % 10, at: i * 100 }), { recordsPerSecond: 1000 });
 */
export class DataGeneratorSource<T> implements Source<T, GeneratorSplit, GeneratorEnumeratorState> {
  readonly boundedness: Boundedness;
  readonly [userFunctions]: readonly unknown[];
  readonly #generate: (index: number) => T;
  readonly #end: number;
  readonly #recordsPerSecond: number;

  constructor(generate: (index: number) => T, options: DataGeneratorOptions = {}) {
    const { count, recordsPerSecond = 0 } = options;
    if (count !== undefined && !(Number.isSafeInteger(count) && count >= 0)) {
      throw new MillraceError('JOB_INVALID', `a generator's count is ${count}: expected 0 or more`);
    }
    if (!(recordsPerSecond >= 0 && Number.isFinite(recordsPerSecond))) {
      throw new MillraceError('JOB_INVALID', `a generator's rate is ${recordsPerSecond}`);
    }
    this.boundedness = count === undefined ? 'unbounded' : 'bounded';
    this[userFunctions] = [generate];
    this.#generate = generate;
    this.#end = count ?? Number.MAX_SAFE_INTEGER;
    this.#recordsPerSecond = recordsPerSecond;
  }

  createEnumerator(
    context: SplitEnumeratorContext<GeneratorSplit>,
  ): SplitEnumerator<GeneratorSplit, GeneratorEnumeratorState> {
    const stride = context.parallelism;
    const unassigned = Array.from({ length: stride }, (_, owner) => ({
      owner,
      split: { id: `${owner}/${stride}`, next: owner, stride, end: this.#end },
    }));
    return new GeneratorEnumerator(context, unassigned);
  }

  restoreEnumerator(
    context: SplitEnumeratorContext<GeneratorSplit>,
    state: GeneratorEnumeratorState,
  ): SplitEnumerator<GeneratorSplit, GeneratorEnumeratorState> {
    return new GeneratorEnumerator(context, state.unassigned);
  }

  createReader(context: SourceReaderContext): SourceReader<T, GeneratorSplit> {
    const rate = this.#recordsPerSecond / context.parallelism;
    return new GeneratorReader(context, this.#generate, rate);
  }
}

class GeneratorEnumerator implements SplitEnumerator<GeneratorSplit, GeneratorEnumeratorState> {
  readonly #context: SplitEnumeratorContext<GeneratorSplit>;
  #unassigned: OwnedSplit[];

  constructor(context: SplitEnumeratorContext<GeneratorSplit>, unassigned: readonly OwnedSplit[]) {
    this.#context = context;
    this.#unassigned = [...unassigned];
  }

  start(): void {}

  /** A reader gets all its splits at once: there is nothing to discover. */
  addReader(subtask: number): void {
    const isOwn = ({ owner }: OwnedSplit): boolean => owner % this.#context.parallelism === subtask;
    const own = this.#unassigned.filter(isOwn);
    this.#unassigned = this.#unassigned.filter((entry) => !isOwn(entry));
    if (own.length > 0) {
      this.#context.assignSplits(
        subtask,
        own.map(({ split }) => split),
      );
    }
    this.#context.signalNoMoreSplits(subtask);
  }

  handleSplitRequest(_subtask: number): void {}

  addSplitsBack(splits: readonly GeneratorSplit[], subtask: number): void {
    this.#unassigned.push(...splits.map((split) => ({ owner: subtask, split })));
  }

  adoptSplits(splits: readonly GeneratorSplit[]): void {
    const ids = new Set(splits.map(({ id }) => id));
    this.#unassigned = this.#unassigned.filter(({ split }) => !ids.has(split.id));
  }

  snapshotState(): GeneratorEnumeratorState {
    return { unassigned: [...this.#unassigned] };
  }

  close(): void {}
}
