import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import t from 'tap';
import type { SplitEnumeratorContext } from '../../../lib/api/source.js';
import type { FileEnumeratorState } from '../../../lib/connectors/file-enumerator.js';
import { FileEnumerator, findSplits } from '../../../lib/connectors/file-enumerator.js';
import { FileSource } from '../../../lib/connectors/file-source.js';
import type { FileSplit } from '../../../lib/connectors/file-split.js';
import { LineReader } from '../../../lib/connectors/line-reader.js';
import { ReaderHarness } from '../../support/reader-harness.js';

/** What a line is, said in another way than the reader does it. */
function linesOf(content: string): string[] {
  const lines = content.split('\n');
  const last = lines.pop();
  const ended = lines.map((line) => (line.endsWith('\r') ? line.slice(0, -1) : line));
  return last === undefined || last === '' ? ended : [...ended, last];
}

async function readSplit(
  split: FileSplit,
  chunkBytes: number,
): Promise<{ text: string; position: number }[]> {
  let wake: () => void = () => undefined;
  let failure: unknown;
  const reader = new LineReader(split, {
    maxLineBytes: 1 << 20,
    chunkBytes,
    onData: () => wake(),
    onError: (error) => {
      failure = error;
      wake();
    },
  });
  const lines: { text: string; position: number }[] = [];
  for (;;) {
    const woken = new Promise<void>((resolve) => (wake = resolve));
    if (reader.hasLine()) {
      const position = reader.position;
      if (position === undefined) throw new Error('a found line has a position');
      lines.push({ text: reader.takeLine(), position });
    } else if (reader.isAtEnd) break;
    else await woken;
    if (failure !== undefined) throw failure as Error;
  }
  await reader.close();
  return lines;
}

const textArbitrary = fc
  .array(
    fc.tuple(
      fc.string({ unit: fc.constantFrom('a', 'ß', '漢', '😀', '\r', ' '), maxLength: 12 }),
      fc.constantFrom('\n', '\r\n'),
    ),
    { maxLength: 30 },
  )
  .chain((lines) =>
    fc
      .string({ unit: fc.constantFrom('z', 'é', '\r'), maxLength: 5 })
      .map((last) => lines.map(([text, end]) => text + end).join('') + last),
  );

t.test('the splits of a file give each of its lines once, whatever sizes they have', async (t) => {
  const folder = t.testdir();
  let run = 0;
  await fc.assert(
    fc.asyncProperty(
      textArbitrary,
      fc.integer({ min: 1, max: 64 }),
      fc.integer({ min: 1, max: 48 }),
      async (content, splitBytes, chunkBytes) => {
        const path = join(folder, `f${run++}.txt`);
        writeFileSync(path, content);
        const found: string[] = [];
        for (const split of await findSplits(path, splitBytes)) {
          found.push(...(await readSplit(split, chunkBytes)).map(({ text }) => text));
        }
        t.strictSame(found, linesOf(content));
      },
    ),
    { numRuns: 150 },
  );
});

t.test('a reader restored from any position continues exactly there', async (t) => {
  const folder = t.testdir();
  let run = 0;
  await fc.assert(
    fc.asyncProperty(
      textArbitrary,
      fc.integer({ min: 1, max: 64 }),
      async (content, splitBytes) => {
        const path = join(folder, `f${run++}.txt`);
        writeFileSync(path, content);
        for (const split of await findSplits(path, splitBytes)) {
          const all = await readSplit(split, 16);
          for (const [index, { position }] of all.entries()) {
            const rest = await readSplit({ ...split, position }, 7);
            t.strictSame(rest, all.slice(index));
          }
        }
      },
    ),
    { numRuns: 40 },
  );
});

