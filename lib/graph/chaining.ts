/** Which operators run in one task, calling each other directly, and why the others do not. */
import type { StreamEdge, StreamGraph, StreamNode } from './stream-graph.js';

/** Undefined: the two ends of the edge are chained. Otherwise the reason, for people. */
export function whyNotChained(edge: StreamEdge, graph: StreamGraph): string | undefined {
  const { source, target } = edge;
  if (!graph.isChainingEnabled) return 'operator chaining is switched off for the job';
  if (target.inputs.length !== 1) return `"${target.name}" has ${target.inputs.length} inputs`;
  if (edge.shipStrategy !== 'FORWARD') {
    return source.parallelism === target.parallelism
      ? `records are redistributed by ${edge.shipStrategy}`
      : `records are redistributed by ${edge.shipStrategy}, and the parallelism differs (${source.parallelism} and ${target.parallelism})`;
  }
  if (source.parallelism !== target.parallelism) {
    return `the parallelism differs (${source.parallelism} and ${target.parallelism})`;
  }
  if (source.maxParallelism !== target.maxParallelism) {
    return `the maximum parallelism differs (${source.maxParallelism} and ${target.maxParallelism})`;
  }
  if (source.slotSharingGroup !== target.slotSharingGroup) {
    return `the slot sharing groups differ ("${source.slotSharingGroup}" and "${target.slotSharingGroup}")`;
  }
  if (source.chaining === 'never') return `chaining is disabled for "${source.name}"`;
  if (target.chaining === 'never') return `chaining is disabled for "${target.name}"`;
  if (target.chaining === 'head') return `"${target.name}" starts a new chain`;
  return undefined;
}

export interface Chain {
  readonly head: StreamNode;
  /** Head first, parents before children, in the order of the program. */
  readonly nodes: readonly StreamNode[];
}

export interface Chains {
  /** Topological order. */
  readonly chains: readonly Chain[];
  readonly chainedEdges: ReadonlySet<StreamEdge>;
  /** The other edges with the reason. */
  readonly networkEdges: ReadonlyMap<StreamEdge, string>;
  chainOf(node: StreamNode): Chain;
}

/** As an operator has at most one chained input, chains are trees. */
export function buildChains(graph: StreamGraph): Chains {
  const chainedEdges = new Set<StreamEdge>();
  const networkEdges = new Map<StreamEdge, string>();
  for (const edge of graph.edges) {
    const reason = whyNotChained(edge, graph);
    if (reason === undefined) chainedEdges.add(edge);
    else networkEdges.set(edge, reason);
  }
  const chains: (Chain & { nodes: StreamNode[] })[] = [];
  const chainOfNode = new Map<StreamNode, Chain & { nodes: StreamNode[] }>();
  for (const node of graph.nodes) {
    const upstream = node.inputs.find((edge) => chainedEdges.has(edge));
    let chain = upstream === undefined ? undefined : chainOfNode.get(upstream.source);
    if (chain === undefined) {
      chain = { head: node, nodes: [] };
      chains.push(chain);
    }
    chain.nodes.push(node);
    chainOfNode.set(node, chain);
  }
  const chainOf = (node: StreamNode): Chain => {
    const chain = chainOfNode.get(node);
    if (chain === undefined) throw new RangeError(`"${node.name}" is not of this graph`);
    return chain;
  };
  return { chains, chainedEdges, networkEdges, chainOf };
}
