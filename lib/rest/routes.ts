/**
 * The table of REST routes, with Flink's paths and field names. Each is served unversioned and under
 * /v1. A handler only asks the leader's Dispatcher and shapes the answer.
 */
import { MillraceError } from '../base/errors.js';
import { parseJobId, type JobId, type TaskManagerId } from '../base/ids.js';
import type {
  ClientGateway,
  JobExecutionResult,
  JobSubmission,
} from '../gateway/client-gateway.js';
import type { JobGraph } from '../graph/job-graph.js';
import {
  toCheckpointConfig,
  toExecutionResult,
  toJobConfig,
  type WebConfig,
  toWebConfig,
} from './views.js';

export interface RestCall {
  readonly gateway: ClientGateway;
  readonly params: Readonly<Record<string, string>>;
  readonly query: Readonly<Record<string, string | undefined>>;
  readonly web: WebConfig;
  /** Reads the multipart body. */
  readonly upload: () => Promise<JobSubmission>;
}

export interface RestAnswer {
  readonly body: unknown;
  /** Default 200. */
  readonly status?: number;
  /** Given: `body` is text. */
  readonly contentType?: string;
}

/** What the documents say of a route. */
export interface RouteInfo {
  readonly method: 'GET' | 'PATCH' | 'POST';
  readonly path: string;
  /** One sentence, for the OpenAPI document. */
  readonly summary: string;
  readonly query?: readonly string[];
}

export interface Route extends RouteInfo {
  readonly handle: (call: RestCall) => Promise<RestAnswer>;
}

/** Answered by every JobManager itself, whoever leads: the server serves them. */
export const localRoutes: readonly RouteInfo[] = [
  { method: 'GET', path: '/healthz', summary: 'That the process answers.' },
  { method: 'GET', path: '/readyz', summary: 'That a leader is active; else 503.' },
  { method: 'GET', path: '/leader', summary: 'Who leads; 503 while nobody does.' },
  {
    method: 'GET',
    path: '/ha',
    summary:
      'High availability: leader, epoch, slack of its lease, standbys, health of every etcd member, the last takeovers with their phases. Also while nobody leads or etcd is out: then `stale` says why, and since when.',
  },
  {
    method: 'GET',
    path: '/metrics',
    query: ['scope'],
    summary:
      'Metrics in the Prometheus text format. The leader: of its process, the cluster, jobs and tasks; a standby: of its process, with `scope=cluster` those of the leader.',
  },
  { method: 'GET', path: '/openapi.json', summary: 'These routes as an OpenAPI document.' },
];

/** A GET that answers JSON. */
function get(
  path: string,
  summary: string,
  handle: (call: RestCall) => Promise<unknown>,
  query?: readonly string[],
): Route {
  return {
    method: 'GET',
    path,
    summary,
    ...(query !== undefined && { query }),
    handle: async (call) => ({ body: await handle(call) }),
  };
}

const clusterRoutes: readonly Route[] = [
  get('/overview', 'TaskManagers, slots and jobs in numbers.', async ({ gateway, web }) => ({
    ...(await gateway.overview()),
    version: web.version,
  })),
  get('/config', 'Settings of the web interface.', async ({ web }) => toWebConfig(web)),
  get('/taskmanagers', 'All registered TaskManagers.', async ({ gateway }) => ({
    taskmanagers: await gateway.taskManagers(),
  })),
  get('/taskmanagers/:id', 'One TaskManager.', async (call) => {
    const id = call.params['id'] ?? '';
    const found = (await call.gateway.taskManagers()).find((one) => one.id === id);
    if (found === undefined) throw notFound(`no TaskManager '${id}' is registered`);
    return found;
  }),
  logRoute('log', 'Last lines of a TaskManager’s log.'),
  logRoute('stdout', 'Last lines a TaskManager and its jobs wrote to standard output.'),
];

