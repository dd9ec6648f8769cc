/** One run of one benchmark job on a cluster: figures taken inside the job, results checked. */
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { MillraceError } from '../../lib/base/errors.js';
import type { BenchJobArguments } from '../jobs/arguments.js';
import type { MeterReport } from '../jobs/meter.js';
import { latencyOf, rateOf, roughRateOf, type Sample } from '../rate.js';
import { submit, waitFor } from '../support.js';
import type { BenchClusters, Topology } from './clusters.js';
import { expectedTotals, type Totals } from './expected.js';

export interface JobSpec {
  readonly job: 'chain' | 'exchange' | 'window' | 'words' | 'latency';
  readonly topology: Topology;
  readonly parallelism: number;
  readonly keys: number;
  readonly variant?: string;
  readonly settings?: Readonly<Record<string, string>>;
  /** Of a source with a rate: latency instead of throughput. */
  readonly recordsPerSecond?: number;
  /** Least number of records before the steady window: to have all keys in state, for instance. */
  readonly warmRecords?: number;
}

/** Part of a run that warms up: V8 takes seconds to compile what a job needs, the longer the less the machine is idle. */
export const warmShare = 0.6;
const jobTimeoutMs = 300_000;
/** Of latency: sources and channels have started. */
const latencyWarmMs = 2000;

/** `profileInto`: directory that gets a CPU profile of each subtask's thread. */
export async function sampleJob(
  clusters: BenchClusters,
  spec: JobSpec,
  records: number,
  profileInto?: string,
): Promise<Sample> {
  const out = profileInto ?? mkdtempSync(join(tmpdir(), 'millrace-bench-'));
  try {
    const all = records + (spec.warmRecords ?? 0);
    const from = Math.floor((warmShare * records + (spec.warmRecords ?? 0)) / spec.parallelism);
    const args: BenchJobArguments = {
      records: all,
      from,
      out,
      parallelism: spec.parallelism,
      keys: spec.keys,
      ...(spec.variant !== undefined && { variant: spec.variant }),
      ...(spec.recordsPerSecond !== undefined && { recordsPerSecond: spec.recordsPerSecond }),
      ...(profileInto !== undefined && { profile: true }),
    };
    await runToEnd(clusters, spec, args);
    const reports = readReports(out, spec.parallelism);
    if (spec.job === 'latency') return latencySample(reports, all);
    verify(spec, reports, expectedOnce(spec, all));
    const rate = rateOf(reports, ({ count }) => count >= from) ?? roughRateOf(reports);
    return ofSource(spec, rate);
  } finally {
    if (profileInto === undefined) rmSync(out, { recursive: true, force: true });
  }
}

/** Records are counted where they end; those that a filter dropped on the way were processed too. */
const share: Partial<Record<JobSpec['job'], number>> = { chain: 0.9 };

function ofSource({ job }: JobSpec, sample: Sample): Sample {
  const passed = share[job];
  if (passed === undefined) return sample;
  const { value, facts } = sample;
  const { records = 0, cpuNs = 0 } = facts;
  const scaled = { ...facts, records: records / passed, cpuNs: cpuNs * passed };
  return { value: value / passed, facts: scaled };
}

async function runToEnd(
  clusters: BenchClusters,
  spec: JobSpec,
  args: BenchJobArguments,
): Promise<void> {
  const client = await clusters.fresh(spec.topology);
  const jobId = await submit(client, {
    job: spec.job,
    args: [JSON.stringify(args)],
    parallelism: spec.parallelism,
    // Without periodic checkpoints unless they are what is measured.
    settings: { 'execution.checkpointing.interval': '0', ...spec.settings },
  });
  await waitFor(`the end of ${spec.job}`, jobTimeoutMs, async () => {
    const status = await client.jobStatus(jobId).catch(() => undefined);
    return status === 'FINISHED' || status === 'FAILED' || status === 'CANCELED'
      ? status
      : undefined;
  });
  const { state } = await client.job(jobId);
  if (state !== 'FINISHED') {
    const why = JSON.stringify(await client.exceptions(jobId, 1));
    throw new MillraceError('JOB_FAILED', `benchmark job ${spec.job} ended as ${state}: ${why}`);
  }
}

function readReports(directory: string, expected: number): MeterReport[] {
  const names = readdirSync(directory).filter((name) => /^subtask-\d+\.json$/.test(name));
  if (names.length !== expected)
    throw new MillraceError('INVARIANT', `${names.length} of ${expected} subtasks reported`);
  return names.map(
    (name) => JSON.parse(readFileSync(join(directory, name), 'utf8')) as MeterReport,
  );
}

const sum = (values: readonly number[]): number => values.reduce((all, one) => all + one, 0);

function verify(spec: JobSpec, reports: readonly MeterReport[], expected: Totals): void {
  for (const field of ['count', 'sum', 'check'] as const) {
    const seen = sum(reports.map((one) => one[field]));
    if (seen !== expected[field])
      throw new MillraceError(
        'INVARIANT',
        `wrong result of ${spec.job}: ${field} is ${seen} instead of ${expected[field]}`,
      );
  }
}

const known = new Map<string, Totals>();

function expectedOnce({ job, variant, keys }: JobSpec, records: number): Totals {
  const name = [job, variant, keys, records].join(' ');
  const found = known.get(name) ?? expectedTotals(job, variant, records, keys);
  known.set(name, found);
  return found;
}

function latencySample(reports: readonly MeterReport[], records: number): Sample {
  const seen = sum(reports.map(({ count }) => count));
  if (seen !== records)
    throw new MillraceError('INVARIANT', `${seen} of ${records} records arrived`);
  return latencyOf(
    reports.flatMap(({ latencies = [], marks }) => {
      // The first mark comes with the first records; traffic is even, so time tells how many are warm.
      const [first, last] = [marks[0]?.atMs ?? 0, marks.at(-1)?.atMs ?? 0];
      const share = Math.min(1, latencyWarmMs / Math.max(1, last - first));
      return latencies.slice(Math.ceil(share * latencies.length));
    }),
  );
}
