/** Where an operator's records leave the chain: the channels of one edge, chosen by its ship strategy. */
import { InvariantError } from '../base/assert.js';
import { MillraceError } from '../base/errors.js';
import type { OperatorId } from '../base/ids.js';
import type {
  OutputDescriptor,
  TaskDeploymentDescriptor,
} from '../gateway/task-deployment-descriptor.js';
import type { FunctionSource } from '../operators/stream-operator.js';
import { MIN_WATERMARK } from '../record/stream-element.js';
import { subtaskOfKeyGroup } from '../state/key-group-range.js';
import { keyGroupOf } from '../state/key-group.js';
import type { OutputChannel } from './output-channel.js';
import type { OutputTarget } from './operator-output.js';

type Select = (value: unknown) => OutputChannel;

interface EdgeOutputOptions {
  readonly descriptor: OutputDescriptor;
  readonly channels: readonly OutputChannel[];
  /** The producing subtask: where round-robin starts, so that producers do not all begin with the same consumer. */
  readonly subtaskIndex: number;
  readonly keySelector: (edgeId: string) => (value: unknown) => unknown;
}

export class EdgeOutput implements OutputTarget {
  /** Whose output this is. */
  readonly sourceOperator: OperatorId;
  readonly sideOutput: string | undefined;
  readonly #channels: readonly OutputChannel[];
  /** Absent for broadcast. */
  readonly #select: Select | undefined;
  records = 0;
  watermark = MIN_WATERMARK;

  constructor(options: EdgeOutputOptions) {
    const { sourceOperator, sideOutput } = options.descriptor.edge;
    this.sourceOperator = sourceOperator;
    this.sideOutput = sideOutput;
    this.#channels = options.channels;
    this.#select = selectorOf(options);
  }

  collect(value: unknown, timestamp: number): void {
    this.records += 1;
    if (this.#select !== undefined) {
      this.#select(value).collect(value, timestamp);
      return;
    }
    for (const channel of this.#channels) channel.collect(value, timestamp);
  }

  emitWatermark(timestamp: number): void {
    this.watermark = timestamp;
    for (const channel of this.#channels) channel.control({ kind: 'watermark', timestamp });
  }

  emitWatermarkStatus(active: boolean): void {
    for (const channel of this.#channels) channel.control({ kind: 'watermarkStatus', active });
  }
}

/** The outgoing edges of a task, over the channels of each. */
export function createEdgeOutputs(
  task: TaskDeploymentDescriptor,
  channelsByEdge: readonly (readonly OutputChannel[])[],
  functions: FunctionSource,
): readonly EdgeOutput[] {
  return task.outputs.map(
    (descriptor, i) =>
      new EdgeOutput({
        descriptor,
        channels: channelsByEdge[i] ?? [],
        subtaskIndex: task.subtaskIndex,
        keySelector: (edgeId) => functions.keySelector(edgeId),
      }),
  );
}

function selectorOf(options: EdgeOutputOptions): Select | undefined {
  const { descriptor, channels } = options;
  const at = (i: number): OutputChannel => channels[i] ?? noChannel(descriptor, i);
  switch (descriptor.edge.shipStrategy) {
    case 'BROADCAST':
      return undefined;
    case 'FORWARD':
    case 'GLOBAL': {
      const only = at(0);
      return () => only;
    }
    case 'REBALANCE':
    case 'RESCALE': {
      let next = options.subtaskIndex % channels.length;
      return () => {
        const channel = at(next);
        next = next + 1 === channels.length ? 0 : next + 1;
        return channel;
      };
    }
    case 'HASH':
      return hashSelector(options, at);
  }
}

function hashSelector(options: EdgeOutputOptions, at: (i: number) => OutputChannel): Select {
  const { edge, targetMaxParallelism, targetParallelism } = options.descriptor;
  const keyOf = options.keySelector(edge.id);
  const channelOfGroup = Array.from({ length: targetMaxParallelism }, (_, keyGroup) =>
    at(subtaskOfKeyGroup(keyGroup, targetMaxParallelism, targetParallelism)),
  );
  return (value) => {
    let key: unknown;
    try {
      key = keyOf(value);
    } catch (error) {
      const text = error instanceof Error ? error.message : String(error);
      throw new MillraceError(
        'USER_FUNCTION',
        `the key selector of edge ${edge.id} threw: ${text}`,
        {
          cause: error,
          details: { edge: edge.id },
        },
      );
    }
    return channelOfGroup[keyGroupOf(key, targetMaxParallelism)] ?? at(-1);
  };
}

function noChannel(descriptor: OutputDescriptor, index: number): never {
  throw new InvariantError('an edge lacks a channel its ship strategy needs', {
    edge: descriptor.edge.id,
    channels: descriptor.channels.length,
    index,
  });
}
