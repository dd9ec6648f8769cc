import type { JobPlan } from '../gateway/client-gateway.js';
import type { JobGraph } from './job-graph.js';

/** The plan as Flink's REST shows it: one node per task, with its inputs. */
export function jobPlan(jobGraph: JobGraph): JobPlan {
  return {
    jid: jobGraph.jobId,
    name: jobGraph.name,
    type: 'STREAMING',
    nodes: jobGraph.vertices.map((vertex) => {
      const inputs = jobGraph.edges
        .filter((edge) => edge.target === vertex.id)
        .map((edge, num) => ({
          num,
          id: edge.source,
          ship_strategy: edge.shipStrategy,
          exchange: 'pipelined_bounded' as const,
        }));
      return {
        id: vertex.id,
        parallelism: vertex.parallelism,
        operator: vertex.operators.map((operator) => operator.type).join(' -> '),
        operator_strategy: '',
        description: vertex.name,
        ...(inputs.length > 0 && { inputs }),
      };
    }),
  };
}
