import { createHash } from 'node:crypto';
import { readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import type { Committer, SinkContext } from '../../../lib/api/sink.js';
import type { FileCommittable } from '../../../lib/connectors/file-committer.js';
import {
  type FileOperations,
  nodeFileOperations,
} from '../../../lib/connectors/file-operations.js';
import { FileSink, type FileSinkOptions } from '../../../lib/connectors/file-sink.js';
import type { FileSinkWriter } from '../../../lib/connectors/file-sink-writer.js';

const jobId = 'a'.repeat(32);

function contextOf(changes: Partial<SinkContext> = {}): SinkContext {
  return {
    jobId,
    operatorId: 'b'.repeat(32),
    subtaskIndex: 0,
    parallelism: 1,
    generation: 0,
    attemptId: `v_0_${changes.generation ?? 0}_x`,
    now: () => 0,
    ...changes,
  };
}

interface Opened {
  readonly writer: FileSinkWriter<string>;
  readonly committer: Committer<FileCommittable>;
}

async function openSink(
  directory: string,
  options: {
    context?: Partial<SinkContext>;
    files?: Partial<FileOperations>;
    sink?: FileSinkOptions<string>;
  } = {},
): Promise<Opened> {
  const sink = FileSink.on<string>(
    { ...nodeFileOperations, ...options.files },
    directory,
    options.sink,
  );
  const writer = sink.createWriter(contextOf(options.context)) as FileSinkWriter<string>;
  await writer.open();
  return { writer, committer: sink.createCommitter() };
}

const visible = (directory: string): string[] =>
  readdirSync(directory)
    .filter((name) => !name.startsWith('.'))
    .sort();
const hidden = (directory: string): string[] =>
  readdirSync(directory)
    .filter((name) => name.startsWith('.'))
    .sort();
const contents = (directory: string): string =>
  visible(directory)
    .map((name) => readFileSync(join(directory, name), 'utf8'))
    .join('');

const noSpace = (): Error =>
  Object.assign(new Error('ENOSPC: no space left on device'), { code: 'ENOSPC' });

t.test('lines are hidden until their checkpoint is committed', async (t) => {
  const directory = join(t.testdir(), 'deep', 'out');
  const { writer, committer } = await openSink(directory);
  writer.write('one');
  writer.write('two');
  const first = writer.prepareCommit(1);
  writer.write('three');
  await writer.sync();
  t.strictSame(visible(directory), []);
  t.match(hidden(directory), [/^\.part-a{32}-0-0-[0-9a-f]{12}-0\.1\.pending$/]);
  t.strictSame(await committer.commit(JSON.parse(JSON.stringify(first)) as FileCommittable[]), [
    'committed',
  ]);
  t.equal(contents(directory), 'one\ntwo\n');
  t.match(visible(directory), [/^part-a{32}-0-0-[0-9a-f]{12}-0\.txt$/]);
  const second = writer.prepareCommit(2);
  t.strictSame(writer.prepareCommit(3), [], 'no output, no file');
  await writer.sync();
  await committer.commit(second);
  t.equal(contents(directory), 'one\ntwo\nthree\n');
  await writer.close();
  t.strictSame(hidden(directory), []);
});

t.test('a commit may be repeated, before or after a crash', async (t) => {
  const directory = t.testdir();
  const { writer, committer } = await openSink(directory, {
    sink: { suffix: '.json', encoder: (v) => JSON.stringify({ v }) },
  });
  writer.write('x');
  const committables = writer.prepareCommit(1);
  await writer.sync();
  await writer.close();
  t.strictSame(await committer.commit(committables), ['committed']);
  t.strictSame(await committer.commit(committables), ['alreadyCommitted']);
  t.equal(contents(directory), '{"v":"x"}\n');
});

t.test('output that is neither pending nor committed is an error, never silence', async (t) => {
  const directory = t.testdir();
  const { writer, committer } = await openSink(directory);
  writer.write('x');
  const [committable] = writer.prepareCommit(1);
  await writer.sync();
  rmSync(committable!.pending);
  await t.rejects(committer.commit([committable!]), {
    code: 'COMMITTABLE_LOST',
    details: { pending: committable!.pending },
  });
  writeFileSync(committable!.target, 'another file');
  await t.rejects(committer.commit([committable!]), {
    code: 'COMMITTABLE_LOST',
    message: /has 12 bytes, not 2/,
  });
  await writer.close();
});

t.test(
  'a full disk at commit asks to try again; the others of the batch are committed',
  async (t) => {
    const directory = t.testdir();
    let isFull = true;
    const files: Partial<FileOperations> = {
      rename: async (from, to) => {
        if (isFull && to.endsWith('-0.txt')) throw noSpace();
        renameSync(from, to);
      },
    };
    const { writer, committer } = await openSink(directory, { files });
    writer.write('first');
    const first = writer.prepareCommit(1);
    writer.write('second');
    const committables = [...first, ...writer.prepareCommit(2)];
    await writer.sync();
    t.strictSame(await committer.commit(committables), ['retry', 'committed']);
    isFull = false;
    t.strictSame(await committer.commit(committables), ['committed', 'alreadyCommitted']);
    t.equal(contents(directory), 'first\nsecond\n');
    await writer.close();
  },
);

t.test('a rename whose directory could not be synced counts as not done', async (t) => {
  const directory = t.testdir();
  let failures = 1;
  const synced: string[] = [];
  const files: Partial<FileOperations> = {
    sync: async (path) => {
      if (path === directory && synced.length > 1 && failures-- > 0) throw noSpace();
      synced.push(path);
      await nodeFileOperations.sync(path);
    },
  };
  const { writer, committer } = await openSink(directory, { files });
  writer.write('x');
  const committables = writer.prepareCommit(1);
  await writer.sync();
  t.strictSame(synced, [committables[0]!.pending, directory], 'file and directory before the ack');
  t.strictSame(await committer.commit(committables), ['retry']);
  t.strictSame(await committer.commit(committables), ['alreadyCommitted']);
  t.equal(synced.at(-1), directory, 'the directory again for the rename');
  await writer.close();
});

t.test('a full disk while writing fails with DISK_FULL', async (t) => {
  const directory = t.testdir();
  let isFull = true;
  const { writer } = await openSink(directory, {
    files: {
      writeSync: (file, bytes) => {
        if (isFull) throw noSpace();
        return nodeFileOperations.writeSync(file, bytes);
      },
    },
  });
  writer.write('x');
  t.throws(() => writer.prepareCommit(1), {
    code: 'DISK_FULL',
    retry: 'backoff',
    message: /no space left to write/,
  });
  isFull = false;
  await writer.close();
  t.strictSame(readdirSync(directory), []);
});

t.test('short writes are continued, large output is written before the barrier', async (t) => {
  const directory = t.testdir();
  const { writer, committer } = await openSink(directory, {
    files: {
      writeSync: (file, bytes) => nodeFileOperations.writeSync(file, bytes.subarray(0, 1000)),
    },
  });
  const line = 'ß'.repeat(1000);
  for (let i = 0; i < 100; i += 1) writer.write(line);
  t.ok(hidden(directory).length === 1, 'not all is buffered');
  const committables = writer.prepareCommit(1);
  await writer.sync();
  await committer.commit(committables);
  t.equal(contents(directory), `${line}\n`.repeat(100));
  t.equal(committables[0]?.sizeBytes, 200_100);
  await writer.close();
});

t.test('a sync that failed is made up for by the next one', async (t) => {
  const directory = t.testdir();
  let failures = 1;
  const synced: string[] = [];
  const { writer } = await openSink(directory, {
    files: {
      sync: async (path) => {
        if (path.endsWith('.pending') && failures-- > 0) throw noSpace();
        synced.push(path);
      },
    },
  });
  writer.write('x');
  const [first] = writer.prepareCommit(1);
  const failedSync = writer.sync();
  writer.write('y');
  const [second] = writer.prepareCommit(2);
  const nextSync = writer.sync();
  await t.rejects(failedSync, { code: 'DISK_FULL' });
  await nextSync;
  t.strictSame(synced, [first!.pending, second!.pending, directory]);
  await writer.close();
});

t.test(
  'leftovers of dead attempts go, pending output up to the restored checkpoint stays',
  async (t) => {
    const directory = t.testdir();
    const digest = createHash('sha256').update(contextOf().operatorId).digest('hex').slice(0, 6);
    const name = (generation: number, subtask: number, rest: string, operator = digest): string =>
      `.part-${jobId}-${generation}-${subtask}-${operator}${'0'.repeat(6)}-${rest}`;
    const kept = [
      name(0, 0, '1.4.pending'),
      name(0, 1, '0.inprogress'),
      name(1, 0, '0.inprogress'),
      // Of another sink, whose region goes on: what its aborted checkpoint left belongs to its next one.
      name(0, 0, '2.inprogress', 'ffffff'),
      name(0, 0, '3.5.pending', 'ffffff'),
      `.part-${'c'.repeat(32)}-0-0-${'0'.repeat(12)}-0.inprogress`,
      `.other-${jobId}-0-0-${'0'.repeat(12)}-0.inprogress`,
      '.something-else',
    ];
    const removed = [
      name(0, 0, '2.inprogress'),
      name(0, 2, '0.inprogress'),
      name(0, 0, '3.5.pending'),
    ];
    for (const file of [...kept, ...removed]) writeFileSync(join(directory, file), '');
    const { writer } = await openSink(directory, {
      context: { generation: 1, parallelism: 2, restoredCheckpointId: 4 },
    });
    t.strictSame(hidden(directory), [...kept].sort());
    await writer.close();
  },
);

t.test(
  'what a cut-off attempt writes when it comes back goes when its successor closes',
  async (t) => {
    const directory = t.testdir();
    const cutOff = await openSink(directory);
    cutOff.writer.write('covered');
    const covered = cutOff.writer.prepareCommit(3);
    const context = { generation: 1, restoredCheckpointId: 3 };
    const successor = await openSink(directory, { context });
    cutOff.writer.write('in a checkpoint nobody waits for');
    cutOff.writer.prepareCommit(4);
    cutOff.writer.write('on');
    successor.writer.write('again');
    const own = successor.writer.prepareCommit(5);
    t.equal(hidden(directory).length, 3);
    await successor.writer.close();
    await successor.committer.commit([...covered, ...own]);
    t.equal(contents(directory), 'covered\nagain\n');
    t.strictSame(hidden(directory), []);
  },
);

t.test('a job that begins from nothing again keeps no pending output', async (t) => {
  const directory = t.testdir();
  const first = await openSink(directory);
  first.writer.write('of a checkpoint that never completed');
  first.writer.prepareCommit(1);
  await first.writer.sync();
  await first.writer.close();
  t.equal(hidden(directory).length, 1);
  const second = await openSink(directory, { context: { generation: 1, attemptId: 'v_0_1_y' } });
  t.strictSame(hidden(directory), []);
  await second.writer.close();
});

t.test('sinks of one task and attempts of one subtask never share a name', async (t) => {
  const directory = t.testdir();
  const all = await Promise.all(
    [
      {},
      { operatorId: 'd'.repeat(32) },
      { attemptId: 'v_0_0_y' },
      { generation: 1 },
      { subtaskIndex: 1, parallelism: 2 },
    ].map((context) => openSink(directory, { context })),
  );
  for (const { writer, committer } of all) {
    writer.write('x');
    const committables = writer.prepareCommit(1);
    await writer.sync();
    await committer.commit(committables);
    await writer.close();
  }
  t.equal(visible(directory).length, all.length);
});

t.test('names that would leave the directory or hide the output are refused', (t) => {
  for (const prefix of ['.hidden', 'a/b', '', 'x'.repeat(65)]) {
    t.throws(() => FileSink.forLines('/tmp/x', { prefix }), { code: 'JOB_INVALID' }, prefix);
  }
  t.throws(() => FileSink.forLines(''), { code: 'JOB_INVALID' });
  t.end();
});
