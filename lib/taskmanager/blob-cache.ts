/**
 * Bundles by digest in a directory that the TaskManagers of a machine share. The digest is verified each time a
 * bundle is used, so that a damaged file is fetched again instead of run. `node_modules/millrace` beside the bundles
 * leads to this installation: a bundle's `import 'millrace'` is the very module the runtime uses.
 */
import { createHash } from 'node:crypto';
import {
  access,
  mkdir,
  readdir,
  readFile,
  rename,
  rm,
  stat,
  symlink,
  utimes,
  writeFile,
} from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Env } from '../base/env.js';
import { MillraceError } from '../base/errors.js';
import type { Digest } from '../base/ids.js';

export interface BlobCacheOptions {
  /** Parent of the cache's directory: io.tmp.dirs. */
  readonly directory: string;
  /** The folder with Millrace's package.json; default: the one this file belongs to. */
  readonly packageRoot?: string;
  /** Files not in use are deleted, the longest unused first, above this. Default 512 MiB. */
  readonly maxBytes?: number;
}

export interface BlobChunk {
  readonly bytes: Uint8Array;
  readonly end: boolean;
}

export interface CachedBlob {
  readonly path: string;
  /** After this the file may be deleted. */
  release(): void;
}

const defaultMaxBytes = 512 * 1024 * 1024;
/** Other processes may have taken a file and not loaded it yet. */
const evictAfterMs = 10 * 60_000;
/** A bundle larger than this is refused, whatever the leader sends. */
const maxBlobBytes = 256 * 1024 * 1024;

export class BlobCache {
  readonly #env: Env;
  readonly #options: Required<BlobCacheOptions>;
  readonly #directory: string;
  readonly #inUse = new Map<string, number>();
  readonly #loading = new Map<Digest, Promise<string>>();
  #opened: Promise<void> | undefined;

  constructor(env: Env, options: BlobCacheOptions) {
    const packageRoot = options.packageRoot ?? ownPackageRoot();
    this.#env = env;
    this.#options = { ...options, packageRoot, maxBytes: options.maxBytes ?? defaultMaxBytes };
    // Two installations on one machine must not share the link.
    const installation = sha256(Buffer.from(packageRoot)).slice(0, 12);
    this.#directory = join(options.directory, `blobs-${installation}`);
  }

  /**
   * The file of a bundle, fetched in chunks when it is not there or is damaged. BLOB_CORRUPT when what was fetched
   * does not have the digest, IO or DISK_FULL when it cannot be kept; else what `fetch` rejects with.
   */
  async acquire(
    digest: Digest,
    fetch: (offset: number) => Promise<BlobChunk>,
  ): Promise<CachedBlob> {
    if (!/^[0-9a-f]{64}$/.test(digest)) {
      throw new MillraceError('BLOB_CORRUPT', `${digest} is no digest of a bundle`);
    }
    let loading = this.#loading.get(digest);
    if (loading === undefined) {
      loading = this.#load(digest, fetch).finally(() => this.#loading.delete(digest));
      this.#loading.set(digest, loading);
    }
    const path = await loading;
    this.#inUse.set(path, (this.#inUse.get(path) ?? 0) + 1);
    let isReleased = false;
    return {
      path,
      release: () => {
        if (isReleased) return;
        isReleased = true;
        const users = (this.#inUse.get(path) ?? 1) - 1;
        if (users === 0) this.#inUse.delete(path);
        else this.#inUse.set(path, users);
      },
    };
  }

  async #load(digest: Digest, fetch: (offset: number) => Promise<BlobChunk>): Promise<string> {
    this.#opened ??= this.#open();
    try {
      await this.#opened;
    } catch (error) {
      this.#opened = undefined;
      throw storageError(error, this.#directory);
    }
    const path = join(this.#directory, `${digest}.mjs`);
    if (await this.#isIntact(path, digest)) return path;
    const bytes = await fetchAll(digest, fetch);
    try {
      const temporary = `${path}.${this.#env.random.hex(8)}.tmp`;
      await writeFile(temporary, bytes, { mode: 0o600 });
      await rename(temporary, path);
      await this.#evict(path);
    } catch (error) {
      throw storageError(error, path);
    }
    return path;
  }

  async #open(): Promise<void> {
    const modules = join(this.#directory, 'node_modules');
    await mkdir(modules, { recursive: true, mode: 0o700 });
    try {
      await symlink(this.#options.packageRoot, join(modules, 'millrace'), 'dir');
    } catch (error) {
      // Made before; the directory's name says it leads to the same installation.
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
    }
    await access(join(modules, 'millrace', 'package.json'));
  }

  async #isIntact(path: string, digest: Digest): Promise<boolean> {
    let bytes: Uint8Array;
    try {
      bytes = await readFile(path);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false;
      throw storageError(error, path);
    }
    if (sha256(bytes) !== digest) {
      this.#env.log.warn(
        { event: 'blob.damaged', path },
        'a cached bundle is damaged and is fetched again',
      );
      return false;
    }
    const now = this.#env.clock.wallTime() / 1000;
    await utimes(path, now, now);
    return true;
  }

  async #evict(justWritten: string): Promise<void> {
    const files: { path: string; size: number; usedAt: number }[] = [];
    for (const name of await readdir(this.#directory)) {
      if (name === 'node_modules') continue;
      const path = join(this.#directory, name);
      const info = await stat(path).catch(() => undefined);
      if (info !== undefined) files.push({ path, size: info.size, usedAt: info.mtimeMs });
    }
    let total = files.reduce((sum, { size }) => sum + size, 0);
    const oldest = this.#env.clock.wallTime() - evictAfterMs;
    for (const { path, size, usedAt } of files.sort((a, b) => a.usedAt - b.usedAt)) {
      if (total <= this.#options.maxBytes) return;
      if (path === justWritten || this.#inUse.has(path) || usedAt > oldest) continue;
      await rm(path, { force: true });
      total -= size;
    }
  }
}

async function fetchAll(
  digest: Digest,
  fetch: (offset: number) => Promise<BlobChunk>,
): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  for (;;) {
    const { bytes, end } = await fetch(size);
    chunks.push(bytes);
    size += bytes.byteLength;
    if (size > maxBlobBytes || (!end && bytes.byteLength === 0)) {
      throw new MillraceError('BLOB_CORRUPT', `bundle ${digest} does not end as it should`);
    }
    if (end) break;
  }
  const whole = Buffer.concat(chunks);
  const actual = sha256(whole);
  if (actual !== digest) {
    throw new MillraceError(
      'BLOB_CORRUPT',
      `the leader sent a bundle with digest ${actual} for ${digest}: the file in its storage directory is damaged; submit the job again`,
      { details: { digest, actual } },
    );
  }
  return whole;
}

function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}

function storageError(error: unknown, path: string): MillraceError {
  if (error instanceof MillraceError) return error;
  const code = (error as NodeJS.ErrnoException).code === 'ENOSPC' ? 'DISK_FULL' : 'IO';
  return new MillraceError(
    code,
    `the blob cache cannot use ${path} (io.tmp.dirs): ${(error as Error).message}`,
    { cause: error },
  );
}

/** build/lib/taskmanager/ is three folders below the package. */
function ownPackageRoot(): string {
  return join(dirname(fileURLToPath(import.meta.url)), '..', '..', '..');
}
