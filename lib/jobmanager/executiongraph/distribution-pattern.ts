/** Which subtasks of an edge's two ends are connected (pure; Flink's VertexInputInfoComputationUtils). */
import type { ShipStrategy } from '../../graph/job-graph.js';

export type DistributionPattern = 'POINTWISE' | 'ALL_TO_ALL';

export function distributionPattern(strategy: ShipStrategy): DistributionPattern {
  return strategy === 'FORWARD' || strategy === 'RESCALE' ? 'POINTWISE' : 'ALL_TO_ALL';
}

/** Consumers that producer `producer` has a channel to, ascending. */
export function consumersOf(
  pattern: DistributionPattern,
  producer: number,
  producers: number,
  consumers: number,
): number[] {
  if (pattern === 'ALL_TO_ALL') return range(0, consumers);
  if (producers < consumers) {
    const start = ceilDiv(producer * consumers, producers);
    return range(start, ceilDiv((producer + 1) * consumers, producers));
  }
  // Several producers share a consumer: the one whose range holds this producer.
  return range(0, consumers).filter((consumer) => {
    const own = producersOf(pattern, consumer, producers, consumers);
    return own.includes(producer);
  });
}

/** Producers that consumer `consumer` has a channel from, ascending. */
export function producersOf(
  pattern: DistributionPattern,
  consumer: number,
  producers: number,
  consumers: number,
): number[] {
  if (pattern === 'ALL_TO_ALL') return range(0, producers);
  if (producers >= consumers) {
    const start = Math.floor((consumer * producers) / consumers);
    return range(start, Math.floor(((consumer + 1) * producers) / consumers));
  }
  // Each consumer has one producer: the inverse of consumersOf.
  return [Math.floor((consumer * producers) / consumers)];
}

function range(start: number, end: number): number[] {
  return Array.from({ length: Math.max(0, end - start) }, (_, index) => start + index);
}

function ceilDiv(a: number, b: number): number {
  return Math.floor((a + b - 1) / b);
}
