/**
 * Supervised processes on real etcd. The lease is long, so that whatever is noticed before its end was noticed by a
 * supervisor, or by a standby.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { readEvents, type LoggedEvent } from '../../../bin/drills/timeline.js';
import { LocalCluster } from '../../../bin/local/local-cluster.js';
import { isAlive, waitUntilGone } from '../../../bin/local/managed-process.js';
import { EtcdKvStore } from '../../../ha/etcd/etcd-kv-store.js';
import { Keys } from '../../../ha/keys.js';
import { prefixEnd } from '../../../ha/kv-store.js';
import type { TaskManagerId } from '../../../lib/base/ids.js';
import { TestEtcd } from '../../support/etcd.js';
import { testEnv } from '../../support/test-env.js';

t.setTimeout(240_000);

const leaseTtlMs = 12_000;
/** Well before the lease can end, which lasts for 10 s at least after its last renewal. */
const soonMs = 8_000;

class Rig {
  readonly cluster: LocalCluster;
  readonly kv: EtcdKvStore;
  readonly keys: Keys;

  constructor(cluster: LocalCluster, kv: EtcdKvStore) {
    this.cluster = cluster;
    this.kv = kv;
    this.keys = new Keys(cluster.clusterId);
  }

  async leader(): Promise<string> {
    return until('a leader', 30_000, async () => this.cluster.leaderName());
  }

  /** Create revisions of the candidates, the leader's first. */
  async queue(): Promise<number[]> {
    const key = this.keys.candidatesPrefix;
    const { entries } = await this.kv.range({ key, rangeEnd: prefixEnd(key) });
    return entries.map((one) => one.createRevision).sort((a, b) => a - b);
  }

  /** Both JobManagers stand. */
  async bothStand(): Promise<void> {
    await until('two candidates', 60_000, async () => {
      const queue = await this.queue();
      return queue.length === 2 ? queue : undefined;
    });
  }

  /** Inflicts `fault` on the leader; resolves when its candidacy is gone, with how long that took. */
  async loseLeader(
    fault: (leader: string) => unknown,
  ): Promise<{ leader: string; tookMs: number }> {
    await this.bothStand();
    const leader = await this.leader();
    const [revision] = await this.queue();
    const began = Date.now();
    fault(leader);
    await until('the end of its candidacy', 2 * leaseTtlMs, async () =>
      (await this.queue()).includes(revision ?? 0) ? undefined : true,
    );
    return { leader, tookMs: Date.now() - began };
  }

  async event(process: string, name: string, since: number): Promise<LoggedEvent> {
    return until(`${name} of ${process}`, 30_000, () =>
      Promise.resolve(
        readEvents(this.cluster, since).find(
          (one) => one.process === process && one.event === name,
        ),
      ),
    );
  }
}

async function until<T>(
  what: string,
  timeoutMs: number,
  ask: () => Promise<T | undefined>,
): Promise<T> {
  const deadline = Date.now() + timeoutMs;
  for (;;) {
    const answer = await ask();
    if (answer !== undefined) return answer;
    if (Date.now() > deadline) throw new Error(`${what}: not within ${String(timeoutMs)} ms`);
    await sleep(5);
  }
}

async function startRig(
  t: Test,
  options: { readonly supervised: boolean; readonly taskManagers: number; readonly peers: boolean },
): Promise<Rig> {
  const folder = await mkdtemp(join(tmpdir(), 'millrace-supervisor-'));
  const etcd = await TestEtcd.start(t);
  const cluster = await LocalCluster.start({
    folder,
    clusterId: 'supervised',
    jobManagers: 2,
    taskManagers: options.taskManagers,
    slotsPerTaskManager: 1,
    etcd: { endpoints: etcd.endpoints },
    settings: {
      'high-availability.etcd.lease-ttl': `${String(leaseTtlMs)}ms`,
      'high-availability.peer-detection.enabled': String(options.peers),
    },
    supervised: options.supervised,
  });
  const kv = new EtcdKvStore(testEnv(), { endpoints: etcd.endpoints });
  t.teardown(async () => {
    await kv.close();
    // Read again: a test may have started parts of it anew.
    await LocalCluster.open(folder, cluster.clusterId).stop();
    await rm(folder, { recursive: true, force: true, maxRetries: 5 });
  });
  return new Rig(cluster, kv);
}

