/** Small jobs for tests of the slot runtime: operators that check what they see, and their deployment over slots. */
import type {
  AllocationId,
  AttemptId,
  JobId,
  OperatorId,
  TaskManagerId,
  VertexId,
} from '../../lib/base/ids.js';
import type {
  ChannelDescriptor,
  InputDescriptor,
  OutputDescriptor,
  PeerLocation,
  SlotDeployment,
} from '../../lib/gateway/task-deployment-descriptor.js';
import type { JobEdge, JobGraph, JobVertex, ShipStrategy } from '../../lib/graph/job-graph.js';
import type { FunctionSource, OperatorFactory } from '../../lib/operators/stream-operator.js';
import type { SnapshotStorage } from '../../lib/state/snapshot-storage.js';
import type { TaskRestore } from '../../lib/state/state-handle.js';

export interface TestVertex {
  readonly name: string;
  readonly parallelism: number;
  /** Chained in a row. */
  readonly operators: readonly OperatorFactory[];
}

export interface TestEdge {
  readonly from: string;
  readonly to: string;
  readonly strategy: ShipStrategy;
  readonly key?: (value: unknown) => unknown;
}

export interface TestJob {
  readonly vertices: readonly TestVertex[];
  readonly edges: readonly TestEdge[];
  readonly bufferTimeoutMs?: number;
  /** true */
  readonly compile?: boolean;
}

export interface TestPlacement {
  /** Slot of a subtask: index over all TaskManagers. */
  readonly slotOf: (vertex: string, subtask: number) => number;
  /** TaskManager of a slot, with its data address. */
  readonly taskManagerOf?: (slot: number) => { readonly id: string; readonly address: string };
  readonly restoreOf?: (attemptId: AttemptId) => TaskRestore | undefined;
}

const maxParallelism = 128;
const here = { id: 'tm-0', address: '127.0.0.1:1' };

export const attemptIdOf = (vertex: string, subtask: number): AttemptId =>
  `${vertex}_${String(subtask)}_0_test` as AttemptId;

export const memoryStorage: SnapshotStorage = {
  write: async (_checkpointId, _name, bytes) => ({ kind: 'inline', bytes: bytes.slice() }),
  read: async (handle) => (handle.kind === 'inline' ? handle.bytes : new Uint8Array()),
};

const operatorId = (vertex: string, i: number): OperatorId =>
  `${vertex}-${String(i)}` as OperatorId;
const edgeId = (edge: TestEdge): string => `${edge.from}_${edge.to}_0`;

export function functionsOf(job: TestJob): FunctionSource {
  const factories = new Map(
    job.vertices.flatMap((vertex) =>
      vertex.operators.map((factory, i) => [operatorId(vertex.name, i), factory] as const),
    ),
  );
  return {
    fingerprint: 'test',
    operatorFactory: (id) => {
      const factory = factories.get(id);
      if (factory === undefined) throw new Error(`no operator ${id}`);
      return factory;
    },
    keySelector: (id) => job.edges.find((edge) => edgeId(edge) === id)?.key ?? ((value) => value),
    source: () => {
      throw new Error('no sources here');
    },
  };
}

export function graphOf(job: TestJob): JobGraph {
  const vertices = job.vertices.map((vertex): JobVertex => {
    const operators = vertex.operators.map((_, i) => ({
      id: operatorId(vertex.name, i),
      name: `${vertex.name}.${String(i)}`,
      kind: 'operator' as const,
      type: 'Test',
      maxParallelism,
      functionDigest: '',
      chainedTo:
        i + 1 < vertex.operators.length ? [{ operator: operatorId(vertex.name, i + 1) }] : [],
    }));
    return {
      id: vertex.name as VertexId,
      name: vertex.name,
      parallelism: vertex.parallelism,
      maxParallelism,
      slotSharingGroup: 'default',
      operators,
    };
  });
  return {
    version: 1,
    jobId: 'job' as JobId,
    name: 'job',
    vertices,
    edges: job.edges.map((edge) => edgeOf(job, edge)),
    config: {
      checkpointing: {
        intervalMs: 0,
        timeoutMs: 600_000,
        minPauseMs: 0,
        maxConcurrent: 1,
        tolerableFailures: 0,
        numRetained: 1,
      },
      restartStrategy: { type: 'none' },
      bufferTimeoutMs: job.bufferTimeoutMs ?? 100,
      autoWatermarkIntervalMs: 200,
      compile: job.compile ?? true,
      settings: {},
    },
    main: { argv: [], environment: {}, captureTime: 0, seed: 0 },
    fingerprint: 'test',
  } as unknown as JobGraph;
}

