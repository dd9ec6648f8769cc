/**
 * Notes what main does with files, the network and other processes: the outcome is captured in closures
 * but may be another one when a slot runs main again. Only calls from the program itself count, not the
 * module loader's.
 */
import childProcess from 'node:child_process';
import fs from 'node:fs';
import http from 'node:http';
import https from 'node:https';
import { syncBuiltinESMExports } from 'node:module';
import net from 'node:net';

export interface OutsideAccess {
  /** One sentence per kind of access. */
  warnings(): readonly string[];
  /** Puts the real functions back. */
  stop(): void;
}

type Functions = Record<string, unknown>;

const watched: readonly (readonly [what: string, name: string, holder: object])[] = [
  ['reads or writes files', 'fs', fs],
  ['reads or writes files', 'fs.promises', fs.promises],
  ['uses the network', 'net', net],
  ['uses the network', 'http', http],
  ['uses the network', 'https', https],
  ['starts processes', 'child_process', childProcess],
];

export function watchOutsideAccess(): OutsideAccess {
  const calls = new Map<string, Set<string>>();
  const restorers: (() => void)[] = [];
  const note = (what: string, name: string): void => {
    if (!isCalledByProgram()) return;
    const names = calls.get(what) ?? new Set();
    calls.set(what, names.add(name));
  };
  const replace = (holder: Functions, key: string, what: string, name: string): void => {
    const real = holder[key];
    if (typeof real !== 'function') return;
    holder[key] = new Proxy(real, {
      apply: (target, self: unknown, args: unknown[]): unknown => {
        note(what, name);
        return Reflect.apply(target, self, args);
      },
    });
    restorers.push(() => {
      holder[key] = real;
    });
  };
  for (const [what, module, holder] of watched) {
    for (const key of Object.keys(holder).filter((name) => /^[a-z]/.test(name))) {
      replace(holder as Functions, key, what, `${module}.${key}`);
    }
  }
  replace(globalThis, 'fetch', 'uses the network', 'fetch');
  syncBuiltinESMExports();
  return {
    warnings: () =>
      [...calls].map(
        ([what, names]) =>
          `main ${what} (${[...names].join(', ')}): every slot runs main again and may find something else`,
      ),
    stop: () => {
      for (const restore of restorers) restore();
      syncBuiltinESMExports();
    },
  };
}

/** The first frame that is not of this file: the program's, or Node's own. */
function isCalledByProgram(): boolean {
  const descriptor = Object.getOwnPropertyDescriptor(Error, 'prepareStackTrace');
  Error.prepareStackTrace = (_error, frames) => frames.map((frame) => frame.getFileName() ?? '');
  const { stack } = new Error('to look at the stack') as { stack?: unknown };
  if (descriptor === undefined) Reflect.deleteProperty(Error, 'prepareStackTrace');
  else Object.defineProperty(Error, 'prepareStackTrace', descriptor);
  const names = Array.isArray(stack) ? (stack as string[]) : [];
  const caller = names.find((name) => name !== '' && name !== import.meta.url) ?? '';
  return caller !== '' && !caller.startsWith('node:');
}