function enumerate(
  input: { path: string; splitBytes: number },
  state?: FileEnumeratorState,
): {
  enumerator: FileEnumerator;
  assigned: [number, number[]][];
  ended: number[];
  discovery: Promise<void>;
} {
  const assigned: [number, number[]][] = [];
  const ended: number[] = [];
  let discovery: Promise<void> = Promise.resolve();
  const context: SplitEnumeratorContext<FileSplit> = {
    parallelism: 2,
    registeredReaders: () => [],
    assignSplits: (subtask, splits) => assigned.push([subtask, splits.map(({ index }) => index)]),
    signalNoMoreSplits: (subtask) => ended.push(subtask),
    callAsync: (fn) => {
      discovery = fn();
    },
  };
  const enumerator = new FileEnumerator(context, input, state);
  enumerator.start();
  return { enumerator, assigned, ended, discovery };
}

t.test('splits go out in ascending order, those given back too', async (t) => {
  const path = join(t.testdir(), 'log.txt');
  writeFileSync(path, 'x'.repeat(50));
  const { enumerator, assigned, ended, discovery } = enumerate({ path, splitBytes: 10 });
  enumerator.handleSplitRequest(1);
  t.strictSame(assigned, [], 'nobody is answered before the files are known');
  await discovery;
  enumerator.handleSplitRequest(0);
  enumerator.handleSplitRequest(1);
  t.strictSame(assigned, [
    [1, [0]],
    [0, [1]],
    [1, [2]],
  ]);
  const splits = await findSplits(path, 10);
  enumerator.addSplitsBack([splits[1]!], 0);
  for (const subtask of [0, 1, 0, 1]) enumerator.handleSplitRequest(subtask);
  t.strictSame(assigned.slice(3), [
    [0, [1]],
    [1, [3]],
    [0, [4]],
  ]);
  t.strictSame(ended, [1]);

  const restored = enumerate(
    { path, splitBytes: 10 },
    { isDiscovered: true, remaining: splits.slice(3) },
  );
  restored.enumerator.handleSplitRequest(0);
  t.strictSame(restored.assigned, [[0, [3]]], 'a restored enumerator does not list again');
  t.strictSame(restored.enumerator.snapshotState().remaining, splits.slice(4));
});

t.test('a directory is read in the order of names, hidden files apart', async (t) => {
  const folder = t.testdir();
  mkdirSync(join(folder, 'b'));
  for (const name of ['c.txt', 'a.txt', '.part.inprogress', '_SUCCESS', 'b/x.txt']) {
    writeFileSync(join(folder, name), name);
  }
  const splits = await findSplits(folder, 100);
  t.strictSame(
    splits.map(({ path }) => path),
    ['a.txt', 'b/x.txt', 'c.txt'].map((name) => join(folder, name)),
  );
});

t.test('a missing input fails with an error that names it', async (t) => {
  const path = join(t.testdir(), 'missing.log');
  await t.rejects(enumerate({ path, splitBytes: 1 }).discovery, {
    code: 'FILE_NOT_FOUND',
    message: new RegExp(path),
  });
});

t.test('a reader asks for one split after the other and ends after the last', async (t) => {
  const path = join(t.testdir(), 'log.txt');
  writeFileSync(path, 'one\ntwo\nthree\n');
  const splits = await findSplits(path, 5);
  const harness = new ReaderHarness((context) => FileSource.forLines(path).createReader(context));
  harness.onSplitRequest = () => {
    const next = splits.shift();
    if (next === undefined) harness.reader.notifyNoMoreSplits();
    else harness.reader.addSplits([next]);
  };
  t.strictSame(await harness.readAll(), ['one', 'two', 'three']);
  t.strictSame(harness.reader.snapshotState(1), []);
  t.equal(harness.released.length, 3);
  await harness.reader.close();
});

