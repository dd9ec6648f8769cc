import t from 'tap';
import type { JobId, JobManagerId } from '../../../lib/base/ids.js';
import { silentLogger, type LogFields, type Logger } from '../../../lib/base/logger.js';
import { deposeCandidate } from '../../../ha/depose.js';
import { createHighAvailability } from '../../../ha/index.js';
import { Keys } from '../../../ha/keys.js';
import { encodeText, prefixEnd } from '../../../ha/kv-store.js';
import type { Leadership, StoredJob } from '../../../ha/services.js';
import { compareEpochs, formatEpoch, parseEpoch } from '../../../ha/services.js';
import { codeOf } from '../../support/code-of.js';
import { settle } from '../../support/manual-clock.js';
import { MemoryCluster } from '../../support/memory-cluster.js';
import { RecordingContender } from '../../support/recording-contender.js';

const keys = new Keys('test');

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

t.test('the first candidate leads; everybody sees it recovering, then active', async (t) => {
  const cluster = new MemoryCluster(t);
  const a = await cluster.candidate('a');
  const b = await cluster.candidate('b');
  const observer = await cluster.process();
  const retrieval = observer.ha.leaderRetrieval();
  const seen: string[] = [];
  retrieval.subscribe((leader) => {
    seen.push(leader === undefined ? 'nobody' : `${leader.jobManagerId} ${leader.state}`);
  });
  await cluster.clock.advance(1);
  t.same(a.contender.events, ['granted']);
  t.same(b.contender.events, []);
  await a.contender.current?.publishActive();
  await cluster.clock.advance(1);
  t.same(seen, ['nobody', 'a RECOVERING', 'a ACTIVE']);
  t.match(retrieval.current(), {
    rpcAddress: 'a:1',
    restAddress: 'http://a:2',
    epoch: a.contender.current!.epoch,
  });
  t.equal(b.contender.leader?.jobManagerId, 'a', 'a standby is told who leads');
  await retrieval.close();
});

t.test('a leader that resigns is followed at once, with a later epoch', async (t) => {
  const cluster = new MemoryCluster(t);
  const a = await cluster.candidate('a');
  const b = await cluster.candidate('b');
  const first = a.contender.current!;
  await a.election.close();
  await settle();
  t.match(a.contender.events, ['granted', /^revoked: .*resigned/]);
  t.equal(first.signal.aborted, true);
  t.same(b.contender.events, ['granted'], 'no time passed');
  t.ok(compareEpochs(b.contender.current!.epoch, first.epoch) > 0);
});

t.test('a leader that vanishes is followed when its lease expires', async (t) => {
  const cluster = new MemoryCluster(t);
  const a = await cluster.candidate('a');
  const b = await cluster.candidate('b');
  a.kv.faults.unavailable = true;
  await cluster.clock.advance(2_400);
  t.equal(a.contender.current?.mayAct(), true);
  await cluster.clock.advance(400);
  t.same(a.contender.events, ['granted', 'suspended'], 'it stops before the store gives it up');
  t.equal(a.contender.current?.mayAct(), false);
  t.same(b.contender.events, []);
  await cluster.clock.advance(300);
  t.same(b.contender.events, ['granted']);
  a.kv.faults.unavailable = false;
  await cluster.clock.advance(1_500);
  t.match(a.contender.events, ['granted', 'suspended', /^revoked/]);
  await cluster.clock.advance(1_000);
  t.equal(b.contender.leader?.jobManagerId, 'b');
  await b.election.close();
  await cluster.clock.advance(100);
  t.equal(a.contender.events.at(-1), 'granted', 'it had joined the queue again');
});

t.test('a leader cut off for less than its lease resumes', async (t) => {
  const cluster = new MemoryCluster(t);
  const a = await cluster.candidate('a');
  const b = await cluster.candidate('b');
  a.kv.faults.unavailable = true;
  await cluster.clock.advance(2_700);
  t.same(a.contender.events, ['granted', 'suspended']);
  a.kv.faults.unavailable = false;
  await cluster.clock.advance(200);
  t.same(a.contender.events, ['granted', 'suspended', 'resumed']);
  t.equal(a.contender.current?.mayAct(), true);
  t.same(b.contender.events, []);
});

