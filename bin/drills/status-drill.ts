/** What somebody sees who asks for a job's status all the time while its leader is killed. */
import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { MillraceError } from '../../lib/base/errors.js';
import type { JobDetails } from '../../lib/gateway/client-gateway.js';
import type { Drill, DrillContext, DrillFindings } from './drill.js';
import { attemptsOf, lookBefore, type Attempts } from './observe.js';

const run = promisify(execFile);
const commandLine = fileURLToPath(new URL('../millrace.js', import.meta.url));

interface Answer {
  /** Wall-clock ms: when it was asked for, when it was there. */
  readonly askedAt: number;
  readonly answeredAt: number;
  readonly epoch: string;
  readonly attempts: Attempts;
  /** Of all tasks, as far as the leader knows it. */
  readonly records: number;
}

function recordsOf(job: JobDetails): number {
  return job.vertices
    .flatMap(({ subtasks }) => subtasks)
    .reduce((sum, { metrics }) => sum + Number(metrics['read-records'] ?? 0), 0);
}

async function ask({ cluster, run: { jobId } }: DrillContext): Promise<Answer> {
  const askedAt = Date.now();
  const addresses = cluster.restAddresses.flatMap((address) => ['--jobmanager', address]);
  const { stdout } = await run(process.execPath, [
    ...[commandLine, 'status', jobId, '--json', '--timeout', '20s'],
    ...addresses,
  ]);
  const { job } = JSON.parse(stdout) as { job: JobDetails };
  return {
    askedAt,
    answeredAt: Date.now(),
    epoch: job.epoch,
    attempts: attemptsOf(job),
    records: recordsOf(job),
  };
}

async function askThroughout(context: DrillContext): Promise<DrillFindings> {
  const { cluster, did } = context;
  const before = await lookBefore(context);
  const answers: Answer[] = [await ask(context)];
  let killedAt = Infinity;
  const deadline = Date.now() + 40_000;
  // Under the new leader until the records it knows of have grown beyond those known before.
  for (;;) {
    answers.push(await ask(context));
    const last = answers.at(-1);
    if (last === undefined || Date.now() > deadline) break;
    if (killedAt === Infinity && answers.length >= 3) {
      cluster.signal(before.leader, 'SIGKILL');
      killedAt = did(`${before.leader} killed`);
    }
    const known = Math.max(
      ...answers.filter((one) => one.answeredAt < killedAt).map((one) => one.records),
    );
    if (last.epoch !== before.epoch && last.records > known) break;
    await sleep(50);
  }
  const after = answers.filter((one) => one.askedAt >= killedAt);
  const [last] = after.slice(-1);
  if (last === undefined || last.epoch === before.epoch)
    throw new MillraceError('INVARIANT', `no answer under a new leader; epoch ${before.epoch}`);
  const first = answers[0];
  if (first === undefined || last.records <= first.records)
    throw new MillraceError(
      'INVARIANT',
      `records do not move: ${String(first?.records)} before, ${String(last.records)} after`,
    );
  for (const { attempts } of answers) mustBeSame(before.attempts, attempts);
  return {
    answers: answers.length,
    epochBefore: before.epoch,
    epochAfter: last.epoch,
    recordsBefore: first.records,
    recordsAfter: last.records,
    slowestAnswerMs: Math.max(...answers.map((one) => one.answeredAt - one.askedAt)),
  };
}

function mustBeSame(before: Attempts, now: Attempts): void {
  for (const [place, id] of before)
    if (now.get(place) !== id)
      throw new MillraceError(
        'INVARIANT',
        `${place}: attempt ${id} before, ${now.get(place) ?? 'none'} in a later answer`,
      );
}

export const statusDrill: Drill = {
  name: 'status-during-takeover',
  fault: "SIGKILL of the leader while 'millrace status' is asked all the time",
  mustHold: 'every answer shows the same attempts; the epoch rises, records go on',
  job: { rate: 350 },
  inject: askThroughout,
};
