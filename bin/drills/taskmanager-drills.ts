/** Drills of TaskManagers: they die, alone or with the leader; they are away and come back. */
import { MillraceError } from '../../lib/base/errors.js';
import type { Drill, DrillContext, DrillFindings } from './drill.js';
import {
  attemptsOf,
  busyTaskManager,
  eventsOf,
  lookBefore,
  moreCheckpoints,
  mustHaveFailedOver,
  present,
  waitForEvent,
} from './observe.js';
import { everybodyBack, mustHaveRestored } from './takeovers.js';
import { readEvents } from './timeline.js';

function runningAfter({ cluster, run }: DrillContext, since: number): number | undefined {
  const running = readEvents(cluster, since).find(
    (one) => one.event === 'job.running' && one.fields['jobId'] === run.jobId,
  );
  return running === undefined ? undefined : running.at - since;
}

async function killTaskManager(context: DrillContext): Promise<DrillFindings> {
  const { cluster, run, did } = context;
  const { generation } = await lookBefore(context);
  const last = (await run.checkpoints()).latest.completed?.id ?? 0;
  const victim = await busyTaskManager(context);
  cluster.signal(victim, 'SIGKILL');
  const deathAt = did(`${victim} killed`);
  const job = await run.waitUntilRunning(generation);
  await everybodyBack(cluster);
  return {
    killed: victim,
    ...present('runningMs', runningAfter(context, deathAt)),
    restoredCheckpoint: mustHaveRestored(context, deathAt, last),
    generation: job.generation,
  };
}

/** The new leader expects a TaskManager that is no more. */
async function killBoth(context: DrillContext): Promise<DrillFindings> {
  const { cluster, run, did } = context;
  const before = await lookBefore(context);
  const last = (await run.checkpoints()).latest.completed?.id ?? 0;
  const victim = await busyTaskManager(context);
  cluster.signal(before.leader, 'SIGKILL');
  cluster.signal(victim, 'SIGKILL');
  const deathAt = did(`${before.leader} and ${victim} killed`);
  await mustHaveFailedOver(context, before);
  const job = await run.waitUntilRunning(before.generation);
  await everybodyBack(cluster);
  return {
    killed: `${before.leader} ${victim}`,
    ...present('runningMs', runningAfter(context, deathAt)),
    restoredCheckpoint: mustHaveRestored(context, deathAt, last),
    generation: job.generation,
  };
}

/** A TaskManager stands still until its tasks run elsewhere, then goes on where it was: too late. */
async function returnTooLate(context: DrillContext): Promise<DrillFindings> {
  const { cluster, run, did } = context;
  const before = await lookBefore(context);
  const victim = await busyTaskManager(context);
  cluster.signal(victim, 'SIGSTOP');
  const pausedAt = did(`${victim} stopped (SIGSTOP)`);
  const elsewhere = await run.waitUntilRunning(before.generation);
  const attempts = attemptsOf(elsewhere);
  await moreCheckpoints(context, 1);
  cluster.signal(victim, 'SIGCONT');
  const backAt = did(`${victim} goes on (SIGCONT)`);
  const registered = await waitForEvent(
    cluster,
    backAt,
    (one) => one.process === victim && one.event === 'taskmanager.registered',
    20_000,
  );
  await moreCheckpoints(context, 3);
  const now = await run.details();
  const changed = [...attemptsOf(now)].filter(([place, id]) => attempts.get(place) !== id);
  if (changed.length > 0)
    throw new MillraceError(
      'INVARIANT',
      `the return of ${victim} changed ${String(changed.length)} attempts`,
    );
  const ended = eventsOf(cluster, victim, backAt).filter((one) => one.event.startsWith('slot.'));
  return {
    paused: victim,
    ...present('runningElsewhereMs', runningAfter(context, pausedAt)),
    registeredMs: registered.at - backAt,
    slotEventsAfterReturn: ended.length,
    generation: now.generation,
  };
}

export const taskManagerDrills: readonly Drill[] = [
  {
    name: 'taskmanager-kill',
    fault: 'SIGKILL of a TaskManager that runs tasks',
    mustHold: 'the tasks run again elsewhere, from the last checkpoint',
    strikes: async (cluster) =>
      Promise.resolve(
        cluster
          .processes()
          .filter((one) => one.role === 'taskmanager')
          .slice(0, 1)
          .map(({ name }) => `${name}, or whichever runs the job's tasks`),
      ),
    inject: killTaskManager,
  },
  {
    name: 'taskmanager-and-leader-kill',
    fault: 'a TaskManager is killed at the moment its leader is',
    mustHold: 'the next leader finds it gone; the job restores its last checkpoint, once',
    inject: killBoth,
  },
  {
    name: 'taskmanager-return',
    fault: 'a TaskManager stands still (SIGSTOP) until its tasks run elsewhere, then goes on',
    mustHold: 'late output and commits are refused; it offers its slots again',
    cluster: { supervised: false },
    job: { rate: 350 },
    inject: returnTooLate,
  },
];
