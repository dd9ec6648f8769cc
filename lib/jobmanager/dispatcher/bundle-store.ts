/**
 * Job bundles in the storage directory: `<storageDir>/<cluster uid>/jobs/<job id>/<digest>.mjs`. A bundle
 * is complete or absent, and named by its digest, so that two submissions never overwrite each other's.
 */
import { createHash } from 'node:crypto';
import { open, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { jobDirectory } from '../../../checkpoint/storage/paths.js';
import { writeFileDurably } from '../../../ha/ha-storage.js';
import { MillraceError } from '../../base/errors.js';
import type { Digest, JobId } from '../../base/ids.js';
import type { Random } from '../../base/random.js';

export interface BlobChunk {
  readonly bytes: Uint8Array;
  readonly end: boolean;
}

/** Of the answer to fetchBlob. */
const chunkBytesMax = 1024 * 1024;

export class BundleStore {
  readonly #storageDir: string;
  readonly #clusterUid: string;
  readonly #random: Random;

  constructor(storageDir: string, clusterUid: string, random: Random) {
    this.#storageDir = storageDir;
    this.#clusterUid = clusterUid;
    this.#random = random;
  }

  /** Durable when it resolves. BLOB_CORRUPT when the bytes do not have the digest, DISK_FULL, IO. */
  async store(jobId: JobId, digest: Digest, bytes: Uint8Array): Promise<void> {
    const actual = createHash('sha256').update(bytes).digest('hex');
    if (actual !== digest) {
      throw new MillraceError(
        'BLOB_CORRUPT',
        `the bundle arrived with digest ${actual}, the job graph names ${digest}: submit it again`,
      );
    }
    await writeFileDurably(this.#path(jobId, digest), bytes, this.#random);
  }

  async read(jobId: JobId, digest: Digest, offset: number): Promise<BlobChunk> {
    const path = this.#path(jobId, digest);
    try {
      const file = await open(path, 'r');
      try {
        const { size } = await file.stat();
        const bytes = Buffer.alloc(Math.max(0, Math.min(chunkBytesMax, size - offset)));
        const { bytesRead } = await file.read(bytes, 0, bytes.byteLength, offset);
        return { bytes: bytes.subarray(0, bytesRead), end: offset + bytesRead >= size };
      } finally {
        await file.close();
      }
    } catch (cause) {
      if ((cause as NodeJS.ErrnoException).code === 'ENOENT') {
        throw new MillraceError(
          'FILE_NOT_FOUND',
          `the bundle of job ${jobId} is missing: there is no file ${path}`,
          { cause },
        );
      }
      throw new MillraceError('IO', `the bundle ${path} cannot be read`, { cause });
    }
  }

  async delete(jobId: JobId, digest: Digest): Promise<void> {
    await rm(this.#path(jobId, digest), { force: true });
  }

  #path(jobId: JobId, digest: Digest): string {
    if (!/^[0-9a-f]{64}$/.test(digest))
      throw new MillraceError('BLOB_CORRUPT', `${digest} is no digest of a bundle`);
    return join(jobDirectory(this.#storageDir, this.#clusterUid, jobId), `${digest}.mjs`);
  }
}
