/**
 * Remembers job files without type errors, so that the compiler need not be loaded for them again. What
 * the compiler asked of the file system decides its verdict: while every answer is the same, those for
 * files that did not exist included, so is the verdict. Whatever goes wrong here only means another check.
 */
import { createHash } from 'node:crypto';
import {
  mkdirSync,
  readdirSync,
  readFileSync,
  realpathSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { join, sep } from 'node:path';
import { packageRoot } from './package-root.js';

/** Asked of one path: is it a file or a folder, what is in it, what are its folders, where is it really. */
type Question = 'kind' | 'content' | 'folders' | 'place';

/** Of one job file, checked from one working directory. */
export interface CheckedFile {
  readonly file: string;
  readonly workingDirectory: string;
  /** Absent: nothing is remembered. */
  readonly cacheDirectory?: string;
}

const verdictsMax = 100;
const rootBuild = join(packageRoot(), 'build') + sep;

/** What a check asks of the file system, each question once. */
export class Answers {
  readonly #answers = new Map<string, string>();

  note(question: Question, path: string): void {
    const key = `${question} ${path}`;
    if (!this.#answers.has(key)) this.#answers.set(key, answer(question, path));
  }

  /** Not when a file was changed during the check: nobody knows which of the two was seen. */
  store(checked: CheckedFile): void {
    const { cacheDirectory } = checked;
    const answers = [...this.#answers];
    if (cacheDirectory === undefined || !areUnchanged(answers)) return;
    try {
      mkdirSync(cacheDirectory, { recursive: true, mode: 0o700 });
      const target = verdictFile(cacheDirectory, checked);
      const temporary = `${target}.${String(process.pid)}.tmp`;
      writeFileSync(temporary, JSON.stringify(answers), { mode: 0o600 });
      renameSync(temporary, target);
      dropOldest(cacheDirectory);
    } catch (error) {
      // A full or read-only disk costs the next run its time, nothing else.
      if (!isOfFileSystem(error)) throw error;
    }
  }
}

/** Whether the last check found no error and would find the same today. */
export function isKnownGood(checked: CheckedFile): boolean {
  const { cacheDirectory, file } = checked;
  if (cacheDirectory === undefined) return false;
  try {
    const text = readFileSync(verdictFile(cacheDirectory, checked), 'utf8');
    const answers = JSON.parse(text) as [string, string][];
    return answers.some(([key]) => key === `content ${file}`) && areUnchanged(answers);
  } catch {
    // Not there, cut off or not ours at all: the compiler decides.
    return false;
  }
}

function areUnchanged(answers: readonly (readonly [string, string])[]): boolean {
  return answers.every(([key, before]) => {
    const space = key.indexOf(' ');
    return answer(key.slice(0, space) as Question, key.slice(space + 1)) === before;
  });
}

function answer(question: Question, path: string): string {
  try {
    if (question === 'place') return realpathSync(path);
    if (question === 'folders') return foldersIn(path);
    if (question === 'content' && isOwn(path))
      return createHash('sha256').update(readFileSync(path)).digest('base64');
    const stat = statSync(path, { bigint: true });
    if (question === 'content') return [stat.size, stat.mtimeNs, stat.ctimeNs].join(' ');
    return stat.isFile() ? 'file' : stat.isDirectory() ? 'folder' : 'other';
  } catch (error) {
    if (!isOfFileSystem(error)) throw error;
    return 'none';
  }
}

/** The job's files are few: their bytes count. Packages and our own types only change with their stamps. */
function isOwn(path: string): boolean {
  return !path.includes(`${sep}node_modules${sep}`) && !path.startsWith(rootBuild);
}

function foldersIn(path: string): string {
  const entries = readdirSync(path, { withFileTypes: true });
  const names = entries.filter((entry) => entry.isDirectory() || entry.isSymbolicLink());
  return JSON.stringify(names.map(({ name }) => name).sort());
}

function verdictFile(cacheDirectory: string, { file, workingDirectory }: CheckedFile): string {
  const hash = createHash('sha256').update(JSON.stringify([file, workingDirectory, packageRoot()]));
  return join(cacheDirectory, `${hash.digest('hex').slice(0, 32)}.json`);
}

function dropOldest(cacheDirectory: string): void {
  const files = readdirSync(cacheDirectory).map((name) => {
    const path = join(cacheDirectory, name);
    return { path, writtenAt: statSync(path).mtimeMs };
  });
  files.sort((a, b) => b.writtenAt - a.writtenAt);
  for (const { path } of files.slice(verdictsMax)) rmSync(path, { force: true });
}

function isOfFileSystem(error: unknown): boolean {
  return error instanceof Error && 'syscall' in error;
}
