/** One end of a channel in a thread of its own: writes or checks numbered batches and control frames. */
import { parentPort, workerData } from 'node:worker_threads';
import { Bell } from '../../lib/network/bell.js';
import { ChannelReader } from '../../lib/network/channel-reader.js';
import { ChannelWriter } from '../../lib/network/channel-writer.js';
import { Ring } from '../../lib/network/ring.js';

export interface RingWorkerData {
  readonly end: 'producer' | 'consumer';
  readonly memory: SharedArrayBuffer;
  readonly bells: SharedArrayBuffer;
  readonly bell: number;
  readonly items: number;
}

const { end, memory, bells, bell: index, items } = workerData as RingWorkerData;
const ring = new Ring(memory, bells);
const bell = new Bell(bells, index);
const port = parentPort!;
// Keeps the thread alive: a pending wait alone does not.
port.on('message', () => undefined);

const isControl = (i: number): boolean => i % 5 === 4;
const lengthOf = (i: number): number => 4 + ((i * 37) % 600);

async function until(look: () => boolean): Promise<void> {
  for (;;) {
    const seen = bell.sequence;
    if (look()) return;
    await new Promise<void>((resolve) => {
      bell.sleep(seen, resolve);
    });
  }
}

async function produce(): Promise<void> {
  const writer = new ChannelWriter('c', ring, 8);
  for (let i = 0; i < items; i += 1) {
    await until(() => writer.hasRoom);
    if (isControl(i)) writer.writeControl({ kind: 'barrier', checkpointId: i, timestamp: -i });
    else {
      const bytes = new Uint8Array(lengthOf(i)).fill(i & 255);
      new DataView(bytes.buffer).setUint32(0, i);
      writer.writeBatch(bytes);
    }
  }
  writer.writeControl({ kind: 'endOfPartition' });
  await until(() => writer.isFlushed);
}

async function consume(): Promise<void> {
  const reader = new ChannelReader('c', ring);
  for (let i = 0; i < items; i += 1) {
    let next: ReturnType<ChannelReader['next']>;
    await until(() => (next = reader.next()) !== undefined);
    if (next === undefined) throw new Error('nothing');
    if (!(next instanceof Uint8Array)) {
      if (
        !isControl(i) ||
        next.kind !== 'barrier' ||
        next.checkpointId !== i ||
        next.timestamp !== -i
      ) {
        throw new Error(`item ${String(i)} came out as ${JSON.stringify(next)}`);
      }
      continue;
    }
    const id = new DataView(next.buffer, next.byteOffset).getUint32(0);
    const isIntact =
      next.byteLength === lengthOf(i) && next.subarray(4).every((byte) => byte === (i & 255));
    if (isControl(i) || id !== i || !isIntact)
      throw new Error(`item ${String(i)} came out differently`);
  }
}

await (end === 'producer' ? produce() : consume());
port.postMessage('done');
port.close();
