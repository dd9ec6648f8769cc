/** What every CheckpointStorage keeps, whatever it stores in. */
import type { Test } from 'tap';
import type { AttemptId, OperatorId } from '../../lib/base/ids.js';
import type { CheckpointStorage } from '../../checkpoint/storage/checkpoint-storage.js';
import { stateName } from '../../checkpoint/storage/paths.js';
import { codeOf } from '../support/code-of.js';

export interface StorageFixture {
  /** A storage of another leadership over the same files. */
  open(epochLabel: string): CheckpointStorage;
  /** Overwrites the bytes of a stored file. */
  damage(path: string, change: (bytes: Uint8Array) => Uint8Array): Promise<void>;
  remove(path: string): Promise<void>;
  paths(): Promise<string[]>;
}

const attempt = 'aabbccddeeff00112233445566778899_0_3_beef0001' as AttemptId;
const operator = '00112233445566778899aabbccddeeff' as OperatorId;
const name = stateName(attempt, operator);
const bytes = (length: number): Uint8Array => Uint8Array.from({ length }, (_, i) => i * 7);

export function checkpointStorageConformance(
  t: Test,
  create: (t: Test) => Promise<StorageFixture>,
): void {
  t.test('metadata is read back by its path and by its directory', async (t) => {
    const storage = (await create(t)).open('e1.7');
    const { metadataPath } = await storage.writeMetadata(3, bytes(100));
    t.match(metadataPath, /chk-3-e1\.7\/_metadata$/);
    for (const path of [metadataPath, storage.checkpointDirectory(3)]) {
      const found = await storage.readMetadata(path);
      t.strictSame([...found.bytes], [...bytes(100)]);
      t.equal(found.metadataPath, metadataPath);
      t.equal(found.baseDirectory, storage.checkpointDirectory(3));
    }
    t.equal(
      await codeOf(storage.readMetadata(storage.checkpointDirectory(4))),
      'CHECKPOINT_NOT_FOUND',
    );
  });

  t.test(
    'small state travels inline, larger state becomes a file relative to its checkpoint',
    async (t) => {
      const fixture = await create(t);
      const storage = fixture.open('e1.7');
      const tasks = storage.snapshotStorage(10);
      const small = await tasks.write(3, name, bytes(10));
      t.equal(small.kind, 'inline');
      t.strictSame(await fixture.paths(), []);
      const large = await tasks.write(3, name, bytes(11));
      t.match(large, {
        kind: 'file',
        path: `aabbccdd-0-3.beef0001-${operator}.state`,
        sizeBytes: 11,
      });
      for (const handle of [small, large]) {
        const length = handle.kind === 'inline' ? 10 : 11;
        t.strictSame(
          [...(await tasks.read(handle, storage.checkpointDirectory(3)))],
          [...bytes(length)],
        );
      }
      const otherLeader = fixture.open('e1.9').snapshotStorage(10);
      t.equal((await otherLeader.read(large, storage.checkpointDirectory(3))).byteLength, 11);
    },
  );

  t.test('inline state is a copy: the task goes on changing its buffer', async (t) => {
    const tasks = (await create(t)).open('e1.7').snapshotStorage(10);
    const buffer = bytes(4);
    const handle = await tasks.write(1, name, buffer);
    buffer.fill(0);
    t.strictSame([...(await tasks.read(handle, '/'))], [...bytes(4)]);
  });

  t.test('a damaged, shortened or missing state file is refused by name', async (t) => {
    const fixture = await create(t);
    const storage = fixture.open('e1.7');
    const tasks = storage.snapshotStorage(0);
    const handle = await tasks.write(3, name, bytes(100));
    const directory = storage.checkpointDirectory(3);
    const [path = ''] = await fixture.paths();
    await fixture.damage(path, (old) =>
      Uint8Array.from(old, (byte, i) => (i === 50 ? byte ^ 1 : byte)),
    );
    t.equal(await codeOf(tasks.read(handle, directory)), 'CHECKPOINT_CORRUPT');
    await fixture.damage(path, (old) => old.slice(0, 99));
    t.equal(await codeOf(tasks.read(handle, directory)), 'CHECKPOINT_CORRUPT');
    await fixture.remove(path);
    t.equal(await codeOf(tasks.read(handle, directory)), 'CHECKPOINT_NOT_FOUND');
  });

  t.test('two leaderships do not touch each other’s checkpoint of the same id', async (t) => {
    const fixture = await create(t);
    const [older, newer] = [fixture.open('e1.7'), fixture.open('e1.9')];
    const first = await older.writeMetadata(3, bytes(1));
    const second = await newer.writeMetadata(3, bytes(2));
    await newer.deleteCheckpoint(second.metadataPath);
    t.equal((await older.readMetadata(first.metadataPath)).bytes.byteLength, 1);
  });

  t.test(
    'a deleted checkpoint is gone, twice over; a retained one and foreign paths stay',
    async (t) => {
      const fixture = await create(t);
      const storage = fixture.open('e1.7');
      const { metadataPath } = await storage.writeMetadata(3, bytes(1));
      await storage.snapshotStorage(0).write(3, name, bytes(5));
      await storage.deleteCheckpoint(metadataPath);
      t.strictSame(await fixture.paths(), []);
      await storage.deleteCheckpoint(storage.checkpointDirectory(3));

      const kept = await storage.writeMetadata(4, bytes(1));
      await storage.markRetained(kept.metadataPath);
      await storage.deleteCheckpoint(kept.metadataPath);
      t.equal((await storage.readMetadata(kept.metadataPath)).bytes.byteLength, 1);

      await storage.deleteCheckpoint(storage.checkpointDirectory(4).replace(/chk-.*/, ''));
      await storage.deleteCheckpoint('/elsewhere/chk-4-e1.7/_metadata');
      t.equal((await storage.readMetadata(kept.metadataPath)).bytes.byteLength, 1);
    },
  );

  t.test(
    'discarding late state removes just those files, and never outside the checkpoint',
    async (t) => {
      const fixture = await create(t);
      const storage = fixture.open('e1.7');
      const tasks = storage.snapshotStorage(0);
      const late = await tasks.write(3, `${name}-late`, bytes(5));
      const used = await tasks.write(3, name, bytes(5));
      const { metadataPath } = await storage.writeMetadata(5, bytes(1));
      await storage.discardStates(3, [
        late,
        { kind: 'file', path: '../chk-5-e1.7/_metadata', sizeBytes: 1, crc32: 0 },
        { kind: 'file', path: metadataPath, sizeBytes: 1, crc32: 0 },
      ]);
      await storage.discardStates(3, [late]);
      t.equal((await tasks.read(used, storage.checkpointDirectory(3))).byteLength, 5);
      t.equal(
        await codeOf(tasks.read(late, storage.checkpointDirectory(3))),
        'CHECKPOINT_NOT_FOUND',
      );
      t.equal((await storage.readMetadata(metadataPath)).bytes.byteLength, 1);
    },
  );

  t.test('a name that could leave the directory is refused', async (t) => {
    const tasks = (await create(t)).open('e1.7').snapshotStorage(0);
    await t.rejects(tasks.write(3, '../x', bytes(5)), { code: 'INVARIANT' });
  });
}
