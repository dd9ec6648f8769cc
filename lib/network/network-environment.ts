/**
 * The data plane of a TaskManager, on its main thread: decides the way of each channel, owns the rings
 * between slots and the sockets to other TaskManagers, and moves opaque frames between the two. Works
 * without sockets (local environment): then `listen` is not called.
 */
import { invariant } from '../base/assert.js';
import type { CancelTimer } from '../base/clock.js';
import { childEnv, type Env } from '../base/env.js';
import { systemRunSoon } from '../base/system-run-soon.js';
import type { AllocationId, TaskManagerId } from '../base/ids.js';
import type { ChannelDescriptor, SlotDeployment } from '../gateway/task-deployment-descriptor.js';
import { Bell, createBells } from './bell.js';
import { PartitionClient } from './partition-client.js';
import { PartitionServer } from './partition-server.js';
import { createRingMemory, Ring } from './ring.js';
import { Sleeper } from './sleeper.js';
import { memoryOf, type ChannelRoute, type SlotChannels } from './slot-channels.js';

export interface NetworkOptions {
  readonly taskManagerId: TaskManagerId;
  /** Both ends of a connection must belong to one cluster. */
  readonly clusterUid: string;
  /** Slots of this TaskManager; indices run from 0. */
  readonly slots: number;
  /** 32 KB. The same on every TaskManager of a cluster. */
  readonly bufferBytes?: number;
  /** 8. The credit of a channel. */
  readonly buffersPerChannel?: number;
  /** true. Whether the main thread polls before it sleeps, while that pays. */
  readonly polls?: boolean;
  /** How long a channel waits for its other end, ms (30 s). */
  readonly channelOpenTimeoutMs?: number;
}

const mainBell = 0;
const connectTimeoutMs = 10_000;

/** A ring between two slots of this process; made by whichever is deployed first. */
interface LocalRing {
  readonly ring: Ring;
  /** Ends that were opened, and of these the ones released. */
  opened: number;
  released: number;
  cancelLinger: CancelTimer | undefined;
}

interface OpenSlot {
  readonly generation: number;
  readonly release: (() => void)[];
  memoryBytes: number;
}

export class NetworkEnvironment {
  readonly #env: Env;
  readonly #options: Required<NetworkOptions>;
  readonly #bells: SharedArrayBuffer;
  readonly #bell: Bell;
  readonly #sleeper: Sleeper;
  readonly #server: PartitionServer;
  readonly #client: PartitionClient;
  readonly #slots = new Map<number, OpenSlot>();
  readonly #localRings = new Map<string, LocalRing>();
  #isPumping = false;
  #isPumpScheduled = false;
  #cancelSleep: () => void = () => undefined;
  #isClosed = false;

