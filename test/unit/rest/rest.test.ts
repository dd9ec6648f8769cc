import { connect, createServer, type AddressInfo } from 'node:net';
import t, { type Test } from 'tap';
import type { LeaderInfo } from '../../../ha/services.js';
import { MillraceError } from '../../../lib/base/errors.js';
import type { Digest, JobId, JobManagerId, TaskManagerId } from '../../../lib/base/ids.js';
import type {
  ClientGateway,
  ClusterOverview,
  JobDetails,
  JobSubmission,
  JobSummary,
} from '../../../lib/gateway/client-gateway.js';
import type { JobGraph } from '../../../lib/graph/job-graph.js';
import { RestClient } from '../../../lib/rest/rest-client.js';
import { createRestServer, type RestServerOptions } from '../../../lib/rest/rest-server.js';
import { testEnv } from '../../support/test-env.js';

const jobId = '0123456789abcdef0123456789abcdef' as JobId;
const missing = 'ffffffffffffffffffffffffffffffff' as JobId;

function graph(id: JobId = jobId): JobGraph {
  return {
    version: 1,
    jobId: id,
    name: 'access log',
    vertices: [],
    edges: [],
    config: {
      checkpointing: {
        intervalMs: 10_000,
        timeoutMs: 600_000,
        minPauseMs: 0,
        maxConcurrent: 1,
        tolerableFailures: 0,
        numRetained: 3,
      },
      restartStrategy: { type: 'fixed-delay', attempts: 3, delayMs: 10 },
      bufferTimeoutMs: 100,
      autoWatermarkIntervalMs: 200,
      compile: true,
      settings: { 'pipeline.name': 'x' },
    },
    main: { argv: [], environment: {}, captureTime: 0, seed: 1, workingDirectory: '/' },
    fingerprint: 'f',
  };
}

/** A Dispatcher that keeps jobs in memory. */
class MemoryDispatcher implements ClientGateway {
  readonly submissions = new Map<JobId, JobSubmission>();
  readonly canceled: JobId[] = [];

  async submitJob(submission: JobSubmission): Promise<{ jobId: JobId }> {
    const { jobGraph, submissionId } = submission;
    const known = this.submissions.get(jobGraph.jobId);
    if (known !== undefined && known.submissionId !== submissionId) {
      throw new MillraceError('JOB_DUPLICATE', `job ${jobGraph.jobId} exists`);
    }
    this.submissions.set(jobGraph.jobId, submission);
    return { jobId: jobGraph.jobId };
  }

  async cancelJob(id: JobId): Promise<void> {
    this.#find(id);
    this.canceled.push(id);
  }

  async listJobs(): Promise<JobSummary[]> {
    return [...this.submissions.keys()].map((jid) => ({
      jid,
      name: 'access log',
      state: 'RUNNING',
      'start-time': 1,
      'end-time': -1,
      duration: 5,
      'last-modification': 1,
      tasks: { RUNNING: 2 },
    }));
  }

  async overview(): Promise<ClusterOverview> {
    return {
      taskmanagers: 1,
      'slots-total': 2,
      'slots-available': 1,
      'jobs-running': this.submissions.size,
      'jobs-finished': 0,
      'jobs-cancelled': 0,
      'jobs-failed': 0,
      'leader-state': 'ACTIVE',
    };
  }

  async jobDetails(id: JobId): Promise<JobDetails> {
    this.#find(id);
    return {
      jid: id,
      name: 'access log',
      state: 'RUNNING',
      now: 9,
      plan: { jid: id, name: 'access log', type: 'STREAMING', nodes: [] },
      vertices: [{ id: 'v1', name: 'Source', parallelism: 2 }],
    } as unknown as JobDetails;
  }

  async jobExceptions(_: JobId, maxExceptions: number) {
    return { timestamp: maxExceptions, exceptionHistory: { entries: [], truncated: false } };
  }

  async jobCheckpoints() {
    return {
      counts: { restored: 0, total: 1, in_progress: 0, completed: 1, failed: 0 },
      latest: {},
      history: [],
    };
  }

  async checkpointDetails(_: JobId, id: number): Promise<never> {
    throw new MillraceError('CHECKPOINT_NOT_FOUND', `checkpoint ${String(id)} is not remembered`);
  }

  async jobGraph(id: JobId): Promise<JobGraph> {
    return this.#find(id).jobGraph;
  }

  async jobResult(id: JobId) {
    if (!this.canceled.includes(id)) return undefined;
    return { jid: id, name: 'access log', state: 'CANCELED' as const, runtimeMs: 7 };
  }

