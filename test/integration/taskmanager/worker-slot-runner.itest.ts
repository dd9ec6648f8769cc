/** Slots as real threads running real bundles: what they do, and what they survive. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { withTimeout } from '../../../lib/base/abort.js';
import type { Env } from '../../../lib/base/env.js';
import type { Failure } from '../../../lib/base/errors.js';
import type { TaskManagerId } from '../../../lib/base/ids.js';
import { createLogger } from '../../../lib/base/pino-logger.js';
import { NetworkEnvironment } from '../../../lib/network/network-environment.js';
import { readLogTail } from '../../../lib/taskmanager/log-tail.js';
import { ManagedSlot } from '../../../lib/taskmanager/managed-slot.js';
import { WorkerSlotRunner } from '../../../lib/taskmanager/worker-slot-runner.js';
import { testEnv } from '../../conformance/rpc-service.js';
import { prepareTestJob, SlotHost, type TestJob } from '../../support/slot-host.js';

// Real processes and threads on a busy machine.
t.setTimeout(120_000);

const mb = 1024 ** 2;

/** `body` builds the job on `env`. */
const jobSource = (body: string): string => `
import { StreamExecutionEnvironment } from 'millrace';
const env = StreamExecutionEnvironment.getExecutionEnvironment();
${body}
await env.execute('test job');
`;

interface Fixture {
  readonly env: Env;
  readonly job: TestJob;
  readonly host: SlotHost;
  readonly runner: WorkerSlotRunner;
  readonly logPath: string;
}

async function prepare(
  t: Test,
  body: string,
  slotMemoryBytes = 64 * mb,
  settings: Readonly<Record<string, string>> = {},
): Promise<Fixture> {
  const job = await prepareTestJob(t, testEnv, jobSource(body), settings);
  const logPath = join(job.directory, 'taskmanager.log');
  const env: Env = {
    ...testEnv,
    log: createLogger({ level: 'info', destination: logPath, base: { process: 'main' } }),
  };
  const network = new NetworkEnvironment(env, {
    taskManagerId: 'tm' as TaskManagerId,
    clusterUid: 'test',
    slots: 1,
  });
  const runner = new WorkerSlotRunner(env, network, {
    slotMemoryBytes,
    youngGenerationBytes: 12 * mb,
    v8Flags: [],
    polls: true,
    blockedThresholdMs: 100,
    mainTimeoutMs: 10_000,
    smallStateThresholdBytes: 20_000,
    log: { level: 'info', destination: logPath, base: { process: 'slot' } },
  });
  t.teardown(() => {
    runner.close();
    return network.close();
  });
  return { env, job, host: new SlotHost(job), runner, logPath };
}

async function run(f: Fixture): Promise<Failure | undefined> {
  await f.host.start(f.env, f.runner);
  return withTimeout(f.env.clock, 20_000, 'the slot', f.host.ended.promise);
}

t.test('a job runs to FINISHED in a thread of its own', async (t) => {
  const f = await prepare(
    t,
    `env.fromSequence(1, 1000)
       .map((n) => n * 2)
       .keyBy((n) => n % 10)
       .reduce((a, b) => a + b)
       .filter((sum) => sum > 100_000)
       .print('sum');`,
  );
  t.equal(await run(f), undefined);
  const { tasks } = f.job.deployment;
  t.ok(tasks.length > 1, 'several tasks share the slot');
  for (const { attemptId } of tasks) {
    const states = f.host.reports.flatMap((report) =>
      report.kind === 'taskState' && report.attemptId === attemptId ? report.state : [],
    );
    t.same(states, ['INITIALIZING', 'RUNNING', 'FINISHED']);
  }
  t.equal(f.host.reports.at(-1)?.kind, 'closed');
});

t.test('a thread starts in a process that was given flags of V8', async (t) => {
  const { execArgv } = process;
  process.execArgv = [...execArgv, '--max-semi-space-size=2'];
  t.teardown(() => {
    process.execArgv = execArgv;
  });
  const f = await prepare(t, `env.fromElements(1, 2).map((n) => n).print();`);
  f.runner.prepare(1);
  t.equal(await run(f), undefined);
});

