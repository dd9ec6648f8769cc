import type { ControlEvent } from '../record/stream-element.js';
import type { TakeRecord } from './direct-channel.js';
import type { InputChannel, InputSink } from './input-channel.js';
import type { OutputChannel } from './output-channel.js';

/** Channels of a task, flattened in the order of its descriptors. */
export class TaskChannels {
  readonly inputs: readonly InputChannel[];
  readonly outputs: readonly OutputChannel[];
  /** By output descriptor. */
  readonly outputsByEdge: readonly (readonly OutputChannel[])[];
  #nextInput = 0;

  constructor(
    inputs: readonly InputChannel[],
    outputsByEdge: readonly (readonly OutputChannel[])[],
  ) {
    this.inputs = inputs;
    this.outputsByEdge = outputsByEdge;
    this.outputs = outputsByEdge.flat();
  }

  get hasRoom(): boolean {
    let hasRoom = true;
    // All are asked: asking also moves waiting buffers on.
    for (const output of this.outputs) if (!output.hasRoom) hasRoom = false;
    return hasRoom;
  }

  get isFlushed(): boolean {
    return this.outputs.every((output) => output.isFlushed);
  }

  /** Round-robin over the inputs, each call beginning with another one; false when there was nothing. */
  drain(sink: InputSink): boolean {
    const { inputs } = this;
    const first = this.#nextInput;
    this.#nextInput = (first + 1) % inputs.length;
    let hasTaken = false;
    for (let i = 0; i < inputs.length; i += 1) {
      const input = inputs[(first + i) % inputs.length]!;
      if (input.isBlocked || input.hasEnded) continue;
      if (input.drain(sink)) hasTaken = true;
      if (sink.mustStop) break;
    }
    return hasTaken;
  }

  /** The entry of the task for records that come by direct call. */
  connect(take: TakeRecord): void {
    for (const input of this.inputs) input.connect(take);
  }

  /** Whether the task can take direct calls may have changed. */
  refresh(): void {
    for (const input of this.inputs) input.refresh();
  }

  broadcast(event: ControlEvent): void {
    for (const output of this.outputs) output.control(event);
  }

  flush(): void {
    for (const output of this.outputs) output.flush();
  }

  /** NETWORK, when the way to or from another task broke; behind endOfPartition outputs matter no more. */
  failure(withOutputs: boolean): Error | undefined {
    for (const input of this.inputs) if (input.failure !== undefined) return input.failure;
    if (!withOutputs) return undefined;
    for (const output of this.outputs) if (output.failure !== undefined) return output.failure;
    return undefined;
  }

  close(): void {
    for (const output of this.outputs) output.close();
    for (const input of this.inputs) input.close();
  }
}
