import { execFile } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import t from 'tap';

const run = promisify(execFile);

t.test('the job of the README counts words in local mode', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'millrace-word-count-'));
  t.teardown(() => {
    rmSync(folder, { recursive: true, force: true });
  });
  const output = join(folder, 'counts');
  await run(process.execPath, [
    ...['build/bin/millrace.js', 'run', 'examples/word-count/job.ts', '--target', 'local'],
    ...['--', '--input', 'LICENSE', '--output', output],
  ]);

  const lines = readdirSync(output)
    .filter((name) => !name.startsWith('.'))
    .flatMap((name) => readFileSync(join(output, name), 'utf8').split('\n'))
    .filter((line) => line !== '');
  const expected: string[] = [];
  const counts = new Map<string, number>();
  for (const word of readFileSync('LICENSE', 'utf8').toLowerCase().match(/\w+/g) ?? []) {
    const count = (counts.get(word) ?? 0) + 1;
    counts.set(word, count);
    expected.push(`${word}\t${count}`);
  }
  t.ok(expected.length > 1000, 'the text has words');
  t.strictSame(lines.sort(), expected.sort(), 'every running count once');
});
