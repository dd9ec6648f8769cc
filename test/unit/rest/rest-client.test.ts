/** Whom the client asks, and when it asks another. */
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import t, { type Test } from 'tap';
import { Deferred } from '../../../lib/base/deferred.js';
import type { JobId } from '../../../lib/base/ids.js';
import { RestClient } from '../../../lib/rest/rest-client.js';
import { ManualClock } from '../../support/manual-clock.js';

interface JobManager {
  readonly url: string;
  /** Requests that arrived. */
  requests: number;
  /** Resolves with the first. */
  readonly asked: Promise<void>;
}

/** Answers with `body`; with nothing, it takes requests and stays silent, as a stopped process does. */
async function jobManager(t: Test, body?: unknown): Promise<JobManager> {
  const asked = new Deferred<void>();
  const server: Server = createServer((_, response) => {
    made.requests += 1;
    asked.resolve();
    if (body === undefined) return;
    response.setHeader('content-type', 'application/json');
    response.end(JSON.stringify(body));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.teardown(() => {
    server.closeAllConnections();
    server.close();
  });
  const { port } = server.address() as AddressInfo;
  const made: JobManager = {
    url: `http://127.0.0.1:${String(port)}`,
    requests: 0,
    asked: asked.promise,
  };
  return made;
}

t.test('a question that is not answered for a second is put to the next JobManager', async (t) => {
  const silent = await jobManager(t);
  const other = await jobManager(t, { jobs: [] });
  const clock = new ManualClock();
  const client = new RestClient([silent.url, other.url], { clock });
  t.teardown(() => client.close());
  const answer = client.jobs();
  await silent.asked;
  await clock.advance(999);
  t.equal(other.requests, 0, 'one that answers in time is not asked in vain');
  await clock.advance(1);
  t.same(await answer, []);
  t.equal(clock.pendingTimers, 0);
  t.same(await client.jobs(), [], 'the one that answered is asked first from then on');
  t.equal(silent.requests, 1);
});

t.test('what changes something is put to one JobManager at a time', async (t) => {
  const silent = await jobManager(t);
  const other = await jobManager(t, {});
  const clock = new ManualClock();
  const client = new RestClient([silent.url, other.url], { clock, requestTimeoutMs: 1_500 });
  t.teardown(() => client.close());
  const cancelled = client.cancel('a'.repeat(32) as JobId);
  await silent.asked;
  await clock.advance(60_000);
  t.equal(other.requests, 0);
  await cancelled;
  t.equal(other.requests, 1, 'the next is asked when the first had its time');
});
