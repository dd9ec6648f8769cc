/**
 * Random jobs on a cluster of processes, their slots threads of their own, give the output that plain arrays give:
 * interpreted and compiled. The cases are those of test/support/random-graph.ts without disturbance, since what
 * disturbs them here is in the drills.
 *
 *   MILLRACE_RUNS=50 node --enable-source-maps build/test/conformance/record-path-processes.test.js    more cases
 *   MILLRACE_SEED=42 ...                                                        other cases
 */
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import t from 'tap';
import { followJob } from '../../bin/commands/follow-job.js';
import { LocalCluster } from '../../bin/local/local-cluster.js';
import { prepareJob } from '../../lib/client/prepare-job.js';
import { packageRoot } from '../support/cli.js';
import { graphOf } from '../support/random-graph-arbitrary.js';
import { expectedOutput, outputOf, type SinkOutput } from '../support/random-graph-model.js';
import { differences } from '../support/random-graph-run.js';
import { planGraph, type GraphPlan, type GraphSpec } from '../support/random-graph.js';
import { testEnv } from '../support/test-env.js';

const runs = Number(process.env['MILLRACE_RUNS'] ?? 2);
const seed = Number(process.env['MILLRACE_SEED'] ?? 7);
const recordsMax = 20_000;
const jobFile = join(packageRoot, 'test/support/random-graph-job.ts');

// Real processes on a busy machine.
t.setTimeout(0);
const env = testEnv();
const folder = mkdtempSync(join(tmpdir(), 'millrace-graphs-'));
const cluster = await LocalCluster.start({
  folder,
  clusterId: 'graphs',
  jobManagers: 1,
  taskManagers: 2,
  slotsPerTaskManager: 4,
  etcd: { members: 1 },
  settings: {},
});
t.teardown(async () => {
  await cluster.stop();
  rmSync(folder, { recursive: true, force: true, maxRetries: 5 });
});

async function runOnCluster(
  spec: GraphSpec,
  compile: boolean,
  parallelism: number,
): Promise<string> {
  const output = join(folder, `output-${env.random.hex(6)}`);
  const prepared = await prepareJob(jobFile, {
    args: [JSON.stringify(spec), output],
    settings: {
      'parallelism.default': String(parallelism),
      'pipeline.compile': String(compile),
      'execution.checkpointing.interval': '50ms',
      'restart-strategy.type': 'none',
    },
    environment: {},
    typeCheck: false,
    random: env.random,
    clock: env.clock,
  });
  const client = cluster.restClient();
  try {
    const { jobId } = await client.submit({
      submissionId: env.random.hex(32),
      jobGraph: prepared.jobGraph,
      bundle: prepared.bundle,
    });
    const result = await followJob(client, jobId, { timeoutMs: 60_000, pollMs: 50 });
    if (result?.state !== 'FINISHED') throw new Error(JSON.stringify(result));
    return output;
  } finally {
    await client.close();
  }
}

function written(output: string, { sinks }: GraphPlan): SinkOutput[] {
  return sinks.map(({ name }) => {
    const folderOfSink = join(output, name);
    const lines = readdirSync(folderOfSink).flatMap((file) =>
      readFileSync(join(folderOfSink, file), 'utf8').split('\n'),
    );
    const texts = lines.filter((line) => line !== '');
    return outputOf(
      texts.map((text) => ({ lane: '', text })),
      false,
    );
  });
}

const graphs = fc.sample(
  graphOf({ nodes: 8, records: 400, phases: 1 }).filter(
    (spec) => expectedOutput(planGraph(spec)).records <= recordsMax,
  ),
  { seed, numRuns: runs },
);
for (const [index, graph] of graphs.entries()) {
  await t.test(`random job ${index + 1}`, async (t) => {
    const plan = planGraph(graph);
    const expected = expectedOutput(plan).sinks.map(({ all }) => ({ all, lanes: {} }));
    for (const compile of [false, true]) {
      const output = await runOnCluster(graph, compile, 1 + ((index + 1) % 4));
      const found = differences(expected, written(output, plan), plan);
      t.same(found, [], `${compile ? 'compiled' : 'interpreted'}: ${JSON.stringify(graph)}`);
    }
  });
}
