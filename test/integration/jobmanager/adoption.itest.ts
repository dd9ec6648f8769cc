/**
 * The leader is killed, twice, while a job reads many splits: real processes, real etcd. Its tasks go on, checkpoints
 * go on, and every line comes out once. The supervisor of the killed one starts it again as a standby.
 */
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { readEvents } from '../../../bin/drills/timeline.js';
import { LocalCluster } from '../../../bin/local/local-cluster.js';
import type { JobId } from '../../../lib/base/ids.js';
import { SystemRandom } from '../../../lib/base/system-random.js';
import type { JobDetails } from '../../../lib/gateway/client-gateway.js';
import type { RestClient } from '../../../lib/rest/rest-client.js';
import { TestEtcd } from '../../support/etcd.js';
import { prepare, writeJob } from '../../support/job-files.js';

t.setTimeout(230_000);

const lineCount = 12_000;
/** Of 4 KiB: more than 20 splits, handed out one after another for as long as the job runs. */
const job = `
import { FileSink, FileSource, StreamExecutionEnvironment, WatermarkStrategy } from 'millrace';
const [input, output] = process.argv.slice(2);
const env = StreamExecutionEnvironment.getExecutionEnvironment();
env
  .fromSource(
    FileSource.forLines(input, { splitBytes: 4096, recordsPerSecond: 800 }),
    WatermarkStrategy.noWatermarks(),
    'lines',
  )
  .uid('lines')
  .keyBy((line) => line.slice(-1))
  .map((line) => line.toUpperCase())
  .sinkTo(FileSink.forLines(output))
  .uid('sink');
await env.execute('lines');
`;

class Run {
  readonly cluster: LocalCluster;
  readonly client: RestClient;
  readonly jobId: JobId;

  constructor(cluster: LocalCluster, client: RestClient, jobId: JobId) {
    this.cluster = cluster;
    this.client = client;
    this.jobId = jobId;
  }

  async until<T>(what: string, look: () => Promise<T | undefined>, timeoutMs = 60_000): Promise<T> {
    const deadline = Date.now() + timeoutMs;
    let last: unknown;
    while (Date.now() < deadline) {
      try {
        const found = await look();
        if (found !== undefined) return found;
      } catch (error) {
        // Between two leaders nobody answers.
        last = error;
      }
      await sleep(25);
    }
    throw new Error(`did not happen: ${what}`, { cause: last });
  }

  details(): Promise<JobDetails> {
    return this.client.job(this.jobId);
  }

  async running(): Promise<JobDetails> {
    return this.until('all tasks run', async () => {
      const details = await this.details();
      const isRunning = details.vertices.every(
        ({ tasks, parallelism }) => tasks.RUNNING === parallelism,
      );
      return details.state === 'RUNNING' && isRunning ? details : undefined;
    });
  }

  async checkpoints(atLeast: number): Promise<number> {
    return this.until(`${String(atLeast)} checkpoints`, async () => {
      const { counts } = await this.client.checkpoints(this.jobId);
      return counts.completed >= atLeast ? counts.completed : undefined;
    });
  }

  /** SIGKILL; resolves when another one has adopted the job. */
  async killLeader(): Promise<Record<string, unknown>> {
    const leader = await this.until('a leader', () => this.cluster.leaderName());
    const killedAt = Date.now();
    this.cluster.signal(leader, 'SIGKILL');
    return this.until('adoption', async () => {
      const said = readEvents(this.cluster, killedAt).find(
        ({ event }) => event === 'job.adopted' || event === 'job.adoption-refused',
      );
      return said === undefined ? undefined : { ...said.fields, event: said.event };
    });
  }
}

async function start(t: Test, folder: string, input: string): Promise<Run> {
  const etcd = await TestEtcd.start(t);
  const random = new SystemRandom();
  const cluster = await LocalCluster.start({
    folder,
    clusterId: `adoption-${random.hex(6)}`,
    jobManagers: 2,
    taskManagers: 2,
    slotsPerTaskManager: 1,
    etcd: { endpoints: etcd.endpoints },
    settings: { 'execution.checkpointing.interval': '400 ms' },
  });
  t.teardown(() => cluster.stop());
  const client = cluster.restClient();
  t.teardown(() => client.close());
  const prepared = await prepare(writeJob(folder, job), {
    args: [input, join(folder, 'output')],
    settings: { 'parallelism.default': '2', 'execution.checkpointing.interval': '400 ms' },
  });
  const { jobId } = await client.submit({
    submissionId: random.hex(32),
    jobGraph: prepared.jobGraph,
    bundle: prepared.bundle,
  });
  return new Run(cluster, client, jobId);
}

const attempts = ({ vertices }: JobDetails): string[] =>
  vertices.flatMap(({ subtasks }) => subtasks.map((subtask) => subtask['attempt-id']));

const recordsRead = ({ vertices }: JobDetails): number =>
  Number(vertices[0]?.metrics['write-records'] ?? 0);

t.test('tasks outlive two leaders, and every line is committed once', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'millrace-adoption-'));
  t.teardown(() => {
    rmSync(folder, { recursive: true, force: true });
  });
  const input = join(folder, 'input');
  mkdirSync(input);
  const lines = Array.from({ length: lineCount }, (_, index) => `line ${String(index)}`);
  writeFileSync(join(input, 'lines.txt'), `${lines.join('\n')}\n`);
  const run = await start(t, folder, input);
  const before = attempts(await run.running());
  let completed = await run.checkpoints(2);
  for (const round of [1, 2]) {
    const { event, reason } = await run.killLeader();
    t.equal(
      event,
      'job.adopted',
      `round ${String(round)}: ${typeof reason === 'string' ? reason : 'adopted'}`,
    );
    const adopted = await run.running();
    t.same(attempts(adopted), before, 'no attempt changed');
    t.equal(adopted.generation, 0);
    await run.until('records move', async () =>
      recordsRead(await run.details()) > recordsRead(adopted) ? true : undefined,
    );
    completed = await run.checkpoints(completed + 2);
  }
  const result = await run.until('the end', () => run.client.jobResult(run.jobId), 120_000);
  t.equal(result.state, 'FINISHED');
  const output = join(folder, 'output');
  const committed = readdirSync(output)
    .filter((name) => !/^[._]/.test(name))
    .flatMap((name) => readFileSync(join(output, name), 'utf8').trimEnd().split('\n'));
  t.same(committed.sort(), lines.map((line) => line.toUpperCase()).sort());
});
