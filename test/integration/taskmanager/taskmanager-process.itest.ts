/** The TaskManager program: registers with the leader that real etcd names, drains on SIGTERM, says why it cannot start. */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { createServer, type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';
import { withTimeout } from '../../../lib/base/abort.js';
import { Deferred } from '../../../lib/base/deferred.js';
import type { JobId, JobManagerId } from '../../../lib/base/ids.js';
import type {
  JobManagerGateway,
  TaskManagerGateway,
  TaskManagerRegistrationRequest,
} from '../../../lib/gateway/taskmanager-gateway.js';
import { GrpcJobManagerServer } from '../../../lib/rpc/grpc-rpc-service.js';
import type { RpcSession } from '../../../lib/rpc/rpc-service.js';
import { createEtcdHighAvailability } from '../../../ha/etcd/create-etcd-high-availability.js';
import type { HighAvailability, Leadership } from '../../../ha/services.js';
import { gatewayOf, testEnv } from '../../conformance/rpc-service.js';
import { TestEtcd } from '../../support/etcd.js';
import { RecordingContender } from '../../support/recording-contender.js';
import { prepareTestJob } from '../../support/slot-host.js';

// Real processes and threads on a busy machine.
t.setTimeout(120_000);

const entry = fileURLToPath(new URL('../../../bin/taskmanager.js', import.meta.url));

interface Registered {
  readonly registration: TaskManagerRegistrationRequest;
  readonly gateway: TaskManagerGateway;
  readonly session: RpcSession;
}

async function directory(t: Test): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), 'millrace-tm-'));
  t.teardown(() => rm(path, { recursive: true, force: true }));
  return path;
}

class Program {
  readonly child: ChildProcess;
  readonly exited: Promise<number | null>;
  stderr = '';

