import { connect, createServer, type Server, type Socket } from 'node:net';
import t from 'tap';
import type { TaskManagerId } from '../../../lib/base/ids.js';
import type { ChannelReader } from '../../../lib/network/channel-reader.js';
import type { ChannelWriter } from '../../../lib/network/channel-writer.js';
import { NetworkEnvironment } from '../../../lib/network/network-environment.js';
import { attachChannels, type ChannelProvider } from '../../../lib/network/slot-channels.js';
import type { SlotDeployment } from '../../../lib/gateway/task-deployment-descriptor.js';
import type { ControlEvent } from '../../../lib/record/stream-element.js';
import { deploymentsOf, type TestJob } from '../../support/slot-job.js';
import { TestOperator } from '../../support/slot-operators.js';
import { testEnv } from '../../support/test-env.js';

/** `producers` subtasks on one TaskManager, each forwarding to one on the other. */
function forwardJob(producers: number): TestJob {
  const operators = [() => new TestOperator()];
  return {
    vertices: [
      { name: 'a', parallelism: producers, operators },
      { name: 'b', parallelism: producers, operators },
    ],
    edges: [{ from: 'a', to: 'b', strategy: 'FORWARD' }],
  };
}

interface Pair {
  readonly producer: NetworkEnvironment;
  readonly consumer: NetworkEnvironment;
  readonly writers: ChannelWriter[];
  readonly readers: ChannelReader[];
  readonly out: ChannelProvider;
  readonly in: ChannelProvider;
  /** What the consumers were deployed with. */
  readonly consumers: SlotDeployment;
}

/** Two TaskManagers; a relay between them, if given, knows how to break the connection. */
async function connectPair(
  channels: number,
  options: {
    relay?: Relay;
    channelOpenTimeoutMs?: number;
    consumerUid?: string;
    consumerFirst?: boolean;
  } = {},
): Promise<Pair> {
  const env = testEnv();
  const common = {
    slots: 1,
    bufferBytes: 1024,
    buffersPerChannel: 4,
    ...(options.channelOpenTimeoutMs !== undefined && {
      channelOpenTimeoutMs: options.channelOpenTimeoutMs,
    }),
  };
  const producer = new NetworkEnvironment(env, {
    ...common,
    clusterUid: 'uid',
    taskManagerId: 'tm-a' as TaskManagerId,
  });
  const consumer = new NetworkEnvironment(env, {
    ...common,
    clusterUid: options.consumerUid ?? 'uid',
    taskManagerId: 'tm-b' as TaskManagerId,
  });
  const own = await producer.listen('127.0.0.1', 0);
  const address = options.relay === undefined ? own : await options.relay.listen(own);
  const deployments = deploymentsOf(forwardJob(channels), {
    slotOf: (vertex) => (vertex === 'a' ? 0 : 1),
    taskManagerOf: (slot) => ({ id: slot === 0 ? 'tm-a' : 'tm-b', address }),
  });
  const openIn = (): ChannelProvider =>
    attachChannels(consumer.openChannels(deployments.get(1)!, 0));
  const early = options.consumerFirst === true ? openIn() : undefined;
  const out = attachChannels(producer.openChannels(deployments.get(0)!, 0));
  const incoming = early ?? openIn();
  const ids = Array.from({ length: channels }, (_, i) => `a_b_0:${String(i)}:${String(i)}`);
  return {
    producer,
    consumer,
    out,
    in: incoming,
    consumers: deployments.get(1)!,
    writers: ids.map((id) => out.writer(id, 16)),
    readers: ids.map((id) => incoming.reader(id)),
  };
}

/** Passes bytes on until it is cut. */
class Relay {
  readonly #sockets: Socket[] = [];
  #server: Server | undefined;
  connections = 0;

  async listen(target: string): Promise<string> {
    const port = Number(target.split(':')[1]);
    const server = createServer((downstream) => {
      this.connections += 1;
      const upstream = connect(port, '127.0.0.1');
      for (const socket of [downstream, upstream]) socket.on('error', () => undefined);
      downstream.pipe(upstream).pipe(downstream);
      this.#sockets.push(downstream, upstream);
    });
    this.#server = server;
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    return `127.0.0.1:${String((server.address() as { port: number }).port)}`;
  }

