/** Standbys that judge the leader by its connections, on one store and one clock; what the network answers is the test's. */
import t from 'tap';
import type { JobId } from '../../../lib/base/ids.js';
import { deposeCandidate } from '../../../ha/depose.js';
import { Keys } from '../../../ha/keys.js';
import type { PeerConnectionListener, PeerConnector } from '../../../ha/peer-connection.js';
import type { StoredJob } from '../../../ha/services.js';
import { encodeText } from '../../../ha/kv-store.js';
import { MemoryCluster, type MemoryCandidate } from '../../support/memory-cluster.js';
import { settle } from '../../support/manual-clock.js';

/** Every address is open until it is made to refuse. */
class Network {
  readonly #refusing = new Set<string>();
  readonly #open = new Map<PeerConnectionListener, string>();

  readonly connector: PeerConnector = (address, listener) => {
    queueMicrotask(() => {
      if (this.#refusing.has(address)) {
        listener.onEnded('refused');
        return;
      }
      this.#open.set(listener, address);
      listener.onOpened();
    });
    return { close: () => this.#open.delete(listener) };
  };

  watchersOf(address: string): number {
    return [...this.#open.values()].filter((one) => one === address).length;
  }

  refuse(address: string): void {
    this.#refusing.add(address);
    for (const [listener, to] of [...this.#open]) {
      if (to !== address) continue;
      this.#open.delete(listener);
      listener.onEnded('closed');
    }
  }

  accept(address: string): void {
    this.#refusing.delete(address);
  }
}

function job(id: number): StoredJob {
  return {
    jobId: id.toString(16).padStart(32, '0') as JobId,
    submissionId: `s${String(id)}`,
    name: 'a job',
    graph: encodeText('graph'),
    desired: 'RUNNING',
    submittedAt: 1,
  };
}

const leaderOf = (...candidates: MemoryCandidate[]): MemoryCandidate | undefined =>
  candidates.find((one) => one.contender.current !== undefined);

t.test('standbys watch the leader, and the first to see it dead deposes it', async (t) => {
  const network = new Network();
  const cluster = new MemoryCluster(t, { peerConnector: network.connector });
  const a = await cluster.candidate('a');
  const b = await cluster.candidate('b');
  const c = await cluster.candidate('c');
  t.same([network.watchersOf('a:1'), network.watchersOf('b:1')], [2, 0]);
  // It dies: it renews nothing any more, and nobody listens.
  a.kv.faults.unavailable = true;
  network.refuse('a:1');
  await cluster.clock.advance(20);
  await settle();
  const { origin } = b.contender.current!;
  t.match(origin, { cause: 'peer', previous: { jobManagerId: 'a' } });
  t.ok((origin.noticedAt ?? 0) <= origin.electedAt);
  t.same([network.watchersOf('b:1'), c.contender.events], [1, []], 'the other one watches it now');
});

t.test('a healthy leader that was deposed fences itself, and the cluster goes on', async (t) => {
  const network = new Network();
  const cluster = new MemoryCluster(t, { peerConnector: network.connector });
  const a = await cluster.candidate('a');
  const b = await cluster.candidate('b');
  const old = a.contender.current!;
  network.refuse('a:1');
  await cluster.clock.advance(20);
  await settle();
  t.match(a.contender.events, ['granted', /^revoked/]);
  await t.rejects(old.jobs.put(job(1)), { code: 'LEADERSHIP_LOST' });
  await b.contender.current!.jobs.put(job(2));
  const epoch = b.contender.current!.epoch;
  t.equal(
    await deposeCandidate(a.kv, new Keys('test'), old.epoch),
    false,
    'a late verdict on the old epoch',
  );
  t.equal(b.contender.current?.epoch, epoch, 'touches nobody');
  network.accept('a:1');
  await cluster.clock.advance(500);
  t.equal(network.watchersOf('b:1'), 1, 'the old leader stands by');
});

t.test('who is no candidate any more judges nobody', async (t) => {
  const network = new Network();
  const cluster = new MemoryCluster(t, { peerConnector: network.connector });
  const a = await cluster.candidate('a');
  const b = await cluster.candidate('b');
  t.equal(network.watchersOf('a:1'), 1);
  await b.election.close();
  t.equal(network.watchersOf('a:1'), 0);
  network.refuse('a:1');
  await cluster.clock.advance(2_000);
  t.same(a.contender.events, ['granted']);
});

t.test('a network that lies costs three leaders a minute, not more', async (t) => {
  const network = new Network();
  const cluster = new MemoryCluster(t, { peerConnector: network.connector });
  const a = await cluster.candidate('a');
  const b = await cluster.candidate('b');
  const grants = (): number =>
    [...a.contender.events, ...b.contender.events].filter((one) => one === 'granted').length;
  for (let second = 0; second < 50; second += 1) {
    // Connections open, and as soon as they are open they are cut and refused.
    for (const address of ['a:1', 'b:1']) network.accept(address);
    await cluster.clock.advance(700);
    for (const address of ['a:1', 'b:1']) network.refuse(address);
    await cluster.clock.advance(300);
  }
  t.equal(grants(), 1 + 2 * 3, 'three by each of them');
  const leader = leaderOf(a, b);
  t.ok(leader?.contender.current?.mayAct());
  await leader!.contender.current!.jobs.put(job(1));
});
