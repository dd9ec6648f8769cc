import fc from 'fast-check';
import t from 'tap';
import type { SplitEnumeratorContext } from '../../../lib/api/source.js';
import { CollectionSource } from '../../../lib/connectors/collection-source.js';
import { DataGeneratorSource } from '../../../lib/connectors/datagen-source.js';
import type { GeneratorSplit } from '../../../lib/connectors/generator-reader.js';
import { SequenceSource } from '../../../lib/connectors/sequence-source.js';
import { ReaderHarness } from '../../support/reader-harness.js';

/** Splits by subtask, as the enumerator hands them out. */
function assign(source: DataGeneratorSource<number>, parallelism: number): GeneratorSplit[][] {
  const assigned: GeneratorSplit[][] = Array.from({ length: parallelism }, () => []);
  const context: SplitEnumeratorContext<GeneratorSplit> = {
    parallelism,
    registeredReaders: () => [],
    assignSplits: (subtask, splits) => assigned[subtask]?.push(...splits),
    signalNoMoreSplits: () => undefined,
    callAsync: () => undefined,
  };
  const enumerator = source.createEnumerator(context);
  for (let subtask = 0; subtask < parallelism; subtask += 1) enumerator.addReader(subtask);
  t.strictSame(enumerator.snapshotState(1), { unassigned: [] });
  return assigned;
}

function readerOf<T>(
  source: DataGeneratorSource<T>,
  splits: readonly GeneratorSplit[],
  parallelism = 1,
): ReaderHarness<T, GeneratorSplit> {
  const harness = new ReaderHarness((context) => source.createReader(context), { parallelism });
  harness.reader.addSplits(splits);
  harness.reader.notifyNoMoreSplits();
  return harness;
}

t.test(
  'every index is generated once, at any parallelism and across a restore at another one',
  async (t) => {
    const small = fc.integer({ min: 1, max: 5 });
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 0, max: 60 }),
        small,
        small,
        fc.integer({ min: 0, max: 20 }),
        fc.option(fc.array(fc.integer({ min: 1, max: 9 }), { minLength: 1, maxLength: 4 }), {
          nil: undefined,
        }),
        async (count, before, after, taken, batches) => {
          const source = new DataGeneratorSource((index) => index, { count });
          const found: number[] = [];
          const kept: GeneratorSplit[] = [];
          for (const splits of assign(source, before)) {
            const harness = readerOf(source, splits);
            found.push(...(await harness.read(taken, batches)));
            kept.push(
              ...(JSON.parse(JSON.stringify(harness.reader.snapshotState(1))) as GeneratorSplit[]),
            );
          }
          for (let subtask = 0; subtask < after; subtask += 1) {
            const share = kept.filter((_, index) => index % after === subtask);
            found.push(...(await readerOf(source, share).read(Infinity, batches)));
          }
          t.strictSame(
            found.sort((a, b) => a - b),
            Array.from({ length: count }, (_, index) => index),
          );
        },
      ),
      { numRuns: 100 },
    );
  },
);

t.test('subtasks advance side by side', async (t) => {
  const source = new SequenceSource(10, 15);
  const [first, second] = assign(source, 2).map((splits) => readerOf(source, splits));
  t.strictSame(await first?.readAll(), [10, 12, 14]);
  t.strictSame(await second?.readAll(), [11, 13, 15]);
  t.strictSame(
    await readerOf(new SequenceSource(3, 2), assign(new SequenceSource(3, 2), 1).flat()).readAll(),
    [],
  );
});

t.test(
  'a batch ends where the output is full, and the position is that of the next record',
  async (t) => {
    const source = new SequenceSource(0, 99);
    const harness = readerOf(source, assign(source, 1).flat());
    for (let taken = 1; taken < 100; taken += 1) {
      t.strictSame(await harness.read(1, [1]), [taken - 1]);
      t.match(harness.reader.snapshotState(1), [{ next: taken, end: 100 }]);
    }
    const failing = new DataGeneratorSource((index): number => {
      if (index === 5) throw new Error('no');
      return index;
    });
    const broken = readerOf(failing, assign(failing, 1).flat());
    await t.rejects(broken.read(9, [9]), { message: 'no' });
    t.match(broken.reader.snapshotState(1), [{ next: 6 }]);

    const paced = new DataGeneratorSource((index) => index, { recordsPerSecond: 5000 });
    const pacing = readerOf(paced, assign(paced, 1).flat());
    t.equal((await pacing.read(5000, [1000])).length, 5000);
    t.ok(Math.abs(pacing.now - 1000) <= 20, `5000 records take a second, took ${pacing.now} ms`);
    pacing.now += 60_000;
    const before = pacing.now;
    await pacing.read(5000, [1000]);
    t.ok(pacing.now - before >= 850, 'a stall is not made up for by a burst');
  },
);

t.test('splits of a failed reader go to its next attempt', (t) => {
  const given: [number, string[]][] = [];
  const context: SplitEnumeratorContext<GeneratorSplit> = {
    parallelism: 2,
    registeredReaders: () => [],
    assignSplits: (subtask, splits) => given.push([subtask, splits.map(({ id }) => id)]),
    signalNoMoreSplits: () => undefined,
    callAsync: () => undefined,
  };
  const enumerator = new DataGeneratorSource((index) => index).createEnumerator(context);
  enumerator.addReader(1);
  t.strictSame(given, [[1, ['1/2']]]);
  enumerator.addSplitsBack([{ id: '1/2', next: 7, stride: 2, end: 100 }], 1);
  const restored = new DataGeneratorSource((index) => index).restoreEnumerator(
    context,
    enumerator.snapshotState(1),
  );
  restored.addReader(0);
  restored.addReader(1);
  t.strictSame(given.slice(1), [
    [0, ['0/2']],
    [1, ['1/2']],
  ]);
  t.end();
});

t.test('a rate is shared by the subtasks and kept on the wall clock', async (t) => {
  const source = new DataGeneratorSource((index) => index, { recordsPerSecond: 1000 });
  t.equal(source.boundedness, 'unbounded');
  const [splits] = assign(source, 2);
  const harness = readerOf(source, splits ?? [], 2);
  t.equal((await harness.read(500)).length, 500);
  t.ok(
    Math.abs(harness.now - 1000) <= 20,
    `500 records of this subtask take a second, took ${harness.now} ms`,
  );
  harness.now += 60_000;
  const before = harness.now;
  await harness.read(500);
  t.ok(harness.now - before >= 850, 'a stall is not made up for by a burst');
  await harness.reader.close();
});

t.test('bad arguments are refused', (t) => {
  t.throws(() => new DataGeneratorSource((i) => i, { count: -1 }), { code: 'JOB_INVALID' });
  t.throws(() => new DataGeneratorSource((i) => i, { recordsPerSecond: Number.NaN }), {
    code: 'JOB_INVALID',
  });
  t.throws(() => new SequenceSource(0.5, 2), { code: 'JOB_INVALID' });
  const values = ['a', 'b'];
  const source = new CollectionSource(values);
  values.pop();
  t.equal(source.boundedness, 'bounded');
  return readerOf(source, [{ id: '0/1', next: 0, stride: 1, end: 2 }])
    .readAll()
    .then((found) => t.strictSame(found, ['a', 'b'], 'a collection is copied'));
});
