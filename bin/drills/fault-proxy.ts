/** A TCP proxy whose link can be cut, slowed, or made one-way while connections go through it. */
import { createConnection, createServer, type Server, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';

/**
 * What happens to bytes of a link. Bytes that do not pass are kept and delivered when the link is whole again, as TCP
 * does after a partition; the connections stay open meanwhile.
 *
 * - `pass`
 * - `blackhole`: nothing passes, either way; new connections are accepted and hear nothing
 * - `drop-answers`, `drop-requests`: one way only; requests go from who connects to who listens
 * - `reset`: connections end with RST, new ones at once
 * - `refuse`: the same, and nobody listens: ECONNREFUSED
 */
export type LinkMode = 'pass' | 'blackhole' | 'drop-answers' | 'drop-requests' | 'reset' | 'refuse';

export interface Address {
  readonly host: string;
  readonly port: number;
}

export interface FaultProxyOptions {
  /** Default 0: a free one. */
  readonly port?: number;
  /** Names who connects by its first bytes, for `setFrom`. */
  readonly sourceOf?: (firstBytes: string) => string | undefined;
}

/** Time for the other end to do what was asked before its answer is lost. */
const lostAnswerMs = 300;
/** Time for an answer to leave before its connection is reset, which would discard it. */
const flushMs = 2;
/** Bytes of a connection's beginning that may be needed to know who it is. */
const maxFirstBytes = 16_384;

interface Connection {
  readonly client: Socket;
  readonly upstream: Socket;
  source: string | undefined;
  first: string;
  /** The answers are discarded from now on: one of them is to be lost. */
  isLosing: boolean;
}

interface Trap {
  readonly kind: 'request' | 'answer';
  /** Of the bytes as Latin-1. */
  readonly pattern: RegExp;
  readonly sprung: () => void;
}

export class FaultProxy {
  readonly port: number;
  readonly #target: Address;
  readonly #options: FaultProxyOptions;
  readonly #connections = new Set<Connection>();
  readonly #modes = new Map<string, LinkMode>();
  #server: Server | undefined;
  #mode: LinkMode = 'pass';
  #delayMs = 0;
  #traps: Trap[] = [];
  #listening: Promise<unknown> = Promise.resolve();

  private constructor(target: Address, port: number, options: FaultProxyOptions, server: Server) {
    this.#target = target;
    this.#options = options;
    this.port = port;
    this.#server = server;
    this.#serve(server);
  }

  /** Listens on loopback. */
  static async listen(target: Address, options: FaultProxyOptions = {}): Promise<FaultProxy> {
    const server = createServer();
    await listening(server, options.port ?? 0);
    const { port } = server.address() as { port: number };
    return new FaultProxy(target, port, options, server);
  }

  get connections(): number {
    return this.#connections.size;
  }

  /** Resolves when it is so: a proxy that refuses has to listen again first. */
  async set(mode: LinkMode): Promise<void> {
    this.#mode = mode;
    this.#modes.clear();
    await this.#apply();
  }

  /** For the connections of one source only. */
  async setFrom(source: string, mode: LinkMode): Promise<void> {
    this.#modes.set(source, mode);
    await this.#apply();
  }

  /** Bytes pass this much later, either way. */
  delay(ms: number): void {
    this.#delayMs = ms;
  }

  /** Ends every connection with RST; new ones are served. */
  resetConnections(): void {
    for (const one of [...this.#connections]) end(one);
  }

  /**
   * The next request whose bytes match (as Latin-1) is passed on, everything answered on that connection from then on
   * is lost, and the connection ends with RST. Resolves when it has.
   */
  loseAnswerTo(pattern: RegExp): Promise<void> {
    return this.#trap('request', pattern);
  }

  /** The next answer whose bytes match is passed on, and the connection ends with RST right after it. */
  cutAfterAnswer(pattern: RegExp): Promise<void> {
    return this.#trap('answer', pattern);
  }

  /** Takes back what `loseAnswerTo` and `cutAfterAnswer` wait for. */
  disarm(): void {
    this.#traps = [];
  }

  async close(): Promise<void> {
    this.#traps = [];
    await this.#listening;
    const server = this.#server;
    this.#server = undefined;
    this.resetConnections();
    if (server !== undefined) await closed(server);
  }

  #trap(kind: Trap['kind'], pattern: RegExp): Promise<void> {
    return new Promise((resolve) => {
      this.#traps.push({ kind, pattern, sprung: resolve });
    });
  }

  #spring(kind: Trap['kind'], bytes: Buffer): Trap | undefined {
    if (this.#traps.length === 0) return undefined;
    const text = bytes.toString('latin1');
    const sprung = this.#traps.find((one) => one.kind === kind && one.pattern.test(text));
    this.#traps = this.#traps.filter((one) => one !== sprung);
    return sprung;
  }

  async #apply(): Promise<void> {
    const change = this.#listening.then(async () => {
      if (this.#mode === 'refuse') {
        const server = this.#server;
        this.#server = undefined;
        const ended = server === undefined ? undefined : closed(server);
        this.resetConnections();
        await ended;
      } else if (this.#server === undefined) {
        const server = createServer();
        await listening(server, this.port);
        this.#server = server;
        this.#serve(server);
      }
    });
    this.#listening = change;
    await change;
    for (const one of [...this.#connections]) {
      if (this.#modeOf(one) === 'reset') end(one);
      else this.#steer(one);
    }
  }

  #serve(server: Server): void {
    server.on('connection', (client) => {
      if (this.#mode === 'reset') {
        client.resetAndDestroy();
        return;
      }
      const upstream = createConnection(this.#target);
      const one: Connection = { client, upstream, source: undefined, first: '', isLosing: false };
      this.#connections.add(one);
      client.setNoDelay(true);
      upstream.setNoDelay(true);
      client.on('data', (bytes: Buffer) => {
        this.#onRequest(one, bytes);
      });
      upstream.on('data', (bytes: Buffer) => {
        if (!one.isLosing) this.#onAnswer(one, bytes);
      });
      this.#join(one, client, upstream);
      this.#join(one, upstream, client);
      this.#steer(one);
    });
  }

  /** Ends of `from` become ends of `to`: an orderly one after what is still on its way, an error as RST. */
  #join(one: Connection, from: Socket, to: Socket): void {
    from.on('end', () => {
      setTimeout(() => to.end(), this.#delayMs);
    });
    from.on('error', () => {
      end(one);
    });
    from.on('close', () => {
      if (one.client.destroyed && one.upstream.destroyed) this.#connections.delete(one);
      else if (from.errored !== null) end(one);
    });
  }

  #onRequest(one: Connection, bytes: Buffer): void {
    if (this.#options.sourceOf !== undefined && this.#isHeldBack(one, bytes)) return;
    const trap = one.isLosing ? undefined : this.#spring('request', bytes);
    if (trap !== undefined) {
      one.isLosing = true;
      void sleep(lostAnswerMs).then(() => {
        end(one);
        trap.sprung();
      });
    }
    this.#forward(bytes, one.upstream, one.client);
  }

  #onAnswer(one: Connection, bytes: Buffer): void {
    const trap = this.#spring('answer', bytes);
    this.#forward(bytes, one.client, one.upstream);
    if (trap === undefined) return;
    one.isLosing = true;
    void sleep(flushMs).then(() => {
      end(one);
      trap.sprung();
    });
  }

  /** Learns from a connection's first bytes who it is; they are held back with the rest when its link is cut. */
  #isHeldBack(one: Connection, bytes: Buffer): boolean {
    if (one.source !== undefined || one.first.length > maxFirstBytes) return false;
    one.first += bytes.toString('latin1');
    one.source = this.#options.sourceOf?.(one.first);
    if (one.source === undefined) return false;
    const mode = this.#modeOf(one);
    if (mode === 'reset') end(one);
    else this.#steer(one);
    if (mode === 'pass' || mode === 'drop-answers') return false;
    // Paused first: what is given back to a flowing stream would come again at once.
    if (mode !== 'reset') one.client.unshift(bytes);
    return true;
  }

  #forward(bytes: Buffer, to: Socket, from: Socket): void {
    const write = (): void => {
      if (to.destroyed || to.writableEnded) return;
      if (to.write(bytes)) return;
      from.pause();
      to.once('drain', () => {
        const one = [...this.#connections].find(
          ({ client, upstream }) => client === from || upstream === from,
        );
        if (one !== undefined) this.#steer(one);
      });
    };
    if (this.#delayMs === 0) write();
    else setTimeout(write, this.#delayMs);
  }

  #modeOf(one: Connection): LinkMode {
    const own = one.source === undefined ? undefined : this.#modes.get(one.source);
    return own ?? this.#mode;
  }

  #steer(one: Connection): void {
    const mode = this.#modeOf(one);
    const flow = (socket: Socket, to: Socket, isHeld: boolean): void => {
      if (isHeld || to.writableNeedDrain) socket.pause();
      else socket.resume();
    };
    flow(one.client, one.upstream, mode === 'blackhole' || mode === 'drop-requests');
    flow(one.upstream, one.client, mode === 'blackhole' || mode === 'drop-answers');
  }
}

function end({ client, upstream }: Connection): void {
  if (!client.destroyed) client.resetAndDestroy();
  if (!upstream.destroyed) upstream.resetAndDestroy();
}

function listening(server: Server, port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen({ host: '127.0.0.1', port }, () => {
      server.off('error', reject);
      resolve();
    });
  });
}

function closed(server: Server): Promise<void> {
  return new Promise((resolve) => {
    server.close(() => {
      resolve();
    });
  });
}
