/** How commands speak: tables and colours for people, one JSON document for programs. */
import { createInterface } from 'node:readline/promises';
import Table from 'cli-table3';
import colors from 'picocolors';
import { retryAdvice, type ErrorCode } from '../../lib/base/error-codes.js';
import { MillraceError, toFailure, type Failure } from '../../lib/base/errors.js';

export const print = (line = ''): void => {
  process.stdout.write(`${line}\n`);
};

/** Progress and errors go to standard error, so that standard output stays parseable. */
export const printError = (line: string): void => {
  process.stderr.write(`${line}\n`);
};

/** Asks on the terminal. @throws CONFIG where nobody can answer, ABORTED unless the answer is yes. */
export async function confirm(question: string): Promise<void> {
  if (!process.stdin.isTTY || !process.stderr.isTTY)
    throw new MillraceError(
      'CONFIG',
      'this asks before it begins, and there is no terminal to ask: give --yes',
    );
  const lines = createInterface({ input: process.stdin, output: process.stderr });
  const answer = await lines.question(`${question} [y/N] `).finally(() => {
    lines.close();
  });
  if (!/^y(es)?$/i.test(answer.trim())) throw new MillraceError('ABORTED', 'nothing was done');
}

export function printJson(value: unknown): void {
  print(JSON.stringify(value, null, 2));
}

export function table(
  head: readonly string[],
  rows: readonly (readonly (string | number)[])[],
): string {
  const out = new Table({
    head: head.map((title) => colors.bold(title)),
    style: { head: [], border: [], compact: true, 'padding-left': 0, 'padding-right': 2 },
    chars: {
      top: '',
      'top-mid': '',
      'top-left': '',
      'top-right': '',
      bottom: '',
      'bottom-mid': '',
      'bottom-left': '',
      'bottom-right': '',
      left: '',
      'left-mid': '',
      mid: '',
      'mid-mid': '',
      right: '',
      'right-mid': '',
      middle: '',
    },
  });
  for (const row of rows) out.push(row.map(String));
  // Cells are padded to their column, the last one too: what nobody sees is left out.
  return out.toString().replace(/(?:\x20|\x1b\[\d+m)+$/gm, (end) => end.replaceAll(' ', ''));
}

/** RUNNING in green, FAILED in red: only on a terminal (picocolors decides). */
export function colorState(state: string): string {
  if (state === 'RUNNING' || state === 'FINISHED' || state === 'COMPLETED' || state === 'ACTIVE')
    return colors.green(state);
  if (state === 'FAILED' || state === 'CANCELED') return colors.red(state);
  return colors.yellow(state);
}

export const { bold, dim, green, red, yellow, cyan } = colors;

export function formatTime(ms: number): string {
  return ms > 0
    ? new Date(ms)
        .toISOString()
        .replace('T', ' ')
        .replace(/\.\d+Z$/, '')
    : '-';
}

export function formatElapsed(ms: number): string {
  if (ms < 1000) return `${String(Math.round(ms))} ms`;
  const s = Math.floor(ms / 1000);
  if (s < 60) return `${(ms / 1000).toFixed(1)} s`;
  const parts = [Math.floor(s / 3600), Math.floor((s % 3600) / 60), s % 60];
  return parts[0] === 0
    ? `${String(parts[1])}m ${String(parts[2])}s`
    : `${String(parts[0])}h ${String(parts[1])}m`;
}

/** `1 slot`, `2 slots`. */
export function countOf(count: number, noun: string, plural = `${noun}s`): string {
  return `${String(count)} ${count === 1 ? noun : plural}`;
}

export function formatBytes(bytes: number): string {
  if (bytes < 1024) return `${String(bytes)} B`;
  const units = ['KiB', 'MiB', 'GiB', 'TiB'];
  let value = bytes / 1024;
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${value.toFixed(1)} ${units[unit] ?? ''}`;
}

/** Codes that only pass on what another failure says. */
const passingOn: readonly (ErrorCode | undefined)[] = [undefined, 'REMOTE', 'JOB_FAILED'];

/** Where user code threw: its own lines, and the chain that called it. Paths are those of the job, not of its copy in a cache. */
function firstFrames(stack = ''): string[] {
  const frames = stack.split('\n').filter((line) => /^\s+at /.test(line));
  const chain = frames.findIndex((line) => line.includes('millrace/chain/'));
  return frames
    .slice(0, chain < 0 || chain > 8 ? 4 : chain + 1)
    .map((line) => line.replace(/(?:file:\/\/)?\/\S*\/blobs-[0-9a-f]+\//, ''));
}

/** What happened, why, and what to do: the place of what user code threw; any other stack trace only for what is a bug of ours, or on request. */
export function describeError(error: unknown, verbose: boolean): string {
  const failure = toFailure(error);
  const chain: Failure[] = [];
  for (let one: Failure | undefined = failure; one !== undefined; one = one.cause) chain.push(one);
  const lines = [
    `${colors.red('error')}${failure.code === undefined ? '' : ` ${failure.code}`}: ${failure.message}`,
  ];
  for (const cause of chain.slice(1)) {
    if (passingOn.includes(cause.code) && lines.some((line) => line.includes(cause.message)))
      continue;
    const said = lines.some((line) => line.includes(cause.message)) ? '' : `: ${cause.message}`;
    const name = passingOn.includes(cause.code) ? cause.name : (cause.code ?? cause.name);
    const line = `  caused by ${name}${said}`;
    if (lines.at(-1) !== line) lines.push(line);
  }
  if (chain.some(({ code }) => code === 'USER_FUNCTION')) {
    lines.push(...firstFrames(chain.at(-1)?.stack).map((frame) => colors.dim(frame)));
  }
  // Who can act is told by the innermost failure that has a code of its own.
  const decisive = chain.findLast(({ code }) => !passingOn.includes(code)) ?? failure;
  if (decisive.retry !== undefined) lines.push(colors.dim(`  ${retryAdvice[decisive.retry]}`));
  const isOurBug = !(error instanceof MillraceError) || error.code === 'INVARIANT';
  if ((verbose || isOurBug) && failure.stack !== undefined) lines.push(colors.dim(failure.stack));
  return lines.join('\n');
}
