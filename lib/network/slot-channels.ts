/** What a slot's thread is handed to reach the channels of its tasks. */
import { InvariantError } from '../base/assert.js';
import { Bell } from './bell.js';
import { ChannelReader } from './channel-reader.js';
import { ChannelWriter } from './channel-writer.js';
import { Ring } from './ring.js';

/**
 * The way a channel takes. `direct`: both ends in this slot, by function call. `local`: ring to another
 * slot of this process. `remote`: ring to the main thread, which owns the sockets.
 */
export type ChannelRoute =
  | { readonly kind: 'direct' }
  | { readonly kind: 'local' | 'remote'; readonly ring: SharedArrayBuffer };

/** Structured-cloneable. */
export interface SlotChannels {
  readonly slotIndex: number;
  readonly generation: number;
  /** The bells of all threads of the process; `bell` is the slot's own. */
  readonly bells: SharedArrayBuffer;
  readonly bell: number;
  readonly bufferBytes: number;
  /** Where this slot is the producer. */
  readonly outputs: readonly { readonly channelId: string; readonly route: ChannelRoute }[];
  /** Where this slot is the consumer. */
  readonly inputs: readonly { readonly channelId: string; readonly route: ChannelRoute }[];
}

export interface ChannelProvider {
  /** Rung for whatever the slot may be waiting for. */
  readonly bell: Bell;
  /** Size of a channel's buffers: batches are sealed before they grow beyond it. */
  readonly bufferBytes: number;
  /** Bytes of ring memory that count as the slot's: each channel between slots counts once. V8 knows nothing of it. */
  readonly memoryBytes: number;
  isDirect(channelId: string): boolean;
  writer(channelId: string, maxOverdraftBuffers: number): ChannelWriter;
  reader(channelId: string): ChannelReader;
}

/** In the slot's thread (or the calling thread): the ends of the slot's channels. */
export function attachChannels(channels: SlotChannels): ChannelProvider {
  const outputs = new Map(channels.outputs.map((c) => [c.channelId, c.route]));
  const inputs = new Map(channels.inputs.map((c) => [c.channelId, c.route]));
  const ringOf = (routes: Map<string, ChannelRoute>, channelId: string): Ring => {
    const route = routes.get(channelId);
    if (route === undefined || route.kind === 'direct') {
      throw new InvariantError('the slot has no ring for a channel of its tasks', { channelId });
    }
    return new Ring(route.ring, channels.bells);
  };
  return {
    bell: new Bell(channels.bells, channels.bell),
    bufferBytes: channels.bufferBytes,
    memoryBytes: memoryOf(channels),
    isDirect: (channelId) => outputs.get(channelId)?.kind === 'direct',
    writer: (channelId, maxOverdraftBuffers) =>
      new ChannelWriter(channelId, ringOf(outputs, channelId), maxOverdraftBuffers),
    reader: (channelId) => new ChannelReader(channelId, ringOf(inputs, channelId)),
  };
}

/** Rings of its outputs, and of inputs from another process. */
export function memoryOf({ outputs, inputs }: SlotChannels): number {
  const ringBytes = ({ route }: { readonly route: ChannelRoute }): number =>
    route.kind === 'direct' ? 0 : route.ring.byteLength;
  return (
    outputs.reduce((sum, channel) => sum + ringBytes(channel), 0) +
    inputs.reduce(
      (sum, channel) => sum + (channel.route.kind === 'remote' ? ringBytes(channel) : 0),
      0,
    )
  );
}
