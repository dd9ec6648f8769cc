/** Every kind of bad input, as its user meets it: a clear error with its code, a non-zero exit, and the cluster lives on. */
import { execFileSync, spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';
import { accessLogInput, accessLogJob, AccessLogRun } from '../../bin/drills/access-log-run.js';
import { LocalCluster } from '../../bin/local/local-cluster.js';
import { verifyAccessLog } from '../../examples/access-log/verify.js';
import { millrace, type CliResult } from '../support/cli.js';

t.setTimeout(235_000);
const folder = mkdtempSync(join(tmpdir(), 'millrace-bad-'));
t.teardown(() => {
  rmSync(folder, { recursive: true, force: true, maxRetries: 5 });
});

const cluster = await LocalCluster.start({
  folder,
  clusterId: 'bad-input',
  jobManagers: 1,
  taskManagers: 1,
  slotsPerTaskManager: 2,
  etcd: { members: 1 },
  settings: {
    'taskmanager.memory.slot.heap.size': '64m',
    'slot.request.timeout': '2s',
    'env.log.level': 'info',
  },
});
t.teardown(() => cluster.stop());

const onceMore = [
  '-D',
  'restart-strategy.type=fixed-delay',
  '-D',
  'restart-strategy.fixed-delay.attempts=1',
  '-D',
  'restart-strategy.fixed-delay.delay=100ms',
];

function writeJob(name: string, body: string): string {
  const file = join(folder, `${name}.ts`);
  writeFileSync(
    file,
    `import * as m from 'millrace';\nconst env = m.StreamExecutionEnvironment.getExecutionEnvironment();\n${body}\n`,
  );
  return file;
}

/** Runs a job attached on the cluster. */
function run(file: string, ...args: string[]): Promise<CliResult> {
  return millrace(['run', file, '--dir', folder, '--no-type-check', ...onceMore, ...args]);
}

function refused(t: Test, done: CliResult, code: number, ...patterns: RegExp[]): void {
  t.equal(done.code, code, `exit code ${String(code)}: ${done.stderr.slice(-600)}`);
  for (const pattern of patterns) t.match(done.stderr, pattern);
  t.match(done.stderr, /try again|trying again/, 'it says whether trying again helps');
}

/** Runs one of our processes to its end. */
function startProcess(
  role: 'jobmanager' | 'taskmanager',
  definitions: readonly string[],
): Promise<CliResult> {
  const entry = fileURLToPath(new URL(`../../bin/${role}.js`, import.meta.url));
  const args = definitions.flatMap((definition) => ['-D', definition]);
  return new Promise((resolve) => {
    const child = spawn(process.execPath, [entry, ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
    let stdout = '';
    let stderr = '';
    child.stdout.on('data', (chunk: Buffer) => (stdout += chunk.toString()));
    child.stderr.on('data', (chunk: Buffer) => (stderr += chunk.toString()));
    const timer = setTimeout(() => child.kill('SIGKILL'), 40_000);
    child.once('close', (code) => {
      clearTimeout(timer);
      resolve({ code, stdout, stderr });
    });
  });
}

const ha = (storageDir: string, endpoints: readonly string[], clusterId: string): string[] => [
  'high-availability.type=etcd',
  `high-availability.cluster-id=${clusterId}`,
  `high-availability.storageDir=${storageDir}`,
  `high-availability.etcd.endpoints=${endpoints.join(',')}`,
];

await t.test('an unknown configuration key names the nearest known one', async (t) => {
  const done = await millrace([
    'run',
    accessLogJob,
    '--dir',
    folder,
    '-D',
    'execution.checkpointing.intervall=1s',
  ]);
  refused(
    t,
    done,
    2,
    /CONFIG/,
    /execution\.checkpointing\.intervall/,
    /execution\.checkpointing\.interval\b/,
  );
});

await t.test('an ill-typed configuration value says what is expected', async (t) => {
  refused(
    t,
    await millrace(['run', accessLogJob, '--dir', folder, '-D', 'parallelism.default=many']),
    2,
    /CONFIG/,
    /parallelism\.default/,
    /many/,
  );
});

await t.test('a job that does not type-check is not submitted', async (t) => {
  const file = writeJob(
    'ill-typed',
    `env.fromElements(1, 2).map((n) => n.toUpperCase()).print();\nawait env.execute('x');`,
  );
  refused(
    t,
    await millrace(['run', file, '--dir', folder]),
    1,
    /JOB_TYPE_ERROR/,
    /ill-typed\.ts:3:\d+/,
    /toUpperCase/,
  );
});

await t.test('a job whose main throws is not submitted', async (t) => {
  refused(
    t,
    await run(writeJob('main-throws', `throw new Error('no such topic');`)),
    1,
    /JOB_MAIN_FAILED/,
    /no such topic/,
  );
});

await t.test('a job that never calls execute is not submitted', async (t) => {
  refused(
    t,
    await run(writeJob('no-execute', `env.fromElements(1).print();`)),
    1,
    /JOB_NO_EXECUTE/,
    /execute/,
  );
});

await t.test('a job that throws in a map fails with the cause and the operator', async (t) => {
  const file = writeJob(
    'map-throws',
    `env.fromElements(1, 2).map((n) => { if (n === 2) throw new Error('cannot map 2'); return n; }).name('picky').print();\nawait env.execute('map-throws');`,
  );
  refused(t, await run(file), 1, /cannot map 2/, /picky|USER_FUNCTION/);
});

await t.test('a job that throws in a timer fails with the cause', async (t) => {
  const file = writeJob(
    'timer-throws',
    `class P implements m.KeyedProcessFunction<number, number, number> {
  processElement(n: number, ctx: m.KeyedProcessContext<number>): void { ctx.timerService.registerEventTimeTimer(n); }
  onTimer(): void { throw new Error('timer went off badly'); }
}
env.fromElements(1, 2).assignTimestampsAndWatermarks(m.WatermarkStrategy.forMonotonousTimestamps<number>().withTimestampAssigner((n) => n)).keyBy((n) => n).process(P).print();
await env.execute('timer-throws');`,
  );
  refused(t, await run(file), 1, /timer went off badly/);
});

await t.test(
  'more slots than exist: the shortage is named, the job fails after the request timeout',
  async (t) => {
    const file = writeJob(
      'wide',
      `env.fromSequence(1, 10).map((n) => n).setParallelism(5).print();\nawait env.execute('wide');`,
    );
    refused(t, await run(file, '-p', '5'), 1, /NO_RESOURCE_AVAILABLE|slots/, /5 slots/, /2/);
  },
);

await t.test('a missing input file is named', async (t) => {
  const file = writeJob(
    'no-input',
    `env.fromSource(m.FileSource.forLines('/nonexistent/input.log'), m.WatermarkStrategy.noWatermarks<string>(), 'f').print();\nawait env.execute('no-input');`,
  );
  refused(t, await run(file), 1, /\/nonexistent\/input\.log/);
});

await t.test(
  'missing and damaged checkpoint metadata are refused, never replaced by something older',
  async (t) => {
    const output = join(folder, 'restore-output');
    const job = ['--', '--input', accessLogInput, '--output', output, '--rate', '0'];
    refused(
      t,
      await millrace([
        'run',
        accessLogJob,
        '--dir',
        folder,
        '--no-type-check',
        ...onceMore,
        '-s',
        join(folder, 'nowhere/chk-1'),
        ...job,
      ]),
      1,
      /CHECKPOINT_NOT_FOUND/,
      /nowhere/,
    );

    const first = await AccessLogRun.submit(cluster, {
      rate: 2000,
      parallelism: 1,
      settings: { 'execution.checkpointing.interval': '200 ms' },
    });
    await first.waitUntilUnderway(2);
    await first.client.cancel(first.jobId);
    await first.waitUntilEnd();
    const path = (await first.checkpoints()).latest.completed?.external_path ?? '';
    await first.close();
    t.match(path, /chk-\d+/, 'a cancelled job keeps its retained checkpoints');
    const metadata = join(path, '_metadata');
    const bytes = readFileSync(metadata);
    bytes[Math.floor(bytes.length / 2)] = (bytes[Math.floor(bytes.length / 2)] ?? 0) ^ 0xff;
    writeFileSync(metadata, bytes);
    refused(
      t,
      await millrace([
        'run',
        accessLogJob,
        '--dir',
        folder,
        '--no-type-check',
        ...onceMore,
        '-s',
        path,
        ...job,
      ]),
      1,
      /CHECKPOINT_CORRUPT/,
      /_metadata/,
    );
  },
);

await t.test('a slot over its memory limit fails its tasks, not the TaskManager', async (t) => {
  const file = writeJob(
    'hoarder',
    `const hoard: unknown[] = [];
env.fromSequence(1, 1e9).map((n) => { hoard.push({ n, text: 'x'.repeat(50) + n }); return n; }).sinkTo(new m.BlackholeSink<number>());
await env.execute('hoarder');`,
  );
  const before = cluster.processes().find((one) => one.role === 'taskmanager')?.pid;
  refused(t, await run(file, '-p', '1'), 1, /SLOT_MEMORY/, /taskmanager\.memory\.slot\.heap\.size/);
  t.ok(
    cluster.processes().every((one) => one.alive),
    'every process lives',
  );
  t.equal(cluster.processes().find((one) => one.role === 'taskmanager')?.pid, before);
});

await t.test(
  'a full disk fails the job with DISK_FULL, and nothing uncommitted is called committed',
  async (t) => {
    const small = join(folder, 'small-disk');
    mkdirSync(small);
    try {
      execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=64k', 'tmpfs', small], { stdio: 'ignore' });
    } catch {
      t.comment('skipped: mounting a small file system needs root');
      return;
    }
    try {
      const job = ['--', '--input', accessLogInput, '--output', small, '--rate', '0'];
      const done = await millrace([
        'run',
        accessLogJob,
        '--dir',
        folder,
        '--no-type-check',
        ...onceMore,
        ...job,
      ]);
      refused(t, done, 1, /DISK_FULL/, /small-disk/);
      // What was committed before the disk was full is right, and there once.
      const { sessions, statusByMinute } = verifyAccessLog(accessLogInput, small);
      t.same([...sessions.unexpected, ...statusByMinute.unexpected], []);
      t.ok(sessions.missing.length > 0, 'not everything fits');
    } finally {
      execFileSync('umount', ['-l', small]);
    }
  },
);

await t.test('a port in use is named with its key', async (t) => {
  const blocker = createServer();
  const port = await new Promise<number>((resolve) => {
    blocker.listen(0, '127.0.0.1', () => {
      const address = blocker.address();
      resolve(typeof address === 'object' && address !== null ? address.port : 0);
    });
  });
  const done = await startProcess('jobmanager', [
    ...ha(join(folder, 'port-storage'), cluster.endpoints, 'port-test'),
    `rest.port=${String(port)}`,
  ]);
  blocker.close();
  refused(t, done, 3, /PORT_IN_USE/, new RegExp(String(port)), /rest\.port/);
});

await t.test('an etcd that cannot be reached is named', async (t) => {
  const done = await startProcess('jobmanager', [
    ...ha(join(folder, 'no-etcd'), ['http://127.0.0.1:9'], 'no-etcd'),
    'rest.port=0',
  ]);
  refused(t, done, 3, /ETCD_UNAVAILABLE/, /127\.0\.0\.1:9/);
});

await t.test('two clusters on one prefix: the second is refused', async (t) => {
  const done = await startProcess('jobmanager', [
    ...ha(join(folder, 'other-storage'), cluster.endpoints, cluster.clusterId),
    'rest.port=0',
  ]);
  refused(t, done, 2, /CLUSTER_MISMATCH/, /bad-input|other-storage/);
});

await t.test('the cluster still works after all of this', async (t) => {
  t.ok(
    cluster.processes().every((one) => one.alive),
    'every process is the one that was started',
  );
  const run = await AccessLogRun.submit(cluster, { rate: 0, parallelism: 2 });
  t.equal((await run.waitUntilEnd()).state, 'FINISHED');
  t.ok(run.verify().exactlyOnce);
  await run.close();
});