t.test('work that waited in a blocked loop finds that it may not act', async (t) => {
  const cluster = new MemoryCluster(t);
  const a = await cluster.candidate('a');
  t.equal(a.contender.current?.mayAct(), true);
  cluster.clock.jump(2_600);
  t.equal(a.contender.current?.mayAct(), false, 'before any timer could tell');
});

t.test('a write that waits out a suspension is written after it', async (t) => {
  const cluster = new MemoryCluster(t);
  const a = await cluster.candidate('a');
  const leadership = a.contender.current!;
  cluster.clock.jump(2_600);
  const written = leadership.jobs.put(job(1));
  await settle();
  t.match(cluster.server.range({ key: keys.jobsPrefix, rangeEnd: prefixEnd(keys.jobsPrefix) }), {
    count: 0,
  });
  await cluster.clock.advance(300);
  await written;
  t.same(await leadership.jobs.list(), [job(1).jobId]);
});

t.test('a deposed leader is fenced although its lease lives and it knows nothing', async (t) => {
  const cluster = new MemoryCluster(t);
  const a = await cluster.candidate('a');
  const b = await cluster.candidate('b');
  const old = a.contender.current!;
  // It never hears of it: neither by its watch nor by its resync, which the clock would drive.
  a.kv.faults.dropEvent = () => true;
  t.equal(await deposeCandidate(b.kv, keys, old.epoch), true);
  await settle();
  t.same(b.contender.events, ['granted']);
  t.equal(old.mayAct(), true);
  t.equal(await codeOf(old.jobs.put(job(1))), 'LEADERSHIP_LOST');
  t.match(a.contender.events, ['granted', /^revoked/], 'the refusal told it');
  t.same(await b.contender.current!.jobs.list(), []);
  t.equal(await deposeCandidate(b.kv, keys, old.epoch), false, 'a second time finds nobody');
});

t.test('reads of a deposed leader are refused, too', async (t) => {
  const cluster = new MemoryCluster(t);
  const a = await cluster.candidate('a');
  const old = a.contender.current!;
  a.kv.faults.dropEvent = () => true;
  await deposeCandidate(a.kv, keys, old.epoch);
  t.equal(await codeOf(old.jobs.list()), 'LEADERSHIP_LOST');
});

t.test('a standby whose key is deleted joins again and leads only with a new key', async (t) => {
  const cluster = new MemoryCluster(t);
  const a = await cluster.candidate('a');
  const b = await cluster.candidate('b');
  const range = { key: keys.candidatesPrefix, rangeEnd: prefixEnd(keys.candidatesPrefix) };
  const mine = cluster.server.range(range).entries.find((e) => e.key.includes('/b-'))!;
  cluster.server.txn({ compare: [], then: [{ op: 'delete', key: mine.key }] });
  await cluster.clock.advance(500);
  await a.election.close();
  await cluster.clock.advance(10);
  t.same(b.contender.events, ['granted']);
  const own = cluster.server.range(range).entries;
  t.equal(own.length, 1);
  t.equal(own[0]?.createRevision, b.contender.current?.epoch.revision);
  t.ok((own[0]?.createRevision ?? 0) > mine.createRevision);
});

t.test(
  'lost answers while joining and electing make neither two keys nor two leaders',
  async (t) => {
    for (const fault of ['lose-response', 'lose-request'] as const) {
      const cluster = new MemoryCluster(t);
      const process = await cluster.process();
      let faults = 0;
      process.kv.faults.onWrite = () => {
        faults += 1;
        // Each write fails once.
        return faults % 2 === 1 ? fault : 'none';
      };
      const contender = new RecordingContender();
      const election = process.ha.createElection({
        jobManagerId: 'a' as never,
        rpcAddress: 'a:1',
        restAddress: 'http://a:2',
      });
      election.start(contender);
      await cluster.clock.advance(2_000);
      t.same(contender.events, ['granted'], fault);
      t.match(
        cluster.server.range({
          key: keys.candidatesPrefix,
          rangeEnd: prefixEnd(keys.candidatesPrefix),
        }),
        { count: 1 },
      );
      process.kv.faults.onWrite = () => 'none';
      await election.close();
    }
  },
);