function edgeOf(job: TestJob, edge: TestEdge): JobEdge {
  const from = job.vertices.find(({ name }) => name === edge.from);
  const last = (from?.operators.length ?? 1) - 1;
  return {
    id: edgeId(edge),
    source: edge.from as VertexId,
    sourceOperator: operatorId(edge.from, last),
    target: edge.to as VertexId,
    shipStrategy: edge.strategy,
    notChainedBecause: 'test',
  };
}

/** Whether subtask `from` has a channel to subtask `to`. */
export function isConnected(edge: TestEdge, from: number, to: number): boolean {
  return edge.strategy !== 'FORWARD' || from === to;
}

/** By slot. */
export function deploymentsOf(job: TestJob, placement: TestPlacement): Map<number, SlotDeployment> {
  const graph = graphOf(job);
  const location = (vertex: string, subtask: number): PeerLocation => {
    const slot = placement.slotOf(vertex, subtask);
    const taskManager = placement.taskManagerOf?.(slot) ?? here;
    return {
      taskManagerId: taskManager.id as TaskManagerId,
      dataAddress: taskManager.address,
      allocationId: `allocation-${String(slot)}` as AllocationId,
      attemptId: attemptIdOf(vertex, subtask),
      subtaskIndex: subtask,
    };
  };
  const channel = (
    edge: TestEdge,
    from: number,
    to: number,
    end: 'from' | 'to',
  ): ChannelDescriptor => ({
    channelId: `${edgeId(edge)}:${String(from)}:${String(to)}`,
    peer: end === 'from' ? location(edge.from, from) : location(edge.to, to),
  });
  const deployments = new Map<
    number,
    SlotDeployment & { tasks: SlotDeployment['tasks'][number][] }
  >();
  for (const vertex of graph.vertices) {
    for (let subtask = 0; subtask < vertex.parallelism; subtask += 1) {
      const all = (count: number): number[] => Array.from({ length: count }, (_, i) => i);
      const outputs = job.edges
        .filter((edge) => edge.from === vertex.name)
        .map((edge): OutputDescriptor => {
          const target = graph.vertices.find(({ name }) => name === edge.to)!;
          const consumers = all(target.parallelism).filter((to) => isConnected(edge, subtask, to));
          return {
            edge: edgeOf(job, edge),
            targetParallelism: target.parallelism,
            targetMaxParallelism: maxParallelism,
            channels: consumers.map((to) => channel(edge, subtask, to, 'to')),
          };
        });
      const inputs = job.edges
        .filter((edge) => edge.to === vertex.name)
        .map((edge): InputDescriptor => {
          const source = graph.vertices.find(({ name }) => name === edge.from)!;
          const producers = all(source.parallelism).filter((from) =>
            isConnected(edge, from, subtask),
          );
          return {
            edge: edgeOf(job, edge),
            channels: producers.map((from) => channel(edge, from, subtask, 'from')),
          };
        });
      const slot = placement.slotOf(vertex.name, subtask);
      const attemptId = attemptIdOf(vertex.name, subtask);
      const restore = placement.restoreOf?.(attemptId);
      const task = {
        attemptId,
        vertex,
        subtaskIndex: subtask,
        attemptNumber: 0,
        generation: 0,
        outputs,
        inputs,
        ...(restore !== undefined && { restore }),
      };
      const known = deployments.get(slot);
      if (known !== undefined) known.tasks.push(task);
      else {
        deployments.set(slot, {
          jobId: graph.jobId,
          allocationId: `allocation-${String(slot)}` as AllocationId,
          generation: 0,
          jobGraph: graph,
          checkpointDirectory: '/none',
          epochLabel: 'e0.0',
          tasks: [task],
        });
      }
    }
  }
  return deployments;
}
