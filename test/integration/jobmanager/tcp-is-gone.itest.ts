/** Whether a process is dead, by its port: real sockets. */
import { once } from 'node:events';
import { createServer, type AddressInfo } from 'node:net';
import t from 'tap';
import { tcpIsGone } from '../../../lib/jobmanager/resourcemanager/tcp-is-gone.js';
import { testEnv } from '../../support/test-env.js';

t.test(
  'a port that refuses is gone; one that listens, and an address nobody can ask, is not',
  async (t) => {
    const isGone = tcpIsGone(testEnv());
    const server = createServer((socket) => socket.destroy());
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { port } = server.address() as AddressInfo;
    t.equal(await isGone(`127.0.0.1:${String(port)}`), false);
    server.close();
    await once(server, 'close');
    t.equal(await isGone(`127.0.0.1:${String(port)}`), true);
    t.equal(await isGone(`localhost:${String(port)}`), true, 'on all addresses of the name');
    t.equal(await isGone('tm1:nonsense'), false);
    t.equal(await isGone('no-such-host.invalid:80'), false);
  },
);