t.test('a reader stopped in a batch and restored goes on with the next line', async (t) => {
  const path = join(t.testdir(), 'log.txt');
  const lines = Array.from({ length: 60 }, (_, i) => 'x'.repeat(i % 7) + String(i));
  writeFileSync(path, lines.join('\n'));
  for (const [taken, batches] of [
    [0, [3]],
    [7, [1, 2]],
    [30, [7]],
    [59, [100]],
  ] as const) {
    const source = FileSource.forLines(path);
    const first = new ReaderHarness((context) => source.createReader(context));
    first.reader.addSplits(await findSplits(path, 50));
    first.reader.notifyNoMoreSplits();
    const found = await first.read(taken, batches);
    const state = JSON.parse(JSON.stringify(first.reader.snapshotState(1))) as FileSplit[];
    await first.reader.close();
    const second = new ReaderHarness((context) => source.createReader(context));
    second.reader.addSplits(state);
    second.reader.notifyNoMoreSplits();
    t.strictSame([...found, ...(await second.read(Infinity, batches))], lines);
    await second.reader.close();
  }
});

t.test('a checkpoint in the middle of a split holds the offset of the next line', async (t) => {
  const path = join(t.testdir(), 'log.txt');
  writeFileSync(path, 'one\ntwo\nthree\n');
  const splits = await findSplits(path, 100);
  const first = new ReaderHarness((context) => FileSource.forLines(path).createReader(context));
  first.reader.addSplits(splits);
  first.reader.notifyNoMoreSplits();
  t.strictSame(await first.read(2), ['one', 'two']);
  const state = first.reader.snapshotState(1);
  t.match(state, [{ position: 8 }]);
  await first.reader.close();
  const second = new ReaderHarness((context) => FileSource.forLines(path).createReader(context));
  second.reader.addSplits(JSON.parse(JSON.stringify(state)) as FileSplit[]);
  second.reader.notifyNoMoreSplits();
  t.strictSame(await second.readAll(), ['three']);
  await second.reader.close();
});

t.test('bad files fail the task with their path', async (t) => {
  const folder = t.testdir();
  const long = join(folder, 'long.txt');
  writeFileSync(long, `short\n${'x'.repeat(200_000)}\n`);
  const limited = FileSource.forLines(long, { maxLineBytes: 1000 });
  const harness = new ReaderHarness((context) => limited.createReader(context));
  harness.reader.addSplits(await findSplits(long, 1e9));
  await t.rejects(harness.readAll(), {
    code: 'RECORD_UNSUPPORTED',
    message: /line at byte 6 of .*long.txt/,
  });
  await harness.reader.close();

  const shrunk = join(folder, 'shrunk.txt');
  writeFileSync(shrunk, 'a\nb\nc\n');
  const splits = await findSplits(shrunk, 100);
  writeFileSync(shrunk, 'a\n');
  const gone = { ...splits[0]!, path: join(folder, 'gone.txt') };
  const cases = [
    [splits[0]!, { code: 'IO', message: /shrunk.txt has become shorter/ }],
    [gone, { code: 'FILE_NOT_FOUND', message: /gone.txt/ }],
  ] as const;
  for (const [split, expected] of cases) {
    const reading = new ReaderHarness((context) =>
      FileSource.forLines(folder).createReader(context),
    );
    reading.reader.addSplits([split]);
    await t.rejects(reading.readAll(), expected);
    await reading.reader.close();
  }
});

t.test('a rate holds back a reader until its time has come', async (t) => {
  const path = join(t.testdir(), 'log.txt');
  writeFileSync(path, 'a\nb\nc\nd\n');
  const source = FileSource.forLines(path, { recordsPerSecond: 20 });
  const harness = new ReaderHarness((context) => source.createReader(context), { parallelism: 2 });
  harness.reader.addSplits(await findSplits(path, 100));
  harness.reader.notifyNoMoreSplits();
  t.strictSame(await harness.readAll(), ['a', 'b', 'c', 'd']);
  t.equal(harness.now, 300, '10 a second of this subtask: the first at once');
  const batching = new ReaderHarness((context) => source.createReader(context), { parallelism: 2 });
  batching.reader.addSplits(await findSplits(path, 100));
  batching.reader.notifyNoMoreSplits();
  t.strictSame(await batching.read(Infinity, [10]), ['a', 'b', 'c', 'd']);
  t.equal(batching.now, 300, 'in batches too');
  await batching.reader.close();
  await harness.reader.close();
});
