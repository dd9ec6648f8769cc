/** From the execution graph to what TaskManagers are sent (pure). */
import { invariant } from '../../base/assert.js';
import type { OperatorId } from '../../base/ids.js';
import type { TaskRestore } from '../../state/state-handle.js';
import type { JobGraph } from '../../graph/job-graph.js';
import type {
  ChannelDescriptor,
  InputDescriptor,
  OutputDescriptor,
  PeerLocation,
  SlotDeployment,
  TaskDeploymentDescriptor,
} from '../../gateway/task-deployment-descriptor.js';
import type { Execution, SlotLocation } from '../executiongraph/execution.js';
import type { ExecutionVertex } from '../executiongraph/execution-vertex.js';
import type { ExecutionTopology } from '../executiongraph/execution-topology.js';

/** The graph with the numbers of key groups of a restored checkpoint, which never change again. */
export function withMaxParallelism(
  graph: JobGraph,
  restored: ReadonlyMap<OperatorId, number>,
): JobGraph {
  if (restored.size === 0) return graph;
  return {
    ...graph,
    vertices: graph.vertices.map((vertex) => {
      const operators = vertex.operators.map((operator) => ({
        ...operator,
        maxParallelism: restored.get(operator.id) ?? operator.maxParallelism,
      }));
      const [head] = operators;
      return {
        ...vertex,
        operators,
        maxParallelism: head?.maxParallelism ?? vertex.maxParallelism,
      };
    }),
  };
}

export interface DeploymentContext {
  readonly graph: JobGraph;
  /** Of the graph with the effective maxParallelism. */
  readonly topology: ExecutionTopology;
  readonly vertices: readonly ExecutionVertex[];
  readonly checkpointDirectory: string;
  readonly epochLabel: string;
  restoreOf(vertex: ExecutionVertex): TaskRestore | undefined;
}

/** All tasks of one shared slot, in topological order. */
export function slotDeployment(
  context: DeploymentContext,
  location: SlotLocation,
  positions: readonly number[],
): SlotDeployment {
  const tasks = positions.map((position) => taskDescriptor(context, position));
  return {
    jobId: context.graph.jobId,
    allocationId: location.allocationId,
    generation: tasks[0]?.generation ?? 0,
    jobGraph: context.graph,
    checkpointDirectory: context.checkpointDirectory,
    epochLabel: context.epochLabel,
    tasks,
  };
}

function taskDescriptor(context: DeploymentContext, position: number): TaskDeploymentDescriptor {
  const { topology } = context;
  const { vertex, execution } = deployable(context, position);
  const { subtaskIndex } = vertex.subtask;
  const restore = context.restoreOf(vertex);
  return {
    attemptId: execution.attemptId,
    vertex: topology.subtask(position).vertex,
    subtaskIndex,
    attemptNumber: execution.attemptNumber,
    generation: execution.generation,
    outputs: topology.outputsOf(position).map((edge): OutputDescriptor => ({
      edge: edge.edge,
      targetParallelism: edge.target.parallelism,
      targetMaxParallelism: edge.target.maxParallelism,
      channels: topology.consumers(edge, position).map((consumer) => {
        const peer = deployable(context, consumer);
        return channel(`${edge.edge.id}:${execution.attemptId}:${peer.execution.attemptId}`, peer);
      }),
    })),
    inputs: topology.inputsOf(position).map((edge): InputDescriptor => ({
      edge: edge.edge,
      channels: topology.producers(edge, position).map((producer) => {
        const peer = deployable(context, producer);
        return channel(`${edge.edge.id}:${peer.execution.attemptId}:${execution.attemptId}`, peer);
      }),
    })),
    ...(restore !== undefined && { restore }),
  };
}

interface Deployable {
  readonly vertex: ExecutionVertex;
  readonly execution: Execution;
  readonly location: SlotLocation;
}

function deployable(context: DeploymentContext, position: number): Deployable {
  const vertex = context.vertices[position];
  const execution = vertex?.current;
  invariant(
    vertex !== undefined && execution?.location !== undefined,
    'both ends of a channel have a slot',
    { position },
  );
  return { vertex, execution, location: execution.location };
}

function channel(
  channelId: string,
  { vertex, execution, location }: Deployable,
): ChannelDescriptor {
  const peer: PeerLocation = {
    taskManagerId: location.taskManagerId,
    dataAddress: location.dataAddress,
    allocationId: location.allocationId,
    attemptId: execution.attemptId,
    subtaskIndex: vertex.subtask.subtaskIndex,
  };
  return { channelId, peer };
}
