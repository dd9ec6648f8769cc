/** Main is run again in worker threads, as in slots: the same job, or an error that names what differs. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import t, { type Test } from 'tap';
import type { Failure } from '../../../lib/base/errors.js';
import { installBundle } from '../../../lib/client/capture.js';
import type { PreparedJob } from '../../../lib/client/prepare-job.js';
import type { JobGraph } from '../../../lib/graph/job-graph.js';
import { prepare, writeJob } from '../../support/job-files.js';
import type { RebuildAnswer } from '../../support/rebuild-worker.js';

t.setTimeout(120_000);

const head =
  "import { StreamExecutionEnvironment } from 'millrace';\nconst env = StreamExecutionEnvironment.getExecutionEnvironment();\n";

/** A thread of its own with another clock, arguments and environment than the capture had. */
async function rebuild(
  t: Test,
  { jobGraph, bundle }: PreparedJob,
  options: { readonly timeoutMs?: number; readonly environment?: Record<string, string> } = {},
): Promise<RebuildAnswer> {
  const folder = await mkdtemp(join(tmpdir(), 'millrace-rebuild-'));
  t.teardown(() => rm(folder, { recursive: true }));
  const bundlePath = await installBundle(folder, bundle);
  return ask(jobGraph, bundlePath, options);
}

async function ask(
  jobGraph: JobGraph,
  bundlePath: string,
  options: { readonly timeoutMs?: number; readonly environment?: Record<string, string> } = {},
): Promise<RebuildAnswer> {
  const worker = new Worker(new URL('../../support/rebuild-worker.js', import.meta.url), {
    workerData: { jobGraph, bundlePath, timeoutMs: options.timeoutMs ?? 20_000 },
    argv: ['something', 'else'],
    env: { ...process.env, ...options.environment },
  });
  try {
    return await new Promise((resolve, reject) => {
      worker.once('message', resolve);
      worker.once('error', reject);
      worker.once('exit', (code) => {
        reject(new Error(`the worker ended with code ${code}`));
      });
    });
  } finally {
    await worker.terminate();
  }
}

const failureOf = (answer: RebuildAnswer): Failure | undefined =>
  'failure' in answer ? answer.failure : undefined;

t.test('a slot finds the functions with everything main had captured', async (t) => {
  const file = writeJob(
    t.testdir(),
    `${head}import { randomUUID } from 'node:crypto';
import { resolve } from 'node:path';
const realNow = Date.now;
const captured = [process.argv.slice(2), env.declareEnvironment('SECRET').SECRET, process.env['SECRET'], resolve('x'), Date.now(), Math.random(), randomUUID()];
env.fromElements(1).map(() => captured).uid('captured')
  .map((x) => [x, realNow() !== captured[4], Date.now() > 1e12, Math.random() !== captured[5]]).uid('after');
await env.execute();`,
  );
  process.env['SECRET'] = 's3cret';
  t.teardown(() => delete process.env['SECRET']);
  const prepared = await prepare(file, { args: ['a', '--b'], workingDirectory: '/work-dir' });
  const first = await rebuild(t, prepared, { environment: { SECRET: 'another' } });
  const second = await rebuild(t, prepared, { environment: { SECRET: '' } });
  t.match(first, { fingerprint: prepared.jobGraph.fingerprint });
  t.strictSame(first, second, 'the same in every slot');
  const { captureTime } = prepared.jobGraph.main;
  t.match('results' in first ? first.results['captured'] : [], [
    ['a', '--b'],
    's3cret',
    's3cret',
    '/work-dir/x',
    captureTime,
    Number,
    /-4.{3}-/,
  ]);
  t.match(
    'results' in first ? first.results['after'] : [],
    [1, true, true, true],
    'functions see the real clock again, also through kept references',
  );
});

t.test('another job than was submitted is refused with the part that differs', async (t) => {
  const folder = t.testdir();
  const job = (body: string): Promise<PreparedJob> =>
    prepare(writeJob(folder, `${head}${body}\nawait env.execute();`));
  const unstable = await job(
    "import { threadId } from 'node:worker_threads';\nfor (let i = 0; i <= threadId; i += 1) env.fromElements(i).name('n' + i).uid('u' + i);",
  );
  t.match(failureOf(await rebuild(t, unstable)), {
    code: 'JOB_FINGERPRINT',
    domain: 'user',
    message: /the graph differs: operator "n\d" \(uid u\d\) is (new|missing)/,
  });
  const functions = await job(
    "import { threadId } from 'node:worker_threads';\nenv.fromElements(1).map(new Function('x', 'return x + ' + threadId)).uid('add');",
  );
  t.match(failureOf(await rebuild(t, functions)), {
    code: 'JOB_FINGERPRINT',
    message: /the function of operator "Map" \(uid add\) differs/,
  });
  const good = await job('env.fromElements(1).print();');
  const other = await mkdtemp(join(folder, 'other-'));
  const path = await installBundle(other, good.bundle);
  await writeFile(path, 'changed');
  t.match(failureOf(await ask(good.jobGraph, path)), {
    code: 'JOB_FINGERPRINT',
    message: /the bundle differs/,
  });
});

t.test('a main that fails only in a slot says so', async (t) => {
  const folder = t.testdir();
  const inSlot = "process.env['IN_SLOT'] === 'yes'";
  const cases: [string, object][] = [
    [
      `if (${inSlot}) throw new Error('no database here');`,
      {
        code: 'JOB_MAIN_FAILED',
        message: /no database here/,
        cause: { message: 'no database here' },
      },
    ],
    [
      `if (${inSlot}) await new Promise(() => {});`,
      { code: 'JOB_NO_EXECUTE', message: /within 700 ms \(main was still running\)/ },
    ],
    [
      `if (${inSlot}) void Promise.reject(new Error('floating')), await new Promise(() => {});`,
      { code: 'JOB_MAIN_FAILED', message: /floating/ },
    ],
  ];
  for (const [body, expected] of cases) {
    const prepared = await prepare(
      writeJob(folder, `${head}${body}\nenv.fromElements(1).print();\nawait env.execute();`),
    );
    t.match(
      failureOf(await rebuild(t, prepared, { timeoutMs: 700, environment: { IN_SLOT: 'yes' } })),
      expected,
      body,
    );
  }
  const silent = await prepare(
    writeJob(
      folder,
      `${head}if (process.env['IN_SLOT'] !== 'yes') { env.fromElements(1).print(); void env.execute(); }`,
    ),
  );
  t.match(
    failureOf(await rebuild(t, silent, { timeoutMs: 700, environment: { IN_SLOT: 'yes' } })),
    { code: 'JOB_NO_EXECUTE', message: /main ended/ },
  );
});
