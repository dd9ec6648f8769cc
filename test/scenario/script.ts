/**
 * Scripts for machines, as raft's testdata: a command, `----`, the expected answer, an empty line.
 * Lines of a block before `----` are commands; `#` begins a comment. UPDATE=1 rewrites the answers;
 * read the difference before committing it.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

export interface Block {
  readonly title: string;
  readonly commands: readonly string[];
  readonly expected: string;
}

const separator = '----';

/** Source file of a script, from the compiled test that uses it. */
export function scriptPath(testUrl: string, name: string): string {
  const compiled = dirname(fileURLToPath(testUrl));
  return join(compiled.replace(/([/\\])build([/\\])/, '$1'), name);
}

export function readScript(path: string): { readonly preamble: string; readonly blocks: Block[] } {
  const parts = readFileSync(path, 'utf8').split(/\n{2,}/);
  const preamble = parts.filter((part) => !part.includes(separator)).join('\n\n');
  const blocks = parts
    .filter((part) => part.includes(separator))
    .map((part) => {
      const [before = '', after = ''] =
        part.split(`${separator}\n`).length > 1
          ? part.split(`${separator}\n`)
          : [part.replace(separator, ''), ''];
      const lines = before.trim().split('\n');
      return {
        title: lines
          .filter((line) => line.startsWith('#'))
          .join(' ')
          .replaceAll('# ', ''),
        commands: lines.filter((line) => line !== '' && !line.startsWith('#')),
        expected: after.trim(),
      };
    });
  return { preamble, blocks };
}

/** Runs every block and compares, or rewrites the file when UPDATE is set. */
export function runScript(
  path: string,
  run: (command: string) => string[],
  compare: (found: string, expected: string, message: string) => void,
): void {
  const { preamble, blocks } = readScript(path);
  const results = blocks.map((block) => block.commands.flatMap(run).join('\n'));
  if (process.env['UPDATE'] !== undefined) {
    const text = blocks.map(({ title, commands }, i) =>
      [
        ...(title === '' ? [] : [`# ${title}`]),
        ...commands,
        separator,
        ...(results[i] === '' ? [] : [results[i]]),
      ].join('\n'),
    );
    writeFileSync(path, `${[preamble, ...text].join('\n\n')}\n`);
    return;
  }
  blocks.forEach((block, i) => {
    compare(
      results[i] ?? '',
      block.expected,
      `${basename(path)}: ${block.title} ${block.commands.join(' / ')}`,
    );
  });
}
