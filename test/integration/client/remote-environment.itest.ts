/** A program that runs its job on a cluster by itself: real processes on both sides. */
import { execFile } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import t from 'tap';
import { LocalCluster } from '../../../bin/local/local-cluster.js';
import { packageRoot } from '../../../lib/client/package-root.js';
import { writeJob } from '../../support/job-files.js';

t.setTimeout(120_000);
const run = promisify(execFile);

t.test('createRemoteEnvironment submits the program and waits for its job', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'millrace-remote-'));
  const cluster = await LocalCluster.start({
    folder,
    clusterId: 'remote-test',
    jobManagers: 1,
    taskManagers: 1,
    slotsPerTaskManager: 2,
    etcd: { members: 1 },
    settings: {},
  });
  t.teardown(async () => {
    await cluster.stop();
    rmSync(folder, { recursive: true, force: true });
  });
  mkdirSync(join(folder, 'node_modules'));
  symlinkSync(packageRoot(), join(folder, 'node_modules/millrace'));
  const program = (
    steps: string,
  ): string => `import { FileSink, StreamExecutionEnvironment } from 'millrace';
const env = StreamExecutionEnvironment.createRemoteEnvironment(process.argv[2]);
env.setParallelism(2).setRestartStrategy({ type: 'none' });
${steps}
const result = await env.execute('from a program');
console.log(result.state, result.name);
`;
  const options = { cwd: folder, timeout: 60_000 };
  const url = cluster.restAddresses[0] ?? '';

  const good = writeJob(
    folder,
    program("env.fromSequence(1, 100).map((n) => 'n' + n).sinkTo(FileSink.forLines('out'));"),
    'good.mjs',
  );
  const { stdout } = await run(process.execPath, [good, url], options);
  t.equal(stdout, 'FINISHED from a program\n');
  const lines = readdirSync(join(folder, 'out')).flatMap((name) =>
    readFileSync(join(folder, 'out', name), 'utf8')
      .trimEnd()
      .split('\n'),
  );
  t.strictSame(lines.sort(), Array.from({ length: 100 }, (_, i) => `n${i + 1}`).sort());

  const bad = writeJob(
    folder,
    program("env.fromSequence(1, 9).map((n) => { throw new Error('no ' + n); }).print();"),
    'bad.mjs',
  );
  const failure = (await run(process.execPath, [bad, url], options).catch(
    (error: unknown) => error,
  )) as { code: number; stderr: string };
  t.equal(failure.code, 1);
  t.match(failure.stderr, /JOB_FAILED[^]*USER_FUNCTION/);
  t.match(failure.stderr, /job "from a program" ended FAILED: .*no \d/);
});
