import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { createServer, type AddressInfo } from 'node:net';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';
import { Deferred } from '../../../lib/base/deferred.js';
import { withTimeout } from '../../../lib/base/abort.js';
import type { JobManagerGateway } from '../../../lib/gateway/taskmanager-gateway.js';
import {
  GrpcJobManagerConnector,
  GrpcJobManagerServer,
} from '../../../lib/rpc/grpc-rpc-service.js';
import { maxMessageBytes } from '../../../lib/rpc/message-codec.js';
import type { RpcSession } from '../../../lib/rpc/rpc-service.js';
import type { Digest, JobId } from '../../../lib/base/ids.js';
import {
  gatewayOf,
  testEnv,
  testRegistration,
  testRpcService,
} from '../../conformance/rpc-service.js';

const epoch = { era: 1, revision: 1 };
const response = { heartbeatIntervalMs: 1000, heartbeatTimeoutMs: 5000 };

testRpcService(t, {
  createServer: (env, options) =>
    new GrpcJobManagerServer(env, { host: 'localhost', port: 0 }, options),
  createConnector: (env, options) => new GrpcJobManagerConnector(env, options),
});

async function spawnPeer(
  t: Test,
  ...args: string[]
): Promise<{ child: ChildProcess; line: string }> {
  const script = fileURLToPath(new URL('../../support/rpc-process.js', import.meta.url));
  const child = spawn(process.execPath, [script, ...args], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  t.teardown(() => child.kill('SIGKILL'));
  const [line] = (await once(createInterface({ input: child.stdout }), 'line')) as [string];
  return { child, line };
}

t.test('a JobManager killed by SIGKILL is noticed at once', async (t) => {
  const { child, line } = await spawnPeer(t, 'jobmanager');
  const connector = new GrpcJobManagerConnector(testEnv);
  const { session, gateway } = await connector.connect(
    { rpcAddress: line, epoch },
    testRegistration,
    gatewayOf({}),
  );
  const started = testEnv.clock.now();
  child.kill('SIGKILL');
  t.match(await withTimeout(testEnv.clock, 5000, 'noticing', session.closed), /broke|ended/);
  t.ok(testEnv.clock.now() - started < 1000, 'within a second');
  const digest = 'd'.repeat(64) as Digest;
  await t.rejects(gateway.fetchBlob({ jobId: 'j' as JobId, digest, offset: 0 }), {
    code: 'RPC_DISCONNECTED',
  });
});

t.test('a TaskManager killed by SIGKILL is noticed at once', async (t) => {
  const server = new GrpcJobManagerServer(testEnv, { host: 'localhost', port: 0 });
  const address = await server.listen();
  t.teardown(() => server.close());
  const registered = new Deferred<RpcSession>();
  server.lead({
    epoch,
    mayAct: () => true,
    accept: (_, __, session) => {
      registered.resolve(session);
      return Promise.resolve({ response, handler: gatewayOf({}) });
    },
  });
  const { child } = await spawnPeer(t, 'taskmanager', address);
  const session = await registered.promise;
  const started = testEnv.clock.now();
  child.kill('SIGKILL');
  t.match(await withTimeout(testEnv.clock, 5000, 'noticing', session.closed), /broke|ended|failed/);
  t.ok(testEnv.clock.now() - started < 1000, 'within a second');
});

t.test('messages up to the limit pass, larger ones are refused where they are made', async (t) => {
  const server = new GrpcJobManagerServer(testEnv, { host: 'localhost', port: 0 });
  const address = await server.listen();
  t.teardown(() => server.close());
  let size = 0;
  const handler: Partial<JobManagerGateway> = {
    fetchBlob: async () => ({ bytes: new Uint8Array(size), end: true }),
  };
  server.lead({
    epoch,
    mayAct: () => true,
    accept: () => Promise.resolve({ response, handler: gatewayOf<JobManagerGateway>(handler) }),
  });
  const connector = new GrpcJobManagerConnector(testEnv);
  const { gateway, session } = await connector.connect(
    { rpcAddress: address, epoch },
    testRegistration,
    gatewayOf({}),
  );
  const request = { jobId: 'j' as JobId, digest: 'd'.repeat(64) as Digest, offset: 0 };
  size = maxMessageBytes - 1000;
  t.equal((await gateway.fetchBlob(request)).bytes.length, size);
  size = maxMessageBytes;
  await t.rejects(gateway.fetchBlob(request), { code: 'RPC_PROTOCOL', message: /more than the/ });
  size = 10;
  t.equal((await gateway.fetchBlob(request)).bytes.length, 10, 'the session lives on');
  session.close('done');
});

t.test('a port in use is named with its key', async (t) => {
  const blocker = createServer();
  blocker.listen(0, '127.0.0.1');
  await once(blocker, 'listening');
  t.teardown(() => blocker.close());
  const { port } = blocker.address() as AddressInfo;
  const server = new GrpcJobManagerServer(testEnv, { host: '127.0.0.1', port });
  t.teardown(() => server.close());
  await t.rejects(server.listen(), {
    code: 'PORT_IN_USE',
    message: new RegExp(`${String(port)}.*jobmanager\\.rpc\\.port`),
  });
});
