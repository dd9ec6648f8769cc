/**
 * A job's subtasks and channels, expanded from its graph (pure). Every subtask has a position in
 * `subtasks`, in topological order of the vertices; the other files of this folder speak in positions.
 */
import { invariant } from '../../base/assert.js';
import type { VertexId } from '../../base/ids.js';
import type { JobEdge, JobGraph, JobVertex } from '../../graph/job-graph.js';
import { consumersOf, distributionPattern, producersOf } from './distribution-pattern.js';

export interface TopologySubtask {
  readonly position: number;
  readonly vertex: JobVertex;
  readonly subtaskIndex: number;
}

export interface TopologyEdge {
  readonly edge: JobEdge;
  readonly source: JobVertex;
  readonly target: JobVertex;
}

export class ExecutionTopology {
  readonly graph: JobGraph;
  readonly subtasks: readonly TopologySubtask[];
  readonly edges: readonly TopologyEdge[];
  readonly #vertices = new Map<VertexId, { readonly vertex: JobVertex; readonly first: number }>();

  constructor(graph: JobGraph) {
    this.graph = graph;
    const subtasks: TopologySubtask[] = [];
    for (const vertex of graph.vertices) {
      this.#vertices.set(vertex.id, { vertex, first: subtasks.length });
      for (let subtaskIndex = 0; subtaskIndex < vertex.parallelism; subtaskIndex++) {
        subtasks.push({ position: subtasks.length, vertex, subtaskIndex });
      }
    }
    this.subtasks = subtasks;
    this.edges = graph.edges.map((edge) => ({
      edge,
      source: this.vertex(edge.source),
      target: this.vertex(edge.target),
    }));
  }

  vertex(id: VertexId): JobVertex {
    return this.#entry(id).vertex;
  }

  position(id: VertexId, subtaskIndex: number): number {
    return this.#entry(id).first + subtaskIndex;
  }

  positionsOf(id: VertexId): number[] {
    const { vertex, first } = this.#entry(id);
    return Array.from({ length: vertex.parallelism }, (_, index) => first + index);
  }

  outputsOf(position: number): TopologyEdge[] {
    const vertex = this.subtask(position).vertex.id;
    return this.edges.filter(({ edge }) => edge.source === vertex);
  }

  inputsOf(position: number): TopologyEdge[] {
    const vertex = this.subtask(position).vertex.id;
    return this.edges.filter(({ edge }) => edge.target === vertex);
  }

  /** Positions at the other ends of the channels of one outgoing edge, in channel order. */
  consumers({ edge, source, target }: TopologyEdge, position: number): number[] {
    const indices = consumersOf(
      distributionPattern(edge.shipStrategy),
      this.subtask(position).subtaskIndex,
      source.parallelism,
      target.parallelism,
    );
    return indices.map((index) => this.position(target.id, index));
  }

  /** Positions at the other ends of the channels of one incoming edge, in channel order. */
  producers({ edge, source, target }: TopologyEdge, position: number): number[] {
    const indices = producersOf(
      distributionPattern(edge.shipStrategy),
      this.subtask(position).subtaskIndex,
      source.parallelism,
      target.parallelism,
    );
    return indices.map((index) => this.position(source.id, index));
  }

  subtask(position: number): TopologySubtask {
    const subtask = this.subtasks[position];
    invariant(subtask !== undefined, 'a position is one of a subtask', { position });
    return subtask;
  }

  #entry(id: VertexId): { readonly vertex: JobVertex; readonly first: number } {
    const entry = this.#vertices.get(id);
    invariant(entry !== undefined, 'an edge connects vertices of its graph', { vertex: id });
    return entry;
  }
}
