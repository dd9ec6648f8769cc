/** The drills, in the order they are run. One library for the command line, the tests and the benchmarks. */
import { existsSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { MillraceError } from '../../lib/base/errors.js';
import { etcdMemberStatus } from '../local/etcd-member.js';
import { isAlive, waitUntilGone } from '../local/managed-process.js';
import type { LocalCluster } from '../local/local-cluster.js';
import type { Drill, DrillContext, DrillFindings } from './drill.js';
import { readWriteHistory } from './read-write-history.js';
import { readEvents, readTakeover } from './timeline.js';
import { checkpointIdOf } from './write-history.js';

/** Lease of a local cluster's leader. */
const leaseTtlMs = 3000;

async function leaderOf(cluster: LocalCluster): Promise<string> {
  const deadline = Date.now() + 15_000;
  for (;;) {
    const name = await cluster.leaderName();
    if (name !== undefined) return name;
    if (Date.now() > deadline)
      throw new MillraceError('NO_LEADER', 'no JobManager leads after 15 s');
    await sleep(20);
  }
}

/** Kills the leader and waits until all tasks run under the next one. */
export async function killLeader({ cluster, run, progress }: DrillContext): Promise<DrillFindings> {
  const { generation } = await run.details();
  const leader = await leaderOf(cluster);
  const deathAt = Date.now();
  cluster.signal(leader, 'SIGKILL');
  progress(`${leader} killed`);
  const job = await run.waitUntilRunning(generation);
  const takeover = readTakeover(cluster, deathAt, run.jobId);
  progress(`${takeover.newLeader ?? '?'} leads, all tasks run`);
  return {
    killed: leader,
    ...present('noticedMs', takeover.noticed),
    ...present('electedMs', takeover.elected),
    ...present('recoveredMs', takeover.recovered),
    ...present('runningMs', takeover.running),
    ...present('restoredCheckpoint', takeover.restoredCheckpoint),
    generation: job.generation,
  };
}

function present(name: string, value: number | undefined): Record<string, number> {
  return value === undefined ? {} : { [name]: value };
}

async function pauseLeader({ cluster, run, progress }: DrillContext): Promise<DrillFindings> {
  const { generation } = await run.details();
  const leader = await leaderOf(cluster);
  const pausedAt = Date.now();
  cluster.signal(leader, 'SIGSTOP');
  progress(`${leader} stopped (SIGSTOP)`);
  // The stopped process still accepts connections, so the others are asked.
  await waitForEvent(cluster, pausedAt, 'leader.granted', leaseTtlMs + 10_000);
  await run.waitUntilRunning(generation);
  const wokenAt = Date.now();
  const old = cluster.process(leader);
  cluster.signal(leader, 'SIGCONT');
  progress(`${leader} goes on (SIGCONT), deposed`);
  if (!(await waitUntilGone([old], 10_000)))
    throw new MillraceError('INVARIANT', `${leader} still runs 10 s after it was deposed`);
  const noticed = readEvents(cluster, wokenAt).find(
    (one) => one.process === leader && one.event === 'leader.revoked',
  );
  if (noticed === undefined)
    throw new MillraceError(
      'INVARIANT',
      `${leader} ended without saying that its leadership was revoked`,
    );
  cluster.restart(leader);
  const takeover = readTakeover(cluster, pausedAt, run.jobId);
  return {
    paused: leader,
    ...present('electedMs', takeover.elected),
    ...present('runningMs', takeover.running),
    deposedNoticedMs: noticed.at - wokenAt,
  };
}

async function waitForEvent(
  cluster: LocalCluster,
  since: number,
  event: string,
  timeoutMs: number,
): Promise<void> {
  const deadline = Date.now() + timeoutMs;
  while (!readEvents(cluster, since).some((one) => one.event === event)) {
    if (Date.now() > deadline)
      throw new MillraceError('TIMEOUT', `no event ${event} within ${String(timeoutMs)} ms`);
    await sleep(20);
  }
}

async function killTaskManager({ cluster, run, progress }: DrillContext): Promise<DrillFindings> {
  const { generation, vertices } = await run.details();
  const used = vertices.flatMap((vertex) =>
    vertex.subtasks.map((subtask) => subtask['taskmanager-id']),
  );
  const victim = cluster
    .processes()
    .find((one) => one.role === 'taskmanager' && used.includes(one.name))?.name;
  if (victim === undefined)
    throw new MillraceError('INVARIANT', 'no TaskManager runs a task of the job');
  const deathAt = Date.now();
  cluster.signal(victim, 'SIGKILL');
  progress(`${victim} killed`);
  const job = await run.waitUntilRunning(generation);
  const running = readEvents(cluster, deathAt).find(
    (one) => one.event === 'job.running' && one.fields['jobId'] === run.jobId,
  );
  cluster.restart(victim);
  return {
    killed: victim,
    ...present('runningMs', running === undefined ? undefined : running.at - deathAt),
    generation: job.generation,
  };
}

async function killEtcdLeader({ cluster, run, progress }: DrillContext): Promise<DrillFindings> {
  const { generation } = await run.details();
  const before = (await run.checkpoints()).counts.completed;
  const leader = await leaderOf(cluster);
  const victim = await etcdLeaderName(cluster);
  const deathAt = Date.now();
  cluster.signal(victim, 'SIGKILL');
  progress(`${victim}, etcd's leader, killed`);
  await run.waitFor(
    'three checkpoints without that etcd member',
    30_000,
    async () => (await run.checkpoints()).counts.completed >= before + 3,
  );
  const checkpointMs = Date.now() - deathAt;
  cluster.restart(victim);
  const after = await run.details();
  if (after.generation !== generation)
    throw new MillraceError('INVARIANT', 'tasks were restarted although only an etcd member died');
  if ((await leaderOf(cluster)) !== leader)
    throw new MillraceError('INVARIANT', 'leadership changed although only an etcd member died');
  return { killed: victim, checkpointsGoOnMs: checkpointMs, generation: after.generation };
}

async function etcdLeaderName(cluster: LocalCluster): Promise<string> {
  const members = cluster.processes().filter((one) => one.role === 'etcd' && one.alive);
  for (const [i, endpoint] of cluster.endpoints.entries()) {
    const status = await etcdMemberStatus(endpoint);
    if (status.memberId === status.leaderId) return `etcd-${String(i + 1)}`;
  }
  throw new MillraceError(
    'ETCD_UNAVAILABLE',
    `none of ${members.map((one) => one.name).join(', ')} leads`,
  );
}

async function killEverything({ cluster, run, progress }: DrillContext): Promise<DrillFindings> {
  const { generation } = await run.details();
  const all = cluster.processes().filter((one) => one.alive);
  const deathAt = Date.now();
  for (const one of all) cluster.signal(one.name, 'SIGKILL');
  await waitUntilGone(all, 10_000);
  progress(`all ${String(all.length)} processes killed`);
  for (const one of all) cluster.restart(one.name);
  await cluster.waitReady(30_000);
  const job = await run.waitUntilRunning(-1);
  const restored = (await run.checkpoints()).latest.restored;
  if (restored === undefined)
    throw new MillraceError('INVARIANT', 'the job did not restore a checkpoint');
  return {
    processes: all.length,
    runningMs: Date.now() - deathAt,
    restoredCheckpoint: restored.id,
    generation: Math.max(job.generation, generation),
  };
}

/** Fires once per cluster: the marker file keeps the next leader from dying the same way. */
function crashOnce(
  fault: string,
  occurrence: number,
): (directory: string) => Record<string, string> {
  return (directory) => ({
    MILLRACE_INTERNAL_FAULT: `${fault}@${String(occurrence)}@${join(directory, 'fault-fired')}`,
  });
}

/** Waits for the death at a fault point and for the next leader. */
async function afterFault(
  { cluster, run, progress }: DrillContext,
  what: string,
): Promise<{ deathAt: number; killed: string }> {
  const marker = join(cluster.directory, 'fault-fired');
  const leaders = cluster.processes().filter((one) => one.role === 'jobmanager');
  const deadline = Date.now() + 60_000;
  while (!existsSync(marker) || leaders.every(isAlive)) {
    if (Date.now() > deadline)
      throw new MillraceError('TIMEOUT', `no leader died within 60 s: ${what}`);
    await sleep(20);
  }
  const deathAt = statSync(marker).mtimeMs;
  progress(`the leader died: ${what}`);
  await waitForEvent(cluster, deathAt - 100, 'leader.active', leaseTtlMs + 10_000);
  const dead = leaders.filter((one) => !isAlive(one)).map((one) => one.name);
  const { state } = await run.details();
  progress(`the next leader knows the job as ${state}`);
  return { deathAt, killed: dead.join(' ') };
}

async function killBetweenFilesAndPointer(context: DrillContext): Promise<DrillFindings> {
  const { cluster, run } = context;
  const { deathAt, killed } = await afterFault(
    context,
    'the files of a checkpoint were durable, its pointer was not in etcd',
  );
  const job = await run.waitUntilRunning();
  const takeover = readTakeover(cluster, deathAt - 100, run.jobId);
  return {
    killed,
    ...present('electedMs', takeover.elected),
    ...present('runningMs', takeover.running),
    ...present('restoredCheckpoint', takeover.restoredCheckpoint),
    generation: job.generation,
  };
}

async function killBetweenPointerAndNotice(context: DrillContext): Promise<DrillFindings> {
  const { cluster, run } = context;
  const { deathAt, killed } = await afterFault(
    context,
    'the pointer of a checkpoint was in etcd, no task had been told',
  );
  await run.waitUntilRunning();
  const { restoredCheckpoint } = readTakeover(cluster, deathAt - 100, run.jobId);
  const pointers = (await readWriteHistory(cluster)).flatMap(({ key, epochRevision }) => {
    const id = checkpointIdOf(key, run.jobId);
    return id === undefined ? [] : [{ id, epochRevision }];
  });
  const ofTheDead = pointers.filter(
    ({ epochRevision }) => epochRevision === pointers[0]?.epochRevision,
  );
  const added = Math.max(...ofTheDead.map(({ id }) => id));
  if (restoredCheckpoint !== added)
    throw new MillraceError(
      'INVARIANT',
      `checkpoint ${String(restoredCheckpoint)} was restored, the last pointer in etcd was of ${String(added)}`,
    );
  return { killed, restoredCheckpoint };
}

async function killBeforeResult(context: DrillContext): Promise<DrillFindings> {
  const { cluster, run } = context;
  const { deathAt, killed } = await afterFault(
    context,
    'all tasks were FINISHED, the result was not in etcd',
  );
  const { restoredCheckpoint } = readTakeover(cluster, deathAt - 100, run.jobId);
  return { killed, ...present('restoredCheckpoint', restoredCheckpoint) };
}

/** The death came while the job was submitted: the client has asked again meanwhile, and was answered. */
async function killBeforeSubmitAnswer(context: DrillContext): Promise<DrillFindings> {
  const { killed } = await afterFault(context, 'the job was in etcd, the client had no answer');
  const jobs = await context.run.client.jobs();
  if (jobs.length !== 1)
    throw new MillraceError('INVARIANT', `one job was submitted, there are ${String(jobs.length)}`);
  return { killed, jobs: jobs.length };
}

export const drills: readonly Drill[] = [
  {
    name: 'leader-kill',
    fault: 'SIGKILL of the leading JobManager',
    mustHold: 'a standby leads and all tasks run again within the lease TTL + 1.5 s',
    inject: killLeader,
  },
  {
    name: 'leader-pause',
    fault: 'SIGSTOP of the leader beyond its lease, then SIGCONT',
    mustHold: 'its late writes are refused, it notices and ends; epochs in etcd never go back',
    rate: 400,
    inject: pauseLeader,
  },
  {
    name: 'taskmanager-kill',
    fault: 'SIGKILL of a TaskManager that runs tasks',
    mustHold: 'the tasks run again elsewhere, from the last checkpoint',
    inject: killTaskManager,
  },
  {
    name: 'etcd-leader-kill',
    fault: "SIGKILL of etcd's leader",
    mustHold: 'no task restarts, leadership stays, checkpoints go on',
    inject: killEtcdLeader,
  },
  {
    name: 'cluster-kill',
    fault: 'SIGKILL of every process, etcd included, then all started again',
    mustHold: 'the job restores its last completed checkpoint',
    inject: killEverything,
  },
  {
    name: 'checkpoint-crash',
    fault: 'the leader dies between the files of a checkpoint and its pointer in etcd',
    mustHold: 'the checkpoint before it is restored, and nothing is lost or doubled',
    environment: crashOnce('checkpoint.files-written', 4),
    inject: killBetweenFilesAndPointer,
  },
  {
    name: 'pointer-crash',
    fault: 'the leader dies when the pointer of a checkpoint is in etcd and no task has been told',
    mustHold: 'that checkpoint is restored and what belongs to it committed once',
    environment: crashOnce('checkpoint.pointer-added', 4),
    inject: killBetweenPointerAndNotice,
  },
  {
    name: 'result-crash',
    fault: 'the leader dies when all tasks are FINISHED and the result is not in etcd',
    mustHold: 'the job ends FINISHED under the next leader, its output unchanged',
    environment: crashOnce('job.finished', 1),
    inject: killBeforeResult,
  },
  {
    name: 'submit-crash',
    fault: 'the leader dies when a job is in etcd and its client has no answer',
    mustHold: 'the client asks again and there is one job',
    environment: crashOnce('job.submitted', 1),
    inject: killBeforeSubmitAnswer,
  },
];