t.test('a leader that hears nothing of the deletion of its key finds out by resync', async (t) => {
  const cluster = new MemoryCluster(t);
  const a = await cluster.candidate('a');
  a.kv.faults.dropEvent = () => true;
  await deposeCandidate(a.kv, keys, a.contender.current!.epoch);
  await cluster.clock.advance(1_050);
  t.match(a.contender.events, ['granted', /^revoked/]);
  t.equal(a.env.metrics.counter('watchResyncCorrections').count > 0, true);
});

t.test(
  'queue and record may arrive in either order: nobody is named with the address of another',
  async (t) => {
    for (const late of ['the record', 'the queue'] as const) {
      const cluster = new MemoryCluster(t);
      const a = await cluster.candidate('a');
      await a.contender.current!.publishActive();
      const b = await cluster.candidate('b');
      const observer = await cluster.process();
      const retrieval = observer.ha.leaderRetrieval();
      const seen: string[] = [];
      retrieval.subscribe((leader) => {
        if (leader === undefined) return;
        seen.push(`${leader.jobManagerId} ${leader.state}`);
        const { contender } = leader.jobManagerId === 'a' ? a : b;
        t.equal(leader.rpcAddress, `${leader.jobManagerId}:1`);
        const epochs = contender.leaderships.map(({ epoch }) => epoch.revision);
        // A standby is named from the queue before it knows that it leads.
        t.ok(epochs.length === 0 || epochs.includes(leader.epoch.revision));
      });
      await settle();
      t.same(seen, ['a ACTIVE'], 'a leader known from the start is never seen recovering');
      // The events of one of the two watches are lost, so it tells only with its next resync.
      observer.kv.faults.dropEvent = ({ entry }) =>
        (entry.key === keys.leader) === (late === 'the record');
      await a.election.close();
      await settle();
      await b.contender.current!.publishActive();
      await settle();
      const meanwhile = late === 'the record' ? 'b RECOVERING' : 'a RECOVERING';
      t.same(seen, ['a ACTIVE', meanwhile], `${late} is late`);
      await cluster.clock.advance(1_000);
      t.same(seen, ['a ACTIVE', meanwhile, 'b ACTIVE'], `${late} is late`);
      await retrieval.close();
    }
  },
);

t.test('a standby logs that the leader is gone before it is elected', async (t) => {
  const cluster = new MemoryCluster(t);
  const a = await cluster.candidate('a');
  const b = await cluster.process();
  const logged: LogFields[] = [];
  const log: Logger = {
    ...silentLogger,
    child: () => log,
    info: (fields) => logged.push(fields),
  };
  const ha = await createHighAvailability({ ...b.env, log }, b.kv, { clusterId: 'test' });
  const election = ha.createElection({
    jobManagerId: 'b' as JobManagerId,
    rpcAddress: 'b:1',
    restAddress: 'http://b:2',
  });
  t.teardown(async () => {
    await election.close();
    await ha.close();
  });
  election.start(new RecordingContender());
  await settle();
  t.same(logged, []);
  const { epoch } = a.contender.current!;
  await deposeCandidate(a.kv, keys, epoch);
  await settle();
  t.match(logged, [
    { event: 'election.predecessor-gone', predecessor: formatEpoch(epoch), wasLeader: true },
    { event: 'leader.granted' },
  ]);
});

t.test('a changed leader record is published again', async (t) => {
  const cluster = new MemoryCluster(t);
  const a = await cluster.candidate('a');
  await a.contender.current!.publishActive();
  cluster.server.txn({
    compare: [],
    then: [{ op: 'put', key: keys.leader, value: encodeText('nonsense') }],
  });
  await settle();
  t.equal(a.contender.leader?.state, 'RECOVERING', 'the queue still says who leads');
  await cluster.clock.advance(1_100);
  t.equal(a.contender.leader?.state, 'ACTIVE');
});