t.test('a prepared thread runs a job as a new one does, and none is used twice', async (t) => {
  const f = await prepare(t, `env.fromElements(1, 2).map((n) => n).print();`);
  f.runner.prepare(3);
  f.runner.prepare(2);
  const hosts = [f.host, new SlotHost(f.job)];
  for (const host of hosts) {
    t.equal(await run({ ...f, host }), undefined);
    t.equal(host.states().at(-1), 'FINISHED');
  }
});

t.test('what user code prints is logged with its job, vertex and subtask', async (t) => {
  const f = await prepare(
    t,
    `console.log('from main');
     env.fromElements(1, 2)
       .map((n) => { console.log('value %d of', n, { a: 1 }); console.error('careful'); return n; })
       .name('chatty')
       .print();`,
  );
  t.equal(await run(f), undefined);
  const { jobId } = f.job.jobGraph;
  const lines = await readLogTail(f.logPath, { jobId, maxLines: 100, stream: 'log' });
  const printed = lines
    .map((line) => JSON.parse(line) as Record<string, unknown>)
    .filter(({ event }) => event === 'user.output');
  const [value] = printed.filter(({ msg }) => msg === 'value 1 of { a: 1 }');
  t.match(value, { level: 'info', jobId, subtask: 0, vertex: /chatty/, process: 'slot' });
  t.match(
    printed.find(({ msg }) => msg === 'careful'),
    { level: 'warn', vertex: /chatty/ },
  );
  t.match(
    printed.find(({ msg }) => msg === 'from main'),
    { phase: 'main', jobId },
  );
  const stdout = await readLogTail(f.logPath, { jobId, maxLines: 3, stream: 'stdout' });
  t.same(stdout, ['value 2 of { a: 1 }', 'careful', '2']);
});

t.test(
  'a call that holds up its thread is logged with its operator, while it lasts and after',
  async (t) => {
    for (const settings of [{}, { 'pipeline.compile': 'false' }]) {
      const f = await prepare(
        t,
        `env.fromSequence(1, 10)
         .map((n) => n + 1)
         .name('quick')
         .map(function stuck(n) {
           const until = Date.now() + (n === 5 ? 2000 : 0);
           while (Date.now() < until);
           return n;
         })
         .name('slow')
         .filter((n) => n > 0)
         .name('also quick')
         .print();`,
        64 * mb,
        settings,
      );
      t.equal(await run(f), undefined, 'and does no harm');
      const { jobId } = f.job.jobGraph;
      const lines = (await readFile(f.logPath, 'utf8'))
        .split('\n')
        .filter((line) => line.includes('slot.blocked'))
        .map((line) => JSON.parse(line) as Record<string, unknown>);
      const [during, after] = lines;
      t.match(during, {
        level: 'warn',
        operator: 'slow',
        function: 'stuck',
        vertex: /quick/,
        subtask: 0,
      });
      t.ok(Number(during?.['blockedMs']) < 2000);
      t.match(after, { jobId, operators: [/./, 'quick', 'slow', 'also quick', /./], calls: 1 });
      t.ok(Number(after?.['blockedMs']) >= 1900);
      t.equal(lines.length, 2);
      const metrics = f.host.reports.findLast((report) => report.kind === 'metrics');
      t.match(metrics, { tasks: [{ user: [{ name: 'numBlockingCalls', value: 1 }] }] });
    }
  },
);

t.test('a user function that loops for ever is cancelled within a second', async (t) => {
  const f = await prepare(
    t,
    `env.fromSequence(1, 10).map((n) => { console.log('looping'); for (;;); return n; }).print();`,
  );
  const ended: (Failure | undefined)[] = [];
  const slot = new ManagedSlot(
    f.env,
    {
      runner: {
        isPreemptive: true,
        start: (start, events) => {
          f.host.slot = f.runner.start(start, events);
          return f.host.slot;
        },
      },
      bundle: async () => ({ path: f.job.bundlePath, release: () => undefined }),
      onReport: (report) => {
        f.host.onReport(report);
      },
      onEnded: (failure) => ended.push(failure),
      onFatal: (error) => {
        t.fail(error.message);
      },
    },
    { cancelGraceMs: 300, cancellationTimeoutMs: 10_000 },
  );
  // The enumerators come from the host; the slot is started by the ManagedSlot instead.
  await f.host.start(f.env, {
    isPreemptive: true,
    start: () => ({ send: () => undefined, terminate: () => undefined }),
  });
  await slot.start(f.job.deployment, 0);
  const hasLooped = async (): Promise<boolean> =>
    (await readFile(f.logPath, 'utf8').catch(() => '')).includes('looping');
  for (let i = 0; i < 500 && !(await hasLooped()); i++) {
    await new Promise<void>((resolve) => f.env.clock.setTimer(10, resolve));
  }
  t.ok(await hasLooped(), 'user code was entered');
  const began = f.env.clock.now();
  await slot.cancel();
  const tookMs = f.env.clock.now() - began;
  t.ok(tookMs < 1000, `cancelled after ${tookMs} ms`);
  t.same(ended, [undefined]);
});

