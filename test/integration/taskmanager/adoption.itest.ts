/** A slot's real thread goes on under another leader: files of its snapshots and of its sink show it. */
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import type { AttemptId, TaskManagerId } from '../../../lib/base/ids.js';
import { NetworkEnvironment } from '../../../lib/network/network-environment.js';
import type { SlotReportMessage } from '../../../lib/task/slot-api.js';
import { WorkerSlotRunner } from '../../../lib/taskmanager/worker-slot-runner.js';
import { testEnv } from '../../conformance/rpc-service.js';
import { prepareTestJob, SlotHost } from '../../support/slot-host.js';

// Real threads on a busy machine.
t.setTimeout(120_000);

const mb = 1024 ** 2;

const source = (output: string): string => `
import { DataGeneratorSource, FileSink, StreamExecutionEnvironment, WatermarkStrategy } from 'millrace';
const env = StreamExecutionEnvironment.getExecutionEnvironment();
env
  .fromSource(
    new DataGeneratorSource((n) => n, { recordsPerSecond: 500 }),
    WatermarkStrategy.noWatermarks(),
    'numbers',
  )
  .keyBy((n) => n % 10)
  .reduce((a, b) => a + b)
  .sinkTo(FileSink.forLines(${JSON.stringify(output)}));
await env.execute('test job');
`;

t.test('tasks commit what was complete and write for the new leader from then on', async (t) => {
  const output = join(t.testdir(), 'out');
  const job = await prepareTestJob(t, testEnv, source(output));
  const network = new NetworkEnvironment(testEnv, {
    taskManagerId: 'tm' as TaskManagerId,
    clusterUid: 'test',
    slots: 1,
  });
  const runner = new WorkerSlotRunner(testEnv, network, {
    slotMemoryBytes: 64 * mb,
    youngGenerationBytes: 12 * mb,
    v8Flags: [],
    polls: true,
    blockedThresholdMs: 0,
    mainTimeoutMs: 60_000,
    smallStateThresholdBytes: 0,
    log: { level: 'warn', destination: join(job.directory, 'log'), base: {} },
  });
  t.teardown(() => network.close());
  const host = new SlotHost(job);
  await host.start(testEnv, runner);
  const attempts = job.deployment.tasks.map(({ attemptId }) => attemptId);
  const targets = new Set(job.jobGraph.edges.map(({ target }) => target));
  const roots = job.deployment.tasks
    .filter(({ vertex }) => !targets.has(vertex.id))
    .map(({ attemptId }) => attemptId);
  const count = (is: (report: SlotReportMessage) => boolean): number =>
    host.reports.filter(is).length;
  const trigger = (checkpointId: number, attemptIds: readonly AttemptId[]): void => {
    host.slot?.send({ kind: 'triggerCheckpoint', attemptIds, checkpointId, timestamp: Date.now() });
  };
  const acknowledged = (checkpointId: number): Promise<void> =>
    host.until(
      () =>
        count((r) => r.kind === 'checkpointAck' && r.checkpointId === checkpointId) ===
        attempts.length,
    );
  const committed = (): string[] => readdirSync(output).filter((name) => !name.startsWith('.'));
  const checkpoints = (): string[] => readdirSync(job.deployment.checkpointDirectory).sort();

  await host.until(() => count((r) => r.kind === 'taskState' && r.state === 'RUNNING') === 2);
  await host.until(() => count((r) => r.kind === 'metrics') > 0);
  trigger(1, roots);
  await acknowledged(1);
  t.strictSame(committed(), [], 'the leader died before it told anybody of its completion');

  const terms = { epochLabel: 'e1.2', completedCheckpointId: 1, abortedCheckpointId: 64 };
  host.slot?.send({ kind: 'adopt', ticket: 77, ...terms });
  await host.until(() => count((r) => r.kind === 'taken' && r.ticket === 77) === 1);
  // Of the leader that is gone: too late.
  trigger(2, roots);
  trigger(65, roots);
  await acknowledged(65);
  t.equal(
    count((r) => r.kind === 'checkpointAck' && r.checkpointId === 2),
    0,
  );
  t.strictSame(checkpoints(), ['chk-1-e1.1', 'chk-65-e1.2'], 'no leader writes where another did');
  // Looked at whenever the slot says something, its figures every second.
  await host.until(() => committed().length === 1);
  host.slot?.send({ kind: 'cancel' });
  t.equal(await host.ended.promise, undefined);
  t.equal(committed().length, 1, 'the output of the first checkpoint, nothing of the second');
  t.strictSame(host.failures(), []);
});
