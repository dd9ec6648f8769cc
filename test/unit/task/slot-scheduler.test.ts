import t from 'tap';
import { SeededRandom } from '../../../lib/base/random.js';
import type { AttemptId } from '../../../lib/base/ids.js';
import type { ShipStrategy } from '../../../lib/graph/job-graph.js';
import type { TaskStateSnapshot } from '../../../lib/state/state-handle.js';
import { SlotCluster } from '../../support/slot-cluster.js';
import type { TestEdge, TestJob, TestVertex } from '../../support/slot-job.js';
import {
  CheckingSink,
  readState,
  SlowWatermarkOperator,
  StampOperator,
  TestSource,
  type TestRecord,
} from '../../support/slot-operators.js';

const seeds = 240;

interface RandomJob {
  readonly job: TestJob;
  readonly sinks: CheckingSink[];
  readonly recordsPerSource: number;
  /** Copies of each source record that reach a vertex, over all of its subtasks. */
  readonly copies: ReadonlyMap<string, number>;
}

/** Layers of vertices: sources, one or two stages with unions and diamonds, sinks. */
function randomJob(random: SeededRandom): RandomJob {
  const int = (min: number, max: number): number =>
    min + Math.floor(random.next() * (max - min + 1));
  const chance = (p: number): boolean => random.next() < p;
  const recordsPerSource = int(20, 150);
  const sinks: CheckingSink[] = [];
  const vertices: TestVertex[] = [];
  const edges: TestEdge[] = [];
  const copies = new Map<string, number>();
  const layers: string[][] = [];
  const depth = int(2, 4);
  for (let layer = 0; layer < depth; layer += 1) {
    const names = Array.from(
      { length: int(1, layer === 0 ? 2 : 3) },
      (_, i) => `v${String(layer)}${String(i)}`,
    );
    for (const name of names) {
      const parallelism = int(1, 3);
      const isSink = layer === depth - 1;
      const padded = chance(0.2);
      const pauses = chance(0.4);
      vertices.push({
        name,
        parallelism,
        operators:
          layer === 0
            ? [
                () =>
                  new TestSource({
                    records: recordsPerSource,
                    watermarkEvery: int(5, 40),
                    ...(pauses && { pauses: () => chance(0.05) }),
                    ...(padded && {
                      paddingOf: (seq) => (seq % 17 === 3 ? 'x'.repeat(700) : undefined),
                    }),
                  }),
                ...(chance(0.5) ? [() => new StampOperator()] : []),
              ]
            : isSink
              ? [
                  ...(chance(0.5) ? [() => new SlowWatermarkOperator(int(1, 9))] : []),
                  () => {
                    const sink = new CheckingSink();
                    sinks.push(sink);
                    return sink;
                  },
                ]
              : [
                  () => new StampOperator(),
                  ...(chance(0.4) ? [() => new SlowWatermarkOperator(int(1, 9))] : []),
                ],
      });
      if (layer === 0) {
        copies.set(name, 1);
        continue;
      }
      // From the layer above at least, and now and then across layers.
      const above = layers[layer - 1]!;
      const from = new Set(above.filter(() => chance(0.6)));
      if (from.size === 0) from.add(above[0]!);
      if (layer > 1 && chance(0.3)) from.add(layers[layer - 2]![0]!);
      let total = 0;
      for (const source of from) {
        const sourceParallelism = vertices.find((v) => v.name === source)!.parallelism;
        const strategies: ShipStrategy[] = ['HASH', 'REBALANCE', 'RESCALE', 'BROADCAST', 'GLOBAL'];
        if (sourceParallelism === parallelism) strategies.push('FORWARD', 'FORWARD', 'FORWARD');
        const strategy = strategies[int(0, strategies.length - 1)]!;
        edges.push({
          from: source,
          to: name,
          strategy,
          key: (value) => (value as TestRecord).seq % 13,
        });
        total += copies.get(source)! * (strategy === 'BROADCAST' ? parallelism : 1);
      }
      copies.set(name, total);
    }
    layers.push(names);
  }
  return { job: { vertices, edges }, sinks, recordsPerSource, copies };
}

