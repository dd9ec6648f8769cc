/** Drills of jobs: the leader dies at a step of a submission, a checkpoint, an end, a cancellation; jobs that cannot be recovered. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { FaultPoint } from '../../lib/base/env.js';
import { MillraceError } from '../../lib/base/errors.js';
import type { JobId } from '../../lib/base/ids.js';
import { AccessLogRun } from './access-log-run.js';
import { storedFiles } from './aftermath.js';
import { arm, crashable, deathAt } from './crash-points.js';
import { damageDrill } from './damage-drill.js';
import type { Drill, DrillContext, DrillFindings } from './drill.js';
import { keysOf, readKeys } from './etcd-keys.js';
import { lookBefore, waitForEvent } from './observe.js';
import { statusDrill } from './status-drill.js';
import { mustAdopt, everybodyBack } from './takeovers.js';
import { readEvents } from './timeline.js';
import { checkpointIdOf } from './write-history.js';

/** The checkpoint with the newest pointer in etcd; 0 when there is none. */
async function newestPointer({ cluster, run }: DrillContext): Promise<number> {
  const pointers = await readKeys(cluster, keysOf(cluster).checkpointsPrefix(run.jobId));
  return Math.max(0, ...pointers.map(({ key }) => checkpointIdOf(key, run.jobId) ?? 0));
}

async function killBetweenFilesAndPointer(context: DrillContext): Promise<DrillFindings> {
  const { cluster } = context;
  const before = await lookBefore(context);
  arm(cluster, 'checkpoint.files-written');
  const { at, process } = await deathAt(
    context,
    'checkpoint.files-written',
    'the files of a checkpoint were durable, its pointer was not in etcd',
  );
  const completed = await newestPointer(context);
  const { activeMs, adoptedMs } = await mustAdopt(context, before, at);
  return { killed: process, activeMs, adoptedMs, completedBefore: completed };
}

async function killBetweenPointerAndNotice(context: DrillContext): Promise<DrillFindings> {
  const { cluster, run } = context;
  const before = await lookBefore(context);
  arm(cluster, 'checkpoint.pointer-added');
  const { at, process } = await deathAt(
    context,
    'checkpoint.pointer-added',
    'the pointer of a checkpoint was in etcd, no task had been told',
  );
  const added = await newestPointer(context);
  const { activeMs, adoptedMs } = await mustAdopt(context, before, at);
  const { latest } = await run.checkpoints();
  if ((latest.completed?.id ?? 0) <= added)
    throw new MillraceError(
      'INVARIANT',
      `checkpoint ${String(latest.completed?.id)} completed after ${String(added)}`,
    );
  return { killed: process, activeMs, adoptedMs, completedBefore: added };
}

async function killBeforeResult(context: DrillContext): Promise<DrillFindings> {
  const { cluster, run } = context;
  arm(cluster, 'job.finished');
  const { at, process } = await deathAt(
    context,
    'job.finished',
    'all tasks were FINISHED, the result was not in etcd',
    60_000,
  );
  const ended = await waitForEvent(cluster, at, ofJob('job.ended', run.jobId), 30_000);
  return { killed: process, endedMs: ended.at - at };
}

/** Nothing of a FINISHED job is left, in storage or etcd, but its result. */
async function mustBeCleanedUp(context: DrillContext, since: number): Promise<number> {
  const { cluster, run } = context;
  const deadline = Date.now() + 20_000;
  for (;;) {
    const files = storedFiles(cluster, run.jobId);
    const keys = await readKeys(cluster, keysOf(cluster).jobPrefix(run.jobId));
    if (files.length === 0 && keys.length === 0) return Date.now() - since;
    if (Date.now() > deadline)
      throw new MillraceError(
        'INVARIANT',
        `left of the job after its end: ${[...files, ...keys.map(({ key }) => key)].slice(0, 5).join(', ')}`,
      );
    await sleep(50);
  }
}

async function killBeforeCleanUp(context: DrillContext): Promise<DrillFindings> {
  const { cluster, run } = context;
  arm(cluster, 'job.result-written');
  const { at, process } = await deathAt(
    context,
    'job.result-written',
    "the job's result was in etcd, nothing of the job was deleted",
    60_000,
  );
  await waitForEvent(cluster, at, 'leader.active', 15_000);
  const cleanMs = await mustBeCleanedUp(context, at);
  mustNotRunAgain(context, run.jobId, at);
  return { killed: process, cleanMs };
}

function ofJob(
  event: string,
  jobId: JobId,
): (one: { event: string; fields: Readonly<Record<string, unknown>> }) => boolean {
  return (one) => one.event === event && one.fields['jobId'] === jobId;
}