  async taskManagers() {
    return [
      {
        id: 'tm-1' as TaskManagerId,
        path: '127.0.0.1:1',
        dataPort: 1,
        timeSinceLastHeartbeat: 0,
        slotsNumber: 2,
        freeSlots: 1,
        pid: 1,
        hardware: { cpuCores: 1, physicalMemory: 1 },
        process: { rssBytes: 1, heapUsedBytes: 1, eventLoopLagMs: 0, networkMemoryBytes: 0 },
        allocatedSlots: [],
      },
    ];
  }

  async taskManagerLog(
    id: TaskManagerId,
    options: { jobId?: JobId; maxLines: number; stream: string },
  ) {
    return [`${id} ${options.stream} ${String(options.maxLines)}`, options.jobId ?? 'all'];
  }

  async metrics() {
    return [{ name: 'taskSlotsTotal', type: 'gauge' as const, labels: {}, value: 2 }];
  }

  async fetchBlob(_jobId: JobId, _digest: Digest, _offset: number) {
    return { bytes: new Uint8Array(), end: true };
  }

  #find(id: JobId): JobSubmission {
    const job = this.submissions.get(id);
    if (job === undefined) throw new MillraceError('JOB_NOT_FOUND', `there is no job ${id}`);
    return job;
  }
}

function leaderAt(port: number, state: LeaderInfo['state'] = 'ACTIVE'): LeaderInfo {
  return {
    epoch: { era: 1, revision: 7 },
    jobManagerId: 'jm-1' as JobManagerId,
    rpcAddress: 'localhost:1',
    restAddress: `http://localhost:${String(port)}`,
    state,
    since: 1,
  };
}

async function serve(
  t: Test,
  options: Partial<RestServerOptions>,
): Promise<{ url: string; port: number }> {
  const server = createRestServer(testEnv(), {
    bindAddress: '127.0.0.1',
    port: 0,
    leader: () => undefined,
    gateway: () => undefined,
    web: { version: '1.2.3', clusterId: 'test', refreshIntervalMs: 3_000 },
    ...options,
  });
  t.teardown(() => server.close());
  const { port } = await server.listen();
  return { url: `http://127.0.0.1:${String(port)}`, port };
}

function client(
  t: Test,
  urls: string[],
  options: ConstructorParameters<typeof RestClient>[1] = {},
): RestClient {
  const made = new RestClient(urls, { waitForLeaderMs: 0, ...options });
  t.teardown(() => made.close());
  return made;
}

