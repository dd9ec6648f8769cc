/** The program that runs all tests must fail whenever a test does: each way to fail is planted here. */
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import t, { type Test } from 'tap';

interface Run {
  readonly status: number | null;
  readonly output: string;
}

function drive(root: string, ...args: string[]): Run {
  const { status, stdout } = spawnSync(
    process.execPath,
    [resolve('build/test/driver.js'), ...args],
    {
      encoding: 'utf8',
      env: {
        ...process.env,
        MILLRACE_INTERNAL_TEST_ROOT: root,
        MILLRACE_INTERNAL_TEST_TIMEOUT_MS: '2000',
      },
    },
  );
  return { status, output: stdout };
}

/** Compiled tests need a source beside them, as the driver looks for those. */
function tree(t: Test, files: Readonly<Record<string, string>>): string {
  const sources = Object.fromEntries(Object.keys(files).map((name) => [`${name}.test.ts`, '']));
  const outputs = Object.fromEntries(
    Object.entries(files).map(([name, text]) => [`${name}.test.js`, text]),
  );
  return t.testdir({
    'package.json': '{"type":"module"}',
    test: { unit: sources },
    build: { test: { unit: outputs } },
  });
}

const passing = "console.log('TAP version 14\\nok 1 - a\\n    ok 1 - inner\\nok 2 - b\\n1..2');";

t.test('passing points are counted at the top level, skipped ones apart', (t) => {
  const root = tree(t, {
    one: passing,
    two: "console.log('ok 1 - c\\nok 2 - d # SKIP not here\\n1..2');",
  });
  const { status, output } = drive(root, 'unit');
  t.match(output, /^3 passed, 0 failed$/m);
  t.match(output, /^\[.*\] 1 skipped$/m);
  t.equal(status, 0);
  t.end();
});

t.test(
  'a failed point, a crash, an early exit, a hang and an empty file each fail the run',
  (t) => {
    const root = tree(t, {
      bad: "console.log('ok 1 - a\\nnot ok 2 - the reason\\n1..2'); process.exitCode = 1;",
      crash: "console.log('ok 1 - a'); throw new Error('boom');",
      early: "console.log('ok 1 - a'); process.exit(3);",
      empty: '',
      hang: "console.log('ok 1 - a'); setInterval(() => {}, 1000);",
      ok: passing,
    });
    const { status, output } = drive(root, 'unit');
    t.equal(status, 1);
    t.match(output, /^6 passed, 5 failed$/m);
    t.match(output, 'not ok 2 - the reason', 'the output of a failed file is shown');
    t.match(output, 'Error: boom');
    t.match(output, /hang\.test\.ts: FAILED.*no end within 2 s/);
    t.notMatch(output, 'ok 1 - inner', 'the output of a passing file is not');
    t.end();
  },
);

t.test('processes that a hanging test started end with it', (t) => {
  const root = tree(t, {
    hang: `
      import { spawn } from 'node:child_process';
      import { writeFileSync } from 'node:fs';
      const child = spawn(process.execPath, ['-e', 'setInterval(() => {}, 1000)']);
      writeFileSync('pid', String(child.pid));
      setInterval(() => {}, 1000);`,
  });
  const { status } = drive(root, 'unit');
  t.equal(status, 1);
  const pid = Number(readFileSync(join(root, 'pid'), 'utf8'));
  // A killed process may stay as a zombie where nobody reaps orphans.
  const stat = `/proc/${pid}/stat`;
  const state = existsSync(stat) ? readFileSync(stat, 'utf8').split(') ')[1]?.[0] : 'gone';
  t.match(state, /^(gone|Z|X)/);
  t.end();
});

t.test('asking for a test that does not exist is a failure', (t) => {
  const { status, output } = drive(tree(t, { one: passing }), 'nothing-like-this');
  t.equal(status, 1);
  t.match(output, 'no test matches nothing-like-this');
  t.end();
});
