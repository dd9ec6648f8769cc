/** Where a supervisor says which process is its own, so that others reach that one. */
import { readFileSync, renameSync, writeFileSync } from 'node:fs';

export interface PidFile {
  readonly pid: number;
  /** Kernel start time; empty where unknown. */
  readonly startedAt: string;
}

export function writePidFile(path: string, content: PidFile): void {
  writeFileSync(`${path}.new`, `${JSON.stringify(content)}\n`);
  renameSync(`${path}.new`, path);
}

/** `undefined` when there is none yet. */
export function readPidFile(path: string): PidFile | undefined {
  try {
    return JSON.parse(readFileSync(path, 'utf8')) as PidFile;
  } catch {
    return undefined;
  }
}