t.test('every route answers from the Dispatcher, with and without /v1', async (t) => {
  const dispatcher = new MemoryDispatcher();
  const { url } = await serve(t, { gateway: () => dispatcher, leader: () => leaderAt(1) });
  const rest = client(t, [url]);
  const bundle = Uint8Array.from({ length: 300_000 }, (_, i) => i % 251);
  t.strictSame(await rest.submit({ submissionId: 'once', jobGraph: graph(), bundle }), { jobId });
  const stored = dispatcher.submissions.get(jobId);
  t.strictSame(stored?.jobGraph, graph());
  t.ok(
    Buffer.from(stored?.bundle ?? []).equals(Buffer.from(bundle)),
    'the bundle arrives byte by byte',
  );
  await rest.submit({ submissionId: 'once', jobGraph: graph(), bundle });
  await t.rejects(rest.submit({ submissionId: 'twice', jobGraph: graph() }), {
    code: 'JOB_DUPLICATE',
  });

  t.match(await rest.overview(), {
    taskmanagers: 1,
    'slots-total': 2,
    'jobs-running': 1,
    version: '1.2.3',
  });
  t.match(await rest.config(), { 'refresh-interval': 3_000, 'cluster-id': 'test' });
  t.match(await rest.jobs(), [{ jid: jobId, state: 'RUNNING' }]);
  t.strictSame(await rest.jobIds(), [{ id: jobId, status: 'RUNNING' }]);
  t.match(await rest.job(jobId), { jid: jobId, name: 'access log' });
  t.equal(await rest.jobStatus(jobId), 'RUNNING');
  t.match(await rest.jobPlan(jobId), { type: 'STREAMING' });
  t.match(await rest.jobConfig(jobId), {
    'execution-config': {
      'restart-strategy': /fixed-delay: 3/,
      'user-config': { 'pipeline.name': 'x' },
    },
  });
  t.match(await rest.exceptions(jobId, 5), { timestamp: 5 });
  t.match(await rest.checkpoints(jobId), { counts: { completed: 1 } });
  t.match(await rest.checkpointConfig(jobId), {
    interval: 10_000,
    num_retained: 3,
    mode: 'exactly_once',
  });
  await t.rejects(rest.checkpointDetails(jobId, 4), { code: 'CHECKPOINT_NOT_FOUND' });
  t.equal(await rest.jobResult(jobId), undefined);
  t.match(await rest.vertex(jobId, 'v1'), { id: 'v1', parallelism: 2 });
  await t.rejects(rest.vertex(jobId, 'v2'), { code: 'NOT_FOUND', message: /v2/ });
  t.match(await rest.taskManagers(), [{ id: 'tm-1' }]);
  t.match(await rest.taskManager('tm-1'), { slotsNumber: 2 });
  await t.rejects(rest.taskManager('tm/2'), { code: 'NOT_FOUND' });
  t.strictSame(await rest.taskManagerLog('tm-1', { maxLines: 7 }), ['tm-1 log 7', 'all']);
  t.strictSame(await rest.taskManagerLog('tm-1', { maxLines: 8, jobId, stream: 'stdout' }), [
    'tm-1 stdout 8',
    jobId,
  ]);
  t.match(
    await rest.metrics(),
    /^# HELP .*\n# TYPE flink_jobmanager_taskSlotsTotal gauge\nflink_jobmanager_taskSlotsTotal 2\n$/,
  );
  t.match(await rest.leader(), { jobManagerId: 'jm-1', epoch: { era: 1, revision: 7 } });
  await rest.cancel(jobId);
  t.strictSame(dispatcher.canceled, [jobId]);
  t.match(await rest.jobResult(jobId), { state: 'CANCELED', runtimeMs: 7 });

  for (const prefix of ['', '/v1']) {
    for (const path of [
      '/healthz',
      '/readyz',
      '/jobs',
      '/jobs/overview/',
      `/jobs/${jobId}/execution-result`,
    ]) {
      t.equal((await fetch(url + prefix + path)).status, 200, prefix + path);
    }
  }
  const document = (await (await fetch(`${url}/openapi.json`)).json()) as {
    paths: Record<string, object>;
  };
  t.ok(document.paths['/jobs/{jobid}/checkpoints/details/{checkpointid}']);
});

t.test('bad requests say what is wrong with fitting statuses', async (t) => {
  const dispatcher = new MemoryDispatcher();
  const { url } = await serve(t, { gateway: () => dispatcher });
  const ask = async (path: string, init?: RequestInit): Promise<[number, string, string]> => {
    const response = await fetch(url + path, init);
    const body = (await response.json()) as { errors: string[]; code: string };
    return [response.status, body.code, body.errors.join(' | ')];
  };
  t.match(await ask('/nowhere'), [404, 'NOT_FOUND', /GET \/nowhere/]);
  t.match(await ask('/jobs/xyz'), [400, 'REQUEST_INVALID', /'xyz' is no job id/]);
  t.match(await ask(`/jobs/${missing}`), [404, 'JOB_NOT_FOUND', /ffff/]);
  t.match(await ask(`/jobs/${missing}?mode=stop`, { method: 'PATCH' }), [
    400,
    'REQUEST_INVALID',
    /stop/,
  ]);
  t.match(await ask(`/jobs/${jobId}/exceptions?maxExceptions=x`), [
    400,
    'REQUEST_INVALID',
    /maxExceptions/,
  ]);
  t.match(await ask(`/jobs/${jobId}/checkpoints/details/x`), [
    400,
    'REQUEST_INVALID',
    /checkpoint id/,
  ]);
  t.match(await ask('/jobs', { method: 'POST', body: '{}' }), [
    400,
    'REQUEST_INVALID',
    /multipart/,
  ]);

  const submit = (fields: Record<string, string | Blob>): Promise<[number, string, string]> => {
    const form = new FormData();
    for (const [name, value] of Object.entries(fields)) form.append(name, value);
    return ask('/jobs', { method: 'POST', body: form });
  };
  t.match(await submit({ other: 'x' }), [400, 'REQUEST_INVALID', /unknown field 'other'/]);
  t.match(await submit({ bundle: new Blob(['x']) }), [
    400,
    'REQUEST_INVALID',
    /'request' is missing/,
  ]);
  t.match(await submit({ request: '{' }), [400, 'REQUEST_INVALID', /not JSON/]);
  t.match(await submit({ request: '{"submissionId":"a b"}' }), [
    400,
    'REQUEST_INVALID',
    /submissionId/,
  ]);
  t.match(
    await submit({ request: JSON.stringify({ submissionId: 'a', jobGraph: { jobId: 'x' } }) }),
    [400, 'JOB_INVALID', /jobId/],
  );
  t.match(
    await submit({
      request: JSON.stringify({ submissionId: 'a', jobGraph: { ...graph(), version: 2 } }),
    }),
    [400, 'JOB_INVALID', /version 2/],
  );
  t.equal(dispatcher.submissions.size, 0);
});