t.test('a job that ends when it is asked to is cancelled without ending its thread', async (t) => {
  const f = await prepare(t, `env.fromSequence(1, 1e9).map((n) => n).print();`);
  await f.host.start(f.env, f.runner);
  await f.host.until(() => f.host.states().includes('RUNNING'));
  f.host.slot?.send({ kind: 'cancel' });
  t.equal(await f.host.ended.promise, undefined);
  t.equal(f.host.states().at(-1), 'CANCELED');
  t.equal(f.host.reports.at(-1)?.kind, 'closed');
});

t.test('a slot over its memory limit fails with the limit and its key', async (t) => {
  const f = await prepare(
    t,
    `const hoard: unknown[] = [];
     env.fromSequence(1, 1e7)
       .map((n) => { for (let i = 0; i < 100; i++) hoard.push({ n, i }); return n; })
       .filter(() => false)
       .print();`,
  );
  t.equal(await run(f), undefined, 'the thread ended in order');
  t.match(f.host.failures()[0], {
    code: 'SLOT_MEMORY',
    message: /memory limit of 64 MB \(taskmanager\.memory\.slot\.heap\.size\)/,
  });
});

t.test('garbage alone does not exceed the memory limit', async (t) => {
  const f = await prepare(
    t,
    `const kept = new Map();
     env.fromSequence(1, 50_000)
       .map((n) => { kept.set(n % 1000, Array.from({ length: 1000 }, (_, i) => i + n)); return n; })
       .filter(() => false)
       .print();`,
  );
  t.equal(await run(f), undefined);
  t.same(f.host.failures(), []);
  t.equal(f.host.states().at(-1), 'FINISHED');
});

t.test('process.exit in user code ends the slot, not the TaskManager', async (t) => {
  const f = await prepare(
    t,
    `env.fromElements(1).map((n) => { process.exit(3); return n; }).print();`,
  );
  t.match(await run(f), {
    code: 'SLOT_LOST',
    message: /ended with code 3: user code called process\.exit\(3\)/,
  });
});

t.test('an exception of a user function fails its task', async (t) => {
  const f = await prepare(
    t,
    `env.fromElements(1).map((n) => { throw new RangeError('bad ' + n); }).name('thrower').print();`,
  );
  t.equal(await run(f), undefined);
  t.match(f.host.failures()[0], { code: 'USER_FUNCTION', cause: { message: /bad 1/ } });
});

t.test('an exception that nobody catches ends the slot with its cause', async (t) => {
  const f = await prepare(
    t,
    `env.fromSequence(1, 1e9)
       .map((n) => { if (n === 1) setTimeout(() => { throw new Error('late'); }, 1); return n; })
       .filter(() => false)
       .print();`,
  );
  t.match(await run(f), {
    code: 'USER_FUNCTION',
    message: /uncaught in the slot's thread: late/,
    cause: { message: 'late' },
  });
});

t.test('a main that gives another job in the slot is refused', async (t) => {
  const f = await prepare(t, `env.fromElements(1).map((n) => n).print();`);
  const { deployment } = f.job;
  const jobGraph = { ...deployment.jobGraph, fingerprint: '0'.repeat(64) };
  const slot = new SlotHost({ ...f.job, deployment: { ...deployment, jobGraph } });
  await slot.start(f.env, f.runner);
  t.match(await slot.ended.promise, { code: 'JOB_FINGERPRINT' });
});

t.test('a job without a bundle is refused', async (t) => {
  const f = await prepare(t, `env.fromElements(1).map((n) => n).print();`);
  const failed = await new Promise<Failure | undefined>((resolve) => {
    f.runner.start(
      { deployment: f.job.deployment, slotIndex: 0 },
      { onReport: () => undefined, onEnded: resolve },
    );
  });
  t.match(failed, { code: 'JOB_INVALID' });
});
