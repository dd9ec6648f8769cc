/** The generated code of a job that is not running, for people: as the first subtask of every vertex would run it. */
import type { JobEdge, JobGraph, JobVertex } from '../../graph/job-graph.js';
import type { FunctionSource } from '../../operators/stream-operator.js';
import type { ChainShape, EdgeShape } from './chain-shape.js';
import { generateChain } from './chain-source.js';

export interface ExplainedChain {
  readonly vertex: JobVertex;
  readonly code: string;
}

export function explainChains(jobGraph: JobGraph, functions: FunctionSource): ExplainedChain[] {
  return jobGraph.vertices.map((vertex) => {
    const shape = shapeOf(jobGraph, vertex, functions);
    return { vertex, code: generateChain(shape, `millrace/chain/${vertex.id}.js`).code };
  });
}

function shapeOf(jobGraph: JobGraph, vertex: JobVertex, functions: FunctionSource): ChainShape {
  const edges = jobGraph.edges.filter(({ source }) => source === vertex.id);
  const inputs = jobGraph.edges.filter(({ target }) => target === vertex.id);
  const channels = inputs.flatMap((edge) => inputChannels(jobGraph, edge));
  const index = new Map(vertex.operators.map(({ id }, i) => [id, i]));
  return {
    name: vertex.name,
    inputs: { direct: channels.includes('direct'), ring: channels.includes('ring') },
    edges: edges.map((edge) => edgeShape(jobGraph, edge)),
    nodes: vertex.operators.map(({ id, name, type, chainedTo }) => ({
      id,
      name,
      type,
      operator: functions.operatorFactory(id)(),
      chained: chainedTo.flatMap(({ operator, sideOutput }) =>
        sideOutput === undefined ? [index.get(operator)!] : [],
      ),
      edges: edges.flatMap(({ sourceOperator, sideOutput }, i) =>
        sourceOperator === id && sideOutput === undefined ? [i] : [],
      ),
    })),
  };
}

type ChannelKind = EdgeShape['channels'][number];

function edgeShape(jobGraph: JobGraph, edge: JobEdge): EdgeShape {
  const target = vertexOf(jobGraph, edge.target);
  return {
    target: target.name,
    strategy: edge.shipStrategy,
    channels: kinds(
      jobGraph,
      edge,
      target.parallelism,
      vertexOf(jobGraph, edge.source).parallelism,
    ),
    sealsEachRecord: jobGraph.config.bufferTimeoutMs === 0,
    maxParallelism: target.maxParallelism,
  };
}

function inputChannels(jobGraph: JobGraph, edge: JobEdge): ChannelKind[] {
  const [source, target] = [vertexOf(jobGraph, edge.source), vertexOf(jobGraph, edge.target)];
  return kinds(jobGraph, edge, source.parallelism, target.parallelism);
}

/** From the first subtask of one end to the `others` of the other end: the first of these shares its slot. */
function kinds(jobGraph: JobGraph, edge: JobEdge, others: number, own: number): ChannelKind[] {
  const isPointwise = edge.shipStrategy === 'FORWARD' || edge.shipStrategy === 'RESCALE';
  const count = isPointwise ? Math.max(1, Math.ceil(others / own)) : others;
  const sharesSlot =
    vertexOf(jobGraph, edge.source).slotSharingGroup ===
    vertexOf(jobGraph, edge.target).slotSharingGroup;
  return Array.from({ length: count }, (_, i) => (sharesSlot && i === 0 ? 'direct' : 'ring'));
}

function vertexOf(jobGraph: JobGraph, id: string): JobVertex {
  return jobGraph.vertices.find((vertex) => vertex.id === id)!;
}