t.test('a bundle beyond the limit is refused', async (t) => {
  const { url } = await serve(t, { gateway: () => new MemoryDispatcher() });
  const form = new FormData();
  form.append('request', JSON.stringify({ submissionId: 'a', jobGraph: graph() }));
  form.append('bundle', new Blob([new Uint8Array(64 * 1024 ** 2 + 1)]), 'bundle');
  const response = await fetch(`${url}/jobs`, { method: 'POST', body: form });
  t.equal(response.status, 413);
  t.match(await response.json(), { code: 'REQUEST_INVALID' });
});

t.test('a standby hands everything on to the leader, bodies included', async (t) => {
  const dispatcher = new MemoryDispatcher();
  const leader = await serve(t, { gateway: () => dispatcher, leader: () => leaderAt(leader.port) });
  const standby = await serve(t, { leader: () => leaderAt(leader.port) });
  const rest = client(t, [standby.url]);
  const bundle = Uint8Array.from({ length: 1_000_000 }, (_, i) => i % 253);
  await rest.submit({ submissionId: 'once', jobGraph: graph(), bundle });
  t.ok(Buffer.from(dispatcher.submissions.get(jobId)?.bundle ?? []).equals(Buffer.from(bundle)));
  t.match(await rest.job(jobId), { jid: jobId });
  t.match(await rest.metrics(), /taskSlotsTotal 2/);
  await rest.cancel(jobId);
  t.strictSame(dispatcher.canceled, [jobId]);
  await t.rejects(rest.job(missing), { code: 'JOB_NOT_FOUND' });
  t.equal(
    (await fetch(`${standby.url}/some/later/route`)).status,
    404,
    'it is the leader that knows no such path',
  );
  t.equal((await fetch(`${standby.url}/readyz`)).status, 200);
});

t.test(
  'while nobody leads: 503 with the situation and when to ask again, never a loop',
  async (t) => {
    let info: LeaderInfo | undefined;
    const one = await serve(t, { leader: () => info });
    const ask = async (path = '/jobs'): Promise<[number, string | null, string]> => {
      const response = await fetch(one.url + path);
      const { errors } = (await response.json()) as { errors: string[] };
      return [response.status, response.headers.get('retry-after'), errors.join(' | ')];
    };
    t.match(await ask(), [503, '1', /no JobManager leads right now/]);
    t.match(await ask('/leader'), [503, '1', /no JobManager leads/]);
    t.match(await ask('/readyz'), [503, '1', /./]);
    t.equal((await fetch(`${one.url}/healthz`)).status, 200);
    // It is named as the leader itself, but does not serve yet.
    info = leaderAt(one.port, 'RECOVERING');
    t.match(await ask(), [503, '1', /jm-1 is recovering jobs/]);
    info = leaderAt(one.port, 'SUSPENDED');
    t.match(await ask(), [503, '1', /suspended/]);
    info = leaderAt(one.port);
    t.match(await ask(), [503, '1', /leadership is moving/]);
    info = leaderAt(await freePort());
    t.match(await ask(), [503, '1', /jm-1 does not answer.*ECONNREFUSED/]);
  },
);

t.test('the client asks the next JobManager, waits for a leader, and says why', async (t) => {
  const dispatcher = new MemoryDispatcher();
  let leads = false;
  const one = await serve(t, { gateway: () => (leads ? dispatcher : undefined) });
  const dead = `http://127.0.0.1:${String(await freePort())}`;
  const reasons: string[] = [];
  const rest = client(t, [dead, one.url], {
    waitForLeaderMs: 30_000,
    onWaiting: (reason) => {
      reasons.push(reason);
      leads = reasons.length >= 2;
    },
  });
  t.match(await rest.overview(), { taskmanagers: 1 });
  t.equal(reasons.length, 2);
  t.match(
    reasons[0],
    /no JobManager leads right now/,
    'an answer tells more than a silent address',
  );
  leads = false;
  await t.rejects(rest.overview({ waitForLeaderMs: 0 }), { code: 'NO_LEADER' });
  const silent = client(t, [dead]);
  await t.rejects(silent.jobs(), {
    code: 'RPC_DISCONNECTED',
    message: new RegExp(`${dead}.*ECONNREFUSED`),
  });
  t.throws(() => new RestClient([]), { code: 'CONFIG' });
  t.throws(() => new RestClient(['localhost:1']), { code: 'CONFIG', message: /localhost:1/ });
});

