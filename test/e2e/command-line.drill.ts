/** A day with the command line: start a cluster, run a job, lose the leader, look, cancel, continue, stop. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import t from 'tap';
import { accessLogInput, accessLogJob } from '../../bin/drills/access-log-run.js';
import { LocalCluster } from '../../bin/local/local-cluster.js';
import { verifyAccessLog } from '../../examples/access-log/verify.js';
import { millrace, type CliResult } from '../support/cli.js';

t.setTimeout(200_000);
const folder = mkdtempSync(join(tmpdir(), 'millrace-cli-'));
const output = join(folder, 'output');
t.teardown(async () => {
  await millrace(['cluster', 'stop', '--dir', folder]);
  rmSync(folder, { recursive: true, force: true, maxRetries: 5 });
});

/** Runs a command that must succeed. */
async function ok(...args: string[]): Promise<CliResult> {
  const [command = '', ...rest] = args;
  const done = await millrace([...command.split(' '), ...rest, '--dir', folder]);
  if (done.code !== 0)
    throw new Error(`millrace ${command} exited with ${String(done.code)}: ${done.stderr}`);
  return done;
}

async function json<T>(...args: string[]): Promise<T> {
  return JSON.parse((await ok(...args, '--json')).stdout) as T;
}

interface ClusterStatus {
  readonly leader: string | null;
  readonly processes: readonly {
    readonly name: string;
    readonly pid: number;
    readonly alive: boolean;
    readonly leader: boolean;
  }[];
}

interface JobStatusView {
  readonly job: {
    readonly jid: string;
    readonly state: string;
    readonly epoch: string;
    readonly vertices: readonly {
      readonly subtasks: readonly { readonly 'attempt-id': string }[];
    }[];
  };
  readonly checkpoints: {
    readonly counts: { readonly completed: number };
    readonly latest: {
      readonly completed?: { readonly external_path: string };
      readonly restored?: { readonly id: number; readonly external_path: string };
    };
  };
  readonly leader: { readonly jobManagerId: string };
}

function attempts({ job }: JobStatusView): string[] {
  return job.vertices.flatMap(({ subtasks }) => subtasks.map((one) => one['attempt-id']));
}

async function until<T>(what: string, probe: () => Promise<T | undefined>): Promise<T> {
  const deadline = Date.now() + 60_000;
  for (;;) {
    const seen = await probe();
    if (seen !== undefined) return seen;
    if (Date.now() > deadline) throw new Error(`${what} did not happen within 60 s`);
    await sleep(100);
  }
}

const jobArguments = (rate: number): string[] => [
  '--',
  '--input',
  accessLogInput,
  '--output',
  output,
  '--rate',
  String(rate),
];
let path = '';

await t.test('cluster start brings up every process and says how to go on', async (t) => {
  const started = await millrace([
    'cluster',
    'start',
    '--dir',
    folder,
    '--cluster',
    'day',
    '--jobmanagers',
    '2',
    '--taskmanagers',
    '1',
    '--slots',
    '2',
  ]);
  t.equal(started.code, 0, started.stderr);
  t.match(started.stdout, /cluster day is ready after/);
  t.match(started.stdout, /millrace run/);
  const again = await millrace(['cluster', 'start', '--dir', folder, '--cluster', 'day']);
  t.equal(again.code, 0, 'a second start of a running cluster starts what is dead: nothing');
  t.notMatch(again.stderr, /starting/);
  const seen = await json<ClusterStatus>('cluster status');
  t.equal(seen.processes.filter((one) => one.alive).length, 6);
  t.equal(seen.processes.filter((one) => one.leader).length, 1);
});

await t.test('info prints the plan, run -d submits, list shows it', async (t) => {
  const plan = await millrace(['info', accessLogJob, '--no-type-check']);
  t.match(plan.stdout, /records are redistributed by HASH/);
  const submitted = await millrace([
    'run',
    accessLogJob,
    '-d',
    '-p',
    '2',
    '--no-type-check',
    '--dir',
    folder,
    '-D',
    'execution.checkpointing.interval=300ms',
    ...jobArguments(300),
  ]);
  t.equal(submitted.code, 0, submitted.stderr);
  t.match(submitted.stdout, /submitted access-log as [0-9a-f]{32}/);
  t.match((await ok('list')).stdout, /access-log/);
});

