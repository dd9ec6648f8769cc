/** Job graphs for tests of the control plane, without a program behind them. */
import type { JobId, OperatorId, VertexId } from '../../lib/base/ids.js';
import {
  jobGraphVersion,
  type JobConfig,
  type JobEdge,
  type JobGraph,
  type JobVertex,
  type ShipStrategy,
} from '../../lib/graph/job-graph.js';

export interface VertexSpec {
  readonly name: string;
  readonly parallelism: number;
  readonly group?: string;
  /** Default: the first vertex is the source. */
  readonly isSource?: boolean;
}

export interface GraphSpec {
  readonly jobId?: string;
  readonly vertices: readonly VertexSpec[];
  /** `[source, target, strategy]` by name. */
  readonly edges?: readonly (readonly [string, string, ShipStrategy])[];
  readonly config?: Partial<JobConfig>;
  readonly restore?: JobGraph['restore'];
}

export const testJobConfig: JobConfig = {
  checkpointing: {
    intervalMs: 0,
    timeoutMs: 60_000,
    minPauseMs: 0,
    maxConcurrent: 1,
    tolerableFailures: 0,
    numRetained: 3,
  },
  restartStrategy: { type: 'fixed-delay', attempts: 3, delayMs: 100 },
  bufferTimeoutMs: 100,
  autoWatermarkIntervalMs: 200,
  compile: true,
  settings: {},
};

export const vertexId = (name: string): VertexId => hex(name, 32) as VertexId;
export const operatorId = (name: string): OperatorId => hex(name, 32) as OperatorId;
export const jobIdOf = (name: string): JobId => hex(name, 32) as JobId;

export function testGraph(spec: GraphSpec): JobGraph {
  const vertices = spec.vertices.map(
    ({ name, parallelism, group = 'default', isSource }, index): JobVertex => ({
      id: vertexId(name),
      name,
      parallelism,
      maxParallelism: 128,
      slotSharingGroup: group,
      operators: [
        {
          id: operatorId(name),
          uid: name,
          name,
          kind: (isSource ?? index === 0) ? 'source' : 'operator',
          type: 'Test',
          maxParallelism: 128,
          functionDigest: '0'.repeat(64),
          chainedTo: [],
          ...((isSource ?? index === 0) && { boundedness: 'bounded' as const }),
        },
      ],
    }),
  );
  const edges = (spec.edges ?? []).map(([source, target, shipStrategy], index): JobEdge => ({
    id: `${operatorId(source)}_${operatorId(target)}_${String(index)}`,
    source: vertexId(source),
    sourceOperator: operatorId(source),
    target: vertexId(target),
    shipStrategy,
    notChainedBecause: 'a test says so',
  }));
  return {
    version: jobGraphVersion,
    jobId: jobIdOf(spec.jobId ?? 'job'),
    name: spec.jobId ?? 'job',
    vertices,
    edges,
    config: { ...testJobConfig, ...spec.config },
    main: { argv: [], workingDirectory: '/', environment: {}, captureTime: 0, seed: 1 },
    fingerprint: 'f'.repeat(64),
    ...(spec.restore !== undefined && { restore: spec.restore }),
  };
}

function hex(name: string, length: number): string {
  return Buffer.from(name, 'utf8').toString('hex').padEnd(length, '0').slice(0, length);
}
