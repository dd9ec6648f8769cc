/** Drills of TaskManagers. */
import type { Drill, DrillContext, DrillFindings } from './drill.js';
import { busyTaskManager, present } from './observe.js';
import { readEvents } from './timeline.js';

async function killTaskManager(context: DrillContext): Promise<DrillFindings> {
  const { cluster, run, did } = context;
  const { generation } = await run.details();
  const victim = await busyTaskManager(context);
  const deathAt = did(`${victim} killed (SIGKILL)`);
  cluster.signal(victim, 'SIGKILL');
  const job = await run.waitUntilRunning(generation);
  const running = readEvents(cluster, deathAt).find(
    (one) => one.event === 'job.running' && one.fields['jobId'] === run.jobId,
  );
  await cluster.restart(victim);
  return {
    killed: victim,
    ...present('runningMs', running === undefined ? undefined : running.at - deathAt),
    generation: job.generation,
  };
}

export const taskManagerDrills: readonly Drill[] = [
  {
    name: 'taskmanager-kill',
    fault: 'SIGKILL of a TaskManager that runs tasks',
    mustHold: 'the tasks run again elsewhere, from the last checkpoint',
    inject: killTaskManager,
  },
];
