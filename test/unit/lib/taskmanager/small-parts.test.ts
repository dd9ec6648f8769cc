import { appendFile, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import type { Clock } from '../../../../lib/base/clock.js';
import type { JobId } from '../../../../lib/base/ids.js';
import {
  advanceLeaderless,
  leaderlessExpiry,
  withLeader,
} from '../../../../lib/taskmanager/leaderless-clock.js';
import { readLogTail } from '../../../../lib/taskmanager/log-tail.js';
import { createMemoryCheck } from '../../../../lib/taskmanager/slot-memory.js';

t.test('the leaderless clock runs only while etcd can be read', async (t) => {
  const limits = { leaderlessTimeoutMs: 30_000, outageGraceMs: 600_000 };
  const seen = (isHaReadable: boolean, elapsedMs: number) => ({
    leader: 'NONE' as const,
    isHaReadable,
    elapsedMs,
  });
  let state = advanceLeaderless(withLeader, seen(true, 29_000));
  state = advanceLeaderless(state, seen(false, 500_000));
  t.equal(leaderlessExpiry(state, limits), undefined, 'an outage of etcd stops it');
  state = advanceLeaderless(state, seen(true, 1_000));
  t.match(leaderlessExpiry(state, limits), /no leader/);
  state = advanceLeaderless(state, { ...seen(true, 5), leader: 'ACTIVE' });
  t.same(state, withLeader, 'a session resets both clocks');
  state = advanceLeaderless(state, seen(false, 599_999));
  t.equal(leaderlessExpiry(state, limits), undefined);
  t.match(leaderlessExpiry(advanceLeaderless(state, seen(false, 1)), limits), /etcd/);
  t.equal(advanceLeaderless(state, seen(true, 1)).outageMs, 0, 'an answer ends the outage');
});

t.test('a suspended leader that answers is company, but no end of the outage', async (t) => {
  const limits = { leaderlessTimeoutMs: 30_000, outageGraceMs: 600_000 };
  const suspended = (isHaReadable: boolean, elapsedMs: number) => ({
    leader: 'SUSPENDED' as const,
    isHaReadable,
    elapsedMs,
  });
  let state = advanceLeaderless(withLeader, { ...suspended(true, 29_000), leader: 'NONE' });
  state = advanceLeaderless(state, suspended(true, 500_000));
  t.same(state, withLeader, 'whoever answers is no missing leader');
  state = advanceLeaderless(state, suspended(false, 599_999));
  t.equal(leaderlessExpiry(state, limits), undefined);
  t.match(leaderlessExpiry(advanceLeaderless(state, suspended(false, 1)), limits), /etcd/);
  t.same(advanceLeaderless(state, { ...suspended(false, 1), leader: 'ACTIVE' }), withLeader);
});

t.test('the tail of a log is cut by lines, job and stream', async (t) => {
  const directory = await mkdtemp(join(tmpdir(), 'millrace-log-'));
  t.teardown(() => rm(directory, { recursive: true, force: true }));
  const path = join(directory, 'tm.log');
  t.same(await readLogTail(path, { maxLines: 5, stream: 'log' }), [], 'no file yet');
  const line = (n: number): string => {
    const jobId = n % 2 === 0 ? 'even' : 'odd';
    const event = n % 10 === 0 ? 'user.output' : 'x';
    return JSON.stringify({ jobId, event, n, msg: `ö ${n} ${'é'.repeat(400)}` });
  };
  // Several chunks, so that lines and characters span their borders.
  await writeFile(path, Array.from({ length: 2000 }, (_, n) => `${line(n)}\n`).join(''));
  await appendFile(path, '<--- Last few GCs --->\n');
  const all = await readLogTail(path, { maxLines: 10_000, stream: 'log' });
  t.same(all, [...Array.from({ length: 2000 }, (_, n) => line(n)), '<--- Last few GCs --->']);
  const odd = await readLogTail(path, { maxLines: 3, stream: 'log', jobId: 'odd' as JobId });
  t.same(odd, [line(1995), line(1997), line(1999)]);
  const printed = await readLogTail(path, {
    maxLines: 2,
    stream: 'stdout',
    jobId: 'even' as JobId,
  });
  t.same(printed, [`ö 1980 ${'é'.repeat(400)}`, `ö 1990 ${'é'.repeat(400)}`]);
});

t.test('garbage is no reason to fail a slot, what stays after a collection is', async (t) => {
  let now = 0;
  const clock: Clock = { now: () => now, wallTime: () => now, setTimer: () => () => undefined };
  let [live, garbage, collections] = [100, 0, 0];
  const check = createMemoryCheck(clock, 1000, {
    used: () => live + garbage,
    collect: () => {
      collections += 1;
      garbage = 0;
    },
  });
  t.equal(check(), undefined);
  t.equal(collections, 0, 'below the limit nothing is collected');
  live = 900;
  garbage = 200;
  t.equal(check(), undefined);
  t.equal(collections, 1);
  garbage = 200;
  now = 500;
  t.equal(check(), undefined);
  t.equal(collections, 1, 'not again within the pause');
  garbage = 300;
  t.equal(check(), undefined);
  t.equal(collections, 2, 'unless it grew much');
  live = 1001;
  garbage = 0;
  now = 2000;
  t.match(check(), {
    code: 'SLOT_MEMORY',
    message: /limit of 0 MB \(taskmanager\.memory\.slot\.heap\.size\)/,
    details: { limitBytes: 1000, usedBytes: 1001 },
  });
});
