import { mkdtemp, readdir, readFile, rm, stat, symlink, writeFile, mkdir } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import {
  FileCheckpointStorage,
  listCheckpoints,
} from '../../checkpoint/storage/file-checkpoint-storage.js';
import {
  MemoryCheckpointStorage,
  MemoryFiles,
} from '../../checkpoint/storage/memory-checkpoint-storage.js';
import { checkpointStorageConformance } from './checkpoint-storage.js';

t.test('in memory', (t) => {
  checkpointStorageConformance(t, async () => {
    const files = new MemoryFiles();
    return {
      open: (label) => new MemoryCheckpointStorage(files, 'memory://c/jobs/j/checkpoints', label),
      damage: async (path, change) =>
        files.write(path, change(files.read(path) ?? new Uint8Array())),
      remove: async (path) => files.delete(path),
      paths: async () => files.paths,
    };
  });
  t.end();
});

t.test('in files', (t) => {
  checkpointStorageConformance(t, async (t) => {
    const root = await mkdtemp(join(tmpdir(), 'millrace-storage-'));
    t.teardown(() => rm(root, { recursive: true, force: true }));
    const directory = join(root, 'uid/jobs/j/checkpoints');
    return {
      open: (label) => new FileCheckpointStorage(directory, label),
      damage: async (path, change) => writeFile(path, change(await readFile(path))),
      remove: async (path) => rm(path),
      paths: async () => {
        const names = await readdir(root, { recursive: true });
        const kinds = await Promise.all(
          names.map(async (name) => (await stat(join(root, name))).isFile()),
        );
        return names.filter((_, i) => kinds[i]).map((name) => join(root, name));
      },
    };
  });
  t.end();
});

t.test('files of their own', async (t) => {
  const root = await mkdtemp(join(tmpdir(), 'millrace-storage-'));
  t.teardown(() => rm(root, { recursive: true, force: true }));

  t.test('a checkpoint may be moved: its paths are relative', async (t) => {
    const storage = new FileCheckpointStorage(join(root, 'from'), 'e1.1');
    const handle = await storage.snapshotStorage(0).write(1, 'a-0-x-op', Uint8Array.of(1, 2));
    await storage.writeMetadata(1, Uint8Array.of(9));
    await symlink(storage.checkpointDirectory(1), join(root, 'moved'));
    const found = await storage.readMetadata(`file://${join(root, 'moved')}`);
    t.strictSame([...(await storage.snapshotStorage(0).read(handle, found.baseDirectory))], [1, 2]);
  });

  t.test(
    'an unfinished write leaves nothing under a final name, and the list shows checkpoints in order',
    async (t) => {
      const directory = join(root, 'list');
      const storage = new FileCheckpointStorage(directory, 'e1.1');
      await storage.writeMetadata(10, Uint8Array.of(1));
      await storage.writeMetadata(9, Uint8Array.of(1));
      await storage.snapshotStorage(0).write(11, 'a-0-x-op', Uint8Array.of(1));
      t.strictSame(
        await listCheckpoints(directory),
        [9, 10, 11].map((id) => join(directory, `chk-${String(id)}-e1.1`)),
      );
      t.strictSame(await listCheckpoints(join(root, 'nothing')), []);
      t.notOk(
        (await readdir(join(directory, 'chk-11-e1.1'))).some((file) => file.startsWith('.tmp-')),
      );
    },
  );

  t.test(
    'a full disk is DISK_FULL, another trouble CHECKPOINT_STORAGE, both with the path',
    async (t) => {
      // /dev/full takes no byte; the temporary file of the write is made to lead there.
      const directory = join(root, 'full');
      await mkdir(join(directory, 'chk-1-e1.1'), { recursive: true });
      await symlink('/dev/full', join(directory, 'chk-1-e1.1/.tmp-_metadata'));
      const storage = new FileCheckpointStorage(directory, 'e1.1');
      await t.rejects(storage.writeMetadata(1, Uint8Array.of(1)), {
        code: 'DISK_FULL',
        message: /_metadata/,
      });
      await t.rejects(storage.readMetadata(join(directory, 'chk-1-e1.1')), {
        code: 'CHECKPOINT_NOT_FOUND',
      });

      await writeFile(join(root, 'a-file'), '');
      const blocked = new FileCheckpointStorage(join(root, 'a-file', 'below'), 'e1.1');
      await t.rejects(blocked.writeMetadata(1, Uint8Array.of(1)), { message: /a-file/ });
      t.throws(() => new FileCheckpointStorage('relative', 'e1.1'), { code: 'CONFIG' });
    },
  );
});
