/** What a leader needs of three jobs is damaged while nobody leads; a fourth job is not to notice. */
import { mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { MillraceError } from '../../lib/base/errors.js';
import type { JobId } from '../../lib/base/ids.js';
import type { LocalCluster } from '../local/local-cluster.js';
import { waitUntilGone } from '../local/managed-process.js';
import { AccessLogRun } from './access-log-run.js';
import { storedFiles } from './aftermath.js';
import type { Drill, DrillContext, DrillFindings } from './drill.js';
import { keysOf, putKey } from './etcd-keys.js';
import { lookBefore, waitForEvent } from './observe.js';
import { everybodyBack, mustHaveRestored } from './takeovers.js';
import { readEvents } from './timeline.js';

/** By what is damaged; each answers what was done. */
const damages: readonly ((cluster: LocalCluster, jobId: JobId) => string | Promise<string>)[] = [
  async (cluster, jobId) => {
    const key = keysOf(cluster).graph(jobId);
    await putKey(cluster, key, '{"w":"1.1.1","graph":"not a job graph"');
    return `${key} overwritten`;
  },
  (cluster, jobId) => {
    const id = (path: string): number => Number(/chk-(\d+)-/.exec(path)?.[1] ?? 0);
    const [newest] = storedFiles(cluster, jobId)
      .filter((path) => path.endsWith('/_metadata'))
      .sort((a, b) => id(b) - id(a));
    if (newest === undefined) throw new MillraceError('INVARIANT', 'no checkpoint is stored');
    // Later ones without a pointer may exist: without any of them, the one with the pointer is missing.
    for (const path of storedFiles(cluster, jobId))
      if (path.endsWith('/_metadata') && id(path) >= id(newest) - 1)
        rmSync(join(cluster.storageDir, path));
    return `${newest} and the one before it deleted`;
  },
  (cluster, jobId) => {
    const bundles = storedFiles(cluster, jobId).filter((path) => !path.includes('/checkpoints/'));
    for (const path of bundles) {
      const file = join(cluster.storageDir, path);
      const bytes = readFileSync(file);
      bytes[Math.floor(bytes.length / 2)]! ^= 1;
      writeFileSync(file, bytes);
    }
    // Whoever has a good copy needs no other.
    for (const path of bundles) removeCopies(cluster.directory, basename(path, '.mjs'));
    return `a bit of ${bundles.join(', ')} flipped`;
  },
];

function privateTmp(directory: string): string {
  return join(directory, 'system-tmp');
}

/** Of JobManagers and TaskManagers. */
function removeCopies(directory: string, digest: string): void {
  for (const folder of [join(directory, 'tmp'), privateTmp(directory)])
    for (const entry of readdirSync(folder, { recursive: true, withFileTypes: true }))
      if (entry.isFile() && entry.name.includes(digest))
        rmSync(join(entry.parentPath, entry.name), { force: true });
}

async function damageJobs(context: DrillContext): Promise<DrillFindings> {
  const { cluster, run, did } = context;
  const victims: AccessLogRun[] = [];
  try {
    for (let i = 0; i < damages.length; i += 1)
      victims.push(
        await AccessLogRun.submit(cluster, {
          rate: 50,
          parallelism: 1,
          hasOwnBundle: true,
          settings: {
            'execution.checkpointing.interval': '300ms',
            'execution.checkpointing.num-retained': '5',
          },
        }),
      );
    for (const victim of victims)
      await victim.waitFor('three checkpoints', 60_000, async () => {
        return (await victim.checkpoints()).counts.completed >= 3;
      });
    const { generation } = await lookBefore(context);
    const last = (await run.checkpoints()).latest.completed?.id ?? 0;
    const all = cluster.processes().filter((one) => one.role === 'jobmanager');
    for (const one of all) cluster.signalBoth(one.name, 'SIGKILL');
    await waitUntilGone(all, 10_000);
    const deathAt = did('all JobManagers killed');
    for (const [i, damage] of damages.entries()) {
      const victim = victims[i];
      if (victim !== undefined) did(await damage(cluster, victim.jobId));
    }
    await everybodyBack(cluster);
    did('all JobManagers started again');
    const job = await run.waitUntilRunning(generation);
    for (const { jobId } of victims) await mustHaveFailedAlone(context, jobId, deathAt);
    return {
      damaged: victims.length,
      restoredCheckpoint: mustHaveRestored(context, deathAt, last),
      generation: job.generation,
    };
  } finally {
    for (const victim of victims) await victim.close();
  }
}

/** It is set aside, visibly, and does not run, from whatever state. */
async function mustHaveFailedAlone(
  { cluster }: DrillContext,
  jobId: JobId,
  since: number,
): Promise<void> {
  const ofJob = (one: { fields: Readonly<Record<string, unknown>> }): boolean =>
    one.fields['jobId'] === jobId;
  await waitForEvent(
    cluster,
    since,
    (one) => one.event === 'job.recovery-failed' && ofJob(one),
    30_000,
  );
  const wrong = readEvents(cluster, since).find(
    (one) => ofJob(one) && ['job.running', 'job.ended'].includes(one.event),
  );
  if (wrong !== undefined)
    throw new MillraceError(
      'INVARIANT',
      `job ${jobId} cannot be recovered, and ${wrong.process} said ${wrong.event}`,
    );
}

export const damageDrill: Drill = {
  name: 'job-damage',
  fault:
    'while nobody leads: a job graph overwritten, checkpoint metadata deleted, a bundle changed; three jobs',
  mustHold: 'each of them is RECOVERY_FAILED, none runs from an older state; another job goes on',
  cluster: {
    slotsPerTaskManager: 3,
    settings: { 'high-availability.job-recovery': 'restore' },
    // JobManagers keep copies of bundles in the system's directory, where other clusters would have them too.
    environment: (directory) => {
      mkdirSync(privateTmp(directory), { recursive: true });
      return { TMPDIR: privateTmp(directory) };
    },
  },
  job: { rate: 400 },
  inject: damageJobs,
};
