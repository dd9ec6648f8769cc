/** The faults whose cost is measured, and what each is to cost at most. */
import { setTimeout as sleep } from 'node:timers/promises';
import { etcdLeaderName, leaderOf, leaseTtlMs } from '../../bin/drills/observe.js';
import { waitUntilGone } from '../../bin/local/managed-process.js';
import { MillraceError } from '../../lib/base/errors.js';
import type { BenchClusterOptions } from '../support.js';
import type { Load, Rig } from './rig.js';

export type Statistic = 'p50' | 'p99' | 'worst';

export interface Figure {
  readonly name: string;
  readonly unit: 'ms' | '';
  /** Reached when the statistic is below; where it is 0, when it is 0. */
  readonly targets: readonly { readonly of: Statistic; readonly below: number }[];
}

export interface FailoverCase {
  readonly name: string;
  readonly title: string;
  readonly rounds: number;
  readonly cluster: BenchClusterOptions;
  readonly load: Load;
  readonly figures: readonly Figure[];
  /** One fault and its end; values of the figures by name, but for the output gap. */
  readonly round: (rig: Rig, index: number) => Promise<RoundOutcome>;
}

export interface RoundOutcome {
  readonly values: Readonly<Record<string, number>>;
  /** In which the longest gap of the output is looked for, wall-clock ms. */
  readonly window: { readonly from: number; readonly to: number };
}

/** After the last event of a round: what is disturbed later shows. */
const afterMs = 500;
export const gapName = 'output gap at the sink';
const active = 'death -> ACTIVE';
const running = 'death -> all tasks running';
const changed = 'attempts changed';
const failovers = 'failovers';
const longestWithout = 'longest time without a checkpoint';

const small: Load = {
  jobs: 1,
  parallelism: 2,
  recordsPerSecond: 2000,
  keys: 1000,
  bytesPerKey: 100,
  checkpointIntervalMs: 500,
  bufferTimeoutMs: 5,
};
/** 10,000 keys with 1,000 characters each. */
const tenMegabytes: Load = {
  ...small,
  keys: 10_000,
  bytesPerKey: 1000,
  checkpointIntervalMs: 1000,
};
const many: Load = {
  ...small,
  jobs: 50,
  parallelism: 1,
  recordsPerSecond: 10,
  keys: 10,
  // Fifty times as many timers and checkpoints as one job has, on the same machine.
  checkpointIntervalMs: 10_000,
  bufferTimeoutMs: 100,
};

function ms(name: string, ...targets: Figure['targets']): Figure {
  return { name, unit: 'ms', targets };
}

function none(name: string): Figure {
  return { name, unit: '', targets: [{ of: 'worst', below: 0 }] };
}

type Victims = (leader: string, rig: Rig) => void;

const leaderAlone: Victims = (leader, rig) => {
  rig.kill(leader);
};

const withSupervisor: Victims = (leader, rig) => {
  rig.killWithSupervisor(leader);
};

/** `back`: the events that say that a job is there again. */
function killLeader(victims: Victims, back: readonly string[]): FailoverCase['round'] {
  return async (rig) => {
    const before = await rig.attempts();
    const leader = await leaderOf(rig.cluster);
    const deathAt = Date.now();
    victims(leader, rig);
    const isActive = await rig.event('leader.active', deathAt);
    const backAt = await rig.allJobs(back, deathAt);
    await sleep(afterMs);
    const to = Date.now();
    return {
      values: {
        [active]: isActive.at - deathAt,
        [running]: backAt - deathAt,
        [changed]: await rig.changedSince(before),
      },
      window: { from: deathAt, to },
    };
  };
}

async function killTaskManager(rig: Rig): Promise<RoundOutcome> {
  const [jobId] = rig.jobIds;
  if (jobId === undefined) throw new MillraceError('INVARIANT', 'no job runs');
  const { vertices } = await rig.client.job(jobId);
  const victim = vertices[0]?.subtasks[0]?.['taskmanager-id'] ?? '';
  const deathAt = Date.now();
  rig.kill(victim);
  const backAt = await rig.allJobs(['job.running'], deathAt);
  await sleep(afterMs);
  const to = Date.now();
  return { values: { [running]: backAt - deathAt }, window: { from: deathAt, to } };
}

/** A fault of etcd that the cluster is not to notice much of. */
function disturbEtcd(fault: (rig: Rig, index: number) => Promise<void>): FailoverCase['round'] {
  return async (rig, index) => {
    const before = await rig.attempts();
    const from = Date.now();
    let isOver = false;
    const pause = rig.longestWithoutCheckpoint(() => isOver);
    try {
      await fault(rig, index);
      await rig.etcdHealthy();
      await sleep(afterMs);
      // One that began when all was well again.
      await rig.nextCheckpoints();
    } finally {
      isOver = true;
    }
    return {
      values: {
        [failovers]: rig.events(from).filter((one) => one.event === 'leader.granted').length,
        [changed]: await rig.changedSince(before),
        [longestWithout]: await pause,
      },
      window: { from, to: Date.now() },
    };
  };
}

