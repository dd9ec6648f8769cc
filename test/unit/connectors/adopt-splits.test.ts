/** What readers were given after the snapshot an enumerator is restored from is not handed out once more. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import t, { type Test } from 'tap';
import type { Source, SplitEnumerator, SplitEnumeratorContext } from '../../../lib/api/source.js';
import { DataGeneratorSource } from '../../../lib/connectors/datagen-source.js';
import { FileSource } from '../../../lib/connectors/file-source.js';

interface Split {
  readonly id: string;
}
type AnySource = Source<unknown, Split, unknown>;

/** An enumerator and, in order, what it gave to whom; what it does in the background is done when awaited. */
class Run {
  readonly given: { readonly subtask: number; readonly splits: readonly Split[] }[] = [];
  readonly ended = new Set<number>();
  readonly enumerator: SplitEnumerator<Split, unknown>;
  background: (() => Promise<void> | void)[] = [];

  constructor(source: AnySource, parallelism: number, state?: { readonly of: unknown }) {
    const context: SplitEnumeratorContext<Split> = {
      parallelism,
      registeredReaders: () => [],
      assignSplits: (subtask, splits) => this.given.push({ subtask, splits }),
      signalNoMoreSplits: (subtask) => this.ended.add(subtask),
      callAsync: (fn) => this.background.push(fn),
    };
    this.enumerator =
      state === undefined
        ? source.createEnumerator(context)
        : source.restoreEnumerator(context, JSON.parse(JSON.stringify(state.of)));
  }

  async settle(): Promise<void> {
    for (const fn of this.background.splice(0)) await fn();
  }

  async drain(parallelism: number): Promise<void> {
    for (let subtask = 0; subtask < parallelism; subtask += 1) this.enumerator.addReader(subtask);
    for (let round = 0; this.ended.size < parallelism; round += 1) {
      if (round > 1000) throw new Error('it gives no end');
      for (let subtask = 0; subtask < parallelism; subtask += 1) {
        this.enumerator.handleSplitRequest(subtask);
      }
      await this.settle();
    }
  }
}

/** Shuffled by its keys; ties keep their order. */
function shuffled<T>(items: readonly T[], keys: readonly number[]): T[] {
  const keyOf = (i: number): number => keys[i % keys.length] ?? 0;
  return items
    .map((item, i) => ({ item, key: keyOf(i) }))
    .sort((a, b) => a.key - b.key)
    .map(({ item }) => item);
}

const idsOf = (given: Run['given']): string[] =>
  given.flatMap(({ splits }) => splits.map(({ id }) => id));

async function checkAdoption(
  t: Test,
  source: AnySource,
  run: {
    readonly parallelism: number;
    readonly asks: readonly number[];
    readonly snapshotAt: number;
    readonly listsBefore: boolean;
    readonly keys: readonly number[];
  },
): Promise<void> {
  const { parallelism, asks, snapshotAt, listsBefore, keys } = run;
  const first = new Run(source, parallelism);
  await first.enumerator.start();
  if (listsBefore) await first.settle();
  let snapshot: unknown;
  let seen = 0;
  for (const [step, ask] of [...asks, 0].entries()) {
    if (step === Math.min(snapshotAt, asks.length)) {
      snapshot = first.enumerator.snapshotState(1);
      seen = first.given.length;
    }
    if (step === asks.length) break;
    const subtask = ask % parallelism;
    // A reader registers when it starts, so some do after the snapshot.
    if (asks.findIndex((one) => one % parallelism === subtask) === step) {
      first.enumerator.addReader(subtask);
    }
    first.enumerator.handleSplitRequest(subtask);
    await first.settle();
  }
  const covered = first.given.slice(0, seen);
  const after = first.given.slice(seen);

  const second = new Run(source, parallelism, { of: snapshot });
  await second.enumerator.start();
  const bySubtask = Array.from({ length: parallelism }, (_, subtask) => ({
    subtask,
    splits: after.filter((one) => one.subtask === subtask).flatMap(({ splits }) => splits),
  }));
  for (const { subtask, splits } of shuffled(bySubtask, keys)) {
    if (splits.length > 0) second.enumerator.adoptSplits?.(splits, subtask);
  }
  await second.settle();
  await second.drain(parallelism);

  const complete = new Run(source, parallelism);
  await complete.enumerator.start();
  await complete.drain(parallelism);
  t.strictSame(
    [...idsOf(covered), ...idsOf(after), ...idsOf(second.given)].sort(),
    idsOf(complete.given).sort(),
    'each split is with one reader',
  );
}

const runs = fc.record({
  parallelism: fc.integer({ min: 1, max: 4 }),
  asks: fc.array(fc.integer({ min: 0, max: 11 }), { maxLength: 12 }),
  snapshotAt: fc.integer({ min: 0, max: 12 }),
  listsBefore: fc.boolean(),
  keys: fc.array(fc.integer(), { minLength: 1, maxLength: 4 }),
});

t.test('byte ranges of files', async (t) => {
  const path = join(t.testdir(), 'log.txt');
  writeFileSync(path, 'x'.repeat(70));
  const source = FileSource.forLines(path, { splitBytes: 10 }) as unknown as AnySource;
  await fc.assert(
    fc.asyncProperty(runs, (run) => checkAdoption(t, source, run)),
    { numRuns: 100 },
  );
});

t.test('strides of a generator', async (t) => {
  const source = new DataGeneratorSource((index) => index, { count: 10 }) as unknown as AnySource;
  await fc.assert(
    fc.asyncProperty(runs, (run) => checkAdoption(t, source, run)),
    { numRuns: 100 },
  );
});
