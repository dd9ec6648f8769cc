/**
 * A keyed exchange by hand, shaped as the job beside it: two peers, each makes records, counts those of its own keys
 * and sends the others in batches of 512. Peers are threads with a MessagePort between them or processes with a TCP
 * connection; a peer has at most eight batches under way.
 */
import { fork, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { createServer, connect, type AddressInfo, type Socket } from 'node:net';
import { fileURLToPath } from 'node:url';
import {
  MessageChannel,
  Worker,
  parentPort,
  workerData,
  type MessagePort,
} from 'node:worker_threads';
import { Meter, type MeterReport } from '../jobs/meter.js';
import { rateOf } from '../rate.js';
import { naiveCodec, type NaiveCodec } from './codecs.js';
import { expectEqual, microArguments, tell, type MicroArguments } from './protocol.js';
import { kindOf, type RecordKind } from './shapes.js';

interface ExchangeArguments extends MicroArguments {
  /** `threads` or `processes`. */
  readonly peers: string;
}

interface PeerStart {
  readonly args: ExchangeArguments;
  readonly index: number;
}

interface PeerResult {
  readonly report: MeterReport;
  /** Records made, and the sum of the counts of its keys. */
  readonly made: number;
  readonly expectedSum: number;
}

/** Messages between peers: records, or one of these. */
const ack = 'ack';
const end = 'end';
type Message = unknown[] | Uint8Array | typeof ack | typeof end;

interface Link {
  send(message: Message): void;
  onMessage(listener: (message: Message) => void): void;
}

const batchRecords = 512;
const quantumRecords = 2048;
const windowBatches = 8;

class Peer {
  readonly #kind: RecordKind;
  readonly #codec: NaiveCodec | undefined;
  readonly #link: Link;
  readonly #index: number;
  readonly #keys: number;
  readonly #meter = new Meter({ from: 0 });
  readonly #counts = new Map<number, number>();
  readonly #kept: unknown[];
  readonly #endAt: number;
  readonly #done: (result: PeerResult) => void;
  #pending: object[] = [];
  #underWay = 0;
  #next: number;
  #at = 0;
  #isRunning = false;
  #hasEnded = false;
  #hasPeerEnded = false;

  constructor({ args, index }: PeerStart, link: Link, done: (result: PeerResult) => void) {
    this.#kind = kindOf(args.shape ?? 'trade');
    this.#codec =
      args.variant === 'structured-clone'
        ? undefined
        : naiveCodec(args.variant, this.#kind.make(0, args.keys));
    this.#link = link;
    this.#index = index;
    this.#next = index;
    this.#keys = args.keys;
    this.#kept = new Array<unknown>(this.#kind.kept).fill(undefined);
    this.#endAt = performance.now() + args.warmMs + args.windowMs;
    this.#done = done;
    link.onMessage((message) => {
      this.#onMessage(message);
    });
    this.#wake();
  }

  #wake(): void {
    if (this.#isRunning || this.#hasEnded) return;
    this.#isRunning = true;
    setImmediate(() => {
      this.#turn();
    });
  }

  #turn(): void {
    this.#isRunning = false;
    if (this.#underWay >= windowBatches) return;
    for (let i = 0; i < quantumRecords; i += 1) {
      const record = this.#kind.make(this.#next, this.#keys);
      this.#next += 2;
      if ((this.#kind.keyOf(record) & 1) === this.#index) this.#count(record);
      else this.#pending.push(record);
      if (this.#pending.length === batchRecords) this.#flush();
    }
    if (performance.now() < this.#endAt) this.#wake();
    else this.#end();
  }

  #flush(): void {
    const batch = this.#pending;
    this.#pending = [];
    this.#underWay += 1;
    this.#link.send(this.#codec === undefined ? batch : this.#codec.encode(batch));
  }

  #end(): void {
    this.#hasEnded = true;
    this.#flush();
    this.#link.send(end);
    this.#finish();
  }

  #count(record: unknown): void {
    this.#kept[this.#at] = record;
    this.#at = this.#at + 1 === this.#kept.length ? 0 : this.#at + 1;
    const key = this.#kind.keyOf(record);
    const count = (this.#counts.get(key) ?? 0) + 1;
    this.#counts.set(key, count);
    this.#meter.add(count, this.#kind.check(record));
  }

  #onMessage(message: Message): void {
    if (message === ack) {
      this.#underWay -= 1;
      this.#wake();
    } else if (message === end) {
      this.#hasPeerEnded = true;
      this.#finish();
    } else {
      const records = message instanceof Uint8Array ? this.#codec!.decode(message) : message;
      for (const record of records) this.#count(record);
      this.#link.send(ack);
    }
  }

  /** The other's `end` comes after its records. */
  #finish(): void {
    if (!this.#hasEnded || !this.#hasPeerEnded) return;
    let expectedSum = 0;
    for (const n of this.#counts.values()) expectedSum += (n * (n + 1)) / 2;
    const made = (this.#next - this.#index) / 2;
    this.#done({ report: this.#meter.report(), made, expectedSum });
  }
}

function portLink(port: MessagePort): Link {
  return {
    send: (message) => {
      if (message instanceof Uint8Array) {
        // Handed over. Encoders reuse their memory, of which a clone would take all.
        const own = message.byteLength === message.buffer.byteLength;
        const bytes = own ? message : new Uint8Array(message);
        port.postMessage(bytes, [bytes.buffer as ArrayBuffer]);
      } else port.postMessage(message);
    },
    onMessage: (listener) => port.on('message', listener),
  };
}

const headerBytes = 4;
const ackLength = 0xffffffff;
const endLength = 0xfffffffe;

/** Frames of a length and so many bytes. */
function socketLink(socket: Socket): Link {
  socket.setNoDelay(true);
  const header = (length: number): Buffer => {
    const bytes = Buffer.allocUnsafe(headerBytes);
    bytes.writeUInt32LE(length);
    return bytes;
  };
  return {
    send: (message) => {
      if (message === ack) socket.write(header(ackLength));
      else if (message === end) socket.write(header(endLength));
      else {
        const bytes = message as Uint8Array;
        socket.cork();
        socket.write(header(bytes.byteLength));
        // Encoders reuse their memory.
        socket.write(Buffer.from(bytes));
        socket.uncork();
      }
    },
    onMessage: (listener) => {
      let rest: Buffer = Buffer.alloc(0);
      socket.on('data', (chunk: Buffer) => {
        rest = rest.byteLength === 0 ? chunk : Buffer.concat([rest, chunk]);
        let at = 0;
        while (rest.byteLength - at >= headerBytes) {
          const length = rest.readUInt32LE(at);
          const isSign = length >= endLength;
          if (!isSign && rest.byteLength - at < headerBytes + length) break;
          const from = at + headerBytes;
          at = isSign ? from : from + length;
          if (length === ackLength) listener(ack);
          else if (length === endLength) listener(end);
          else listener(rest.subarray(from, at));
        }
        rest = rest.subarray(at);
      });
    },
  };
}

async function runThreads(args: ExchangeArguments): Promise<PeerResult[]> {
  const { port1, port2 } = new MessageChannel();
  const file = fileURLToPath(import.meta.url);
  return Promise.all(
    [port1, port2].map(async (port, index) => {
      const worker = new Worker(file, { workerData: { args, index, port }, transferList: [port] });
      const [result] = (await once(worker, 'message')) as [PeerResult];
      await worker.terminate();
      return result;
    }),
  );
}

async function runProcesses(args: ExchangeArguments): Promise<PeerResult[]> {
  const file = fileURLToPath(import.meta.url);
  const start = (index: number, port?: number): ChildProcess =>
    fork(file, [JSON.stringify({ peer: { args, index }, port })], { stdio: 'inherit' });
  const first = start(0);
  const [listening] = (await once(first, 'message')) as [{ port: number }];
  const second = start(1, listening.port);
  const results = await Promise.all(
    [first, second].map(async (child) => (await once(child, 'message'))[0] as PeerResult),
  );
  for (const child of [first, second]) child.disconnect();
  return results;
}

/** A peer that is a process: the first one listens. */
async function runPeerProcess(start: PeerStart, port: number | undefined): Promise<void> {
  const socket = await (port === undefined ? accept() : connected(port));
  new Peer(start, socketLink(socket), (result) => process.send?.(result));
  process.once('disconnect', () => socket.destroy());
}

async function accept(): Promise<Socket> {
  const server = createServer();
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  process.send?.({ port: (server.address() as AddressInfo).port });
  const [socket] = (await once(server, 'connection')) as [Socket];
  server.close();
  return socket;
}

async function connected(port: number): Promise<Socket> {
  const socket = connect(port, '127.0.0.1');
  await once(socket, 'connect');
  return socket;
}

function conclude(results: readonly PeerResult[], { warmMs }: ExchangeArguments): void {
  const total = (of: (result: PeerResult) => number): number =>
    results.reduce((sum, result) => sum + of(result), 0);
  const made = total((result) => result.made);
  expectEqual(
    'the number of records counted',
    total(({ report }) => report.count),
    made,
  );
  expectEqual(
    'the sum of counts',
    total(({ report }) => report.sum),
    total((result) => result.expectedSum),
  );
  const rate = rateOf(
    results.map(({ report }) => report),
    (mark, first) => mark.atMs >= first.atMs + warmMs,
  );
  if (rate === undefined) throw new RangeError('the time was too short');
  tell(rate);
}

interface MainArguments extends ExchangeArguments {
  readonly peer?: PeerStart;
  readonly port?: number;
}

if (parentPort !== null) {
  const { port, ...start } = workerData as PeerStart & { port: MessagePort };
  new Peer(start, portLink(port), (result) => parentPort!.postMessage(result));
} else {
  const main = microArguments() as MainArguments;
  if (main.peer !== undefined) await runPeerProcess(main.peer, main.port);
  else {
    const results = await (main.peers === 'threads' ? runThreads(main) : runProcesses(main));
    conclude(results, main);
  }
}
