/**
 * The REST server of a JobManager. The leader answers from its Dispatcher; a standby hands every request
 * on to the leader and never answers 404 for what only the leader knows; while nobody leads the answer is
 * 503 with what is going on.
 */
import { Readable } from 'node:stream';
import multipart from '@fastify/multipart';
import fastify, { type FastifyInstance, type FastifyReply, type FastifyRequest } from 'fastify';
import type { HighAvailability, LeaderInfo } from '../../ha/services.js';
import { childEnv, type Env } from '../base/env.js';
import { hasCode, MillraceError } from '../base/errors.js';
import type { Closeable } from '../base/lifecycle.js';
import type { MetricSample } from '../base/metrics.js';
import type { ClientGateway } from '../gateway/client-gateway.js';
import { formatPrometheus, prometheusContentType } from '../metrics/prometheus.js';
import { checkAccess, checkBinding } from './access.js';
import { createProcessMetrics } from './ha-metrics.js';
import { HaObserver, type OwnLeadership } from './ha-observer.js';
import type { HaView } from './ha-view.js';
import { bundleLimitBytes, graphLimitBytes, readJobUpload } from './job-upload.js';
import { openApi } from './openapi.js';
import { statusOf, suspendedHeader, toErrorBody } from './rest-errors.js';
import { forwardedHeader, RestForwarder } from './rest-forwarder.js';
import { localRoutes, routes, type RestAnswer, type Route } from './routes.js';
import type { WebConfig } from './views.js';

export interface RestServerOptions {
  /** `rest.bind-address`. */
  readonly bindAddress: string;
  /** `rest.port`; 0 takes a free one. */
  readonly port: number;
  /** `rest.token`; required when other machines reach the address. */
  readonly token?: string;
  /** Who leads, as this process knows. */
  readonly leader: () => LeaderInfo | undefined;
  /** The Dispatcher, while this process leads and may act. */
  readonly gateway: () => ClientGateway | undefined;
  readonly web: WebConfig;
  /** For `/ha` and the metrics of this process. Absent: `/ha` is not served. */
  readonly ha?: {
    readonly services: HighAvailability;
    /** Undefined before it stands for election. */
    readonly jobManagerId: () => string | undefined;
    /** Undefined while this process does not lead. */
    readonly own: () => OwnLeadership | undefined;
  };
  /** Longest wait of a standby for the leader's answer. Default 30 s. */
  readonly forwardTimeoutMs?: number;
}

export interface RestServer extends Closeable {
  /** Resolves with the address in use. Rejects with PORT_IN_USE or CONFIG naming the key. */
  listen(): Promise<{ readonly host: string; readonly port: number }>;
}

/** Seconds after which to ask again while nobody leads: a new leader is there within the lease. */
const retryAfterSeconds = 1;
const uploadLimitBytes = bundleLimitBytes + graphLimitBytes + 1024 ** 2;
/** The paths that every JobManager answers itself. */
const openPaths = new Set(['/healthz', '/readyz', '/v1/healthz', '/v1/readyz']);

/** @throws CONFIG when the address is off loopback and no token is set. */
export function createRestServer(env: Env, options: RestServerOptions): RestServer {
  checkBinding(options.bindAddress, options.token);
  return new FastifyRestServer(childEnv(env, 'rest-server'), options);
}

class FastifyRestServer implements RestServer {
  readonly #env: Env;
  readonly #options: RestServerOptions;
  readonly #app: FastifyInstance;
  readonly #forwarder: RestForwarder;
  readonly #observer: HaObserver | undefined;
  readonly #processMetrics: () => Promise<MetricSample[]>;
  #closing: Promise<void> | undefined;

