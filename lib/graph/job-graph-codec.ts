/**
 * JobGraph <-> JSON text. Decoding checks shape and sense, since graphs come from clients and from etcd:
 * whatever passes can be scheduled. Unknown fields of newer clients are tolerated.
 */
import { type TSchema, Type } from '@sinclair/typebox';
import { Ajv, type ValidateFunction } from 'ajv';
import { MillraceError } from '../base/errors.js';
import { type JobGraph, jobGraphVersion, type JobVertex } from './job-graph.js';
import { maxParallelismLimit } from '../state/key-group-range.js';

export function encodeJobGraph(jobGraph: JobGraph): string {
  return JSON.stringify(jobGraph);
}

/** Throws JOB_INVALID that says what is wrong and where. */
export function decodeJobGraph(text: string): JobGraph {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new MillraceError('JOB_INVALID', 'the job graph is not JSON', { cause });
  }
  return checkJobGraph(value);
}

/** The same for a value that was already parsed. */
export function checkJobGraph(value: unknown): JobGraph {
  const version =
    typeof value === 'object' && value !== null && 'version' in value && value.version;
  if (version !== jobGraphVersion) {
    const shown = typeof version === 'number' ? String(version) : 'missing';
    throw invalid(
      `its version is ${shown}, this cluster reads version ${jobGraphVersion}; client and cluster must fit`,
    );
  }
  validate ??= new Ajv({ strict: false }).compile(schema);
  if (!validate(value)) {
    const [first] = validate.errors ?? [];
    throw invalid(`${first?.instancePath ?? ''} ${first?.message ?? 'is malformed'}`.trim());
  }
  const jobGraph = value as JobGraph;
  checkSense(jobGraph);
  return jobGraph;
}

const Parallelism = Type.Integer({ minimum: 1, maximum: maxParallelismLimit });
const Millis = Type.Integer({ minimum: 0 });
const HexId = Type.String({ pattern: '^[0-9a-f]{32}$' });
const Hex256 = Type.String({ pattern: '^[0-9a-f]{64}$' });
const Texts = Type.Record(Type.String(), Type.String());
const literals = <T extends string>(...values: readonly T[]): TSchema & { static: T } =>
  Type.Unsafe<T>({ enum: values });

const operatorSchema = Type.Object({
  id: HexId,
  uid: Type.Optional(Type.String({ minLength: 1 })),
  name: Type.String(),
  kind: literals('source', 'operator', 'sink'),
  type: Type.String(),
  maxParallelism: Parallelism,
  functionDigest: Hex256,
  chainedTo: Type.Array(
    Type.Object({ operator: HexId, sideOutput: Type.Optional(Type.String({ minLength: 1 })) }),
  ),
  boundedness: Type.Optional(literals('bounded', 'unbounded')),
});

const restartStrategySchema = Type.Union([
  Type.Object({ type: Type.Literal('none') }),
  Type.Object({
    type: Type.Literal('fixed-delay'),
    attempts: Type.Integer({ minimum: 0 }),
    delayMs: Millis,
  }),
  Type.Object({
    type: Type.Literal('exponential-delay'),
    initialBackoffMs: Type.Integer({ minimum: 1 }),
    maxBackoffMs: Type.Integer({ minimum: 1 }),
    backoffMultiplier: Type.Number({ minimum: 1 }),
    resetBackoffThresholdMs: Type.Integer({ minimum: 1 }),
    jitterFactor: Type.Number({ minimum: 0, maximum: 1 }),
    attemptsBeforeResetBackoff: Type.Optional(Type.Integer({ minimum: 1 })),
  }),
]);

