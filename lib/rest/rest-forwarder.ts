/** With which a standby hands a request on to the leader: Node's own client, so that an idle one loads no other. */
import { Agent, request, type IncomingHttpHeaders, type IncomingMessage } from 'node:http';
import { pipeline, type Readable } from 'node:stream';
import { disconnected } from './rest-errors.js';

export interface ForwardedRequest {
  readonly method: string;
  /** With the query. */
  readonly path: string;
  readonly headers: IncomingHttpHeaders;
  /** Undefined: no body. */
  readonly body: Readable | undefined;
  readonly signal: AbortSignal;
}

export interface ForwardedAnswer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | string[]>>;
  readonly body: Readable;
}

/** Marks a request that was handed on once already: it is never handed on again. */
export const forwardedHeader = 'x-millrace-forwarded';

/** Belong to one connection (RFC 9110, 7.6.1), or are set anew. */
const hopHeaders = new Set([
  'connection',
  'expect',
  'host',
  'keep-alive',
  'proxy-authenticate',
  'proxy-authorization',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
]);

/** Longest time to connect to the leader. */
const connectTimeoutMs = 3_000;

/** Hands requests on with their bodies as streams. */
export class RestForwarder {
  readonly #agent = new Agent({ keepAlive: true, maxSockets: 64 });
  readonly #timeoutMs: number;

  /** @param timeoutMs longest silence of the leader, before its answer and within it. */
  constructor(timeoutMs: number) {
    this.#timeoutMs = timeoutMs;
  }

  /** Rejects with RPC_DISCONNECTED when the leader does not answer. */
  async forward(base: string, from: ForwardedRequest): Promise<ForwardedAnswer> {
    try {
      const answer = await this.#send(base.replace(/\/+$/, '') + from.path, from);
      return {
        status: answer.statusCode ?? 502,
        headers: withoutHopHeaders(answer.headers),
        body: answer,
      };
    } catch (cause) {
      throw disconnected(`the leader does not answer at ${base}`, cause);
    }
  }

  close(): Promise<void> {
    this.#agent.destroy();
    return Promise.resolve();
  }

  #send(url: string, from: ForwardedRequest): Promise<IncomingMessage> {
    const { method, headers, body, signal } = from;
    return new Promise((resolve, reject) => {
      const ask = request(url, {
        agent: this.#agent,
        method,
        headers: { ...withoutHopHeaders(headers), [forwardedHeader]: '1' },
        signal,
        timeout: connectTimeoutMs,
      });
      ask.on('socket', (socket) => {
        const connected = (): void => void ask.setTimeout(this.#timeoutMs);
        if (socket.connecting) socket.once('connect', connected);
        else connected();
      });
      ask.on('timeout', () => {
        ask.destroy(new Error('it says nothing'));
      });
      ask.on('error', reject);
      ask.on('response', resolve);
      if (body === undefined) ask.end();
      else pipeline(body, ask, () => undefined); // Its failure is the request's.
    });
  }
}

function withoutHopHeaders(headers: IncomingHttpHeaders): Record<string, string | string[]> {
  const kept: Record<string, string | string[]> = {};
  for (const [name, value] of Object.entries(headers)) {
    if (value !== undefined && !hopHeaders.has(name)) kept[name] = value;
  }
  return kept;
}
