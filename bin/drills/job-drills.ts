/** Drills of jobs: the leader dies at a step of a submission, a checkpoint, an end. */
import { MillraceError } from '../../lib/base/errors.js';
import { afterFault, crashOnce } from './crash-points.js';
import type { Drill, DrillContext, DrillFindings } from './drill.js';
import { present } from './observe.js';
import { readWriteHistory } from './read-write-history.js';
import { readTakeover } from './timeline.js';
import { checkpointIdOf } from './write-history.js';

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

export const jobDrills: readonly Drill[] = [
  {
    name: 'checkpoint-crash',
    fault: 'the leader dies between the files of a checkpoint and its pointer in etcd',
    mustHold: 'the checkpoint before it is restored, and nothing is lost or doubled',
    cluster: { environment: crashOnce('checkpoint.files-written', 4) },
    inject: killBetweenFilesAndPointer,
  },
  {
    name: 'pointer-crash',
    fault: 'the leader dies when the pointer of a checkpoint is in etcd and no task has been told',
    mustHold: 'that checkpoint is restored and what belongs to it committed once',
    cluster: { environment: crashOnce('checkpoint.pointer-added', 4) },
    inject: killBetweenPointerAndNotice,
  },
  {
    name: 'result-crash',
    fault: 'the leader dies when all tasks are FINISHED and the result is not in etcd',
    mustHold: 'the job ends FINISHED under the next leader, its output unchanged',
    cluster: { environment: crashOnce('job.finished', 1) },
    inject: killBeforeResult,
  },
  {
    name: 'submit-crash',
    fault: 'the leader dies when a job is in etcd and its client has no answer',
    mustHold: 'the client asks again and there is one job',
    cluster: { environment: crashOnce('job.submitted', 1) },
    inject: killBeforeSubmitAnswer,
  },
];
