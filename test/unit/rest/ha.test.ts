import t from 'tap';
import type { LeaderInfo, StoreMember, TakeoverRecord } from '../../../ha/services.js';
import { MillraceError } from '../../../lib/base/errors.js';
import type { JobManagerId } from '../../../lib/base/ids.js';
import { HaObserver, type HaSource } from '../../../lib/rest/ha-observer.js';
import { haMetrics } from '../../../lib/rest/ha-metrics.js';
import { storeTrouble, toTakeoverView, type HaView } from '../../../lib/rest/ha-view.js';
import { testEnv } from '../../support/test-env.js';

const manager = (n: number) => ({
  jobManagerId: `jm-${String(n)}` as JobManagerId,
  rpcAddress: `h${String(n)}:1`,
  restAddress: `http://h${String(n)}:2`,
});
const epoch = (revision: number) => ({ era: 1, revision });
const leader: LeaderInfo = { ...manager(1), epoch: epoch(7), state: 'ACTIVE', since: 5 };
const takeover: TakeoverRecord = {
  epoch: epoch(7),
  jobManagerId: leader.jobManagerId,
  previous: { epoch: epoch(3), jobManagerId: manager(3).jobManagerId },
  cause: 'peer',
  noticedAt: 1_000,
  electedAt: 1_012,
  recoveredAt: 1_030,
  activeAt: 1_044,
  jobsAdopted: 2,
  jobsRestored: 1,
  jobsFailed: 0,
};
const member = (isHealthy: boolean): StoreMember => ({
  endpoint: 'http://etcd:1',
  isHealthy,
  version: '3.5.13',
  memberId: '1',
  isLeader: isHealthy,
  dbSizeBytes: 1,
  dbSizeInUseBytes: 1,
  latencyMs: 1,
  alarms: [],
  ...(!isHealthy && { error: 'gone' }),
});

interface World {
  etcd: boolean;
  leader: LeaderInfo | undefined;
}

/** A standby's view of a store that can go away. */
function standby(world: World): HaSource {
  return {
    ha: {
      clusterUid: 'uid',
      candidates: () => [
        { ...manager(2), epoch: epoch(9), since: 6 },
        { ...manager(1), epoch: epoch(7), since: 5 },
      ],
      storeHealth: async () => [member(world.etcd)],
      takeovers: async () => {
        if (!world.etcd) throw new MillraceError('ETCD_UNAVAILABLE', 'etcd does not answer');
        return [takeover];
      },
    },
    clusterId: 'test',
    jobManagerId: () => manager(2).jobManagerId,
    leader: () => world.leader,
    own: () => undefined,
  };
}

const never = (): Promise<HaView> => Promise.reject(new Error('it is gone'));

t.test('a standby tells what it knows, and of the lease what the leader says', async (t) => {
  const world: World = { etcd: true, leader };
  const observer = new HaObserver(testEnv(), standby(world));
  const own = { leader, leaseSlackMs: 1_234.5 };
  const atLeader = new HaObserver(testEnv(), { ...standby(world), own: () => own });
  const view = await observer.view(() => atLeader.view());
  t.match(view, {
    state: 'ACTIVE',
    answeredBy: 'jm-2',
    leader: { jobManagerId: 'jm-1', epoch: '1.7', leaseSlackMs: 1_235 },
    standbys: [{ jobManagerId: 'jm-2', epoch: '1.9' }],
    store: { type: 'etcd', healthy: true },
    stale: null,
  });
  t.strictSame(view.takeovers[0]?.phases, {
    elected: 12,
    recovered: 30,
    active: 44,
    settled: null,
  });
  t.equal((await observer.view(never)).leader?.leaseSlackMs, undefined, 'it does not answer');
});

t.test('the leader knows first that it is suspended', async (t) => {
  const suspended: LeaderInfo = { ...leader, state: 'SUSPENDED' };
  const world: World = { etcd: false, leader };
  const own = { leader: suspended, leaseSlackMs: -400 };
  const atLeader = new HaObserver(testEnv(), { ...standby(world), own: () => own });
  t.match(await atLeader.view(never), { state: 'SUSPENDED', leader: { leaseSlackMs: -400 } });
  const observer = new HaObserver(testEnv(), standby(world));
  t.equal((await observer.view(() => atLeader.view())).state, 'SUSPENDED', 'a standby believes it');
});

t.test(
  'without etcd and without a leader it answers with what was known, and says so',
  async (t) => {
    const world: World = { etcd: true, leader };
    const observer = new HaObserver(testEnv(), standby(world));
    const before = await observer.view(never);
    world.etcd = false;
    world.leader = undefined;
    const view = await observer.view(never);
    t.match(view, {
      state: 'NONE',
      leader: null,
      stale: { reason: /etcd has no healthy majority/ },
    });
    const since = view.stale?.since ?? 0;
    t.ok(since > before.now - 1_000 && since <= before.now, 'since when');
    t.strictSame(view.takeovers, before.takeovers);
    t.equal(view.standbys.length, 2, 'every candidate stands by');
  },
);

t.test('one of three members may fail without trouble', async (t) => {
  t.equal(storeTrouble([member(true), member(true), member(false)]), undefined);
  t.match(storeTrouble([member(true), member(false), member(false)]), /2 of 3 .*gone/);
  t.equal(storeTrouble([]), undefined, 'in memory there is nothing to fail');
});

t.test('metrics of a takeover belong to the leadership that made it', async (t) => {
  const names = (record: TakeoverRecord | undefined): string[] =>
    haMetrics({ leader, leaseSlackMs: 1 }, record).map(({ name }) => name);
  t.ok(names(takeover).includes('takeoverJobsAdopted'));
  t.notOk(names(takeover).includes('takeoverSettledMs'), 'not before it is settled');
  t.ok(names({ ...takeover, settledAt: 1_100 }).includes('takeoverSettledMs'));
  t.notOk(names({ ...takeover, epoch: epoch(6) }).includes('takeoverActiveMs'));
  t.strictSame(
    haMetrics(undefined, takeover).map(({ name, value }) => [name, value]),
    [['leadershipState', 0]],
  );
});

t.test('of a first leader phases count from its election', async (t) => {
  const { noticedAt: _, previous: __, ...first } = takeover;
  t.match(toTakeoverView({ ...first, cause: 'first' }), {
    previous: null,
    noticedAt: 1_012,
    phases: { elected: 0, active: 32 },
  });
});
