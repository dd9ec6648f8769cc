/** StreamGraph -> chains -> JobGraph, and the functions of the same StreamGraph found by id. */
import { MillraceError } from '../base/errors.js';
import type { OperatorId, VertexId } from '../base/ids.js';
import type { FunctionSource, OperatorFactory } from '../operators/stream-operator.js';
import type { Source } from '../api/source.js';
import { buildChains, type Chain, type Chains } from './chaining.js';
import { fingerprintOf } from './fingerprint.js';
import { functionDigest } from './function-digest.js';
import {
  type JobEdge,
  type JobGraph,
  jobGraphVersion,
  type JobOperator,
  type JobVertex,
} from './job-graph.js';
import type { StreamEdge, StreamGraph, StreamNode } from './stream-graph.js';

/** Everything in a JobGraph that does not come from the program's streams. */
export type JobGraphAttributes = Pick<
  JobGraph,
  'jobId' | 'name' | 'config' | 'main' | 'bundle' | 'restore'
>;

export function createJobGraph(graph: StreamGraph, attributes: JobGraphAttributes): JobGraph {
  const chains = buildChains(graph);
  const vertices = chains.chains.map((chain) => createVertex(chain, chains));
  const edges = [...chains.networkEdges].map(([edge, reason]) =>
    createJobEdge(edge, reason, chains),
  );
  const parts = {
    vertices,
    edges,
    ...(attributes.bundle !== undefined && { bundle: attributes.bundle }),
  };
  return {
    version: jobGraphVersion,
    jobId: attributes.jobId,
    name: attributes.name,
    ...parts,
    config: attributes.config,
    main: attributes.main,
    fingerprint: fingerprintOf(parts),
    ...(attributes.restore !== undefined && { restore: attributes.restore }),
  };
}

/** Unknown ids throw JOB_FINGERPRINT: the graph is of another program. */
export function functionSourceOf(graph: StreamGraph, jobGraph: JobGraph): FunctionSource {
  const nodes = new Map<OperatorId, StreamNode>(graph.nodes.map((node) => [node.id, node]));
  const edges = new Map<string, StreamEdge>(graph.edges.map((edge) => [edge.id, edge]));
  return {
    fingerprint: jobGraph.fingerprint,
    operatorFactory: (id: OperatorId): OperatorFactory =>
      found(nodes.get(id)?.factory, `operator ${id}`),
    keySelector: (id: string): ((value: unknown) => unknown) =>
      found(edges.get(id)?.keySelector, `key selector of edge ${id}`),
    source: (id: OperatorId): Source<unknown, unknown, unknown> =>
      found(nodes.get(id)?.source, `source ${id}`),
  };
}

function found<T>(value: T | undefined, what: string): T {
  if (value === undefined) {
    throw new MillraceError('JOB_FINGERPRINT', `the job's main defines no ${what}`);
  }
  return value;
}

function createVertex(chain: Chain, chains: Chains): JobVertex {
  const { head } = chain;
  return {
    id: head.id as string as VertexId,
    name: chainName(head, chains),
    parallelism: head.parallelism,
    maxParallelism: head.maxParallelism,
    slotSharingGroup: head.slotSharingGroup,
    operators: chain.nodes.map((node) => createOperator(node, chains)),
  };
}

function createOperator(node: StreamNode, chains: Chains): JobOperator {
  const selectors = node.inputs.map((edge) => edge.keySelector).filter((fn) => fn !== undefined);
  return {
    id: node.id,
    ...(node.uid !== undefined && { uid: node.uid }),
    name: node.name,
    kind: node.kind,
    type: node.type,
    maxParallelism: node.maxParallelism,
    functionDigest: functionDigest([...node.functions, ...selectors]),
    chainedTo: chainedOutputs(node, chains).map((edge) => ({
      operator: edge.target.id,
      ...(edge.sideOutput !== undefined && { sideOutput: edge.sideOutput }),
    })),
    ...(node.boundedness !== undefined && { boundedness: node.boundedness }),
  };
}

function createJobEdge(edge: StreamEdge, notChainedBecause: string, chains: Chains): JobEdge {
  return {
    id: edge.id,
    source: chains.chainOf(edge.source).head.id as string as VertexId,
    sourceOperator: edge.source.id,
    ...(edge.sideOutput !== undefined && { sideOutput: edge.sideOutput }),
    target: edge.target.id as string as VertexId,
    shipStrategy: edge.shipStrategy,
    notChainedBecause,
  };
}

function chainedOutputs(node: StreamNode, chains: Chains): readonly StreamEdge[] {
  return node.outputs.filter((edge) => chains.chainedEdges.has(edge));
}

/** Flink's way: `Source: clicks -> Map -> (Filter -> Sink: a, Sink: b)`. */
function chainName(node: StreamNode, chains: Chains): string {
  const prefixes = { source: 'Source: ', sink: 'Sink: ', operator: '' };
  const own = prefixes[node.kind] + node.name;
  const [first, ...rest] = chainedOutputs(node, chains).map((e) => chainName(e.target, chains));
  if (first === undefined) return own;
  return rest.length === 0 ? `${own} -> ${first}` : `${own} -> (${[first, ...rest].join(', ')})`;
}
