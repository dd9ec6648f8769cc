/** Transformations become operators and edges: virtual nodes are resolved, defaults filled in, ids given. */
import { MillraceError } from '../base/errors.js';
import type { OperatorId } from '../base/ids.js';
import type { ShipStrategy } from './job-graph.js';
import { defaultMaxParallelism, maxParallelismLimit } from '../state/key-group-range.js';
import { operatorIdFromStructure, operatorIdFromUid } from './operator-id.js';
import type { StreamEdge, StreamGraph, StreamNode } from './stream-graph.js';
import type { OperatorTransformation, Transformation } from './transformation.js';

export interface StreamGraphOptions {
  /** Of operators that do not set their own. */
  readonly parallelism: number;
  /** Of operators that do not set their own; absent: by Flink's formula from the parallelism. */
  readonly maxParallelism?: number;
  readonly isChainingEnabled: boolean;
}

/** An edge as seen from its consumer, before the strategy is known for certain. */
interface ResolvedInput {
  readonly from: OperatorTransformation;
  readonly strategy?: ShipStrategy;
  readonly keySelector?: (value: unknown) => unknown;
  readonly sideOutput?: string;
}

type MutableNode = StreamNode & { inputs: StreamEdge[]; outputs: StreamEdge[] };

export const defaultSlotSharingGroup = 'default';

/** `operators` in the order of the program, which is topological. Throws JOB_INVALID. */
export function generateStreamGraph(
  operators: readonly OperatorTransformation[],
  options: StreamGraphOptions,
): StreamGraph {
  if (operators.length === 0) {
    throw invalid('the job has no operators: add a source before calling execute');
  }
  checkUids(operators);
  const nodes = new Map<OperatorTransformation, MutableNode>();
  const edges: StreamEdge[] = [];
  const occurrences = new Map<OperatorId, number>();
  for (const operator of operators) {
    const inputs = operator.inputs.flatMap((input) => resolveInput(input));
    const drafts = inputs.map((input) => draftEdge(input, nodes, operator, options));
    const node = createNode(operator, idOf(operator, drafts, occurrences), drafts, options);
    for (const draft of drafts) {
      const edge = createEdge(draft, node);
      edges.push(edge);
      draft.source.outputs.push(edge);
      node.inputs.push(edge);
    }
    nodes.set(operator, node);
  }
  return { nodes: [...nodes.values()], edges, isChainingEnabled: options.isChainingEnabled };
}

type EdgeDraft = Omit<StreamEdge, 'id' | 'target'> & { readonly source: MutableNode };

/** Walks from the consumer upwards; the partitioning nearest to the consumer is the one that counts. */
function resolveInput(
  input: Transformation,
  seen: Omit<ResolvedInput, 'from'> = {},
): ResolvedInput[] {
  switch (input.kind) {
    case 'operator':
      return [{ ...seen, from: input }];
    case 'union':
      return input.inputs.flatMap((part) => resolveInput(part, seen));
    case 'sideOutput':
      return resolveInput(input.input, { sideOutput: input.tag, ...seen });
    case 'partition':
      if (seen.strategy !== undefined) return resolveInput(input.input, seen);
      return resolveInput(input.input, {
        ...seen,
        strategy: input.strategy,
        ...(input.keySelector !== undefined && { keySelector: input.keySelector }),
      });
  }
}

function draftEdge(
  input: ResolvedInput,
  nodes: ReadonlyMap<OperatorTransformation, MutableNode>,
  target: OperatorTransformation,
  options: StreamGraphOptions,
): EdgeDraft {
  const source = nodes.get(input.from);
  if (source === undefined) {
    throw invalid(`"${target.name}" reads from "${input.from.name}" of another environment`);
  }
  const targetParallelism = parallelismOf(target, options);
  const isAligned = source.parallelism === targetParallelism;
  if (input.strategy === 'FORWARD' && !isAligned) {
    throw invalid(
      `forward() from "${source.name}" to "${target.name}" needs the same parallelism, but it is ` +
        `${source.parallelism} and ${targetParallelism}; use rebalance() or rescale()`,
    );
  }
  return {
    source,
    shipStrategy: input.strategy ?? (isAligned ? 'FORWARD' : 'REBALANCE'),
    ...(input.keySelector !== undefined && { keySelector: input.keySelector }),
    ...(input.sideOutput !== undefined && { sideOutput: input.sideOutput }),
  };
}

