/**
 * The source of random jobs and what stops and starts it. Nothing sleeps: a split that may not go on has nothing
 * to give until a checkpoint is complete, which is how the run knows that all before it is processed. No split goes on
 * before all of its subtask have given their first record: one that was never seen would hold back no watermark.
 */
import type {
  ReaderOutput,
  Source,
  SourceReader,
  SourceReaderContext,
  SplitEnumerator,
  SplitEnumeratorContext,
} from 'millrace';
import { Deferred } from '../../lib/base/deferred.js';
import type { GraphSpec, SourceSpec } from './random-graph.js';
import { recordOf } from './random-graph-functions.js';

interface GatedSplit {
  readonly id: string;
  readonly split: number;
  next: number;
  /** Phases up to here may be emitted; -1: the first record. */
  open: number;
}

export interface Interruption {
  /** `crash`: the job fails over by itself. `stop`: whoever waits for `reached` ends it. */
  readonly action: 'crash' | 'stop';
  /** Splits wait here, by id, until a checkpoint that contains the wait is complete. */
  readonly at: ReadonlyMap<string, number>;
}

/** Shared by all readers of a job, on one thread. */
export class SourceControl {
  readonly reached = new Deferred<void>();
  readonly #readers = new Set<GatedReader>();
  readonly #reports = new Map<number, Map<string, number>>();
  readonly #splits: ReadonlyMap<string, SourceSpec>;
  /** Of readers that are through. */
  readonly #ended: Set<string>;
  readonly phases: number;
  /** Checkpoints open the phases; without any all is open. */
  readonly isChecked: boolean;
  #interruption: Interruption | undefined;
  #mustCrash = false;

  constructor(spec: GraphSpec, interruption?: Interruption, before?: SourceControl) {
    this.phases = spec.phases;
    this.isChecked = spec.phases > 1 || interruption !== undefined || before !== undefined;
    this.#interruption = interruption;
    this.#splits = new Map(splitsOf(spec));
    this.#ended = new Set(before === undefined ? [] : before.#ended);
  }

