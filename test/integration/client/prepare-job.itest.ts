/** Type check, bundle and capture of real files in real worker threads. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { readdir } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { bundleJob } from '../../../lib/client/bundle.js';
import { checkJobGraph } from '../../../lib/graph/job-graph-codec.js';
import { prepare, writeJob } from '../../support/job-files.js';

t.setTimeout(120_000);

const head =
  "import { StreamExecutionEnvironment } from 'millrace';\nconst env = StreamExecutionEnvironment.getExecutionEnvironment();\n";

t.test(
  'a job file becomes a valid graph and a bundle; what main captures is recorded',
  async (t) => {
    const folder = t.testdir();
    writeJob(folder, 'export const factor: number = 3;', 'factor.ts');
    const file = writeJob(
      folder,
      `${head}import { factor } from './factor.js';
const { GREETING } = env.declareEnvironment('GREETING', 'NOT_SET');
env.fromSequence(1, Number(process.argv[2])).map((n) => n * factor).name(GREETING + ' ' + process.cwd()).print();
await env.execute();
throw new Error('nothing after execute runs');`,
    );
    process.env['GREETING'] = 'hello';
    t.teardown(() => delete process.env['GREETING']);
    const { jobGraph, bundle } = await prepare(file, {
      args: ['10', '--flag'],
      parallelism: 2,
      name: 'from outside',
      environment: { GIVEN: 'x' },
      settings: { 'execution.checkpointing.interval': '1s' },
      restore: { path: '/checkpoints/chk-1', allowNonRestoredState: false },
      workingDirectory: folder,
    });
    t.equal(checkJobGraph(JSON.parse(JSON.stringify(jobGraph))).name, 'from outside');
    t.equal(jobGraph.vertices[0]?.name, `Source: Sequence -> hello ${folder} -> Sink: Print`);
    t.equal(jobGraph.vertices[0]?.parallelism, 2);
    t.match(jobGraph.main, {
      argv: ['node', 'job.ts', '10', '--flag'],
      environment: { GREETING: 'hello', GIVEN: 'x' },
      workingDirectory: folder,
    });
    t.match(jobGraph, {
      restore: { path: '/checkpoints/chk-1' },
      config: { checkpointing: { intervalMs: 1000 } },
    });
    t.equal(jobGraph.bundle?.sizeBytes, bundle.byteLength);
    const again = await prepare(file, {
      args: ['10', '--flag'],
      parallelism: 2,
      workingDirectory: folder,
    });
    t.equal(
      again.jobGraph.bundle?.digest,
      jobGraph.bundle?.digest,
      'the same sources, the same bundle',
    );
    t.equal(again.jobGraph.fingerprint, jobGraph.fingerprint);
    t.not(again.jobGraph.jobId, jobGraph.jobId);
  },
);

t.test('a bundle takes in CommonJS dependencies and keeps each module its own URL', async (t) => {
  const folder = t.testdir();
  const dependency = join(folder, 'node_modules/legacy');
  mkdirSync(dependency, { recursive: true });
  writeFileSync(
    join(dependency, 'package.json'),
    '{"name":"legacy","version":"1.0.0","main":"index.js"}',
  );
  writeFileSync(
    join(dependency, 'index.js'),
    "const path = require('node:path'); module.exports = { base: (p) => path.basename(p) };",
  );
  const file = writeJob(
    folder,
    `#!/usr/bin/env node
${head}import legacy from 'legacy';
env.fromElements(1).map((n) => n).name(legacy.base('/a/legacy.txt') + ' ' + import.meta.url + ' ' + import.meta.dirname);
await env.execute();`,
  );
  const { jobGraph } = await prepare(file);
  t.equal(jobGraph.vertices[0]?.operators[1]?.name, `legacy.txt file://${file} ${folder}`);
  const { bytes } = await bundleJob(file);
  t.match(Buffer.from(bytes).toString(), /sourceMappingURL=data:/);
});

t.test('the clock and random numbers stand still in main', async (t) => {
  const file = writeJob(
    t.testdir(),
    `${head}import { randomUUID } from 'node:crypto';
const at = [Date.now(), new Date().getTime(), Date.parse(new Date(5).toISOString()), new Date() instanceof Date];
await new Promise((resolve) => setTimeout(resolve, 20));
env.fromElements(1).name(JSON.stringify([...at, Date.now(), Math.random() === Math.random(), randomUUID() === crypto.randomUUID(), randomUUID().length]));
await env.execute();`,
  );
  const { jobGraph } = await prepare(file);
  const { captureTime } = jobGraph.main;
  t.strictSame(JSON.parse(jobGraph.vertices[0]?.operators[0]?.name ?? ''), [
    captureTime,
    captureTime,
    5,
    true,
    captureTime,
    false,
    false,
    36,
  ]);
});

t.test('a main that is wrong gives an error that says how', async (t) => {
  const folder = t.testdir();
  const rejects = async (
    source: string,
    expected: { code: string; message?: RegExp; cause?: object },
    name = 'job.ts',
  ): Promise<void> => {
    await t.rejects(
      prepare(writeJob(folder, source, name), { settings: { 'execution.main.timeout': '1 s' } }),
      expected,
      source.slice(head.length, head.length + 60),
    );
  };
  await rejects(`${head}throw new Error('no such table');`, {
    code: 'JOB_MAIN_FAILED',
    message: /no such table/,
    cause: { message: /no such table/ },
  });
  await rejects(
    `${head}async function main() { await null; throw new TypeError('late'); }\nvoid main();`,
    { code: 'JOB_MAIN_FAILED', message: /late/ },
  );
  await rejects(`${head}process.exit(3);`, { code: 'JOB_MAIN_FAILED', message: /code 3/ });
  await rejects(`${head}env.fromElements(1).print();`, {
    code: 'JOB_NO_EXECUTE',
    message: /ended without calling execute/,
  });
  await rejects(`${head}await new Promise(() => setInterval(() => {}, 1000));`, {
    code: 'JOB_NO_EXECUTE',
    message: /within 1000 ms/,
  });
  await rejects(`${head}for (;;);`, { code: 'JOB_NO_EXECUTE', message: /still busy/ });
  await rejects(
    `${head}env.fromElements(1).print(); void env.execute('a'); void env.execute('b');`,
    { code: 'JOB_SECOND_EXECUTE' },
  );
  await rejects(
    `${head}env.fromElements(1).print(); void env.execute('a');
const other = StreamExecutionEnvironment.getExecutionEnvironment(); other.fromElements(2).print(); void other.execute('b');`,
    { code: 'JOB_SECOND_EXECUTE' },
  );
  await rejects(
    `${head}try { await env.execute(); } catch { console.log('swallowed'); process.exit(0); }`,
    { code: 'JOB_INVALID', message: /no operators/ },
  );
  await rejects(
    `${head}env.fromElements(1).map((n) => n).setParallelism(-1); await env.execute();`,
    { code: 'JOB_INVALID', message: /parallelism of "Map" is -1/ },
  );
  await rejects(`${head}await env.fromElements(1).executeAndCollect();`, {
    code: 'JOB_INVALID',
    message: /local environment/,
  });
  await rejects(`${head}const x = ;`, { code: 'JOB_INVALID', message: /job.ts:3:11 Unexpected/ });
  await rejects(`${head}import 'no-such-package';`, {
    code: 'JOB_INVALID',
    message: /job.ts:3:8 Could not resolve "no-such-package"/,
  });
  await t.rejects(prepare(join(folder, 'missing.ts')), {
    code: 'FILE_NOT_FOUND',
    message: /missing.ts/,
  });
  await t.rejects(prepare(join(folder, 'job.ts'), { settings: { 'no.such.key': '1' } }), {
    code: 'CONFIG',
  });
  const leftovers = (await readdir(tmpdir())).filter((name) =>
    name.startsWith('millrace-capture-'),
  );
  t.ok(leftovers.length < 3, 'captures clean up behind them');
});

t.test('main may look outside, with a warning, and print', async (t) => {
  const folder = t.testdir({ 'table.json': '[1]' });
  const file = writeJob(
    folder,
    `${head}import { readFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
const path = ${JSON.stringify(join(folder, 'table.json'))};
const table = JSON.parse(readFileSync(path, 'utf8')); await readFile(path);
console.log('table has', table.length);
env.fromCollection(table).print(); await env.execute();`,
  );
  const warnings: string[] = [];
  let output = '';
  const listeners = {
    onWarning: (warning: string) => warnings.push(warning),
    onOutput: (text: string) => (output += text),
  };
  await prepare(file, listeners);
  t.match(warnings, [/main reads or writes files \(fs.readFileSync, fs.promises.readFile\)/]);
  t.equal(warnings.length, 1);
  t.match(output, 'table has 1');
  const quiet = writeJob(
    folder,
    `${head}import { readFileSync } from 'node:fs';
env.fromElements('x').map((path) => readFileSync(path)).print(); await env.execute();`,
  );
  await prepare(quiet, listeners);
  t.equal(warnings.length, 1, 'functions may');
});