function createEdge(draft: EdgeDraft, target: StreamNode): StreamEdge {
  const earlier = target.inputs.filter((edge) => edge.source === draft.source).length;
  return { ...draft, target, id: `${draft.source.id}_${target.id}_${earlier}` };
}

function idOf(
  operator: OperatorTransformation,
  drafts: readonly EdgeDraft[],
  occurrences: Map<OperatorId, number>,
): OperatorId {
  if (operator.uid !== undefined) return operatorIdFromUid(operator.uid);
  // FORWARD and REBALANCE by default depend on the parallelism, which an id must not.
  const inputs = drafts.map(({ source, shipStrategy, sideOutput }) => ({
    id: source.id,
    shipStrategy: shipStrategy === 'REBALANCE' ? 'FORWARD' : shipStrategy,
    sideOutput,
  }));
  const first = operatorIdFromStructure(operator.type, inputs, 0);
  const occurrence = occurrences.get(first) ?? 0;
  occurrences.set(first, occurrence + 1);
  return occurrence === 0 ? first : operatorIdFromStructure(operator.type, inputs, occurrence);
}

function createNode(
  operator: OperatorTransformation,
  id: OperatorId,
  inputs: readonly EdgeDraft[],
  options: StreamGraphOptions,
): MutableNode {
  const parallelism = parallelismOf(operator, options);
  const maxParallelism =
    operator.maxParallelism ?? options.maxParallelism ?? defaultMaxParallelism(parallelism);
  if (parallelism > maxParallelism) {
    throw invalid(
      `"${operator.name}" has parallelism ${parallelism} above its maximum of ${maxParallelism}`,
    );
  }
  return {
    id,
    ...(operator.uid !== undefined && { uid: operator.uid }),
    name: operator.name,
    kind: operator.operatorKind,
    type: operator.type,
    parallelism,
    maxParallelism,
    slotSharingGroup: operator.slotSharingGroup ?? inheritedGroup(inputs),
    chaining: operator.chaining,
    factory: operator.factory,
    functions: operator.functions,
    ...(operator.source !== undefined && { source: operator.source }),
    ...(operator.boundedness !== undefined && { boundedness: operator.boundedness }),
    inputs: [],
    outputs: [],
  };
}

function parallelismOf(operator: OperatorTransformation, options: StreamGraphOptions): number {
  const parallelism = operator.fixedParallelism ?? operator.parallelism ?? options.parallelism;
  if (parallelism > maxParallelismLimit) {
    throw invalid(
      `"${operator.name}" has parallelism ${parallelism}, above ${maxParallelismLimit}`,
    );
  }
  return parallelism;
}

/** As in Flink: the group of the inputs when they agree, else the default one. */
function inheritedGroup(inputs: readonly EdgeDraft[]): string {
  const groups = new Set(inputs.map(({ source }) => source.slotSharingGroup));
  const [only] = groups;
  return groups.size === 1 && only !== undefined ? only : defaultSlotSharingGroup;
}

function checkUids(operators: readonly OperatorTransformation[]): void {
  const owners = new Map<string, OperatorTransformation>();
  for (const operator of operators) {
    if (operator.uid === undefined) continue;
    const owner = owners.get(operator.uid);
    if (owner !== undefined) {
      throw invalid(
        `uid "${operator.uid}" is given to both "${owner.name}" and "${operator.name}"; it must be unique in the job`,
      );
    }
    owners.set(operator.uid, operator);
  }
}

function invalid(message: string): MillraceError {
  return new MillraceError('JOB_INVALID', message);
}