t.test('an outage beyond the grace ends the leadership', async (t) => {
  const cluster = new MemoryCluster(t, { outageGraceMs: 60_000 });
  const a = await cluster.candidate('a');
  // The store keeps the lease, as an etcd without quorum does: only the way to it is cut.
  a.kv.faults.unavailable = true;
  const [lease] = cluster.server.range({
    key: keys.candidatesPrefix,
    rangeEnd: prefixEnd(keys.candidatesPrefix),
  }).entries;
  for (let i = 0; i < 64; i += 1) {
    await cluster.clock.advance(1_000);
    cluster.server.keepAlive(lease!.leaseId!);
  }
  t.match(a.contender.events, ['granted', 'suspended', /^revoked: .*too long/]);
});

t.test('closing leaves no timer, no lease and no key behind', async (t) => {
  const cluster = new MemoryCluster(t);
  const a = await cluster.candidate('a');
  const b = await cluster.candidate('b');
  await a.contender.current!.publishActive();
  await Promise.all([a.election.close(), b.election.close()]);
  await a.election.close();
  await Promise.all([a.ha.close(), b.ha.close()]);
  await settle();
  t.equal(cluster.clock.pendingTimers, 0);
  t.equal(cluster.server.leaseCount, 0);
  const range = { key: keys.candidatesPrefix, rangeEnd: prefixEnd(keys.candidatesPrefix) };
  t.match(cluster.server.range(range), { count: 0 });
  t.match(cluster.server.range({ key: keys.leader }), { count: 0 });
});

t.test('an election closed while it joins leaves nothing behind', async (t) => {
  const cluster = new MemoryCluster(t);
  const process = await cluster.process();
  process.kv.faults.latencyMs = 50;
  for (const after of [0, 10, 60, 120, 170]) {
    const contender = new RecordingContender();
    const election = process.ha.createElection({
      jobManagerId: 'a' as never,
      rpcAddress: 'a:1',
      restAddress: 'http://a:2',
    });
    election.start(contender);
    await cluster.clock.advance(after);
    const closed = election.close();
    await cluster.clock.advance(1_000);
    await closed;
    t.equal(cluster.server.leaseCount, 0, `after ${String(after)} ms`);
    t.same(contender.events.filter((event) => event === 'granted').length, after < 170 ? 0 : 1);
  }
});

t.test(
  '20 losses of the lease: never two whose writes are accepted, epochs only grow',
  async (t) => {
    const cluster = new MemoryCluster(t);
    const candidates = [await cluster.candidate('a'), await cluster.candidate('b')];
    const accepted: Leadership[] = [];
    let next = 1;
    const tryAll = async (): Promise<number> => {
      let count = 0;
      for (const { contender } of candidates) {
        // Also leaderships that are over: their holders may not know.
        for (const leadership of contender.leaderships) {
          next += 1;
          const code = await codeOf(leadership.jobs.put(job(next)));
          if (code !== 'none') continue;
          count += 1;
          accepted.push(leadership);
        }
      }
      return count;
    };
    for (let round = 0; round < 20; round += 1) {
      await cluster.clock.advance(1_000);
      const leader = candidates.find((c) => c.contender.current?.mayAct() === true);
      t.ok(leader, `round ${String(round)} has a leader`);
      t.equal(await tryAll(), 1);
      const entries = cluster.server.range({
        key: keys.candidatesPrefix,
        rangeEnd: prefixEnd(keys.candidatesPrefix),
      }).entries;
      const own = entries.find(
        (entry) => entry.createRevision === leader!.contender.current!.epoch.revision,
      );
      cluster.server.revokeLease(own!.leaseId!);
      t.ok((await tryAll()) <= 1);
    }
    for (let i = 1; i < accepted.length; i += 1) {
      t.ok(compareEpochs(accepted[i - 1]!.epoch, accepted[i]!.epoch) <= 0);
    }
    t.ok(accepted.length >= 20);
  },
);

t.test('a formatted epoch is read again, also at the beginning of a write id', (t) => {
  const epoch = { era: 2, revision: 4711 };
  t.same(parseEpoch(formatEpoch(epoch)), epoch);
  t.same(parseEpoch(`${formatEpoch(epoch)}.17`), epoch);
  for (const other of [undefined, '', '2', '2.', '2.x', 'null.1', '2.4711x'])
    t.equal(parseEpoch(other), undefined, String(other));
  t.end();
});