/** Reachability of copies per source: which sources feed a vertex, and with how many copies of a record. */
function copiesOf(job: TestJob, source: string, vertex: string): number {
  if (source === vertex) return 1;
  return job.edges
    .filter((edge) => edge.to === vertex)
    .reduce((sum, edge) => {
      const fanOut =
        edge.strategy === 'BROADCAST'
          ? job.vertices.find((v) => v.name === vertex)!.parallelism
          : 1;
      return sum + copiesOf(job, source, edge.from) * fanOut;
    }, 0);
}

/** A cut is consistent when the sinks' state holds exactly the records before the sources' positions. */
function checkCut(job: TestJob, snapshots: ReadonlyMap<AttemptId, TaskStateSnapshot>): void {
  const positions = new Map<string, number>();
  const counts = new Map<string, number>();
  for (const [attemptId, { operators }] of snapshots) {
    const vertex = job.vertices.find(({ name }) => attemptId.startsWith(`${name}_`))!;
    const isSource = !job.edges.some((edge) => edge.to === vertex.name);
    for (const [operatorId, state] of Object.entries(operators)) {
      const value = readState(state);
      if (isSource && operatorId.endsWith('-0')) {
        positions.set(`${vertex.name}.0.${attemptId.split('_')[1]!}`, value as number);
      }
      if (value === null || typeof value !== 'object') continue;
      for (const [from, count] of Object.entries(value as Record<string, number>)) {
        const key = `${from} in ${vertex.name}`;
        counts.set(key, (counts.get(key) ?? 0) + count);
      }
    }
  }
  const sinkNames = job.vertices
    .filter((v) => !job.edges.some((e) => e.from === v.name))
    .map((v) => v.name);
  for (const [from, position] of positions) {
    const source = from.split('.')[0]!;
    for (const sink of sinkNames) {
      if (!job.vertices.find((v) => v.name === sink)!.operators.length) continue;
      const expected = position * copiesOf(job, source, sink);
      const actual = counts.get(`${from} in ${sink}`) ?? 0;
      if (isSinkVertex(job, sink) && actual !== expected) {
        throw new Error(
          `cut: ${from} at ${String(position)}, ${sink} holds ${String(actual)} of ${String(expected)}`,
        );
      }
    }
  }
}

/** Vertices of inner layers nobody consumes have no checking sink. */
function isSinkVertex(job: TestJob, name: string): boolean {
  const deepest = job.vertices.at(-1)!.name.slice(0, 2);
  return name.startsWith(deepest);
}

/** Triggers, aborts and supersedes checkpoints at random, completes those everybody acknowledged. */
class RandomCoordinator {
  readonly #cluster: SlotCluster;
  readonly #job: TestJob;
  #next = 1;
  #pending: { readonly id: number; readonly expected: readonly AttemptId[] } | undefined;
  /** Last snapshot of tasks that have finished since. */
  readonly #finished = new Map<AttemptId, TaskStateSnapshot>();
  completed = 0;
  abortedByUs = 0;

  constructor(cluster: SlotCluster, job: TestJob) {
    this.#cluster = cluster;
    this.#job = job;
  }

  act(): void {
    const { live, random } = this.#cluster;
    if (live.some(({ state }) => state === 'CREATED' || state === 'INITIALIZING')) return;
    const pending = this.#pending;
    if (
      pending !== undefined &&
      pending.expected.some((id) => !live.some((t) => t.attemptId === id))
    ) {
      this.#abort(pending.id);
      return;
    }
    const acks = this.#cluster.acks.get(pending?.id ?? 0);
    if (pending !== undefined && acks?.size === pending.expected.length) {
      this.#complete(pending.id, acks);
      return;
    }
    const isEnding = live.every((task) => task.hasEndOfData);
    const dice = random.next();
    if (pending !== undefined && dice < 0.002) this.#abort(pending.id);
    // Over a pending one: its barriers meet those of the new one in the middle of alignments.
    else if (dice < (pending === undefined ? 0.03 : 0.006)) this.#trigger();
    else if (pending === undefined && isEnding) this.#trigger();
  }

