/** The rules of .dependency-cruiser.cjs and eslint.config.js report what they exist for: each meets a violation. */
import { spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import t from 'tap';

/** A small tree with the project's own settings and the given files; packages are found above it. */
function plant(folder: string, files: Readonly<Record<string, string>>): void {
  for (const name of [
    'package.json',
    'tsconfig.json',
    '.dependency-cruiser.cjs',
    'eslint.config.js',
  ]) {
    cpSync(name, join(folder, name));
  }
  for (const [path, text] of Object.entries(files)) {
    mkdirSync(dirname(join(folder, path)), { recursive: true });
    writeFileSync(join(folder, path), text);
  }
}

function run(folder: string, tool: string, args: readonly string[]): string {
  const { stdout, stderr } = spawnSync(
    process.execPath,
    [join(resolve('node_modules'), tool), ...args],
    { cwd: folder, encoding: 'utf8' },
  );
  return stdout + stderr;
}

t.test('each layering rule reports its violation, and right code passes', (t) => {
  const folder = t.testdir();
  const clean = {
    'lib/base/a.ts': 'export const a = 1;\n',
    'lib/gateway/g.ts': "import { a } from '../base/a.js';\nexport const g = a;\n",
    'lib/jobmanager/jm.ts': "import { g } from '../gateway/g.js';\nexport const jm = g;\n",
    'lib/taskmanager/tm.ts': "import { g } from '../gateway/g.js';\nexport const tm = g;\n",
    'ha/kv.ts': "import { a } from '../lib/base/a.js';\nexport const kv = a;\n",
    'ha/etcd/e.ts': "import { Etcd3 } from 'etcd3';\nexport const e = Etcd3;\n",
    'ha/x.machine.ts': "import { a } from '../lib/base/a.js';\nexport const x = a;\n",
    'checkpoint/c.ts': "import { a } from '../lib/base/a.js';\nexport const c = a;\n",
    'bin/b.ts': "import { jm } from '../lib/jobmanager/jm.js';\nexport const b = jm;\n",
  };
  plant(folder, clean);
  const cruise = (): string =>
    run(folder, 'dependency-cruiser/bin/dependency-cruise.mjs', [
      '--config=.dependency-cruiser.cjs',
      ...['lib', 'ha', 'checkpoint', 'bin'],
    ]);
  t.match(cruise(), /no dependency violations found/);

  plant(folder, {
    'lib/base/cycle1.ts':
      "import { c2 } from './cycle2.js';\nexport const c1 = (): unknown => c2;\n",
    'lib/base/cycle2.ts':
      "import { c1 } from './cycle1.js';\nexport const c2 = (): unknown => c1;\n",
    'lib/jobmanager/bad.ts': "import { tm } from '../taskmanager/tm.js';\nexport const bad = tm;\n",
    'ha/bad.ts': "import { c } from '../checkpoint/c.js';\nexport const bad = c;\n",
    'checkpoint/bad.ts':
      "import type { jm } from '../lib/jobmanager/jm.js';\nexport type Bad = typeof jm;\n",
    'lib/base/sneaky.ts':
      "import { readFileSync } from 'node:fs';\nexport const s = readFileSync;\n",
    'lib/base/between.ts': "import { s } from './sneaky.js';\nexport const between = s;\n",
    'ha/bad.machine.ts':
      "import { between } from '../lib/base/between.js';\nexport const m = between;\n",
    'ha/bad-etcd.ts': "import { Etcd3 } from 'etcd3';\nexport const e = Etcd3;\n",
    'lib/gateway/bad-grpc.ts':
      "import { Server } from '@grpc/grpc-js';\nexport const s = Server;\n",
    'lib/gateway/bad-http.ts': "import { request } from 'undici';\nexport const r = request;\n",
    'lib/gateway/bad-log.ts': "import { pino } from 'pino';\nexport const p = pino;\n",
    'lib/base/bad-bin.ts': "import { b } from '../../bin/b.js';\nexport const bad = b;\n",
  });
  const report = cruise();
  for (const [rule, culprit] of [
    ['no-cycle', 'lib/base/cycle1.ts'],
    ['jobmanager-and-taskmanager-meet-at-gateways', 'lib/jobmanager/bad.ts'],
    ['ha-and-checkpoint-stand-apart', 'ha/bad.ts'],
    ['ha-and-checkpoint-below-upper-lib', 'checkpoint/bad.ts'],
    ['machines-reach-no-io', 'ha/bad.machine.ts'],
    ['etcd3-lives-in-one-place', 'ha/bad-etcd.ts'],
    ['grpcgrpc-js-lives-in-one-place', 'lib/gateway/bad-grpc.ts'],
    ['undici-lives-in-one-place', 'lib/gateway/bad-http.ts'],
    ['pino-lives-in-one-place', 'lib/gateway/bad-log.ts'],
    ['product-code-imports-no-tests-nor-entry-points', 'lib/base/bad-bin.ts'],
  ] as const) {
    t.match(report, `error ${rule}: ${culprit}`, `${rule} names ${culprit}`);
  }
  t.end();
});

t.test('each lint ban reports its violation with the remedy', (t) => {
  const folder = t.testdir();
  plant(folder, {
    'lib/ambient.ts': [
      'export const a = Date.now();',
      'export const b = new Date();',
      'export const c = Math.random();',
      'export const d = performance.now();',
      'setTimeout(() => undefined, 1);',
      "export const f = process.env['X'];",
      'process.exit(1);',
      "console.log('x');",
      'export const i = AbortSignal.timeout(1);',
      'export default 1;',
    ].join('\n'),
    'lib/bad.machine.ts': [
      "import { readFileSync } from 'node:fs';",
      'export const a = readFileSync;',
      'export async function b(): Promise<void> {',
      '  await Promise.resolve();',
      '}',
      'export const c = process.pid;',
      'export const d = Date.now();',
      'export const e = new Promise(() => undefined);',
    ].join('\n'),
    'lib/floating.ts': 'export const f = (): void => {\n  Promise.resolve(1);\n};\n',
    'bin/edge.ts': 'console.log(Date.now());\nsetTimeout(() => process.exit(0), 1);\n',
    'lib/base/system-x.ts': 'export const now = (): number => Date.now();\n',
  });
  const output = run(folder, 'eslint/bin/eslint.js', ['--format=json', '.']);
  const report = JSON.parse(output) as {
    filePath: string;
    messages: { line: number; ruleId: string; message: string }[];
  }[];
  const linesOf = (file: string): number[] => {
    const messages = report.find(({ filePath }) => filePath.endsWith(file))?.messages ?? [];
    return [...new Set(messages.map(({ line }) => line))].sort((x, y) => x - y);
  };
  t.strictSame(linesOf('lib/ambient.ts'), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
  t.strictSame(linesOf('lib/bad.machine.ts'), [1, 3, 4, 6, 7, 8]);
  t.strictSame(linesOf('lib/floating.ts'), [2]);
  t.strictSame(linesOf('bin/edge.ts'), [], 'entry points may');
  t.strictSame(linesOf('lib/base/system-x.ts'), [], 'the clock itself may');
  t.match(output, /env\.clock\.setTimer/, 'the message names the remedy');
  t.end();
});