  cut(): void {
    for (const socket of this.#sockets) socket.destroy();
    this.#server?.close();
  }
}

const sleepUntilBell = (provider: ChannelProvider, seen: number): Promise<void> =>
  new Promise((resolve) => {
    provider.bell.sleep(seen, resolve);
  });

/** Waits, woken by the slot's bell, until `look` finds something. */
async function waitFor<T>(provider: ChannelProvider, look: () => T | undefined): Promise<T> {
  for (;;) {
    const seen = provider.bell.sequence;
    const found = look();
    if (found !== undefined) return found;
    await sleepUntilBell(provider, seen);
  }
}

const bytesOf = (length: number, seed: number): Uint8Array =>
  Uint8Array.from({ length }, (_, i) => (i * 31 + seed) & 255);

async function closeAll(pair: Pair): Promise<void> {
  await pair.consumer.close();
  await pair.producer.close();
}

// Neither a bell nor an idle socket keeps the process alive.
const alive = setInterval(() => undefined, 1000);
t.teardown(() => clearInterval(alive));

t.test('all channels of a pair share one connection and keep their order', async (t) => {
  const relay = new Relay();
  const pair = await connectPair(5, { relay });
  const perChannel = 200;
  const expected: (number | ControlEvent)[] = [];
  for (let i = 0; i < perChannel; i += 1) {
    expected.push(i % 7 === 3 ? { kind: 'watermark', timestamp: i } : i);
  }
  const send = pair.writers.map(async (writer, c) => {
    for (const item of expected) {
      await waitFor(pair.out, () => writer.hasRoom || undefined);
      // Up to three buffers long.
      if (typeof item === 'number') writer.writeBatch(bytesOf(1 + ((item * 97) % 3000), item + c));
      else writer.writeControl(item);
    }
    writer.writeControl({ kind: 'endOfPartition' });
    await waitFor(pair.out, () => writer.isFlushed || undefined);
  });
  const receive = pair.readers.map(async (reader, c) => {
    for (const item of expected) {
      const next = await waitFor(pair.in, () => reader.next());
      if (typeof item === 'number') {
        const bytes = bytesOf(1 + ((item * 97) % 3000), item + c);
        if (!(next instanceof Uint8Array) || Buffer.compare(next, bytes) !== 0) {
          throw new Error(`channel ${String(c)}: item ${String(item)} came out differently`);
        }
      } else if (JSON.stringify(next) !== JSON.stringify(item))
        throw new Error('wrong control event');
    }
    const end = await waitFor(pair.in, () => reader.next());
    if ('byteLength' in end || end.kind !== 'endOfPartition') throw new Error('no end');
  });
  await Promise.all([...send, ...receive]);
  t.equal(relay.connections, 1, 'one connection for five channels');
  t.ok(pair.consumer.bytesIn > 100_000, 'bytes are counted');
  t.equal(pair.producer.bytesOut, pair.consumer.bytesIn);
  await closeAll(pair);
  relay.cut();
});

t.test(
  'a channel nobody reads does not stall its neighbours, and bounds its producer',
  async (t) => {
    const pair = await connectPair(2);
    const [blocked, free] = pair.writers as [ChannelWriter, ChannelWriter];
    const batch = bytesOf(1000, 1);
    let received = 0;
    let written = 0;
    let stalled = 0;
    while (received < 300) {
      await waitFor(pair.out, () => free.hasRoom || undefined);
      free.writeBatch(batch);
      written += 1;
      if (blocked.hasRoom) blocked.writeBatch(batch);
      else stalled += 1;
      await waitFor(pair.in, () => pair.readers[1]!.next());
      received += 1;
    }
    t.equal(received, written);
    t.ok(stalled > 200, 'the blocked channel ran out of credit');
    t.ok(blocked.bytes <= 2 * 4 * 1000 + 1000, 'it took no more than the buffers of both ends');
    let unblocked = 0;
    for (;;) {
      const next = await waitFor(pair.in, () => pair.readers[0]!.next());
      t.ok(next instanceof Uint8Array);
      unblocked += 1;
      if (unblocked * 1000 === blocked.bytes) break;
    }
    t.pass('once read, everything comes');
    await closeAll(pair);
  },
);

t.test('a lost connection fails the channels at both ends', async (t) => {
  const relay = new Relay();
  const pair = await connectPair(2, { relay });
  pair.writers[0]!.writeBatch(bytesOf(10, 0));
  await waitFor(pair.in, () => pair.readers[0]!.next());
  relay.cut();
  const readerError = await waitFor(pair.in, () => pair.readers[1]!.failure);
  const writerError = await waitFor(pair.out, () => pair.writers[0]!.failure);
  t.match(readerError, { code: 'NETWORK' });
  t.match(writerError, { code: 'NETWORK' });
  await closeAll(pair);
});

t.test('an opened channel waits for its producer, but not for ever', async (t) => {
  const pair = await connectPair(1, { consumerFirst: true });
  pair.writers[0]!.writeBatch(bytesOf(10, 7));
  t.same(await waitFor(pair.in, () => pair.readers[0]!.next()), bytesOf(10, 7));
  await closeAll(pair);

  const env = testEnv();
  const options = { clusterUid: 'uid', slots: 1, channelOpenTimeoutMs: 50 };
  const producer = new NetworkEnvironment(env, {
    ...options,
    taskManagerId: 'tm-a' as TaskManagerId,
  });
  const consumer = new NetworkEnvironment(env, {
    ...options,
    taskManagerId: 'tm-b' as TaskManagerId,
  });
  const address = await producer.listen('127.0.0.1', 0);
  const deployments = deploymentsOf(forwardJob(1), {
    slotOf: (vertex) => (vertex === 'a' ? 0 : 1),
    taskManagerOf: (slot) => ({ id: slot === 0 ? 'tm-a' : 'tm-b', address }),
  });
  const provider = attachChannels(consumer.openChannels(deployments.get(1)!, 0));
  const reader = provider.reader('a_b_0:0:0');
  t.match(await waitFor(provider, () => reader.failure), { code: 'NETWORK' });
  await consumer.close();
  await producer.close();
});

t.test('a channel has one consumer: who asks for it as well gets nothing of it', async (t) => {
  for (const consumerFirst of [false, true]) {
    const pair = await connectPair(1, { consumerFirst });
    const again = new NetworkEnvironment(testEnv(), {
      clusterUid: 'uid',
      slots: 1,
      bufferBytes: 1024,
      taskManagerId: 'tm-c' as TaskManagerId,
    });
    pair.writers[0]!.writeBatch(bytesOf(10, 1));
    t.same(await waitFor(pair.in, () => pair.readers[0]!.next()), bytesOf(10, 1));
    const late = attachChannels(again.openChannels(pair.consumers, 0));
    const reader = late.reader('a_b_0:0:0');
    t.match(await waitFor(late, () => reader.failure), { code: 'NETWORK' });
    pair.writers[0]!.writeBatch(bytesOf(10, 2));
    t.same(await waitFor(pair.in, () => pair.readers[0]!.next()), bytesOf(10, 2));
    t.equal(reader.next(), undefined);
    await again.close();
    await closeAll(pair);
  }
});

t.test('a TaskManager of another cluster is refused', async (t) => {
  const pair = await connectPair(1, { consumerUid: 'another' });
  t.match(await waitFor(pair.in, () => pair.readers[0]!.failure), { code: 'NETWORK' });
  t.equal(pair.writers[0]!.failure, undefined, 'the producer goes on waiting for the right one');
  await closeAll(pair);
});

t.test(
  'what an ended slot wrote is still delivered, and a slot that ended early leaves silence',
  async (t) => {
    const pair = await connectPair(2);
    pair.writers[0]!.writeBatch(bytesOf(10, 1));
    pair.writers[0]!.writeControl({ kind: 'endOfPartition' });
    pair.writers[1]!.writeBatch(bytesOf(10, 2));
    pair.producer.releaseChannels(0, 0);
    t.same(await waitFor(pair.in, () => pair.readers[0]!.next()), bytesOf(10, 1));
    t.same(await waitFor(pair.in, () => pair.readers[0]!.next()), { kind: 'endOfPartition' });
    t.same(await waitFor(pair.in, () => pair.readers[1]!.next()), bytesOf(10, 2));
    await waitFor(pair.in, () =>
      pair.readers[1]!.ring.producerState === 'open' ? undefined : true,
    );
    t.equal(pair.readers[1]!.ring.producerState, 'closed');
    t.equal(pair.readers[1]!.failure, undefined, 'its task says why it ended, not the network');
    await closeAll(pair);
  },
);

t.test('a used port is named', async (t) => {
  const env = testEnv();
  const options = { clusterUid: 'uid', slots: 1 };
  const first = new NetworkEnvironment(env, { ...options, taskManagerId: 'tm-a' as TaskManagerId });
  const second = new NetworkEnvironment(env, {
    ...options,
    taskManagerId: 'tm-b' as TaskManagerId,
  });
  const address = await first.listen('127.0.0.1', 0);
  await t.rejects(second.listen('127.0.0.1', Number(address.split(':')[1])), {
    code: 'PORT_IN_USE',
  });
  await second.close();
  await first.close();
});

t.test(
  'the memory of channels counts in the slots that hold them, until they are released',
  async (t) => {
    const { producer, consumer, out, in: incoming } = await connectPair(3);
    t.ok(out.memoryBytes >= 3 * 4 * 1024, '4 buffers of 1 KB a channel');
    t.equal(incoming.memoryBytes, out.memoryBytes, 'a remote channel has a ring at each end');
    t.equal(producer.memoryBytes, out.memoryBytes);
    producer.releaseChannels(0, 0);
    t.equal(producer.memoryBytes, 0);

    const local = new NetworkEnvironment(testEnv(), {
      taskManagerId: 'tm' as TaskManagerId,
      clusterUid: 'uid',
      slots: 2,
      bufferBytes: 1024,
      buffersPerChannel: 4,
    });
    const deployments = deploymentsOf(forwardJob(1), {
      slotOf: (vertex) => (vertex === 'a' ? 0 : 1),
      taskManagerOf: () => ({ id: 'tm', address: '127.0.0.1:1' }),
    });
    const [from, to] = [0, 1].map((slot) =>
      attachChannels(local.openChannels(deployments.get(slot)!, slot)),
    );
    t.ok((from?.memoryBytes ?? 0) >= 4 * 1024);
    t.equal(to?.memoryBytes, 0, 'a ring between two slots is its producer’s');
    await Promise.all([producer.close(), consumer.close(), local.close()]);
  },
);
