import { createHash } from 'node:crypto';
import {
  appendFile,
  mkdir,
  mkdtemp,
  readdir,
  rm,
  symlink,
  truncate,
  utimes,
  writeFile,
} from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { encodeMetadata } from '../../../checkpoint/format/metadata-v1.js';
import { FileCheckpointStorage } from '../../../checkpoint/storage/file-checkpoint-storage.js';
import { findOrphans, inspectCheckpoint } from '../../../checkpoint/storage/inspect-checkpoint.js';
import { sweepOrphans } from '../../../checkpoint/storage/orphan-sweep.js';
import type { CheckpointMetadata, CheckpointPointer } from '../../../checkpoint/types.js';
import type { JobId, OperatorId, VertexId } from '../../../lib/base/ids.js';

const jobId = 'a'.repeat(32) as JobId;
const operatorId = 'b'.repeat(32) as OperatorId;
const vertexId = 'c'.repeat(32) as VertexId;

async function temporaryFolder(t: Test): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'millrace-sweep-'));
  t.teardown(() => rm(folder, { recursive: true, force: true }));
  return folder;
}

const pointer = (directory: string, checkpointId: number, label: string): CheckpointPointer => ({
  checkpointId,
  metadataPath: join(directory, `chk-${String(checkpointId)}-${label}`, '_metadata'),
  sha256: '',
  timestamp: 0,
  sizeBytes: 1,
  kind: 'checkpoint',
});

t.test('only what no leader can still complete is swept, and only when it is old', async (t) => {
  const directory = await temporaryFolder(t);
  const now = Date.now();
  const minAgeMs = 60_000;
  const make = async (name: string, ageMs = 2 * minAgeMs, files = ['a.state']): Promise<void> => {
    const path = join(directory, name);
    await mkdir(path);
    const at = (now - ageMs) / 1_000;
    for (const file of files) {
      await writeFile(join(path, file), 'x');
      await utimes(join(path, file), at, at);
    }
    await utimes(path, at, at);
  };
  await make('chk-1-e1.5');
  await make('chk-2-e1.5', 0);
  await make('chk-3-e1.5', undefined, ['a.state', '_retained']);
  await make('chk-4-e1.5', undefined, ['_metadata']);
  await make('chk-5-e0.99');
  await make('chk-6-e1.7');
  await make('chk-9-e1.7');
  await make('chk-10-e1.8');
  await make('chk-11-e2.1');
  await make('chk-12-custom');
  await make('savepoint-1');
  await make('chk-8-e1.7', undefined, ['_metadata']);
  await make('chk-7-e1.6', 2 * minAgeMs, ['a.state', 'late.state']);
  await utimes(join(directory, 'chk-7-e1.6', 'late.state'), now / 1_000, now / 1_000);
  const options = {
    directory,
    epoch: { era: 1, revision: 7 },
    known: [pointer(directory, 4, 'e1.5'), pointer(directory, 8, 'e1.7')],
    minAgeMs,
    now,
    mayAct: () => true,
  };
  t.same(await sweepOrphans({ ...options, mayAct: () => false }), [], 'asked before each deletion');
  const swept = (await sweepOrphans(options)).map((path) => path.slice(directory.length + 1));
  t.same(swept.sort(), ['chk-1-e1.5', 'chk-5-e0.99', 'chk-6-e1.7']);
  t.same((await readdir(directory)).length, 10);
  t.same(await sweepOrphans(options), []);
  const absent = { ...options, directory: join(directory, 'absent') };
  t.same(await sweepOrphans(absent), []);
});

t.test('a checkpoint that its pointer names by another path is no orphan', async (t) => {
  const folder = await temporaryFolder(t);
  const directory = join(folder, 'disk');
  await mkdir(join(directory, 'chk-4-e1.5'), { recursive: true });
  await symlink(directory, join(folder, 'mounted'));
  const swept = await sweepOrphans({
    directory,
    epoch: { era: 1, revision: 7 },
    known: [pointer(join(folder, 'mounted'), 4, 'e1.5')],
    minAgeMs: 0,
    now: Date.now() + 1_000,
    mayAct: () => true,
  });
  t.same(swept, []);
  t.same(await readdir(directory), ['chk-4-e1.5']);
});

t.test('a completed checkpoint is inspected down to its files', async (t) => {
  const directory = await temporaryFolder(t);
  const storage = new FileCheckpointStorage(directory, 'e1.7');
  const state = await storage.snapshotStorage(10).write(3, 'name', new Uint8Array(100));
  const metadata: CheckpointMetadata = {
    version: 1,
    checkpointId: 3,
    jobId,
    jobName: 'a job',
    timestamp: 1,
    epoch: '1.7',
    kind: 'checkpoint',
    coordinators: { [operatorId]: { kind: 'inline', bytes: new Uint8Array(3) } },
    vertices: [
      {
        vertexId,
        name: 'v',
        parallelism: 1,
        maxParallelism: 128,
        operators: [{ id: operatorId, name: 'o', maxParallelism: 128 }],
        subtasks: [{ finished: false, operators: { [operatorId]: { operator: state } } }],
      },
    ],
  };
  const bytes = encodeMetadata(metadata);
  const { metadataPath } = await storage.writeMetadata(3, bytes);
  const sha256 = createHash('sha256').update(bytes).digest('hex');
  const complete = { ...pointer(directory, 3, 'e1.7'), metadataPath, sha256 };
  const inspect = (
    changes: Partial<CheckpointPointer> = {},
    readStates = false,
  ): Promise<string[]> => inspectCheckpoint(jobId, { ...complete, ...changes }, { readStates });
  t.same(await inspect(), []);
  t.same(await inspect({}, true), []);
  t.same(await findOrphans(directory, [complete]), []);
  t.same(await findOrphans(directory, []), [join(directory, 'chk-3-e1.7')]);
  t.match(await inspect({ checkpointId: 4 }), [/is checkpoint 3 of job a/]);
  t.match(await inspect({ sha256: 'other' }), [/recorded was other/]);
  t.match(await inspect({ metadataPath: join(directory, 'chk-9-e1.7/_metadata') }), [/no file/]);

  const file = join(directory, 'chk-3-e1.7', 'name.state');
  await truncate(file, 99);
  await appendFile(file, 'x');
  t.same(await inspect(), [], 'same size');
  t.match(await inspect({}, true), [/CRC-32/]);
  await truncate(file, 99);
  t.match(await inspect(), [/has 99 bytes instead of 100/]);
  await rm(file);
  t.match(await inspect(), [/name.state is missing/]);
});