await t.test(
  'the leader is killed by hand: the next one goes on with the running tasks',
  async (t) => {
    const before = await until('two checkpoints', async () => {
      const seen = await json<JobStatusView>('status', 'access-log');
      return seen.checkpoints.counts.completed >= 2 ? seen : undefined;
    });
    const { processes } = await json<ClusterStatus>('cluster status');
    const victim = processes.find((one) => one.leader);
    process.kill(victim?.pid ?? -1, 'SIGKILL');
    const after = await until('the job running under another leader', async () => {
      const seen = await json<JobStatusView>('status', 'access-log');
      return seen.job.state === 'RUNNING' && seen.job.epoch !== before.job.epoch ? seen : undefined;
    });
    t.not(after.leader.jobManagerId, before.leader.jobManagerId);
    t.strictSame(attempts(after), attempts(before), 'no task was restarted');
    await until('the dead process started again by its supervisor', async () => {
      const seen = await json<ClusterStatus>('cluster status');
      const back = seen.processes.find((one) => one.name === victim?.name);
      return back?.alive === true && back.pid !== victim?.pid ? seen : undefined;
    });
  },
);

await t.test('drills on a cluster in use say what they would strike, and ask', async (t) => {
  const args = ['drill', 'run', 'etcd-leader-kill', '--on', 'day', '--dir', folder];
  const refused = await millrace(args);
  t.equal(refused.code, 2, refused.stderr);
  t.match(refused.stderr, /free slots|give --yes/);
  const unable = await millrace(['drill', 'run', 'etcd-no-space', '--on', 'day', '--dir', folder]);
  t.equal(unable.code, 2);
  t.match(unable.stderr, /a cluster of their own/);
  t.match((await millrace(['drill', 'list'])).stdout, /leader-kill \*/);
});

await t.test(
  'cancel keeps the checkpoints, run -s continues at another parallelism, exactly once',
  async (t) => {
    await until('a checkpoint of the new leader', async () => {
      const seen = await json<JobStatusView>('status', 'access-log');
      return seen.checkpoints.counts.completed > 0 ? seen : undefined;
    });
    t.match((await ok('cancel', 'access-log')).stdout, /CANCELED/);
    path =
      (await json<JobStatusView>('status', 'access-log')).checkpoints.latest.completed
        ?.external_path ?? '';
    const done = await millrace([
      'run',
      accessLogJob,
      '-p',
      '1',
      '-s',
      path,
      '--no-type-check',
      '--dir',
      folder,
      ...jobArguments(0),
    ]);
    t.equal(done.code, 0, done.stderr);
    t.match(done.stdout, /access-log FINISHED/);
    // A job that is cancelled while a checkpoint is under way leaves hidden files of it, for whoever goes on from it.
    const { statusByMinute, sessions } = verifyAccessLog(accessLogInput, output);
    for (const part of [statusByMinute, sessions]) {
      t.equal(part.committedLines, part.expectedLines);
      t.strictSame([part.missing, part.unexpected], [[], []]);
    }
  },
);

await t.test('logs shows what the job printed, with its task', async (t) => {
  const { stdout } = await ok('logs', path.split('/').at(-3) ?? '');
  t.match(stdout, /task state changed RUNNING/);
});

await t.test('cluster stop leaves no process behind', async (t) => {
  t.match((await ok('cluster stop')).stdout, /is stopped/);
  const left = LocalCluster.open(folder, 'day').processes();
  t.equal(left.length, 6);
  t.same(
    left.filter((one) => one.alive),
    [],
  );
  const nothing = await millrace(['list', '--dir', folder]);
  t.equal(nothing.code, 1);
  t.match(nothing.stderr, /millrace cluster start/);
});
