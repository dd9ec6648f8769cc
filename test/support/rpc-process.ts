/**
 * One end of a gRPC session in a process of its own, to be killed: `jobmanager` leads and prints its address,
 * `taskmanager ADDRESS` registers there. Prints `ready` lines on standard output.
 */
import { gatewayOf, testEnv, testRegistration } from '../conformance/rpc-service.js';
import { GrpcJobManagerConnector, GrpcJobManagerServer } from '../../lib/rpc/grpc-rpc-service.js';

const [role, address] = process.argv.slice(2);
const epoch = { era: 1, revision: 1 };
if (role === 'jobmanager') {
  const server = new GrpcJobManagerServer(testEnv, { host: 'localhost', port: 0 });
  const bound = await server.listen();
  server.lead({
    epoch,
    mayAct: () => true,
    accept: () =>
      Promise.resolve({
        response: { heartbeatIntervalMs: 1000, heartbeatTimeoutMs: 5000 },
        handler: gatewayOf({}),
      }),
  });
  process.stdout.write(`${bound}\n`);
} else {
  const connector = new GrpcJobManagerConnector(testEnv);
  await connector.connect({ rpcAddress: address ?? '', epoch }, testRegistration, gatewayOf({}));
  process.stdout.write('registered\n');
}
