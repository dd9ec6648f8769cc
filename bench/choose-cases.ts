/** What the benchmarks' command lines share. */
import { MillraceError } from '../lib/base/errors.js';

/** Cases whose name contains one of `only` (repeated, or separated by commas); without it all. CONFIG when none does. */
export function chooseCases<C extends { readonly name: string }>(
  cases: readonly C[],
  only: readonly string[] | undefined,
): C[] {
  const names = only?.flatMap((one) => one.split(','));
  const chosen = cases.filter(
    ({ name }) => names === undefined || names.some((part) => name.includes(part)),
  );
  if (chosen.length > 0) return chosen;
  throw new MillraceError(
    'CONFIG',
    `no case '${(names ?? []).join(', ')}': one of ${cases.map(({ name }) => name).join(', ')}`,
  );
}

/** A line beside the result, with the time. */
export function progress(line: string): void {
  console.error(`${new Date().toISOString().slice(11, 19)} ${line}`);
}
