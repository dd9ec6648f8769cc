import type { AllocationId, AttemptId, JobId, TaskManagerId } from '../base/ids.js';
import type { JobEdge, JobGraph, JobVertex } from '../graph/job-graph.js';
import type { TaskRestore } from '../state/state-handle.js';

/** Where the other end of a channel runs. */
export interface PeerLocation {
  readonly taskManagerId: TaskManagerId;
  /** `host:port` of the TaskManager's data plane. */
  readonly dataAddress: string;
  /** Same allocation = same slot = same thread. */
  readonly allocationId: AllocationId;
  readonly attemptId: AttemptId;
  readonly subtaskIndex: number;
}

/** One channel of an edge between two attempts. */
export interface ChannelDescriptor {
  /** Unique over the job's life: `<edge>:<producer attempt>:<consumer attempt>` or a digest of it. Both ends name it so. */
  readonly channelId: string;
  readonly peer: PeerLocation;
}

/** An outgoing edge: channel i leads to the i-th entry (FORWARD/RESCALE: only the connected consumers). */
export interface OutputDescriptor {
  readonly edge: JobEdge;
  readonly targetParallelism: number;
  readonly targetMaxParallelism: number;
  readonly channels: readonly ChannelDescriptor[];
}

/** An incoming edge, in the order of the graph's edges; a union has several. */
export interface InputDescriptor {
  readonly edge: JobEdge;
  readonly channels: readonly ChannelDescriptor[];
}

/** Everything one subtask needs to start. */
export interface TaskDeploymentDescriptor {
  readonly attemptId: AttemptId;
  readonly vertex: JobVertex;
  readonly subtaskIndex: number;
  /** 0-based count of executions of this subtask. */
  readonly attemptNumber: number;
  readonly generation: number;
  readonly outputs: readonly OutputDescriptor[];
  readonly inputs: readonly InputDescriptor[];
  readonly restore?: TaskRestore;
}

/** The unit of deployment: all tasks of one slot, in topological order. A slot thread lives as long as one of these. */
export interface SlotDeployment {
  readonly jobId: JobId;
  readonly allocationId: AllocationId;
  readonly generation: number;
  /** The slot re-runs main against it. */
  readonly jobGraph: JobGraph;
  /** Directory of this job's checkpoints (`<storage>/<cluster uid>/jobs/<job id>`), absolute or a URI. */
  readonly checkpointDirectory: string;
  /** Part of the directory names of new checkpoints, so that two leaders never overwrite each other: `e<era>.<revision>`. */
  readonly epochLabel: string;
  readonly tasks: readonly TaskDeploymentDescriptor[];
}
