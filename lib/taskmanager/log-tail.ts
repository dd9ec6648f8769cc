/** The newest lines of a TaskManager's log file, for `millrace logs`. */
import { open } from 'node:fs/promises';
import type { JobId } from '../base/ids.js';

export interface LogQuery {
  readonly jobId?: JobId;
  readonly maxLines: number;
  /** `stdout`: only what user code printed, as it printed it. */
  readonly stream: 'log' | 'stdout';
}

/** Lines that user code printed carry this event (slot-console.ts). */
export const userOutputEvent = 'user.output';

const chunkBytes = 256 * 1024;
/** How far back is looked for lines that match. */
const maxBytesRead = 32 * 1024 * 1024;
/** An answer stays far below the limit of a message. */
const maxAnswerChars = 8 * 1024 * 1024;

/** Newest last. A file that is not there has no lines. */
export async function readLogTail(path: string, query: LogQuery): Promise<string[]> {
  let file;
  try {
    file = await open(path, 'r');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw error;
  }
  try {
    const newestFirst: string[] = [];
    let chars = 0;
    let position = (await file.stat()).size;
    const floor = Math.max(0, position - maxBytesRead);
    let rest: Buffer = Buffer.alloc(0);
    while (position > floor) {
      const length = Math.min(chunkBytes, position - floor);
      position -= length;
      const chunk = Buffer.alloc(length);
      const { bytesRead } = await file.read(chunk, 0, length, position);
      const bytes = Buffer.concat([chunk.subarray(0, bytesRead), rest]);
      // The first line of the chunk may begin before it. Cutting bytes, not text, keeps characters whole.
      const firstBreak = position === 0 ? -1 : bytes.indexOf(10);
      if (position > 0 && firstBreak < 0) {
        rest = bytes;
        continue;
      }
      rest = bytes.subarray(0, Math.max(0, firstBreak));
      for (const line of bytes
        .subarray(firstBreak + 1)
        .toString('utf8')
        .split('\n')
        .reverse()) {
        const shown = selectLine(line, query);
        if (shown === undefined) continue;
        chars += shown.length;
        if (newestFirst.length >= query.maxLines || chars > maxAnswerChars) {
          return newestFirst.reverse();
        }
        newestFirst.push(shown);
      }
    }
    return newestFirst.reverse();
  } finally {
    await file.close();
  }
}

function selectLine(line: string, query: LogQuery): string | undefined {
  if (line === '') return undefined;
  if (query.jobId === undefined && query.stream === 'log') return line;
  let fields: { jobId?: unknown; event?: unknown; msg?: unknown };
  try {
    fields = JSON.parse(line) as typeof fields;
  } catch {
    return undefined; // Not ours: what a crash of V8 wrote, for instance.
  }
  if (query.jobId !== undefined && fields.jobId !== query.jobId) return undefined;
  if (query.stream === 'log') return line;
  return fields.event === userOutputEvent ? String(fields.msg) : undefined;
}
