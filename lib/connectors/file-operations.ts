/** The file-system calls of the file sink, as a port: a full disk can be had in tests without one. */
import { closeSync, constants, openSync, renameSync, writeSync } from 'node:fs';
import { dirname } from 'node:path';
import { mkdir, open, readdir, rename, stat, unlink } from 'node:fs/promises';

export interface FileOperations {
  /** Creates the file; fails with EEXIST when it is there. */
  createSync(path: string): number;
  writeSync(file: number, bytes: Uint8Array): number;
  closeSync(file: number): void;
  renameSync(from: string, to: string): void;
  rename(from: string, to: string): Promise<void>;
  unlink(path: string): Promise<void>;
  /** Undefined when there is no such file. */
  size(path: string): Promise<number | undefined>;
  list(directory: string): Promise<string[]>;
  /** With the folders above it; they survive a crash. */
  makeDirectory(path: string): Promise<void>;
  /** Of a file or a directory: its content, or its entries, survive a crash. */
  sync(path: string): Promise<void>;
}

export const nodeFileOperations: FileOperations = {
  createSync: (path) =>
    openSync(path, constants.O_CREAT | constants.O_EXCL | constants.O_WRONLY, 0o644),
  writeSync: (file, bytes) => writeSync(file, bytes),
  closeSync,
  renameSync,
  rename,
  unlink,
  size: async (path) => {
    try {
      return (await stat(path)).size;
    } catch (error) {
      if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined;
      throw error;
    }
  },
  list: (directory) => readdir(directory),
  makeDirectory: async (path) => {
    const first = await mkdir(path, { recursive: true });
    if (first === undefined) return;
    // Every folder that got a new entry, from the innermost up.
    for (let made = path; made.length >= first.length; made = dirname(made))
      await sync(dirname(made));
  },
  sync,
};

async function sync(path: string): Promise<void> {
  const file = await open(path, 'r');
  try {
    await file.sync();
  } finally {
    await file.close();
  }
}
