/** How a measuring process tells its parent what it measured: one line of JSON on standard output. */
import { MillraceError } from '../../lib/base/errors.js';

export interface MicroArguments {
  readonly variant: string;
  readonly warmMs: number;
  readonly windowMs: number;
  readonly keys: number;
  readonly shape?: string;
}

export interface MicroResult {
  readonly value: number;
  readonly facts: Readonly<Record<string, number>>;
}

export function microArguments(): MicroArguments {
  return JSON.parse(process.argv[2] ?? '{}') as MicroArguments;
}

export function tell(result: MicroResult): void {
  process.stdout.write(`${JSON.stringify(result)}\n`);
}

export function expectEqual(what: string, seen: number, expected: number): void {
  if (seen !== expected)
    throw new MillraceError('INVARIANT', `${what} is ${seen} instead of ${expected}`);
}

/**
 * Repeats a piece of work for the warm-up and then for the window. `piece` processes some records and answers
 * how many.
 */
export async function repeat(
  { warmMs, windowMs }: MicroArguments,
  piece: () => number | Promise<number>,
): Promise<MicroResult> {
  const warmUntil = performance.now() + warmMs;
  while (performance.now() < warmUntil) await piece();
  const start = performance.now();
  const cpuStart = process.cpuUsage();
  let records = 0;
  let now = start;
  do {
    records += await piece();
    now = performance.now();
  } while (now < start + windowMs);
  const cpu = process.cpuUsage(cpuStart);
  const seconds = (now - start) / 1000;
  const cpuUs = cpu.user + cpu.system;
  return {
    value: records / seconds,
    facts: {
      seconds,
      records,
      cpuNs: (cpuUs * 1000) / records,
      cores: cpuUs / 1e6 / seconds,
      residentMb: process.memoryUsage.rss() / 1024 ** 2,
    },
  };
}