t.test('under supervisors', async (t) => {
  const rig = await startRig(t, { supervised: true, taskManagers: 1, peers: false });
  const { cluster } = rig;

  await t.test('a killed leader is deposed at once and started again', async (t) => {
    const began = Date.now();
    const before = cluster.process(await rig.leader());
    const { leader, tookMs } = await rig.loseLeader((name) => cluster.signal(name, 'SIGKILL'));
    t.ok(tookMs < soonMs, `its candidacy was gone after ${String(tookMs)} ms`);
    const { fields } = await rig.event(leader, 'supervisor.deposed', began);
    t.equal(fields['deposed'], true);
    const after = await cluster.restart(leader);
    t.not(after.pid, before.pid);
    t.not(await rig.leader(), leader, 'the other one leads');
  });

  await t.test('a leader that hangs is killed first, then deposed', async (t) => {
    const began = Date.now();
    const { leader, tookMs } = await rig.loseLeader((name) => cluster.signal(name, 'SIGSTOP'));
    t.ok(tookMs > 1_500 && tookMs < soonMs, `its candidacy was gone after ${String(tookMs)} ms`);
    const silent = await rig.event(leader, 'supervisor.child-silent', began);
    const deposed = await rig.event(leader, 'supervisor.deposed', began);
    t.ok(silent.at <= deposed.at);
    t.equal(deposed.fields['deposed'], true);
    await cluster.restart(leader);
  });

  await t.test('a TaskManager that dies is out of etcd and back under its name', async (t) => {
    const key = rig.keys.taskManager('taskmanager-1' as TaskManagerId);
    const old = await until('its registration', 30_000, () => rig.kv.get(key));
    const before = cluster.process('taskmanager-1');
    cluster.signal('taskmanager-1', 'SIGKILL');
    await until('the end of its registration', soonMs, async () =>
      (await rig.kv.get(key))?.modRevision === old.modRevision ? undefined : true,
    );
    t.equal(
      (await rig.event('taskmanager-1', 'supervisor.unregistered', 0)).fields['removed'],
      true,
    );
    await until('its registration', 30_000, () => rig.kv.get(key));
    t.not(cluster.process('taskmanager-1').pid, before.pid);
  });

  await t.test(
    'a leader that is asked to stop hands over; its supervisor ends with it',
    async (t) => {
      await rig.bothStand();
      const leader = await rig.leader();
      const supervisor = cluster.supervisorOf(leader)!;
      const { tookMs } = await rig.loseLeader(() => process.kill(supervisor.pid, 'SIGTERM'));
      t.ok(tookMs < soonMs, `its candidacy was gone after ${String(tookMs)} ms`);
      t.ok(await waitUntilGone([supervisor, cluster.process(leader)], 30_000));
      t.not(await rig.leader(), leader);
      await cluster.restart(leader);
      t.not(cluster.supervisorOf(leader)!.pid, supervisor.pid, 'both are started again');
    },
  );

  await t.test(
    'a process whose supervisor died goes on; killed with it, its lease decides',
    async (t) => {
      await rig.bothStand();
      const leader = await rig.leader();
      const began = Date.now();
      const child = cluster.process(leader);
      process.kill(cluster.supervisorOf(leader)!.pid, 'SIGKILL');
      await rig.event(leader, 'supervisor.gone', began);
      t.same([await rig.leader(), isAlive(child)], [leader, true]);
      t.same(await cluster.restart(leader), child, 'it is left alone');
      const { tookMs } = await rig.loseLeader((name) => cluster.signalBoth(name, 'SIGKILL'));
      t.ok(tookMs > 5_000, `nobody deposed it for ${String(tookMs)} ms`);
      const options = { folder: join(cluster.directory, '..'), clusterId: cluster.clusterId };
      const healed = await LocalCluster.start({
        ...options,
        jobManagers: 2,
        taskManagers: 1,
        slotsPerTaskManager: 1,
        etcd: { endpoints: cluster.endpoints },
        settings: {},
      });
      await until('all of it', 30_000, () =>
        Promise.resolve(
          healed.processes().every((one) => one.alive && one.supervisor?.alive === true) ||
            undefined,
        ),
      );
      await healed.stop();
      t.notOk(healed.isRunning());
    },
  );
});

t.test('without supervisors a standby deposes the leader whose connection is gone', async (t) => {
  const rig = await startRig(t, { supervised: false, taskManagers: 0, peers: true });
  const began = Date.now();
  const { leader, tookMs } = await rig.loseLeader((name) => rig.cluster.signal(name, 'SIGKILL'));
  t.ok(tookMs < soonMs, `its candidacy was gone after ${String(tookMs)} ms`);
  const next = await until('the next leader', 30_000, async () => {
    const name = await rig.cluster.leaderName();
    return name === leader ? undefined : name;
  });
  t.match((await rig.event(next, 'peer.deposed', began)).fields, { deposed: true });
});