/** A job with a result never runs again. */
function mustNotRunAgain({ cluster }: DrillContext, jobId: JobId, since: number): void {
  const again = readEvents(cluster, since).find(
    (one) => ofJob('job.running', jobId)(one) || ofJob('checkpoint.restored', jobId)(one),
  );
  if (again !== undefined)
    throw new MillraceError(
      'INVARIANT',
      `job ${jobId} ended, and ${again.process} said ${again.event} afterwards`,
    );
}

/** The death came while the job was submitted: the client has asked again meanwhile, and was answered. */
async function killBeforeSubmitAnswer(context: DrillContext): Promise<DrillFindings> {
  const { run } = context;
  const { process } = await deathAt(
    context,
    'job.submitted',
    'the job was in etcd, the client had no answer',
  );
  await run.waitUntilUnderway(2);
  const jobs = await run.client.jobs();
  if (jobs.length !== 1)
    throw new MillraceError('INVARIANT', `one job was submitted, there are ${String(jobs.length)}`);
  return { killed: process, jobs: jobs.length };
}

const stepsToCancel: readonly (readonly [FaultPoint, string])[] = [
  ['job.cancel-stored', 'the wish to cancel was in etcd, no task had been told'],
  ['job.finished', 'all tasks were CANCELED, the result was not in etcd'],
  ['job.result-written', 'the result CANCELED was in etcd, nothing was cleaned up'],
];

/** Beside the job of the drill, which is not to notice, another one is cancelled at each step. */
async function cancelAtEveryStep(context: DrillContext): Promise<DrillFindings> {
  const { cluster, did } = context;
  const findings: Record<string, number> = {};
  for (const [point, what] of stepsToCancel) {
    const victim = await AccessLogRun.submit(cluster, {
      rate: 50,
      parallelism: 1,
      settings: { 'execution.checkpointing.interval': '300ms' },
    });
    try {
      await victim.waitUntilRunning();
      const before = await lookBefore(context);
      arm(cluster, point);
      did(`job ${victim.jobId} is to be cancelled, ${point} armed`);
      // Asks the next leader when the first one does not answer.
      const cancelled = victim.client.cancel(victim.jobId);
      const { at } = await deathAt(context, point, what);
      await cancelled;
      const { state } = await victim.waitUntilEnd(30_000);
      if (state !== 'CANCELED')
        throw new MillraceError('INVARIANT', `a cancelled job ended ${state}`);
      const canceledAt = did(`job ${victim.jobId} is ${state}`);
      findings[`${point.split('.')[1] ?? point}Ms`] = canceledAt - at;
      await mustAdopt(context, before, at);
      await everybodyBack(cluster);
      mustNotRunAgain(context, victim.jobId, canceledAt);
      const after = await victim.client.jobStatus(victim.jobId);
      if (after !== 'CANCELED')
        throw new MillraceError('INVARIANT', `a cancelled job is ${after} now`);
    } finally {
      await victim.close();
    }
  }
  return findings;
}

export const jobDrills: readonly Drill[] = [
  {
    name: 'checkpoint-crash',
    fault: 'the leader dies between the files of a checkpoint and its pointer in etcd',
    mustHold: 'tasks go on, that checkpoint is none, nothing is lost or doubled',
    cluster: { environment: crashable() },
    inject: killBetweenFilesAndPointer,
  },
  {
    name: 'pointer-crash',
    fault: 'the leader dies when the pointer of a checkpoint is in etcd and no task has been told',
    mustHold: 'tasks go on, what belongs to that checkpoint is committed once',
    cluster: { environment: crashable() },
    inject: killBetweenPointerAndNotice,
  },
  {
    name: 'result-crash',
    fault: 'the leader dies when all tasks are FINISHED and the result is not in etcd',
    mustHold: 'the job ends FINISHED under the next leader, its output unchanged',
    cluster: { environment: crashable() },
    inject: killBeforeResult,
  },
  {
    name: 'cleanup-crash',
    fault: 'the leader dies when the result of a job is in etcd and nothing is cleaned up',
    mustHold: 'the next leader cleans up, the job never runs again',
    cluster: { environment: crashable() },
    inject: killBeforeCleanUp,
  },
  {
    name: 'submit-crash',
    fault: 'the leader dies when a job is in etcd and its client has no answer',
    mustHold: 'the client asks again and there is one job',
    cluster: { environment: crashable('job.submitted') },
    underway: 0,
    inject: killBeforeSubmitAnswer,
  },
  {
    name: 'cancel-crash',
    fault: 'the leader dies at each step of cancelling a job',
    mustHold: 'the job ends CANCELED, once, and never runs again; the other job goes on',
    cluster: { environment: crashable() },
    job: { rate: 250 },
    inject: cancelAtEveryStep,
  },
  damageDrill,
  statusDrill,
];
