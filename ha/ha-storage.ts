/**
 * Values too large for etcd, and the cluster's marker, as files of the storage directory:
 *
 *     <storageDir>/cluster.json                        which cluster the directory belongs to
 *     <storageDir>/<cluster uid>/ha/<folder>/<sha256>  content-addressed values
 *
 * A file is complete or absent (written aside, fsynced, renamed, directory fsynced) and never changed.
 */
import { createHash } from 'node:crypto';
import { constants } from 'node:fs';
import { link, mkdir, open, readdir, readFile, rename, rm, stat, unlink } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { MillraceError } from '../lib/base/errors.js';
import type { Random } from '../lib/base/random.js';
import { damaged } from './damaged.js';

/** Content-addressed storage of values; names are relative to the cluster's HA folder. */
export interface HaStorage {
  /** Stores `bytes` under `folder` and resolves with their name once they are durable. */
  write(folder: string, bytes: Uint8Array): Promise<string>;
  /** RECOVERY_FAILED when missing or changed, IO when it cannot be read right now. */
  read(name: string): Promise<Uint8Array>;
  /** What is under `folder`, also files whose writing was cut off, with the wall-clock ms of its last change. */
  list(folder: string): Promise<{ readonly name: string; readonly changedAt: number }[]>;
  /** Resolves as well when there is no such file. */
  remove(name: string): Promise<void>;
  /** Removes everything under `folder`; resolves as well when there is nothing. */
  removeFolder(folder: string): Promise<void>;
}

export class MemoryHaStorage implements HaStorage {
  readonly #files = new Map<string, Uint8Array>();

  async write(folder: string, bytes: Uint8Array): Promise<string> {
    const name = `${folder}/${digestOf(bytes)}`;
    this.#files.set(name, bytes.slice());
    return name;
  }

  async read(name: string): Promise<Uint8Array> {
    const bytes = this.#files.get(name);
    if (bytes === undefined) throw damaged(name, 'is missing');
    return bytes;
  }

  /** The order of time is not kept: all is as old as can be. */
  async list(folder: string): Promise<{ name: string; changedAt: number }[]> {
    const names = [...this.#files.keys()].filter((name) => name.startsWith(`${folder}/`));
    return names.map((name) => ({ name, changedAt: 0 }));
  }

  async remove(name: string): Promise<void> {
    this.#files.delete(name);
  }

  async removeFolder(folder: string): Promise<void> {
    for (const name of [...this.#files.keys()]) {
      if (name.startsWith(`${folder}/`)) this.#files.delete(name);
    }
  }
}

export class FileHaStorage implements HaStorage {
  readonly #root: string;
  readonly #random: Random;

  /** @param root `<storageDir>/<cluster uid>/ha`; created when first needed. */
  constructor(root: string, random: Random) {
    this.#root = root;
    this.#random = random;
  }

  async write(folder: string, bytes: Uint8Array): Promise<string> {
    const name = `${folder}/${digestOf(bytes)}`;
    await writeFileDurably(this.#path(name), bytes, this.#random);
    return name;
  }

  async read(name: string): Promise<Uint8Array> {
    const path = this.#path(name);
    let bytes: Uint8Array;
    try {
      bytes = await readFile(path);
    } catch (cause) {
      if ((cause as NodeJS.ErrnoException).code === 'ENOENT')
        throw damaged(path, 'is missing', cause);
      throw new MillraceError('IO', `cannot read ${path}`, { cause });
    }
    if (digestOf(bytes) !== name.slice(name.lastIndexOf('/') + 1)) {
      throw damaged(path, 'does not have its digest');
    }
    return bytes;
  }

  async list(folder: string): Promise<{ name: string; changedAt: number }[]> {
    const path = this.#path(folder);
    try {
      const files = (await readdir(path)).map(async (file) => ({
        name: `${folder}/${file}`,
        changedAt: (await stat(join(path, file))).mtimeMs,
      }));
      return await Promise.all(files);
    } catch (cause) {
      if ((cause as NodeJS.ErrnoException).code === 'ENOENT') return [];
      throw new MillraceError('IO', `cannot list ${path}`, { cause });
    }
  }

  async remove(name: string): Promise<void> {
    await rm(this.#path(name), { force: true });
  }

  async removeFolder(folder: string): Promise<void> {
    await rm(this.#path(folder), { recursive: true, force: true });
  }

  #path(name: string): string {
    if (name.split('/').includes('..')) throw damaged(name, 'is no name of a stored value');
    return join(this.#root, name);
  }
}

/** Creates or replaces a file; durable when it resolves. */
export async function writeFileDurably(
  path: string,
  bytes: Uint8Array,
  random: Random,
): Promise<void> {
  await writeAside(path, bytes, random, (aside) => rename(aside, path));
}

/** Creates a file, complete from the first moment; false when it exists. */
export async function createFileDurably(
  path: string,
  bytes: Uint8Array,
  random: Random,
): Promise<boolean> {
  let created = true;
  await writeAside(path, bytes, random, async (aside) => {
    try {
      await link(aside, path);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
      created = false;
    }
    await unlink(aside);
  });
  return created;
}

async function writeAside(
  path: string,
  bytes: Uint8Array,
  random: Random,
  publish: (aside: string) => Promise<void>,
): Promise<void> {
  const folder = dirname(path);
  const aside = `${path}.${random.hex(8)}.tmp`;
  try {
    await mkdir(folder, { recursive: true });
    const file = await open(aside, 'wx');
    try {
      await file.writeFile(bytes);
      await file.sync();
    } finally {
      await file.close();
    }
    await publish(aside);
    const directory = await open(folder, constants.O_RDONLY);
    try {
      await directory.sync();
    } finally {
      await directory.close();
    }
  } catch (cause) {
    await rm(aside, { force: true });
    const full = (cause as NodeJS.ErrnoException).code === 'ENOSPC';
    throw new MillraceError(full ? 'DISK_FULL' : 'IO', `cannot write ${path}`, { cause });
  }
}

function digestOf(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}