  constructor(env: Env, options: RestServerOptions) {
    this.#env = env;
    this.#options = options;
    this.#forwarder = new RestForwarder(options.forwardTimeoutMs ?? 30_000);
    this.#observer = options.ha && createObserver(env, options, options.ha);
    this.#processMetrics = createProcessMetrics(options.ha?.own, this.#observer);
    this.#app = fastify({
      bodyLimit: uploadLimitBytes,
      forceCloseConnections: true,
      requestTimeout: 60_000,
      routerOptions: { ignoreTrailingSlash: true, maxParamLength: 200 },
    });
    this.#configure();
  }

  async listen(): Promise<{ host: string; port: number }> {
    const { bindAddress, port } = this.#options;
    try {
      await this.#app.listen({ host: bindAddress, port });
    } catch (error) {
      throw explainListen(error, bindAddress, port);
    }
    const address = this.#app.server.address();
    const bound = typeof address === 'object' && address !== null ? address.port : port;
    this.#env.log.info(
      { event: 'rest.listening', host: bindAddress, port: bound },
      'REST server listens',
    );
    return { host: bindAddress, port: bound };
  }

  close(): Promise<void> {
    this.#closing ??= (async () => {
      await this.#app.close();
      await this.#forwarder.close();
    })();
    return this.#closing;
  }

  #configure(): void {
    const app = this.#app;
    // Bodies stay streams: parsed only by the handler that wants them, and handed on as they come.
    app.removeAllContentTypeParsers();
    app.addContentTypeParser('*', (_request, _payload, done) => {
      done(null);
    });
    void app.register(multipart, {
      limits: {
        fileSize: bundleLimitBytes,
        fieldSize: graphLimitBytes,
        files: 1,
        fields: 4,
        parts: 5,
      },
    });
    app.addHook('onRequest', async (request, reply) => {
      if (this.#options.leader()?.state === 'SUSPENDED') void reply.header(suspendedHeader, '1');
      const [path = ''] = request.url.split('?');
      if (!openPaths.has(path)) checkAccess(request.headers, this.#options.token);
      const length = Number(request.headers['content-length'] ?? 0);
      if (length > uploadLimitBytes) {
        throw new MillraceError(
          'REQUEST_INVALID',
          `the request has ${String(length)} bytes; at most ${String(uploadLimitBytes)} are taken`,
        );
      }
    });
    app.setErrorHandler((error, _request, reply) => this.#fail(reply, error));
    app.setNotFoundHandler((request, reply) => this.#handle(undefined, request, reply));
    // Registered as a plugin of its own, so that the multipart parser is there before the routes.
    void app.register(async (scope) => {
      this.#addRoutes(scope, '');
      this.#addRoutes(scope, '/v1');
    });
  }

  #addRoutes(app: FastifyInstance, prefix: string): void {
    app.get(`${prefix}/healthz`, async () => ({ status: 'ok' }));
    app.get(`${prefix}/readyz`, async () => {
      if (this.#options.gateway() === undefined && this.#options.leader()?.state !== 'ACTIVE') {
        throw this.#noLeader();
      }
      return { status: 'ready' };
    });
    app.get(`${prefix}/leader`, async () => {
      const leader = this.#options.leader();
      if (leader === undefined) throw this.#noLeader();
      return leader;
    });
    app.get(`${prefix}/ha`, (request) => this.#ha(request));
    app.get(`${prefix}/metrics`, (request, reply) => this.#metrics(request, reply));
    const document = openApi([...localRoutes, ...routes], this.#options.web.version);
    app.get(`${prefix}/openapi.json`, async () => document);
    for (const route of routes) {
      app.route({
        method: route.method,
        url: prefix + route.path,
        handler: (request, reply) => this.#handle(route, request, reply),
      });
    }
  }

  async #ha(request: FastifyRequest): Promise<HaView> {
    if (this.#observer === undefined) throw notServed(request);
    if (request.headers[forwardedHeader] !== undefined) return this.#observer.view();
    const { authorization } = request.headers;
    return this.#observer.view(async (address, signal) => {
      const answer = await this.#forwarder.forward(address, {
        method: 'GET',
        path: '/ha',
        headers: authorization === undefined ? {} : { authorization },
        body: undefined,
        signal,
      });
      return (await new Response(Readable.toWeb(answer.body) as ReadableStream).json()) as HaView;
    });
  }

  /** A standby shows its own process, for whoever watches every JobManager, and the cluster only when asked for. */
  async #metrics(request: FastifyRequest, reply: FastifyReply): Promise<FastifyReply> {
    const gateway = this.#options.gateway();
    const { scope } = singleValues(request.query);
    if (gateway === undefined && scope === 'cluster') return this.#forward(request, reply);
    const samples = gateway === undefined ? this.#env.metrics.samples() : await gateway.metrics();
    const all = [...samples, ...(await this.#processMetrics())];
    return reply.type(prometheusContentType).send(formatPrometheus(all));
  }

  /** @param route undefined: this version knows none; the leader's may. */
  async #handle(
    route: Route | undefined,
    request: FastifyRequest,
    reply: FastifyReply,
  ): Promise<FastifyReply> {
    const gateway = this.#options.gateway();
    if (gateway === undefined) return this.#forward(request, reply);
    if (route === undefined) throw notServed(request);
    const answer: RestAnswer = await route.handle({
      gateway,
      params: request.params as Record<string, string>,
      query: singleValues(request.query),
      web: this.#options.web,
      upload: () => {
        if (!request.isMultipart()) {
          throw new MillraceError('REQUEST_INVALID', 'a job is submitted as multipart/form-data');
        }
        return readJobUpload(request.parts());
      },
    });
    void reply.code(answer.status ?? 200);
    if (answer.contentType !== undefined) void reply.type(answer.contentType);
    return reply.send(answer.body);
  }

  async #forward(request: FastifyRequest, reply: FastifyReply): Promise<FastifyReply> {
    const leader = this.#options.leader();
    // Handed on once, and the receiver does not lead either: leadership is moving.
    if (leader === undefined || request.headers[forwardedHeader] !== undefined)
      throw this.#noLeader();
    const gone = new AbortController();
    reply.raw.once('close', () => {
      gone.abort();
    });
    const hasBody = request.method !== 'GET' && request.method !== 'HEAD';
    const answer = await this.#forwarder.forward(leader.restAddress, {
      method: request.method,
      path: request.url,
      headers: request.headers,
      body: hasBody ? request.raw : undefined,
      signal: gone.signal,
    });
    return reply.code(answer.status).headers(answer.headers).send(answer.body);
  }

  #fail(reply: FastifyReply, error: unknown): FastifyReply {
    // To whoever asked, a leader that died is a leader that is missing: the next one answers.
    const shown = hasCode(error, 'RPC_DISCONNECTED') ? this.#noLeader(error) : error;
    const status = statusOf(shown);
    if (status === 503) void reply.header('retry-after', String(retryAfterSeconds));
    if (status === 500) this.#env.log.error({ err: error }, 'a request failed');
    return reply.code(status).type('application/json; charset=utf-8').send(toErrorBody(shown));
  }

  #noLeader(cause?: unknown): MillraceError {
    const leader = this.#options.leader();
    const situation =
      leader === undefined
        ? 'no JobManager leads right now: one is being elected'
        : cause !== undefined
          ? `the leader ${leader.jobManagerId} does not answer: another is elected if it is gone`
          : leader.state === 'RECOVERING'
            ? `the leader ${leader.jobManagerId} is recovering jobs`
            : leader.state === 'SUSPENDED'
              ? `the leader ${leader.jobManagerId} is suspended: it does not reach etcd`
              : `leadership is moving; ${leader.jobManagerId} led last`;
    return new MillraceError('NO_LEADER', situation, { ...(cause !== undefined && { cause }) });
  }
}