  constructor(t: Test, settings: Readonly<Record<string, string>>) {
    const definitions = Object.entries(settings).flatMap(([key, value]) => [
      '-D',
      `${key}=${value}`,
    ]);
    this.child = spawn(process.execPath, [entry, ...definitions], {
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    t.teardown(() => this.child.kill('SIGKILL'));
    this.child.stderr?.on('data', (chunk: Buffer) => {
      this.stderr += chunk.toString();
    });
    this.exited = once(this.child, 'exit').then(([code]) => code as number | null);
  }

  exitCode(timeoutMs = 20_000): Promise<number | null> {
    return withTimeout(testEnv.clock, timeoutMs, 'the process', this.exited);
  }
}

/** Leads a cluster and hands out what registers. */
async function lead(
  t: Test,
  ha: HighAvailability,
  handler: Partial<JobManagerGateway> = {},
): Promise<{ leadership: Leadership; first: () => Promise<Registered> }> {
  const server = new GrpcJobManagerServer(testEnv, { host: 'localhost', port: 0 });
  const rpcAddress = await server.listen();
  const election = ha.createElection({
    jobManagerId: rpcAddress as JobManagerId,
    rpcAddress,
    restAddress: 'http://localhost:1',
  });
  const contender = new RecordingContender();
  election.start(contender);
  t.teardown(async () => {
    await election.close();
    await server.close();
  });
  // A TaskManager may be here before anybody waits for it.
  const registered = new Deferred<Registered>();
  const leadership = await contender.leads();
  server.lead({
    epoch: leadership.epoch,
    mayAct: () => leadership.mayAct(),
    accept: (registration, gateway, session) => {
      registered.resolve({ registration, gateway, session });
      return Promise.resolve({
        response: { heartbeatIntervalMs: 200, heartbeatTimeoutMs: 2000 },
        handler: gatewayOf<JobManagerGateway>({
          heartbeat: async () => ({ leaderState: 'ACTIVE' }),
          ...handler,
        }),
      });
    },
  });
  await leadership.publishActive();
  return { leadership, first: () => registered.promise };
}

t.test('it registers, is announced, shows its log and drains on SIGTERM', async (t) => {
  const etcd = await TestEtcd.start(t);
  const path = await directory(t);
  const settings = {
    'high-availability.type': 'etcd',
    'high-availability.cluster-id': 'tm-process',
    'high-availability.storageDir': join(path, 'storage'),
    'high-availability.etcd.endpoints': etcd.endpoints.join(','),
  };
  const ha = await createEtcdHighAvailability(testEnv, {
    endpoints: etcd.endpoints,
    clusterId: 'tm-process',
    storageDir: join(path, 'storage'),
  });
  t.teardown(() => ha.close());
  const leader = await lead(t, ha);
  const program = new Program(t, {
    ...settings,
    'taskmanager.resource-id': 'tm-1',
    'taskmanager.numberOfTaskSlots': '3',
    'env.log.dir': join(path, 'logs'),
    'io.tmp.dirs': join(path, 'tmp'),
  });
  const { registration, gateway, session } = await leader.first();
  t.match(registration, {
    taskManagerId: 'tm-1',
    pid: program.child.pid,
    dataAddress: /^localhost:\d+$/,
    slotMemoryBytes: 256 * 1024 ** 2,
  });
  t.equal(registration.slots.slots.length, 3);
  for (;;) {
    const [announced] = await leader.leadership.listTaskManagers();
    if (announced === undefined) continue;
    t.match(announced, { taskManagerId: 'tm-1', slots: 3, dataAddress: registration.dataAddress });
    break;
  }
  const { lines } = await gateway.requestLog({ maxLines: 50, stream: 'log' });
  t.ok(lines.some((line) => line.includes('taskmanager.registered')));
  const jobId = 'a'.repeat(32) as JobId;
  t.same(await gateway.requestLog({ jobId, maxLines: 50, stream: 'log' }), { lines: [] });
  program.child.kill('SIGTERM');
  t.equal(await session.closed, 'the TaskManager shuts down');
  t.equal(await program.exitCode(), 0);
});

t.test('it follows a change of leader within a second of the hand-over', async (t) => {
  const etcd = await TestEtcd.start(t);
  const path = await directory(t);
  const open = (): Promise<HighAvailability> =>
    createEtcdHighAvailability(testEnv, {
      endpoints: etcd.endpoints,
      clusterId: 'tm-follow',
      storageDir: join(path, 'storage'),
    });
  const [first, second] = [await open(), await open()];
  t.teardown(async () => {
    await first.close();
    await second.close();
  });
  await t.test('first leader', async (t) => {
    const leader = await lead(t, first);
    const program = new Program(t.parent as Test, {
      'high-availability.type': 'etcd',
      'high-availability.cluster-id': 'tm-follow',
      'high-availability.storageDir': join(path, 'storage'),
      'high-availability.etcd.endpoints': etcd.endpoints.join(','),
      'io.tmp.dirs': join(path, 'tmp'),
    });
    await leader.first();
    t.ok(program.child.pid);
  });
  // Its teardown resigned.
  const leader = await lead(t, second);
  const granted = testEnv.clock.now();
  await leader.first();
  const tookMs = testEnv.clock.now() - granted;
  t.ok(tookMs < 1000, `registered after ${Math.round(tookMs)} ms`);
});

t.test('a task in a native call that cannot be ended takes the process with it', async (t) => {
  const etcd = await TestEtcd.start(t);
  const job = await prepareTestJob(
    t,
    testEnv,
    `import { execSync } from 'node:child_process';
     import { StreamExecutionEnvironment } from 'millrace';
     class Stuck {
       open() { execSync('sleep 8'); }
       processElement() {}
     }
     const env = StreamExecutionEnvironment.getExecutionEnvironment();
     env.fromElements(1).process(() => new Stuck()).print();
     await env.execute('stuck');`,
  );
  const ha = await createEtcdHighAvailability(testEnv, {
    endpoints: etcd.endpoints,
    clusterId: 'tm-stuck',
    storageDir: join(job.directory, 'storage'),
  });
  t.teardown(() => ha.close());
  const states: string[] = [];
  const initializing = new Deferred<void>();
  const leader = await lead(t, ha, {
    fetchBlob: async () => ({ bytes: await readFile(job.bundlePath), end: true }),
    sendOperatorEvent: () => undefined,
    updateTaskState: ({ state, failure }) => {
      states.push(failure?.message ?? state);
      if (states.length === job.deployment.tasks.length) initializing.resolve();
    },
  });
  const program = new Program(t, {
    'high-availability.type': 'etcd',
    'high-availability.cluster-id': 'tm-stuck',
    'high-availability.storageDir': join(job.directory, 'storage'),
    'high-availability.etcd.endpoints': etcd.endpoints.join(','),
    'task.cancellation.timeout': '600 ms',
    'io.tmp.dirs': join(job.directory, 'tmp'),
  });
  const { gateway, session } = await leader.first();
  const { jobId, allocationId } = job.deployment;
  await gateway.requestSlot({ jobId, allocationId, slotIndex: 0 });
  await gateway.submitTasks(job.deployment);
  await withTimeout(testEnv.clock, 10_000, 'the deployment', initializing.promise);
  t.ok(
    states.every((state) => state === 'INITIALIZING'),
    states.join(),
  );
  const began = testEnv.clock.now();
  await t.rejects(gateway.cancelTasks({ allocationId }), { code: 'RPC_DISCONNECTED' });
  t.match(await session.closed, /broke|ended|failed/);
  t.not(await program.exitCode(), 0);
  const tookMs = testEnv.clock.now() - began;
  t.ok(tookMs < 4000, `gone after ${Math.round(tookMs)} ms, before the call returned`);
  t.match(program.stderr, /TASK_CANCEL_TIMEOUT.*task\.cancellation\.timeout/);
});

t.test('an etcd that does not answer is waited for, then named with what to do', async (t) => {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  const path = await directory(t);
  const program = new Program(t, {
    'high-availability.type': 'etcd',
    'high-availability.storageDir': path,
    'high-availability.etcd.endpoints': `http://127.0.0.1:${port}`,
    'taskmanager.registration.timeout': '1 s',
    'io.tmp.dirs': path,
  });
  t.equal(await program.exitCode(), 3);
  t.match(program.stderr, /waiting for etcd/);
  t.match(program.stderr, new RegExp(`etcd at http://127.0.0.1:${port} did not answer`));
  t.match(program.stderr, /ETCD_UNAVAILABLE/);
});

t.test('a leader that never comes ends the process with exit code 3', async (t) => {
  const program = new Program(t, {
    'jobmanager.rpc.port': '1',
    'taskmanager.registration.timeout': '1 s',
    'io.tmp.dirs': await directory(t),
  });
  t.equal(await program.exitCode(), 3);
  t.match(program.stderr, /did not accept this TaskManager within 1000 ms/);
});

t.test('a configuration that cannot be used ends the process with exit code 2', async (t) => {
  const unknown = new Program(t, { 'taskmanager.numberOfTaskSlot': '2' });
  const incomplete = new Program(t, {});
  t.equal(await unknown.exitCode(), 2);
  t.match(unknown.stderr, /did you mean taskmanager\.numberOfTaskSlots\?/);
  t.equal(await incomplete.exitCode(), 2);
  t.match(incomplete.stderr, /jobmanager\.rpc\.port is required without high availability/);
});

t.test('a data port in use is named with its key', async (t) => {
  const blocker = createServer().listen(0, '127.0.0.1');
  await once(blocker, 'listening');
  t.teardown(() => blocker.close());
  const { port } = blocker.address() as AddressInfo;
  const program = new Program(t, {
    'jobmanager.rpc.port': '1',
    'taskmanager.host': '127.0.0.1',
    'taskmanager.data.port': String(port),
    'io.tmp.dirs': await directory(t),
  });
  t.equal(await program.exitCode(), 3);
  t.match(program.stderr, new RegExp(`PORT_IN_USE[^]*${String(port)}`));
});