t.test('with a token every request must carry it; standbys pass it on', async (t) => {
  const token = 'secret-token';
  const dispatcher = new MemoryDispatcher();
  const leader = await serve(t, { gateway: () => dispatcher, token });
  const standby = await serve(t, { leader: () => leaderAt(leader.port), token });
  for (const { url } of [leader, standby]) {
    t.equal((await fetch(`${url}/overview`)).status, 401);
    t.equal((await fetch(`${url}/nowhere`)).status, 401);
    t.equal((await fetch(`${url}/healthz`)).status, 200);
    await t.rejects(client(t, [url], { token: 'wrong' }).overview(), { code: 'UNAUTHORIZED' });
    t.match(await client(t, [url], { token }).overview(), { taskmanagers: 1 });
  }
});

t.test('without a token, web pages of other sites and rebound names are refused', async (t) => {
  const { url, port } = await serve(t, { gateway: () => new MemoryDispatcher() });
  const ask = (headers: Record<string, string>): Promise<number> => rawStatus(port, headers);
  t.equal(await ask({ host: `localhost:${String(port)}` }), 200);
  t.equal(await ask({ host: `127.0.0.1:${String(port)}`, origin: url }), 200);
  t.equal(await ask({ host: `127.0.0.1:${String(port)}`, origin: 'https://evil.example' }), 401);
  t.equal(await ask({ host: 'evil.example' }), 401);
});

t.test(
  'an address other machines reach needs a token; a taken port is named with its key',
  async (t) => {
    await t.rejects(serve(t, { bindAddress: '0.0.0.0' }), {
      code: 'CONFIG',
      message: /rest\.bind-address.*rest\.token/,
    });
    const { port } = await serve(t, {});
    await t.rejects(serve(t, { port }), {
      code: 'PORT_IN_USE',
      message: new RegExp(`${String(port)}.*rest\\.port`),
    });
    await t.rejects(serve(t, { bindAddress: '203.0.113.77', token: 'x' }), {
      code: 'CONFIG',
      message: /203\.0\.113\.77/,
    });
  },
);

t.test('closing twice, and with a request under way, ends', async (t) => {
  const dispatcher = new MemoryDispatcher();
  const asked = new Promise<void>((resolve) => {
    dispatcher.overview = () => {
      resolve();
      return new Promise<never>(() => undefined);
    };
  });
  const server = createRestServer(testEnv(), {
    bindAddress: '127.0.0.1',
    port: 0,
    leader: () => undefined,
    gateway: () => dispatcher,
    web: { version: '1', clusterId: 'c', refreshIntervalMs: 1 },
  });
  const { port } = await server.listen();
  const pending = fetch(`http://127.0.0.1:${String(port)}/overview`).catch(() => 'ended');
  await asked;
  await Promise.all([server.close(), server.close()]);
  t.equal(await pending, 'ended');
});

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}

/** fetch does not let one set Host. */
function rawStatus(port: number, headers: Record<string, string>): Promise<number> {
  const lines = Object.entries({ connection: 'close', ...headers }).map(
    ([name, value]) => `${name}: ${value}\r\n`,
  );
  return new Promise((resolve, reject) => {
    const socket = connect(port, '127.0.0.1', () =>
      socket.write(`GET /overview HTTP/1.1\r\n${lines.join('')}\r\n`),
    );
    let text = '';
    socket.on('data', (chunk: Buffer) => (text += chunk.toString()));
    socket.on('error', reject);
    socket.on('close', () => resolve(Number(text.split(' ')[1])));
  });
}

t.test('what a suspended leader says counts only while nobody else answers', async (t) => {
  const cutOff = new MemoryDispatcher();
  const successor = new MemoryDispatcher();
  await cutOff.submitJob({ submissionId: 'old', jobGraph: graph() });
  const suspended = await serve(t, {
    gateway: () => cutOff,
    leader: () => leaderAt(1, 'SUSPENDED'),
  });
  const led: { by?: MemoryDispatcher } = {};
  const other = await serve(t, { gateway: () => led.by });
  const rest = client(t, [suspended.url, other.url]);
  t.equal((await rest.jobs()).length, 1, 'how things were is better than nothing');
  led.by = successor;
  t.equal((await rest.jobs()).length, 0, 'the new leader is asked');
  t.equal((await rest.jobs()).length, 0);
});