  constructor(env: Env, options: NetworkOptions) {
    this.#env = childEnv(env, 'network');
    this.#options = {
      bufferBytes: 32 * 1024,
      buffersPerChannel: 8,
      channelOpenTimeoutMs: 30_000,
      polls: true,
      ...options,
    };
    this.#bells = createBells(options.slots + 1);
    this.#bell = new Bell(this.#bells, mainBell);
    this.#sleeper = new Sleeper(this.#bell, env.clock, systemRunSoon, {
      ...(!this.#options.polls && { maxPollMs: 0 }),
    });
    this.#server = new PartitionServer(this.#env, {
      ...this.#options,
      onRoom: () => this.#pump(),
    });
    this.#client = new PartitionClient(this.#env, { ...this.#options, connectTimeoutMs });
  }

  /** Bytes received from, and sent to, other TaskManagers. */
  get bytesIn(): number {
    return this.#client.bytesIn;
  }

  get bytesOut(): number {
    return this.#server.bytesOut;
  }

  /** Buffers of the channels of all slots. */
  get memoryBytes(): number {
    return [...this.#slots.values()].reduce((sum, slot) => sum + slot.memoryBytes, 0);
  }

  /** Data connections to producers, and from consumers. */
  get connections(): { readonly outbound: number; readonly inbound: number } {
    return {
      outbound: this.#client.connectionCount,
      inbound: this.#server.connectionCount,
    };
  }

  /** Serves channels to other TaskManagers; resolves with the data address `host:port`. PORT_IN_USE, NETWORK. */
  async listen(host: string, port: number): Promise<string> {
    const actual = await this.#server.listen(host, port);
    return `${host.includes(':') ? `[${host}]` : host}:${String(actual)}`;
  }

  /** Prepares every channel of a slot's tasks; the result goes to the slot's thread. */
  openChannels(deployment: SlotDeployment, slotIndex: number): SlotChannels {
    invariant(!this.#isClosed, 'the data plane is closed');
    invariant(slotIndex >= 0 && slotIndex < this.#options.slots, 'no such slot', { slotIndex });
    const left = this.#slots.get(slotIndex);
    if (left !== undefined) this.releaseChannels(slotIndex, left.generation);
    const slot: OpenSlot = { generation: deployment.generation, release: [], memoryBytes: 0 };
    this.#slots.set(slotIndex, slot);
    const bell = slotIndex + 1;
    const open = (end: 'producer' | 'consumer') => (channel: ChannelDescriptor) => ({
      channelId: channel.channelId,
      route: this.#openChannel(slot, bell, end, { channel, allocationId: deployment.allocationId }),
    });
    const { tasks, generation } = deployment;
    const channels: SlotChannels = {
      slotIndex,
      generation,
      bells: this.#bells,
      bell,
      bufferBytes: this.#options.bufferBytes,
      outputs: tasks.flatMap((t) => t.outputs.flatMap((o) => o.channels)).map(open('producer')),
      inputs: tasks.flatMap((t) => t.inputs.flatMap((i) => i.channels)).map(open('consumer')),
    };
    slot.memoryBytes = memoryOf(channels);
    this.#pump();
    return channels;
  }

  /**
   * The slot's thread ended. What it wrote is still delivered; a consumer that is left without
   * endOfPartition gets nothing more. Idempotent; another generation in the slot is not touched.
   */
  releaseChannels(slotIndex: number, generation: number): void {
    const slot = this.#slots.get(slotIndex);
    if (slot?.generation !== generation) return;
    this.#slots.delete(slotIndex);
    for (const release of slot.release) release();
    this.#pump();
  }

  async close(): Promise<void> {
    if (this.#isClosed) return;
    for (const [slotIndex, slot] of [...this.#slots]) {
      this.releaseChannels(slotIndex, slot.generation);
    }
    this.#isClosed = true;
    this.#cancelSleep();
    for (const local of this.#localRings.values()) local.cancelLinger?.();
    this.#localRings.clear();
    this.#client.close();
    await this.#server.close();
  }

  // ---- Routes ---------------------------------------------------------------------------------

  #openChannel(
    slot: OpenSlot,
    bell: number,
    end: 'producer' | 'consumer',
    { channel, allocationId }: { channel: ChannelDescriptor; allocationId: AllocationId },
  ): ChannelRoute {
    const { channelId, peer } = channel;
    if (peer.allocationId === allocationId) return { kind: 'direct' };
    if (peer.taskManagerId === this.#options.taskManagerId) {
      const local = this.#localRing(channelId);
      local.opened += 1;
      local.ring.attach(end, bell);
      slot.release.push(() => this.#releaseLocal(channelId, local, end));
      return { kind: 'local', ring: local.ring.memory };
    }
    const ring = this.#createRing();
    ring.attach(end, bell);
    ring.attach(end === 'producer' ? 'consumer' : 'producer', mainBell);
    if (end === 'producer') {
      this.#server.register(channelId, ring);
      slot.release.push(() => this.#server.release(channelId));
    } else {
      this.#client.open(peer.dataAddress, channelId, ring);
      slot.release.push(() => this.#client.release(peer.dataAddress, channelId));
    }
    return { kind: 'remote', ring: ring.memory };
  }

  #createRing(): Ring {
    const { bufferBytes, buffersPerChannel: buffers } = this.#options;
    return new Ring(createRingMemory({ bufferBytes, buffers }), this.#bells);
  }

  #localRing(channelId: string): LocalRing {
    const known = this.#localRings.get(channelId);
    if (known !== undefined) return known;
    const ring = this.#createRing();
    const local: LocalRing = { ring, opened: 0, released: 0, cancelLinger: undefined };
    this.#localRings.set(channelId, local);
    return local;
  }

  /** Kept until both ends are gone, or the other one did not come in time. */
  #releaseLocal(channelId: string, local: LocalRing, end: 'producer' | 'consumer'): void {
    local.ring.end(end, 'closed');
    local.released += 1;
    const forget = (): void => {
      local.cancelLinger?.();
      this.#localRings.delete(channelId);
    };
    if (local.released === 2) forget();
    else if (local.opened < 2) {
      local.cancelLinger = this.#env.clock.setTimer(this.#options.channelOpenTimeoutMs, forget);
    }
  }

  // ---- Frames between rings and sockets -------------------------------------------------------

  /** Moves everything there is, then sleeps until a ring has news. */
  #pump(): void {
    if (this.#isClosed || this.#isPumping) return;
    this.#isPumping = true;
    this.#cancelSleep();
    const seen = this.#bell.sequence;
    this.#client.pump();
    const hasMore = this.#server.pump();
    this.#isPumping = false;
    if (!hasMore) {
      this.#cancelSleep = this.#sleeper.sleep(seen, () => this.#pump());
      return;
    }
    this.#cancelSleep = () => undefined;
    if (this.#isPumpScheduled) return;
    this.#isPumpScheduled = true;
    // Sockets get their turn in between.
    systemRunSoon(() => {
      this.#isPumpScheduled = false;
      this.#pump();
    });
  }
}
