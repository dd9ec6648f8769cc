/**
 * Runs planned random jobs on MiniClusters: in one slot, in several, on TaskManagers with sockets between them; with
 * a failure or a stop in the middle. Answers what the sinks committed.
 */
import fc from 'fast-check';
import { withTimeout } from '../../lib/base/abort.js';
import type { Env } from '../../lib/base/env.js';
import { newJobId } from '../../lib/base/ids.js';
import type { DefinedJob } from '../../lib/api/execution-context.js';
import type { StreamExecutionEnvironment } from '../../lib/api/stream-execution-environment.js';
import type { Committer, Sink, SinkContext, SinkWriter } from '../../lib/api/sink.js';
import type { JobExecutionResult } from '../../lib/gateway/client-gateway.js';
import { MiniCluster, type MiniClusterOptions } from '../../lib/testing/mini-cluster.js';
import { defineJob } from './defined-job.js';
import { buildGraph } from './random-graph-build.js';
import { sinkText } from './random-graph-functions.js';
import { outputOf, type SinkOutput } from './random-graph-model.js';
import { GatedSource, SourceControl, type Interruption } from './random-graph-source.js';
import type { GraphPlan, PlannedSink } from './random-graph.js';
import { fieldsOf } from './random-graph-values.js';

export const places = ['slot', 'slots', 'taskmanagers'] as const;
export type Place = (typeof places)[number];

export interface Variant {
  readonly place: Place;
  readonly parallelism: number;
  readonly interruption: {
    readonly kind: 'none' | 'crash' | 'rescale';
    readonly phase: number;
    /** By split, in turn; negative: goes on. */
    readonly at: readonly number[];
    /** After `rescale`. */
    readonly parallelism: number;
  };
}

export const variant: fc.Arbitrary<Variant> = fc.record({
  place: fc.constantFrom(...places),
  parallelism: fc.integer({ min: 1, max: 4 }),
  interruption: fc.record({
    kind: fc.constantFrom('none', 'crash', 'rescale'),
    phase: fc.nat(2),
    at: fc.array(fc.integer({ min: -1, max: 60 }), { minLength: 1, maxLength: 4 }),
    parallelism: fc.integer({ min: 1, max: 4 }),
  }),
});

/** As it takes place: one slot has room for one subtask of everything. */
export function parallelismsOf({ place, parallelism, interruption }: Variant): [number, number] {
  return place === 'slot' ? [1, 1] : [parallelism, interruption.parallelism];
}

const clusterOptions: Readonly<Record<Place, MiniClusterOptions>> = {
  slot: { taskManagers: 1, slots: 1 },
  slots: { taskManagers: 1, slots: 8 },
  taskmanagers: { taskManagers: 4, slots: 2 },
};

/** Clusters that are used again for many jobs; a failed run discards its cluster. */
export class Clusters {
  readonly #env: Env;
  readonly #running = new Map<Place, MiniCluster>();

  constructor(env: Env) {
    this.#env = env;
  }

  get env(): Env {
    return this.#env;
  }

  async at(place: Place): Promise<MiniCluster> {
    let running = this.#running.get(place);
    if (running === undefined) {
      running = await MiniCluster.start(this.#env, clusterOptions[place]);
      this.#running.set(place, running);
    }
    return running;
  }

  async discard(place: Place): Promise<void> {
    const running = this.#running.get(place);
    this.#running.delete(place);
    await running?.close();
  }

  async close(): Promise<void> {
    for (const place of places) await this.discard(place);
  }
}

interface Entry {
  readonly lane: string;
  readonly text: string;
}

interface Chunk {
  /** Tells a repeated commit from a new one. */
  readonly id: string;
  /** First and second job, checkpoint. */
  readonly order: readonly [number, number];
  readonly entries: readonly Entry[];
}

/** Keeps what is committed, as text: exactly once, in the order of checkpoints. */
class TraceSink implements Sink<unknown, Chunk> {
  readonly #chunks: Map<string, Chunk>;
  readonly #isTimed: boolean;
  readonly #run: number;

