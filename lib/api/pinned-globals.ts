/* eslint-disable no-restricted-properties, @typescript-eslint/unbound-method -- The one place that replaces what the
   bans are about: ambient time, randomness, arguments and environment, while a user's main runs. */
/**
 * What main can capture without saying so must be the same when a slot runs it again: the clock, random
 * numbers, arguments, the working directory and declared environment variables. Pinned from before the
 * bundle is loaded until `execute()` hands over, then put back.
 */
import nodeCrypto from 'node:crypto';
import { syncBuiltinESMExports } from 'node:module';
import { SeededRandom } from '../base/random.js';
import type { PinnedMain } from '../graph/job-graph.js';

/** The program's file and its own arguments. */
export function programArguments(): readonly string[] {
  return process.argv.slice(1);
}

/** What relative paths refer to right now. */
export function currentWorkingDirectory(): string {
  return process.cwd();
}

/** Set variables only; nothing else of the environment is looked at. */
export function readEnvironment(names: readonly string[]): Readonly<Record<string, string>> {
  const values: Record<string, string> = {};
  for (const name of names) {
    const value = process.env[name];
    if (value !== undefined) values[name] = value;
  }
  return values;
}

/**
 * Returns the function that unpins. Libraries keep references such as `const now = Date.now`, so what
 * is pinned goes back to the real thing by itself once unpinned.
 */
export function pinGlobals(main: PinnedMain): () => void {
  let isPinned = true;
  const pinned = (): boolean => isPinned;
  const restorers = [
    pinDate(main.captureTime, pinned),
    pinRandom(new SeededRandom(main.seed), pinned),
    pinProcess(main),
  ];
  return () => {
    if (!isPinned) return;
    isPinned = false;
    for (const restore of restorers) restore();
  };
}

/** Time stands still: how often main looks at the clock may depend on the machine. */
function pinDate(captureTime: number, pinned: () => boolean): () => void {
  const RealDate = Date;
  const now = (): number => (pinned() ? captureTime : RealDate.now());
  const PinnedDate: DateConstructor = new Proxy(RealDate, {
    construct: (target, args: unknown[], newTarget) =>
      Reflect.construct(
        target,
        args.length === 0 && pinned() ? [captureTime] : args,
        newTarget === PinnedDate ? target : newTarget,
      ) as object,
    apply: (target) => (pinned() ? new target(captureTime).toString() : target()),
    get: (target, property, receiver) =>
      property === 'now' ? now : (Reflect.get(target, property, receiver) as unknown),
  });
  globalThis.Date = PinnedDate;
  return () => {
    globalThis.Date = RealDate;
  };
}

function pinRandom(random: SeededRandom, pinned: () => boolean): () => void {
  const realRandom = Math.random;
  const realUuid = nodeCrypto.randomUUID;
  const webCrypto = globalThis.crypto;
  const realWebUuid = webCrypto.randomUUID;
  const uuid = (): ReturnType<typeof realUuid> => {
    const hex = random.hex(32);
    const variant = '89ab'[Math.floor(random.next() * 4)] ?? '8';
    return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-4${hex.slice(13, 16)}-${variant}${hex.slice(17, 20)}-${hex.slice(20)}`;
  };
  Math.random = () => (pinned() ? random.next() : realRandom());
  nodeCrypto.randomUUID = (options) => (pinned() ? uuid() : realUuid(options));
  webCrypto.randomUUID = () => (pinned() ? uuid() : realWebUuid.call(webCrypto));
  // So that `import { randomUUID } from 'node:crypto'` sees it too.
  syncBuiltinESMExports();
  return () => {
    Math.random = realRandom;
    nodeCrypto.randomUUID = realUuid;
    webCrypto.randomUUID = realWebUuid;
    syncBuiltinESMExports();
  };
}

function pinProcess(main: PinnedMain): () => void {
  const { argv } = process;
  const realCwd = process.cwd;
  const names = Object.keys(main.environment);
  const before = readEnvironment(names);
  process.argv = [...main.argv];
  process.cwd = () => main.workingDirectory;
  Object.assign(process.env, main.environment);
  return () => {
    process.argv = argv;
    process.cwd = realCwd;
    for (const name of names) {
      const value = before[name];
      // Assigning undefined would make it the text "undefined".
      if (value === undefined) delete process.env[name];
      else process.env[name] = value;
    }
  };
}