async function killEtcdLeader(rig: Rig): Promise<void> {
  const victim = await etcdLeaderName(rig.cluster);
  rig.cluster.signal(victim, 'SIGKILL');
  await sleep(4000);
  await rig.cluster.restart(victim);
}

async function pauseEtcdFollower(rig: Rig, index: number): Promise<void> {
  const leader = await etcdLeaderName(rig.cluster);
  const followers = etcdMembers(rig).filter((name) => name !== leader);
  const victim = followers[index % followers.length] ?? '';
  rig.cluster.signal(victim, 'SIGSTOP');
  try {
    await sleep(20_000);
  } finally {
    rig.cluster.signal(victim, 'SIGCONT');
  }
}

async function restartEtcdInTurn(rig: Rig): Promise<void> {
  for (const name of etcdMembers(rig)) {
    const member = rig.cluster.process(name);
    rig.cluster.signal(name, 'SIGTERM');
    if (!(await waitUntilGone([member], 15_000)))
      throw new MillraceError('TIMEOUT', `${name} did not end within 15 s`);
    await rig.cluster.restart(name);
    await rig.etcdHealthy();
    await sleep(1000);
  }
}

function etcdMembers({ cluster }: Rig): string[] {
  return cluster
    .processes()
    .filter(({ role }) => role === 'etcd')
    .map(({ name }) => name);
}

const undisturbed = [none(failovers), none(changed), ms(longestWithout), ms(gapName)];
const restoring = { settings: { 'high-availability.job-recovery': 'restore' } };

export const cases: readonly FailoverCase[] = [
  {
    name: 'leader-adopt',
    title: 'SIGKILL of the leader, running tasks adopted',
    rounds: 30,
    cluster: {},
    load: small,
    figures: [
      ms(active, { of: 'p50', below: 100 }, { of: 'worst', below: 500 }),
      ms(gapName, { of: 'worst', below: 500 }),
      none(changed),
      ms('death -> job adopted'),
    ],
    round: renamed(
      killLeader(leaderAlone, ['job.adopted', 'job.running']),
      running,
      'death -> job adopted',
    ),
  },
  {
    name: 'leader-restore',
    title: 'SIGKILL of the leader, job restored, 10 MB of keyed state',
    rounds: 30,
    cluster: restoring,
    load: tenMegabytes,
    figures: [
      ms(running, { of: 'p50', below: 600 }, { of: 'worst', below: 2000 }),
      ms(active),
      ms(gapName),
    ],
    round: killLeader(leaderAlone, ['job.running']),
  },
  {
    name: 'leader-and-supervisor',
    title: `leader and its supervisor killed together, lease TTL ${String(leaseTtlMs / 1000)} s`,
    rounds: 20,
    cluster: { settings: { 'high-availability.peer-detection.enabled': 'false' } },
    load: small,
    figures: [ms(active, { of: 'worst', below: leaseTtlMs + 1000 }), ms(gapName), none(changed)],
    round: killLeader(withSupervisor, ['job.adopted', 'job.running']),
  },
  {
    name: 'taskmanager',
    title: 'SIGKILL of a TaskManager, spare slots, 10 MB of keyed state',
    rounds: 30,
    cluster: { taskManagers: 3 },
    load: tenMegabytes,
    figures: [ms(running, { of: 'p50', below: 700 }), ms(gapName)],
    round: killTaskManager,
  },
  {
    name: 'etcd-leader',
    title: "SIGKILL of etcd's leader, started again after 4 s",
    rounds: 5,
    cluster: {},
    load: small,
    figures: undisturbed,
    round: disturbEtcd(killEtcdLeader),
  },
  {
    name: 'etcd-follower',
    title: 'an etcd follower stopped (SIGSTOP) for 20 s',
    rounds: 5,
    cluster: {},
    load: small,
    figures: undisturbed,
    round: disturbEtcd(pauseEtcdFollower),
  },
  {
    name: 'etcd-rolling',
    title: 'all etcd members restarted in turn',
    rounds: 5,
    cluster: {},
    load: small,
    figures: undisturbed,
    round: disturbEtcd(restartEtcdInTurn),
  },
  {
    name: 'fifty-jobs',
    title: 'SIGKILL of the leader of 50 jobs, all adopted',
    rounds: 5,
    cluster: { taskManagers: 3, slots: 17 },
    load: many,
    figures: [
      ms('death -> all jobs adopted', { of: 'worst', below: 2000 }),
      ms(active),
      none(changed),
    ],
    round: renamed(
      killLeader(leaderAlone, ['job.adopted', 'job.running']),
      running,
      'death -> all jobs adopted',
    ),
  },
];

function renamed(round: FailoverCase['round'], from: string, to: string): FailoverCase['round'] {
  return async (rig, index) => {
    const { values, window } = await round(rig, index);
    const { [from]: value = NaN, ...others } = values;
    return { values: { ...others, [to]: value }, window };
  };
}
