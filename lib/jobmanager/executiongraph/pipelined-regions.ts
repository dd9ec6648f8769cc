/**
 * Pipelined regions (pure): subtasks connected by channels fail and restart together, since a
 * consumer cannot go on from where a restarted producer begins. Every exchange is pipelined here.
 */
import type { ExecutionTopology } from './execution-topology.js';
import { distributionPattern } from './distribution-pattern.js';

/** Disjoint sets of the numbers below `size`. */
export class DisjointSets {
  readonly #parents: number[];

  constructor(size: number) {
    this.#parents = Array.from({ length: size }, (_, index) => index);
  }

  find(member: number): number {
    let root = member;
    while (this.#parents[root] !== root) root = this.#parents[root] ?? root;
    for (let at = member; at !== root;) {
      const next = this.#parents[at] ?? root;
      this.#parents[at] = root;
      at = next;
    }
    return root;
  }

  unite(a: number, b: number): void {
    const rootA = this.find(a);
    const rootB = this.find(b);
    // The lower number represents its set, so that results do not depend on the order of calls.
    if (rootA !== rootB) this.#parents[Math.max(rootA, rootB)] = Math.min(rootA, rootB);
  }

  /** The sets, each ascending, in the order of their lowest members. */
  sets(): number[][] {
    const byRoot = new Map<number, number[]>();
    for (let member = 0; member < this.#parents.length; member++) {
      const root = this.find(member);
      const set = byRoot.get(root);
      if (set === undefined) byRoot.set(root, [member]);
      else set.push(member);
    }
    return [...byRoot.values()];
  }
}

export function uniteChannels(topology: ExecutionTopology, sets: DisjointSets): void {
  for (const edge of topology.edges) {
    const producers = topology.positionsOf(edge.source.id);
    const allToAll = distributionPattern(edge.edge.shipStrategy) === 'ALL_TO_ALL';
    if (allToAll) {
      const [first = 0] = producers;
      for (const producer of producers) sets.unite(first, producer);
      for (const consumer of topology.positionsOf(edge.target.id)) sets.unite(first, consumer);
      continue;
    }
    for (const producer of producers) {
      for (const consumer of topology.consumers(edge, producer)) sets.unite(producer, consumer);
    }
  }
}

/** Positions of each region, ascending. */
export function pipelinedRegions(topology: ExecutionTopology): number[][] {
  const sets = new DisjointSets(topology.subtasks.length);
  uniteChannels(topology, sets);
  return sets.sets();
}
