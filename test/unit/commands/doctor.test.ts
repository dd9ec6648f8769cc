import t from 'tap';
import type { StoreMember } from '../../../ha/services.js';
import { judgeSteps } from '../../../bin/doctor/etcd-checks.js';
import {
  judgeClock,
  judgeLatency,
  judgeLease,
  judgeMemberCount,
  judgeMembers,
  judgeVersion,
} from '../../../bin/doctor/etcd-verdicts.js';
import { percentile } from '../../../bin/percentile.js';
import {
  judgeCores,
  judgeMemory,
  judgeNode,
  judgeOpenFiles,
  judgeSpace,
} from '../../../bin/doctor/machine-checks.js';

const gib = 1024 ** 3;

const member = (over: Partial<StoreMember> = {}): StoreMember => ({
  endpoint: 'http://a:1',
  isHealthy: true,
  version: '3.5.13',
  memberId: '1',
  isLeader: true,
  dbSizeBytes: 1024,
  dbSizeInUseBytes: 512,
  latencyMs: 1,
  alarms: [],
  ...over,
});

t.test('versions of etcd with faults that touch a cluster are told', async (t) => {
  for (const [version, level] of [
    ['3.3.27', 'problem'],
    ['3.4.23', 'warning'],
    ['3.4.31', 'ok'],
    ['3.5.2', 'problem'],
    ['3.5.12', 'warning'],
    ['3.5.13', 'ok'],
    ['3.6.0', 'ok'],
    ['4.0.0', 'ok'],
    ['main', 'warning'],
  ] as const) {
    t.equal(judgeVersion(version).level, level, version);
  }
});

t.test('members: how many, whose, in which state', async (t) => {
  t.equal(judgeMemberCount(3).level, 'ok');
  t.match(judgeMemberCount(5).message, /2 may fail/);
  t.equal(judgeMemberCount(1).level, 'warning');
  t.match(judgeMemberCount(4), { level: 'warning', advice: 'run 3 or 5 members' });
  const two = [member(), member({ endpoint: 'http://b:1', memberId: '2', isLeader: false })];
  t.ok(judgeMembers(two).every(({ level }) => level === 'ok'));
  const has = (members: StoreMember[], level: string, message: RegExp, quota?: number): void => {
    const found = judgeMembers(members, quota).filter((one) => message.test(one.message));
    t.equal(found[0]?.level, level, String(message));
    t.ok(level === 'ok' || (found[0]?.advice ?? '') !== '', 'it says what to do');
  };
  has([member(), member({ endpoint: 'http://b:1', memberId: '2' })], 'problem', /both call/);
  has([member(), member({ isLeader: false })], 'warning', /same member/);
  has(
    [member(), member({ memberId: '2', isLeader: false, version: '3.6.1' })],
    'warning',
    /different versions: .*3\.6\.1/,
  );
  has([member({ isHealthy: false, alarms: ['NOSPACE'] })], 'problem', /no space/);
  has([member({ isHealthy: false, alarms: ['CORRUPT'] })], 'problem', /CORRUPT/);
  has([member({ isHealthy: false, version: '', error: 'refused' })], 'problem', /refused/);
  has([member({ dbSizeBytes: 1.3 * gib })], 'warning', /60 % of a quota of 2 GiB/);
  has([member({ dbSizeBytes: 1.3 * gib })], 'ok', /database/, 8 * gib);
});

t.test('the lease etcd grants tells its election timeout', async (t) => {
  const figures = { askedMs: 3_000, grantedMs: 3_000, shortestMs: 1_000, tryTimeoutMs: 400 };
  const levels = (over: object): string[] =>
    judgeLease({ ...figures, electionTimeoutMs: 500, ...over }).map(({ level }) => level);
  t.strictSame(levels({}), ['ok']);
  t.strictSame(levels({ grantedMs: 5_000, shortestMs: 5_000 }), ['warning', 'problem']);
  t.strictSame(levels({ shortestMs: 2_000 }), ['ok', 'problem'], 'etcd at 1 s, configured 500 ms');
  t.strictSame(
    levels({ shortestMs: 2_000, electionTimeoutMs: 1_000, askedMs: 5_000, grantedMs: 5_000 }),
    ['ok'],
  );
  t.strictSame(levels({ askedMs: 2_000, grantedMs: 2_000 }), ['problem'], 'shorter than tries');
});

t.test('latency, clocks and steps', async (t) => {
  const latency = (p99: number): string =>
    judgeLatency({ p50: 1, p99 }, 'guarded writes', '').level;
  t.strictSame([latency(20), latency(150), latency(500)], ['ok', 'warning', 'problem']);
  t.equal(judgeClock(1_900, 600, 'x').level, 'ok');
  t.equal(judgeClock(-3_000, 600, 'x').level, 'warning');
  t.equal(judgeSteps(1_000, 1_050).level, 'ok');
  t.equal(judgeSteps(3_601_000, 1_000).level, 'warning');
  t.equal(percentile([3, 1, 2], 0.5), 2);
  t.equal(percentile([3, 1, 2], 0.99), 3);
});

t.test('the machine', async (t) => {
  t.strictSame(
    ['18.20.0', '20.18.3', '20.19.0', '21.1.0', '22.0.0'].map((v) => judgeNode(v).level),
    ['problem', 'problem', 'ok', 'warning', 'ok'],
  );
  t.equal(judgeOpenFiles(1_024).level, 'warning');
  t.equal(judgeOpenFiles(Infinity).level, 'ok');
  t.equal(judgeOpenFiles(undefined).level, 'unknown');
  t.equal(judgeMemory(0.5 * gib, 16 * gib, gib).level, 'warning', 'the group of processes counts');
  t.equal(judgeMemory(0, 16 * gib, gib).level, 'ok');
  t.equal(judgeCores(1).level, 'warning');
  t.equal(judgeSpace('storage', '/x', 1024 ** 2, gib)[0]?.level, 'problem');
  t.equal(judgeSpace('storage', '/x', 2 * gib, 100 * gib)[0]?.level, 'warning');
  t.equal(judgeSpace('storage', '/x', 50 * gib, 1_000 * gib)[0]?.level, 'ok');
});
