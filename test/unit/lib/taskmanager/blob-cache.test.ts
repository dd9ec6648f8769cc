import { createHash } from 'node:crypto';
import { mkdtemp, readdir, readFile, realpath, rm, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { pathToFileURL } from 'node:url';
import t, { type Test } from 'tap';
import type { Digest } from '../../../../lib/base/ids.js';
import { BlobCache, type BlobChunk } from '../../../../lib/taskmanager/blob-cache.js';
import { testEnv } from '../../../conformance/rpc-service.js';

async function temporary(t: Test): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'millrace-blobs-'));
  t.teardown(() => rm(directory, { recursive: true, force: true }));
  return directory;
}

const digestOf = (bytes: Uint8Array): Digest =>
  createHash('sha256').update(bytes).digest('hex') as Digest;

/** Serves `bytes` in chunks and counts the fetches. */
function leaderWith(
  bytes: Uint8Array,
  chunk = 10,
): { fetch: (offset: number) => Promise<BlobChunk>; readonly calls: number } {
  let calls = 0;
  return {
    fetch: async (offset) => {
      calls += 1;
      const end = offset + chunk >= bytes.length;
      return { bytes: bytes.slice(offset, offset + chunk), end };
    },
    get calls() {
      return calls;
    },
  };
}

t.test('a bundle is fetched in chunks once and then taken from the disk', async (t) => {
  const directory = await temporary(t);
  const bytes = Buffer.from('export const answer = 42; // longer than a chunk');
  const leader = leaderWith(bytes);
  const cache = new BlobCache(testEnv, { directory });
  const [first, second] = await Promise.all([
    cache.acquire(digestOf(bytes), leader.fetch),
    cache.acquire(digestOf(bytes), leader.fetch),
  ]);
  t.equal(first.path, second.path);
  t.equal(leader.calls, Math.ceil(bytes.length / 10), 'two slots share one fetch');
  t.same(await readFile(first.path), bytes);
  const other = new BlobCache(testEnv, { directory });
  await other.acquire(digestOf(bytes), () => Promise.reject(new Error('not fetched')));
});

t.test('a damaged file is noticed each time and fetched again', async (t) => {
  const bytes = Buffer.from('export {};');
  const leader = leaderWith(bytes);
  const cache = new BlobCache(testEnv, { directory: await temporary(t) });
  const { path } = await cache.acquire(digestOf(bytes), leader.fetch);
  await writeFile(path, 'export { }; // changed');
  await cache.acquire(digestOf(bytes), leader.fetch);
  t.equal(leader.calls, 2);
  t.same(await readFile(path), bytes);
});

t.test('bytes that do not have the digest are refused and not kept', async (t) => {
  const directory = await temporary(t);
  const digest = digestOf(Buffer.from('what was submitted'));
  const cache = new BlobCache(testEnv, { directory });
  const damaged = leaderWith(Buffer.from('what was Submitted'), 1000);
  await t.rejects(cache.acquire(digest, damaged.fetch), {
    code: 'BLOB_CORRUPT',
    message: /submit the job again/,
  });
  await t.rejects(
    cache.acquire(digest, async () => ({ bytes: new Uint8Array(), end: false })),
    { code: 'BLOB_CORRUPT' },
  );
  await t.rejects(cache.acquire('../../etc/passwd' as Digest, damaged.fetch), {
    code: 'BLOB_CORRUPT',
  });
  const [inner] = await readdir(directory);
  t.same(await readdir(join(directory, inner ?? '')), ['node_modules']);
});

t.test('a bundle resolves millrace to this very installation', async (t) => {
  const source = Buffer.from("export const at = import.meta.resolve('millrace/package.json');");
  const cache = new BlobCache(testEnv, { directory: await temporary(t) });
  const { path } = await cache.acquire(digestOf(source), leaderWith(source, 1000).fetch);
  const { at } = (await import(pathToFileURL(path).href)) as { at: string };
  const link = join(dirname(path), 'node_modules', 'millrace', 'package.json');
  t.equal(at, pathToFileURL(await realpath(link)).href);
  t.equal(await realpath(link), join(process.cwd(), 'package.json'));
});

t.test('files that were not used for long are deleted above the limit', async (t) => {
  const cache = new BlobCache(testEnv, { directory: await temporary(t), maxBytes: 250 });
  const bundle = (fill: number): Uint8Array => new Uint8Array(100).fill(fill);
  const acquire = (fill: number): ReturnType<BlobCache['acquire']> =>
    cache.acquire(digestOf(bundle(fill)), leaderWith(bundle(fill), 1000).fetch);
  const longAgo = testEnv.clock.wallTime() / 1000 - 3600;
  const [unused, used] = [await acquire(1), await acquire(2)];
  for (const { path } of [unused, used]) await utimes(path, longAgo, longAgo);
  unused.release();
  const third = await acquire(3);
  const left = await readdir(dirname(third.path));
  t.same(
    left.filter((name) => name.endsWith('.mjs')).sort(),
    [used, third].map(({ path }) => path.slice(dirname(path).length + 1)).sort(),
  );
});