  constructor(chunks: Map<string, Chunk>, isTimed: boolean, run: number) {
    this.#chunks = chunks;
    this.#isTimed = isTimed;
    this.#run = run;
  }

  createWriter(context: SinkContext): SinkWriter<unknown, Chunk> {
    let open: Entry[] = [];
    return {
      write: (value, timestamp) => {
        open.push({ lane: fieldsOf(value).l, text: sinkText(this.#isTimed, value, timestamp) });
      },
      prepareCommit: (checkpointId) => {
        if (open.length === 0) return [];
        const entries = open;
        open = [];
        const id = `${context.attemptId}:${checkpointId}`;
        return [{ id, order: [this.#run, checkpointId], entries }];
      },
      close: () => undefined,
    };
  }

  createCommitter(): Committer<Chunk> {
    return {
      commit: async (chunks) =>
        chunks.map((chunk) => {
          if (this.#chunks.has(chunk.id)) return 'alreadyCommitted';
          this.#chunks.set(chunk.id, chunk);
          return 'committed';
        }),
    };
  }
}

export interface RunOptions {
  readonly plan: GraphPlan;
  readonly variant: Variant;
  readonly compile: boolean;
}

const runTimeoutMs = 30_000;

/** Rejects when the job does not finish. */
export async function runGraph(clusters: Clusters, options: RunOptions): Promise<SinkOutput[]> {
  try {
    return await run(clusters, options);
  } catch (error) {
    await clusters.discard(options.variant.place);
    throw error;
  }
}

async function run(clusters: Clusters, options: RunOptions): Promise<SinkOutput[]> {
  const { plan, variant: chosen } = options;
  const { env } = clusters;
  const cluster = await clusters.at(chosen.place);
  const [parallelism, parallelismAfter] = parallelismsOf(chosen);
  const chunks = plan.sinks.map(() => new Map<string, Chunk>());
  const interruption = interruptionOf(plan, chosen);
  const control = new SourceControl(plan.spec, interruption);
  const first = define(env, options, { parallelism, control, chunks, run: 0 });
  const jobId = await cluster.submit(first.jobGraph, first.functions);
  const ended = cluster.result(jobId);
  const wait = <T>(what: string, promise: Promise<T>): Promise<T> =>
    withTimeout(env.clock, runTimeoutMs, what, promise);
  if (interruption?.action !== 'stop') {
    requireFinished(await wait('the job', ended));
    return collected(plan, chunks);
  }
  // A job that fails instead never gets there.
  const early = await wait('the stop', Promise.race([ended, control.reached.promise]));
  if (early !== undefined) requireFinished(early);
  await cluster.gateway.cancelJob(jobId);
  await wait('the cancellation', ended);
  // The checkpoints of a cancelled job are kept.
  const { latest } = await cluster.gateway.jobCheckpoints(jobId);
  const path = latest.completed?.external_path;
  if (path === undefined) throw new Error('the stopped job has no checkpoint');
  const after = new SourceControl(plan.spec, undefined, control);
  const second = define(env, options, {
    ...{ parallelism: parallelismAfter, control: after, chunks, run: 1 },
    restore: { path, allowNonRestoredState: false },
  });
  const secondId = await cluster.submit(second.jobGraph, second.functions);
  requireFinished(await wait('the restored job', cluster.result(secondId)));
  return collected(plan, chunks);
}

function requireFinished({ state, failure }: JobExecutionResult): void {
  if (state === 'FINISHED') return;
  const texts: string[] = [];
  for (let at = failure; at !== undefined; at = at.cause) texts.push(at.stack ?? at.message);
  throw new Error(`the job ended ${state}: ${texts.join('\ncaused by ')}`);
}

function collected({ sinks }: GraphPlan, chunks: readonly Map<string, Chunk>[]): SinkOutput[] {
  return sinks.map(({ ordered }, at) => {
    const inOrder = [...chunks[at]!.values()].sort(
      ({ order: a }, { order: b }) => a[0] - b[0] || a[1] - b[1],
    );
    return outputOf(
      inOrder.flatMap(({ entries }) => entries),
      ordered,
    );
  });
}

function interruptionOf({ spec }: GraphPlan, { interruption }: Variant): Interruption | undefined {
  const { kind, phase, at } = interruption;
  if (kind === 'none') return undefined;
  const from = phase % spec.phases;
  const splits = spec.sources.flatMap(({ splits: n, count }, index) =>
    Array.from({ length: n }, (_, split) => ({ id: `${index}.${split}`, count })),
  );
  const positions = splits.flatMap(({ id, count }, index): [string, number][] => {
    const wanted = at[index % at.length]!;
    return wanted < 0 ? [] : [[id, from * count + Math.max(1, wanted % count)]];
  });
  if (positions.length === 0) positions.push([splits[0]!.id, from * splits[0]!.count + 1]);
  return { action: kind === 'crash' ? 'crash' : 'stop', at: new Map(positions) };
}

interface Definition {
  readonly parallelism: number;
  readonly control: SourceControl;
  readonly chunks: readonly Map<string, Chunk>[];
  readonly run: number;
  readonly restore?: { readonly path: string; readonly allowNonRestoredState: boolean };
}

function define(
  env: Env,
  { plan, variant: chosen, compile }: RunOptions,
  definition: Definition,
): DefinedJob {
  const { parallelism, control, chunks, run: index, restore } = definition;
  const isCrashed = chosen.interruption.kind === 'crash';
  const settings = { 'pipeline.compile': String(compile) };
  return captureJob(env, { settings, restore }, (streams) => {
    streams
      .setParallelism(parallelism)
      // What fails checkpoints is tested elsewhere; the next phase waits for one that completes.
      .enableCheckpointing(control.isChecked ? 5 : 0, { tolerableFailures: 100 })
      .setAutoWatermarkInterval(2)
      .setRestartStrategy({ type: 'fixed-delay', attempts: isCrashed ? 1 : 0, delayMs: 1 });
    buildGraph(streams, plan, {
      sourceOf: (at) => new GatedSource(plan.spec, at, control),
      sinkTo: (stream, { name, timed }: PlannedSink, at) =>
        stream
          .sinkTo(new TraceSink(chunks[at]!, timed, index))
          .name(name)
          .uid(name),
    });
  });
}

/** The job that `build` makes, as `execute()` hands it over. */
export function captureJob(
  env: Env,
  options: {
    readonly settings: Readonly<Record<string, string>>;
    readonly restore?: Definition['restore'];
  },
  build: (streams: StreamExecutionEnvironment) => void,
): DefinedJob {
  const { settings, restore } = options;
  const attributes = { jobId: newJobId(env.random), ...(restore && { restore }) };
  return defineJob(build, settings, attributes);
}

/** The first differences as text; empty when the outputs are the same. */
export function differences(
  expected: readonly SinkOutput[],
  actual: readonly SinkOutput[],
  { sinks }: GraphPlan,
): string[] {
  return expected.flatMap((want, at) => {
    const have = actual[at]!;
    const name = sinks[at]!.name;
    const unsorted = multisetDifference(want.all, have.all);
    if (unsorted.length > 0) return unsorted.map((line) => `${name}: ${line}`);
    return Object.entries(want.lanes).flatMap(([lane, texts]) => {
      const index = texts.findIndex((text, i) => text !== have.lanes[lane]?.[i]);
      if (index < 0) return [];
      return [
        `${name}: lane ${lane}, record ${index}: expected ${texts[index]}, found ${have.lanes[lane]?.[index]}`,
      ];
    });
  });
}

const shownMax = 4;

function multisetDifference(want: readonly string[], have: readonly string[]): string[] {
  const counts = new Map<string, number>();
  for (const text of want) counts.set(text, (counts.get(text) ?? 0) + 1);
  for (const text of have) counts.set(text, (counts.get(text) ?? 0) - 1);
  const missing = [...counts].filter(([, n]) => n > 0).map(([text, n]) => `missing ${n} x ${text}`);
  const extra = [...counts].filter(([, n]) => n < 0).map(([text, n]) => `extra ${-n} x ${text}`);
  return [...missing.slice(0, shownMax), ...extra.slice(0, shownMax)];
}
