/**
 * What the access-log job must have written, computed on its own: it sorts the whole log and counts,
 * shares no code with Millrace, and compares with the committed files line by line.
 */
import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';

export interface Comparison {
  readonly expectedLines: number;
  readonly committedLines: number;
  /** Lines that should be there and are not, and the other way round; a line twice counts once too many. */
  readonly missing: readonly string[];
  readonly unexpected: readonly string[];
  /** Files that were begun and never committed. */
  readonly pendingFiles: readonly string[];
}

export interface Verdict {
  readonly exactlyOnce: boolean;
  readonly statusByMinute: Comparison;
  readonly sessions: Comparison;
}

interface Hit {
  client: string;
  time: number;
  status: string;
  bytes: number;
}

const sessionGapMs = 1_800_000;

export function verifyAccessLog(inputFile: string, outputDirectory: string): Verdict {
  const hits = readHits(inputFile);
  const statusByMinute = compare(countByMinute(hits), join(outputDirectory, 'status-by-minute'));
  const sessions = compare(sessionLines(hits), join(outputDirectory, 'sessions'));
  const isExact = (c: Comparison): boolean =>
    c.missing.length === 0 &&
    c.unexpected.length === 0 &&
    c.pendingFiles.length === 0 &&
    c.expectedLines > 0;
  return { exactlyOnce: isExact(statusByMinute) && isExact(sessions), statusByMinute, sessions };
}

function readHits(file: string): Hit[] {
  const hits: Hit[] = [];
  for (const line of readFileSync(file, 'utf8').split('\n')) {
    if (line === '') continue;
    const client = line.slice(0, line.indexOf(' '));
    const stamp = line.slice(line.indexOf('[') + 1, line.indexOf(']'));
    // The request text may hold quotes, so status and size are sought from where it must end.
    const tail = / (\d\d\d) (\d+|-) "/.exec(line.slice(line.indexOf('"') + 1));
    const tailAtEnd = tail ?? / (\d\d\d) (\d+|-)\s*$/.exec(line);
    if (tailAtEnd === null) continue;
    const [date = '', ...clock] = stamp.split(' ')[0]?.split(':') ?? [];
    const time = Date.parse(
      `${date.replaceAll('/', ' ')} ${clock.join(':')} ${stamp.split(' ')[1] ?? ''}`,
    );
    hits.push({ client, time, status: tailAtEnd[1] ?? '', bytes: Number(tailAtEnd[2]) || 0 });
  }
  return hits.sort((a, b) => a.time - b.time);
}

function countByMinute(hits: readonly Hit[]): string[] {
  const counts: Record<string, number> = {};
  for (const { time, status } of hits) {
    const cell = `${new Date(time - (time % 60_000)).toISOString()}\t${status}`;
    counts[cell] = (counts[cell] ?? 0) + 1;
  }
  return Object.entries(counts).map(([cell, count]) => `${cell}\t${String(count)}`);
}

function sessionLines(hits: readonly Hit[]): string[] {
  const byClient: Record<string, Hit[]> = {};
  for (const hit of hits) (byClient[hit.client] ??= []).push(hit);
  const lines: string[] = [];
  for (const [client, own] of Object.entries(byClient)) {
    let from = 0;
    for (let i = 1; i <= own.length; i += 1) {
      const previous = own[i - 1]?.time ?? 0;
      const next = own[i]?.time ?? Infinity;
      if (next - previous <= sessionGapMs) continue;
      const session = own.slice(from, i);
      const bytes = session.reduce((sum, hit) => sum + hit.bytes, 0);
      const stamp = (at: number): string => new Date(at).toISOString();
      lines.push(
        [
          client,
          stamp(session[0]?.time ?? 0),
          stamp(previous),
          String(session.length),
          String(bytes),
        ].join('\t'),
      );
      from = i;
    }
  }
  return lines;
}

function compare(expected: readonly string[], directory: string): Comparison {
  const { lines, pendingFiles } = committedLines(directory);
  const open = new Map<string, number>();
  for (const line of expected) open.set(line, (open.get(line) ?? 0) + 1);
  const unexpected: string[] = [];
  for (const line of lines) {
    const left = open.get(line) ?? 0;
    if (left === 0) unexpected.push(line);
    else open.set(line, left - 1);
  }
  const missing = [...open].flatMap(([line, count]) => new Array<string>(count).fill(line));
  return {
    expectedLines: expected.length,
    committedLines: lines.length,
    missing,
    unexpected,
    pendingFiles,
  };
}

/** Names that begin with a dot or an underscore are not committed output. */
function committedLines(directory: string): { lines: string[]; pendingFiles: string[] } {
  let names: string[];
  try {
    names = readdirSync(directory).sort();
  } catch {
    return { lines: [], pendingFiles: [] };
  }
  const committed = names.filter((name) => !/^[._]/.test(name));
  const lines = committed.flatMap((name) =>
    readFileSync(join(directory, name), 'utf8').split('\n').slice(0, -1),
  );
  return { lines, pendingFiles: names.filter((name) => /^\.|\.(inprogress|pending)/.test(name)) };
}