function createObserver(
  env: Env,
  options: RestServerOptions,
  ha: NonNullable<RestServerOptions['ha']>,
): HaObserver {
  const { leader, web } = options;
  const { services, jobManagerId, own } = ha;
  return new HaObserver(env, { ha: services, clusterId: web.clusterId, jobManagerId, leader, own });
}

function notServed({ method, url }: FastifyRequest): MillraceError {
  return new MillraceError(
    'NOT_FOUND',
    `there is no ${method} ${url}; /openapi.json lists what there is`,
  );
}

/** Of a parameter that is given twice, the first. */
function singleValues(query: unknown): Record<string, string | undefined> {
  const values: Record<string, string | undefined> = {};
  for (const [name, value] of Object.entries(query as Record<string, string | string[]>)) {
    values[name] = Array.isArray(value) ? value[0] : value;
  }
  return values;
}

function explainListen(error: unknown, bindAddress: string, port: number): unknown {
  const errno = error instanceof Error && 'code' in error ? error.code : undefined;
  if (errno === 'EADDRINUSE') {
    return new MillraceError(
      'PORT_IN_USE',
      `port ${String(port)} on ${bindAddress} is taken by another process: end it, or set rest.port (0 takes a free one)`,
      { cause: error, details: { key: 'rest.port', port } },
    );
  }
  if (errno === 'EACCES') {
    return new MillraceError(
      'CONFIG',
      `rest.port ${String(port)} needs rights this process does not have`,
      { cause: error },
    );
  }
  if (errno === 'EADDRNOTAVAIL' || errno === 'ENOTFOUND') {
    return new MillraceError(
      'CONFIG',
      `rest.bind-address ${bindAddress} is no address of this machine`,
      { cause: error },
    );
  }
  return error;
}
