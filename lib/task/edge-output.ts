/** Where an operator's records leave the chain: the channels of one edge, chosen by its ship strategy. */
import { InvariantError } from '../base/assert.js';
import { MillraceError } from '../base/errors.js';
import type { OperatorId } from '../base/ids.js';
import type {
  OutputDescriptor,
  TaskDeploymentDescriptor,
} from '../gateway/task-deployment-descriptor.js';
import type { ShipStrategy } from '../graph/job-graph.js';
import type { FunctionSource } from '../operators/stream-operator.js';
import { MIN_WATERMARK } from '../record/stream-element.js';
import { subtaskOfKeyGroup } from '../state/key-group-range.js';
import { hashKey } from '../state/key-group.js';
import type { OutputChannel } from './output-channel.js';
import type { OutputTarget } from './operator-output.js';

interface EdgeOutputOptions {
  readonly descriptor: OutputDescriptor;
  readonly channels: readonly OutputChannel[];
  /** The producing subtask: where round-robin starts, so that producers do not all begin with the same consumer. */
  readonly subtaskIndex: number;
  readonly keySelector: (edgeId: string) => (value: unknown) => unknown;
}

/** How a HASH edge finds the channel of a record. */
export interface HashPartitioning {
  readonly keyOf: (value: unknown) => unknown;
  readonly maxParallelism: number;
  /** Channel by key group. */
  readonly channelOfGroup: Uint16Array;
}

/** Generated code writes `sent` and `next` of an edge, the interpreter does it here: both may take turns. */
export class EdgeOutput implements OutputTarget {
  readonly id: string;
  /** Whose output this is. */
  readonly sourceOperator: OperatorId;
  readonly sideOutput: string | undefined;
  readonly strategy: ShipStrategy;
  readonly channels: readonly OutputChannel[];
  readonly hash: HashPartitioning | undefined;
  /** Element 0: records sent. Typed, as generated code counts here for each record. */
  readonly sent = new Float64Array(1);
  /** Round-robin: the channel that gets the next record. */
  next: number;
  watermark = MIN_WATERMARK;

  constructor(options: EdgeOutputOptions) {
    const { descriptor, channels, subtaskIndex, keySelector } = options;
    const { id, sourceOperator, sideOutput, shipStrategy } = descriptor.edge;
    if (channels.length === 0) {
      throw new InvariantError('an edge lacks the channels its ship strategy needs', { edge: id });
    }
    this.id = id;
    this.sourceOperator = sourceOperator;
    this.sideOutput = sideOutput;
    this.strategy = shipStrategy;
    this.channels = channels;
    this.next = subtaskIndex % channels.length;
    this.hash = shipStrategy === 'HASH' ? partitioning(descriptor, keySelector(id)) : undefined;
  }

  get records(): number {
    return this.sent[0]!;
  }

  collect(value: unknown, timestamp: number): void {
    this.sent[0]! += 1;
    const { channels } = this;
    switch (this.strategy) {
      case 'BROADCAST':
        for (const channel of channels) channel.collect(value, timestamp);
        break;
      case 'FORWARD':
      case 'GLOBAL':
        channels[0]!.collect(value, timestamp);
        break;
      case 'REBALANCE':
      case 'RESCALE': {
        const channel = channels[this.next]!;
        this.next = this.next + 1 === channels.length ? 0 : this.next + 1;
        channel.collect(value, timestamp);
        break;
      }
      case 'HASH':
        channels[this.#channelOf(value)]!.collect(value, timestamp);
        break;
    }
  }

  emitWatermark(timestamp: number): void {
    this.watermark = timestamp;
    for (const channel of this.channels) channel.control({ kind: 'watermark', timestamp });
  }

  emitWatermarkStatus(active: boolean): void {
    for (const channel of this.channels) channel.control({ kind: 'watermarkStatus', active });
  }

  #channelOf(value: unknown): number {
    const { keyOf, maxParallelism, channelOfGroup } = this.hash!;
    let key: unknown;
    try {
      key = keyOf(value);
    } catch (error) {
      throw keySelectorError(this.id, error);
    }
    return channelOfGroup[(hashKey(key) >>> 0) % maxParallelism]!;
  }
}

/** What the key selector of an edge threw. */
export function keySelectorError(edge: string, error: unknown): MillraceError {
  const text = error instanceof Error ? error.message : String(error);
  return new MillraceError('USER_FUNCTION', `the key selector of edge ${edge} threw: ${text}`, {
    cause: error,
    details: { edge },
  });
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

function partitioning(
  { targetMaxParallelism, targetParallelism }: OutputDescriptor,
  keyOf: (value: unknown) => unknown,
): HashPartitioning {
  const channelOfGroup = Uint16Array.from({ length: targetMaxParallelism }, (_, keyGroup) =>
    subtaskOfKeyGroup(keyGroup, targetMaxParallelism, targetParallelism),
  );
  return { keyOf, maxParallelism: targetMaxParallelism, channelOfGroup };
}