const schema = Type.Object({
  version: Type.Literal(jobGraphVersion),
  jobId: HexId,
  name: Type.String(),
  vertices: Type.Array(
    Type.Object({
      id: HexId,
      name: Type.String(),
      parallelism: Parallelism,
      maxParallelism: Parallelism,
      slotSharingGroup: Type.String({ minLength: 1 }),
      operators: Type.Array(operatorSchema, { minItems: 1 }),
    }),
    { minItems: 1 },
  ),
  edges: Type.Array(
    Type.Object({
      id: Type.String({ minLength: 1 }),
      source: HexId,
      sourceOperator: HexId,
      sideOutput: Type.Optional(Type.String({ minLength: 1 })),
      target: HexId,
      shipStrategy: literals('FORWARD', 'HASH', 'REBALANCE', 'RESCALE', 'BROADCAST', 'GLOBAL'),
      notChainedBecause: Type.String(),
    }),
  ),
  config: Type.Object({
    checkpointing: Type.Object({
      intervalMs: Millis,
      timeoutMs: Type.Integer({ minimum: 1 }),
      minPauseMs: Millis,
      maxConcurrent: Type.Integer({ minimum: 1 }),
      tolerableFailures: Type.Integer({ minimum: 0 }),
      numRetained: Type.Integer({ minimum: 1 }),
    }),
    restartStrategy: restartStrategySchema,
    bufferTimeoutMs: Millis,
    autoWatermarkIntervalMs: Type.Integer({ minimum: 1 }),
    compile: Type.Boolean(),
    settings: Texts,
  }),
  main: Type.Object({
    argv: Type.Array(Type.String()),
    workingDirectory: Type.String(),
    environment: Texts,
    captureTime: Type.Number(),
    seed: Type.Integer({ minimum: 0 }),
  }),
  bundle: Type.Optional(Type.Object({ digest: Hex256, sizeBytes: Type.Integer({ minimum: 0 }) })),
  fingerprint: Hex256,
  restore: Type.Optional(
    Type.Object({ path: Type.String({ minLength: 1 }), allowNonRestoredState: Type.Boolean() }),
  ),
});

/**
 * Subtasks of one job. A graph far beyond what runs anywhere would block every leader in turn for longer than
 * its lease: it is stored before it is expanded.
 */
const subtasksMax = 100_000;

/** Compiled at first use: most processes decode none. */
let validate: ValidateFunction | undefined;

function checkSense(jobGraph: JobGraph): void {
  const subtasks = jobGraph.vertices.reduce((sum, { parallelism }) => sum + parallelism, 0);
  if (subtasks > subtasksMax) {
    throw invalid(
      `it has ${subtasks} subtasks, more than ${subtasksMax}: lower the parallelism of its tasks`,
    );
  }
  const position = new Map<string, number>();
  const operators = new Map<string, JobVertex>();
  jobGraph.vertices.forEach((vertex, index) => {
    checkVertex(vertex);
    position.set(vertex.id, index);
    for (const operator of vertex.operators) {
      if (operators.has(operator.id)) throw invalid(`operator ${operator.id} occurs twice`);
      operators.set(operator.id, vertex);
    }
  });
  const edgeIds = new Set<string>();
  for (const edge of jobGraph.edges) {
    if (edgeIds.has(edge.id)) throw invalid(`edge ${edge.id} occurs twice`);
    edgeIds.add(edge.id);
    const source = position.get(edge.source);
    const target = position.get(edge.target);
    if (source === undefined || target === undefined) {
      throw invalid(`edge ${edge.id} leads from or to a task that is not in the graph`);
    }
    if (source >= target) throw invalid(`edge ${edge.id} leads backwards: tasks are not in order`);
    if (operators.get(edge.sourceOperator)?.id !== edge.source) {
      throw invalid(`edge ${edge.id} leaves an operator that is not in its source task`);
    }
    const [from, to] = [jobGraph.vertices[source], jobGraph.vertices[target]];
    if (edge.shipStrategy === 'FORWARD' && from?.parallelism !== to?.parallelism) {
      throw invalid(`edge ${edge.id} is FORWARD between different parallelisms`);
    }
  }
}

function checkVertex(vertex: JobVertex): void {
  const { id, name, operators } = vertex;
  if (operators[0]?.id !== (id as string)) {
    throw invalid(`task "${name}" does not begin with the operator it is named by`);
  }
  if (vertex.parallelism > vertex.maxParallelism) {
    throw invalid(
      `task "${name}" has parallelism ${vertex.parallelism} above its maximum of ${vertex.maxParallelism}`,
    );
  }
  // A tree, parents before children: every operator but the head is chained to by exactly one before it.
  const reached = new Set<string>([operators[0].id]);
  for (const operator of operators) {
    if (!reached.has(operator.id)) {
      throw invalid(`operator ${operator.id} of task "${name}" is chained to by none before it`);
    }
    for (const { operator: next } of operator.chainedTo) {
      if (reached.has(next))
        throw invalid(`operator ${next} of task "${name}" is chained to twice`);
      reached.add(next);
    }
  }
  if (reached.size !== operators.length) {
    throw invalid(`task "${name}" chains to an operator that is not in it`);
  }
}

function invalid(what: string): MillraceError {
  return new MillraceError('JOB_INVALID', `the job graph is not valid: ${what}`);
}