const jobRoutes: readonly Route[] = [
  get('/jobs', 'Ids and states of all jobs.', async ({ gateway }) => ({
    jobs: (await gateway.listJobs()).map(({ jid, state }) => ({ id: jid, status: state })),
  })),
  {
    method: 'POST',
    path: '/jobs',
    summary:
      'Submits a job: multipart with the field `request` (JSON: submissionId, jobGraph) and the file `bundle`. Repeating a submission with its id is answered as the first.',
    handle: async ({ gateway, upload }) => {
      const { jobId } = await gateway.submitJob(await upload());
      return { status: 202, body: { jobid: jobId, jobUrl: `/jobs/${jobId}` } };
    },
  },
  get('/jobs/overview', 'All jobs, running and ended.', async ({ gateway }) => ({
    jobs: await gateway.listJobs(),
  })),
  get('/jobs/:jobid', 'Everything about a job.', (call) => call.gateway.jobDetails(jobIdOf(call))),
  {
    method: 'PATCH',
    path: '/jobs/:jobid',
    summary:
      'Cancels a job. The wish is stored before it is answered, so it survives a change of leader.',
    query: ['mode'],
    handle: async (call) => {
      const mode = call.query['mode'] ?? 'cancel';
      if (mode !== 'cancel') throw badRequest(`unknown mode '${mode}': only 'cancel' is known`);
      await call.gateway.cancelJob(jobIdOf(call));
      return { status: 202, body: {} };
    },
  },
  get('/jobs/:jobid/status', 'State of a job.', async (call) => ({
    status: (await call.gateway.jobDetails(jobIdOf(call))).state,
  })),
  get('/jobs/:jobid/plan', 'Its graph of vertices.', async (call) => ({
    plan: (await call.gateway.jobDetails(jobIdOf(call))).plan,
  })),
  get('/jobs/:jobid/config', 'Its settings.', async (call) => toJobConfig(await graphOf(call))),
  get(
    '/jobs/:jobid/exceptions',
    'Why it failed or was restarted, latest first.',
    (call) =>
      call.gateway.jobExceptions(jobIdOf(call), integerQuery(call, 'maxExceptions', 20, 1_000)),
    ['maxExceptions'],
  ),
  get('/jobs/:jobid/execution-result', 'How it ended, or that it runs.', async (call) => {
    const result: JobExecutionResult | undefined = await call.gateway.jobResult(jobIdOf(call));
    return toExecutionResult(result);
  }),
  get('/jobs/:jobid/vertices/:vertexid', 'One vertex and its subtasks.', async (call) => {
    const id = call.params['vertexid'] ?? '';
    const job = await call.gateway.jobDetails(jobIdOf(call));
    const vertex = job.vertices.find((one) => one.id === id);
    if (vertex === undefined) throw notFound(`job ${job.jid} has no vertex '${id}'`);
    return { ...vertex, now: job.now };
  }),
];

const checkpointRoutes: readonly Route[] = [
  get('/jobs/:jobid/checkpoints', 'Counts, the latest checkpoints, and a history.', (call) =>
    call.gateway.jobCheckpoints(jobIdOf(call)),
  ),
  get('/jobs/:jobid/checkpoints/config', 'When checkpoints are taken.', async (call) =>
    toCheckpointConfig(await graphOf(call)),
  ),
  get('/jobs/:jobid/checkpoints/details/:checkpointid', 'One checkpoint.', (call) => {
    const text = call.params['checkpointid'] ?? '';
    if (!/^\d{1,15}$/.test(text)) throw badRequest(`'${text}' is no checkpoint id: a number`);
    return call.gateway.checkpointDetails(jobIdOf(call), Number(text));
  }),
];

export const routes: readonly Route[] = [...clusterRoutes, ...jobRoutes, ...checkpointRoutes];

const defaultLogLines = 1_000;
const maxLogLines = 100_000;

function logRoute(stream: 'log' | 'stdout', summary: string): Route {
  return {
    method: 'GET',
    path: `/taskmanagers/:id/${stream}`,
    summary,
    query: ['job', 'lines'],
    handle: async (call) => {
      const job = call.query['job'];
      const lines = await call.gateway.taskManagerLog((call.params['id'] ?? '') as TaskManagerId, {
        stream,
        maxLines: integerQuery(call, 'lines', defaultLogLines, maxLogLines),
        ...(job !== undefined && { jobId: parseJobIdOrThrow(job) }),
      });
      const body = lines.map((line) => `${line}\n`).join('');
      return { body, contentType: 'text/plain; charset=utf-8' };
    },
  };
}

function graphOf(call: RestCall): Promise<JobGraph> {
  return call.gateway.jobGraph(jobIdOf(call));
}

function jobIdOf(call: RestCall): JobId {
  return parseJobIdOrThrow(call.params['jobid'] ?? '');
}

function parseJobIdOrThrow(text: string): JobId {
  const id = parseJobId(text);
  if (id === undefined) throw badRequest(`'${text}' is no job id: 32 hexadecimal characters`);
  return id;
}

function integerQuery(call: RestCall, name: string, fallback: number, max: number): number {
  const text = call.query[name];
  if (text === undefined) return fallback;
  const value = Number(text);
  if (!/^\d+$/.test(text) || value < 1 || value > max) {
    throw badRequest(`'${name}' is '${text}': a number from 1 to ${String(max)} is wanted`);
  }
  return value;
}

function badRequest(message: string): MillraceError {
  return new MillraceError('REQUEST_INVALID', message);
}

function notFound(message: string): MillraceError {
  return new MillraceError('NOT_FOUND', message);
}