  #trigger(): void {
    const { live, roots, clock } = this.#cluster;
    if (live.length === 0) return;
    const id = this.#next;
    this.#next += 1;
    this.#pending = { id, expected: live.map(({ attemptId }) => attemptId) };
    this.#cluster.send({
      kind: 'triggerCheckpoint',
      attemptIds: roots,
      checkpointId: id,
      timestamp: clock.wallTime(),
    });
  }

  #abort(id: number): void {
    this.#pending = undefined;
    this.abortedByUs += 1;
    const attemptIds = this.#cluster.live.map(({ attemptId }) => attemptId);
    this.#cluster.send({ kind: 'checkpointAborted', attemptIds, checkpointId: id });
  }

  #complete(id: number, acks: ReadonlyMap<AttemptId, TaskStateSnapshot>): void {
    this.#pending = undefined;
    this.completed += 1;
    checkCut(this.#job, new Map([...this.#finished, ...acks]));
    for (const [attemptId, snapshot] of acks)
      if (snapshot.finished) this.#finished.set(attemptId, snapshot);
    const attemptIds = [...acks.keys()];
    this.#cluster.send({ kind: 'checkpointComplete', attemptIds, checkpointId: id });
  }
}

t.test(
  'random jobs over random slots end with every record once, in order, and consistent cuts',
  async (t) => {
    let completed = 0;
    let aborted = 0;
    let superseded = 0;
    for (let seed = 1; seed <= seeds; seed += 1) {
      const random = new SeededRandom(seed);
      const { job, sinks, recordsPerSource } = randomJob(random);
      const slots = 1 + Math.floor(random.next() * 4);
      const cluster = new SlotCluster(job, {
        seed,
        slots,
        placement: {
          slotOf: (vertex, subtask) => (subtask + Math.floor(vertex.charCodeAt(2) % 2)) % slots,
        },
        runtime: {
          quantumRecords: 1 + Math.floor(random.next() * 24),
          maxQueuedRecords: 2 + Math.floor(random.next() * 20),
        },
        buffersPerChannel: 2 + Math.floor(random.next() * 3),
      });
      const coordinator = new RandomCoordinator(cluster, job);
      try {
        await cluster.runUntil(
          () =>
            cluster.live.length === 0 ||
            [...cluster.tasks.values()].some((task) => task.state === 'FAILED'),
          () => coordinator.act(),
        );
        for (const task of cluster.tasks.values()) {
          if (task.state !== 'FINISHED')
            throw new Error(
              `${task.attemptId} ${task.state}: ${JSON.stringify(task.failure?.message)}`,
            );
        }
        const seen = new Map<string, number>();
        for (const sink of sinks) {
          if (sink.watermark !== Infinity) throw new Error('a sink ended without the end of time');
          const vertex = sink.context.operatorName.split('.')[0]!;
          for (const [from, count] of Object.entries(sink.counts)) {
            const key = `${from} in ${vertex}`;
            seen.set(key, (seen.get(key) ?? 0) + count);
          }
        }
        for (const [key, count] of seen) {
          const [from, vertex] = key.split(' in ') as [string, string];
          const expected = recordsPerSource * copiesOf(job, from.split('.')[0]!, vertex);
          if (count !== expected)
            throw new Error(`${key}: ${String(count)} of ${String(expected)}`);
        }
        if (cluster.closedSlots !== cluster.runtimes.length)
          throw new Error('a slot did not report closed');
      } catch (error) {
        t.fail(`seed ${String(seed)}: ${(error as Error).message}`);
        break;
      }
      completed += coordinator.completed;
      aborted += coordinator.abortedByUs;
      superseded += cluster.reports.filter(({ kind }) => kind === 'checkpointDecline').length;
      await cluster.close();
    }
    t.comment(
      `checkpoints: ${String(completed)} completed, ${String(aborted)} aborted, ${String(superseded)} superseded`,
    );
    t.ok(completed > seeds, 'checkpoints completed in the middle of jobs');
    t.ok(aborted > 20, 'aborts happened');
    t.ok(superseded > 0, 'newer barriers superseded alignments');
  },
);
