import { once } from 'node:events';
import { createConnection, createServer, type AddressInfo, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import t from 'tap';
import { FaultProxy, type FaultProxyOptions } from '../../../bin/drills/fault-proxy.js';

/** A server that answers every chunk with `re:` and the chunk, behind a proxy. */
async function echo(
  test: { teardown: (work: () => Promise<void>) => void },
  options: FaultProxyOptions = {},
): Promise<{ proxy: FaultProxy; heard: string[]; connect: () => Client }> {
  const heard: string[] = [];
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on('error', () => undefined);
    socket.on('data', (bytes) => {
      heard.push(bytes.toString());
      socket.write(`re:${bytes.toString()}`);
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  const proxy = await FaultProxy.listen({ host: '127.0.0.1', port }, options);
  const clients: Client[] = [];
  test.teardown(async () => {
    for (const one of clients) one.socket.destroy();
    await proxy.close();
    for (const one of sockets) one.destroy();
    server.close();
  });
  return {
    proxy,
    heard,
    connect: () => {
      const client = new Client(proxy.port);
      clients.push(client);
      return client;
    },
  };
}

class Client {
  readonly socket: Socket;
  /** Why it ended: an error's code, or `end`. */
  readonly ended: Promise<string>;
  #text = '';

  constructor(port: number) {
    this.socket = createConnection({ host: '127.0.0.1', port });
    this.ended = new Promise((resolve) => {
      this.socket.on('error', (error: NodeJS.ErrnoException) => {
        resolve(error.code ?? error.message);
      });
      this.socket.on('end', () => {
        resolve('end');
      });
    });
    this.socket.on('data', (bytes) => {
      this.#text += bytes.toString();
    });
  }

  say(text: string): this {
    this.socket.write(text);
    return this;
  }

  get answers(): string {
    return this.#text;
  }

  async hears(text: string): Promise<void> {
    while (!this.#text.includes(text)) await once(this.socket, 'data');
  }
}

/** Long against a loopback round trip. */
const quietMs = 60;

await t.test('bytes pass both ways, and the end of a connection does', async (t) => {
  const { proxy, connect } = await echo(t);
  const client = connect().say('a');
  await client.hears('re:a');
  client.socket.end();
  t.equal(await client.ended, 'end');
  while (proxy.connections > 0) await sleep(1);
});

await t.test('what a cut link held back arrives when it is whole again', async (t) => {
  const { proxy, heard, connect } = await echo(t);
  const client = connect().say('a');
  await client.hears('re:a');
  await proxy.set('blackhole');
  client.say('b');
  const late = connect().say('c');
  await sleep(quietMs);
  t.strictSame(heard, ['a']);
  t.equal(client.answers, 're:a');
  await proxy.set('pass');
  await client.hears('re:b');
  await late.hears('re:c');
});

await t.test('a link that drops answers lets requests through', async (t) => {
  const { proxy, heard, connect } = await echo(t);
  await proxy.set('drop-answers');
  const client = connect().say('a');
  while (heard.length === 0) await sleep(1);
  await sleep(quietMs);
  t.equal(client.answers, '');
  await proxy.set('pass');
  await client.hears('re:a');
});

await t.test('a link that drops requests lets answers through', async (t) => {
  const { proxy, heard, connect } = await echo(t);
  const client = connect().say('a');
  await client.hears('re:a');
  await proxy.set('drop-requests');
  client.say('b');
  await sleep(quietMs);
  t.strictSame(heard, ['a']);
  await proxy.set('pass');
  await client.hears('re:b');
});

await t.test('a link that resets ends connections, and new ones at once', async (t) => {
  const { proxy, connect } = await echo(t);
  const client = connect().say('a');
  await client.hears('re:a');
  await proxy.set('reset');
  t.equal(await client.ended, 'ECONNRESET');
  t.equal(await connect().ended, 'ECONNRESET');
  await proxy.set('pass');
  await connect().say('b').hears('re:b');
});

await t.test('a link that refuses listens again on the same port', async (t) => {
  const { proxy, connect } = await echo(t);
  const client = connect().say('a');
  await client.hears('re:a');
  await proxy.set('refuse');
  t.equal(await client.ended, 'ECONNRESET');
  t.equal(await connect().ended, 'ECONNREFUSED');
  await proxy.set('pass');
  await connect().say('b').hears('re:b');
});

await t.test('a slow link delivers in order, later', async (t) => {
  const { proxy, connect } = await echo(t);
  proxy.delay(40);
  const began = performance.now();
  const client = connect().say('a');
  await client.hears('re:a');
  t.ok(performance.now() - began >= 78, 'twice the delay, there and back');
  for (const one of ['b', 'c', 'd']) {
    client.say(one);
    await sleep(2);
  }
  await client.hears('d');
  t.equal(client.answers.replaceAll('re:', ''), 'abcd');
});

await t.test('the answer to a chosen request is lost, the request is not', async (t) => {
  const { proxy, heard, connect } = await echo(t);
  const client = connect().say('a');
  await client.hears('re:a');
  const lost = proxy.loseAnswerTo(/elect/);
  client.say('elect me');
  await lost;
  t.equal(await client.ended, 'ECONNRESET');
  t.equal(client.answers, 're:a');
  t.strictSame(heard, ['a', 'elect me']);
  await connect().say('elect me').hears('re:elect me');
});

await t.test('a connection can be cut right after a chosen answer', async (t) => {
  const { proxy, connect } = await echo(t);
  const cut = proxy.cutAfterAnswer(/created/);
  const client = connect().say('created');
  await client.hears('re:created');
  await cut;
  t.equal(await client.ended, 'ECONNRESET');
});

await t.test('one source of several can be cut off, its first bytes included', async (t) => {
  const { proxy, heard, connect } = await echo(t, {
    sourceOf: (bytes) => /from (\w+)/.exec(bytes)?.[1],
  });
  await proxy.setFrom('bad', 'blackhole');
  const good = connect().say('from good');
  await good.hears('re:from good');
  const bad = connect().say('from bad');
  await sleep(quietMs);
  bad.say(', more');
  await sleep(quietMs);
  t.strictSame(heard, ['from good']);
  await proxy.set('pass');
  await bad.hears('more');
  t.equal(heard.slice(1).join(''), 'from bad, more');
});