  add(reader: GatedReader): void {
    this.#readers.add(reader);
  }
  remove(reader: GatedReader): void {
    this.#readers.delete(reader);
  }
  assigned(id: string): void {
    this.#ended.delete(id);
  }
  ended(id: string): void {
    this.#ended.add(id);
  }
  isPaused(id: string, position: number): boolean {
    return this.#interruption?.at.get(id) === position;
  }
  /** Once. */
  crashIfDue(): void {
    if (!this.#mustCrash) return;
    this.#mustCrash = false;
    throw new Error('the planned crash');
  }
  report(checkpointId: number, id: string, position: number): void {
    const reports = this.#reports.get(checkpointId) ?? new Map<string, number>();
    this.#reports.set(checkpointId, reports.set(id, position));
  }

  completed(checkpointId: number): void {
    const reports = this.#reports.get(checkpointId);
    if (reports === undefined) return;
    this.#reports.delete(checkpointId);
    this.#openNext(reports);
    const { at, action } = this.#interruption ?? {};
    if (at === undefined || ![...at].every(([id, position]) => reports.get(id) === position))
      return;
    if (action === 'crash') {
      this.#mustCrash = true;
      this.#interruption = undefined;
    }
    this.reached.resolve();
    for (const reader of this.#readers) reader.wakeUp();
  }

  /** The phase after the one that all splits were through with when the checkpoint was taken. */
  #openNext(reports: ReadonlyMap<string, number>): void {
    let done = this.phases - 1;
    for (const [id, { count }] of this.#splits) {
      if (this.#ended.has(id)) continue;
      const next = reports.get(id) ?? 0;
      done = Math.min(done, next === 0 ? -1 : Math.floor(next / count));
    }
    for (const reader of this.#readers) reader.openUntil(done);
  }
}

function splitsOf({ sources }: GraphSpec): [string, SourceSpec][] {
  return sources.flatMap((spec, index) =>
    Array.from({ length: spec.splits }, (_, split): [string, SourceSpec] => [
      `${index}.${split}`,
      spec,
    ]),
  );
}

/** The splits of a source that subtask `owner` of `parallelism` begins with. */
type Unassigned = readonly GatedSplit[];

export class GatedSource implements Source<unknown, GatedSplit, Unassigned> {
  readonly boundedness = 'bounded';
  readonly #data: Pick<GraphSpec, 'seed' | 'phases'>;
  readonly #spec: SourceSpec;
  readonly #index: number;
  readonly #control: SourceControl;

  constructor(data: GraphSpec, index: number, control: SourceControl) {
    this.#data = { seed: data.seed, phases: data.phases };
    this.#spec = data.sources[index]!;
    this.#index = index;
    this.#control = control;
  }

  createEnumerator(
    context: SplitEnumeratorContext<GatedSplit>,
  ): SplitEnumerator<GatedSplit, Unassigned> {
    const splits = Array.from({ length: this.#spec.splits }, (_, split) => ({
      id: `${this.#index}.${split}`,
      split,
      next: 0,
      open: this.#control.isChecked ? -1 : this.#data.phases - 1,
    }));
    return this.restoreEnumerator(context, splits);
  }

  restoreEnumerator(
    context: SplitEnumeratorContext<GatedSplit>,
    state: Unassigned,
  ): SplitEnumerator<GatedSplit, Unassigned> {
    let unassigned = [...state];
    return {
      start: () => undefined,
      addReader: (subtask) => {
        const isOwn = ({ split }: GatedSplit): boolean => split % context.parallelism === subtask;
        const own = unassigned.filter(isOwn);
        unassigned = unassigned.filter((split) => !isOwn(split));
        if (own.length > 0) context.assignSplits(subtask, own);
        context.signalNoMoreSplits(subtask);
      },
      handleSplitRequest: () => undefined,
      addSplitsBack: (splits) => {
        unassigned.push(...splits);
      },
      adoptSplits: (splits) => {
        const ids = new Set(splits.map(({ id }) => id));
        unassigned = unassigned.filter(({ id }) => !ids.has(id));
      },
      snapshotState: () => [...unassigned],
      close: () => undefined,
    };
  }

  createReader(context: SourceReaderContext): SourceReader<unknown, GatedSplit> {
    const source = { spec: this.#spec, index: this.#index };
    const emitOf = (split: number, n: number): ReturnType<typeof recordOf> =>
      recordOf(this.#data, source, split, n);
    const reader = new GatedReader(context, this.#spec, this.#control, emitOf);
    if (!this.#spec.batch) return reader;
    // The other way to emit: many records a call.
    reader.pollBatch = (output) => {
      for (;;) {
        const outcome = reader.pollNext(output);
        if (outcome !== 'more' || output.isFull) return outcome;
      }
    };
    return reader;
  }
}

class GatedReader implements SourceReader<unknown, GatedSplit> {
  readonly #context: SourceReaderContext;
  readonly #spec: SourceSpec;
  readonly #control: SourceControl;
  readonly #recordOf: (split: number, n: number) => ReturnType<typeof recordOf>;
  readonly #splits: GatedSplit[] = [];
  #turn = 0;
  #noMoreSplits = false;
  #burst = 0;
  #cancelTimer: (() => void) | undefined;
  pollBatch?: (output: ReaderOutput<unknown>) => 'more' | 'nothing' | 'end';

  constructor(
    context: SourceReaderContext,
    spec: SourceSpec,
    control: SourceControl,
    ofSplit: (split: number, n: number) => ReturnType<typeof recordOf>,
  ) {
    this.#context = context;
    this.#spec = spec;
    this.#control = control;
    this.#recordOf = ofSplit;
  }

  start(): void {
    this.#control.add(this);
  }

  pollNext(output: ReaderOutput<unknown>): 'more' | 'nothing' | 'end' {
    this.#control.crashIfDue();
    const { count } = this.#spec;
    if (this.#isResting()) return 'nothing';
    for (let i = 0; i < this.#splits.length; i += 1) {
      this.#turn = (this.#turn + 1) % this.#splits.length;
      const split = this.#splits[this.#turn]!;
      if (!this.#mayEmit(split)) continue;
      const { value, timestamp } = this.#recordOf(split.split, split.next);
      // Before it is emitted: what comes of it may throw.
      split.next += 1;
      this.#burst += 1;
      output.collect(value, timestamp, split.id);
      return 'more';
    }
    const last = count * this.#control.phases;
    const isThrough = this.#splits.every(
      ({ next, id }) => next === last && !this.#isHeld(id, last),
    );
    if (!this.#noMoreSplits || !isThrough) return 'nothing';
    for (const { id } of this.#splits) this.#control.ended(id);
    return 'end';
  }

  #isResting(): boolean {
    if (this.#burst < this.#spec.burst) return false;
    this.#cancelTimer ??= this.#context.setTimer(1, () => {
      this.#cancelTimer = undefined;
      this.#burst = 0;
      this.#context.wakeUp();
    });
    return true;
  }

  #mayEmit({ id, next, open }: GatedSplit): boolean {
    if (this.#isHeld(id, next)) return false;
    if (next === 0) return true;
    if (!this.#haveAllBegun) return false;
    const phase = Math.floor(next / this.#spec.count);
    return phase < this.#control.phases && phase <= open;
  }

  #isHeld(id: string, position: number): boolean {
    return this.#control.isPaused(id, position);
  }

  get #haveAllBegun(): boolean {
    for (const { next } of this.#splits) if (next === 0) return false;
    return true;
  }

  addSplits(splits: readonly GatedSplit[]): void {
    for (const split of splits) {
      this.#control.assigned(split.id);
      this.#splits.push({ ...split });
    }
    this.#context.wakeUp();
  }

  notifyNoMoreSplits(): void {
    this.#noMoreSplits = true;
    this.#context.wakeUp();
  }

  snapshotState(checkpointId: number): GatedSplit[] {
    for (const { id, next } of this.#splits) this.#control.report(checkpointId, id, next);
    return this.#splits.map((split) => ({ ...split }));
  }

  notifyCheckpointComplete(checkpointId: number): void {
    this.#control.completed(checkpointId);
  }

  wakeUp(): void {
    this.#context.wakeUp();
  }

  openUntil(phase: number): void {
    for (const split of this.#splits) split.open = Math.max(split.open, phase);
    this.#context.wakeUp();
  }

  close(): void {
    this.#cancelTimer?.();
    this.#control.remove(this);
  }
}
