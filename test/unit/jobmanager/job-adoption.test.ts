import t from 'tap';
import type { ExecutionRecord } from '../../../ha/services.js';
import type { AllocationId, AttemptId, TaskManagerId } from '../../../lib/base/ids.js';
import type { AttemptInventory } from '../../../lib/gateway/taskmanager-gateway.js';
import { ExecutionTopology } from '../../../lib/jobmanager/executiongraph/execution-topology.js';
import { shareSlots } from '../../../lib/jobmanager/executiongraph/slot-sharing.js';
import {
  JobAdoption,
  type JobAdoptionEffect,
} from '../../../lib/jobmanager/jobmaster/job-adoption.machine.js';
import { JobTakeover } from '../../../lib/jobmanager/jobmaster/job-takeover.js';
import type { ResourceManager } from '../../../lib/jobmanager/resourcemanager/resource-manager.js';
import type { TaskManagerPresence } from '../../../lib/jobmanager/resourcemanager/task-manager-presence.js';
import { testGraph, vertexId } from '../../support/job-graphs.js';
import { ManualClock } from '../../support/manual-clock.js';
import { testEnv } from '../../support/test-env.js';

const graph = testGraph({
  vertices: [
    { name: 'src', parallelism: 2 },
    { name: 'win', parallelism: 2 },
  ],
  edges: [['src', 'win', 'HASH']],
});
const topology = new ExecutionTopology(graph);
const slots = shareSlots(topology);
const attempt = (vertex: string, subtask: number, generation = 3): string =>
  `${vertexId(vertex)}_${String(subtask)}_${String(generation)}_abc`;
const tm = (index: number): TaskManagerId => `tm${String(index)}` as TaskManagerId;

/** Subtask i of both vertices runs in slot i, on TaskManager i. */
const record = (): { generation: number; attempts: Record<string, RecordedAttempt> } => ({
  generation: 3,
  attempts: Object.fromEntries(
    [0, 1].flatMap((index) =>
      ['src', 'win'].map((vertex) => [
        attempt(vertex, index),
        { taskManagerId: tm(index), allocationId: `slot${String(index)}`, attemptNumber: 2 },
      ]),
    ),
  ),
});
type RecordedAttempt = ExecutionRecord['attempts'][string];

const inventory = (index: number, change: Partial<AttemptInventory> = {}): AttemptInventory[] =>
  ['src', 'win'].map((vertex) => ({
    attemptId: attempt(vertex, index) as AttemptId,
    allocationId: `slot${String(index)}` as AllocationId,
    slotIndex: 0,
    state: 'RUNNING',
    lastCheckpointId: 7,
    completedCheckpointId: 0,
    endOfData: false,
    readers: {},
    ...(vertex === 'src' && change),
  }));

const registered = (registration = 1): TaskManagerPresence => ({
  kind: 'registered',
  registration,
});
const awaited: TaskManagerPresence = { kind: 'awaited' };

class Case {
  readonly machine: JobAdoption;
  readonly presence = new Map<TaskManagerId, TaskManagerPresence>();
  readonly effects: JobAdoptionEffect[] = [];

  constructor(recorded: ExecutionRecord = record()) {
    this.machine = new JobAdoption(recorded, topology, slots);
  }

  see(index: number, presence: TaskManagerPresence): this {
    this.presence.set(tm(index), presence);
    return this.step({ kind: 'taskManagersChanged', presence: this.presence });
  }

  tell(index: number, attempts: readonly AttemptInventory[], registration = 1): this {
    const taskManagerId = tm(index);
    return this.step({ kind: 'inventoryReceived', taskManagerId, registration, attempts });
  }

  step(input: Parameters<JobAdoption['step']>[0]): this {
    this.effects.push(...this.machine.step(input));
    return this;
  }

  /** What was decided; undefined while it is not. */
  get verdict(): string | undefined {
    const decided = this.effects.filter(({ kind }) => kind !== 'requestInventory');
    if (decided.length > 1) throw new Error('decided twice');
    const [effect] = decided;
    return effect?.kind === 'restore' ? effect.reason : effect?.kind;
  }
}

const read = (checkpointId: number) => ({ kind: 'checkpointRead', checkpointId }) as const;

t.test(
  'a job whose attempts all run as recorded is adopted, in whatever order that is learned',
  async (t) => {
    const found = new Case().see(0, registered(4)).see(1, awaited).tell(0, inventory(0), 4);
    t.equal(found.verdict, undefined, 'a TaskManager that etcd knows is waited for');
    found.step(read(7)).see(1, registered(5));
    t.same(
      found.effects.map((effect) => effect.kind === 'requestInventory' && effect.registration),
      [4, 5],
      'each is asked once',
    );
    found.tell(1, inventory(1), 5);
    t.equal(found.verdict, 'adopt');
    const plan = found.effects.flatMap((effect) => (effect.kind === 'adopt' ? effect.plan : []));
    t.match(plan, [
      {
        slotKey: 'default/0',
        taskManagerId: tm(0),
        registration: 4,
        allocationId: 'slot0',
        attempts: [
          { position: 0, attemptId: attempt('src', 0), attemptNumber: 2, generation: 3 },
          { position: 2, attemptId: attempt('win', 0) },
        ],
      },
      { slotKey: 'default/1', registration: 5, attempts: [{ position: 1 }, { position: 3 }] },
    ]);

    const late = new Case().see(0, registered()).see(1, registered());
    late.tell(0, inventory(0)).tell(1, inventory(1));
    t.equal(late.verdict, undefined, 'the latest checkpoint is not known yet');
    t.equal(late.step(read(0)).verdict, 'adopt');
  },
);

t.test('what contradicts the record is not waited for', async (t) => {
  const reported = (change: Partial<AttemptInventory>): string | undefined =>
    new Case().step(read(7)).see(0, registered()).tell(0, inventory(0, change)).verdict;
  t.match(reported({ state: 'FAILED' }), /is FAILED/);
  t.match(reported({ state: 'INITIALIZING' }), /is INITIALIZING/);
  t.match(reported({ allocationId: 'other' as AllocationId }), /in another slot/);
  t.match(reported({ lastCheckpointId: 6 }), /knows checkpoint 6, the latest is 7/);
  t.equal(reported({ state: 'FINISHED', lastCheckpointId: 5 }), undefined, 'it has done its part');
  t.equal(reported({ completedCheckpointId: 7 }), undefined, 'it was told of the latest');
  for (const state of ['RUNNING', 'FINISHED'] as const) {
    const told = { state, lastCheckpointId: 9, completedCheckpointId: 8 };
    t.match(reported(told), /told that checkpoint 8 is complete, the latest stored is 7/);
  }
  t.match(new Case().see(0, registered()).tell(0, []).verdict, /does not run/);
  t.match(
    new Case().see(1, { kind: 'gone', reason: 'refuses connections' }).verdict,
    /^TaskManager tm1, where it had tasks, refuses connections$/,
  );
  const refused = new Case().see(0, registered());
  const about = { taskManagerId: tm(0), registration: 1 };
  refused.step({ kind: 'inventoryRefused', ...about, reason: 'unknown method' });
  t.match(refused.verdict, /unknown method/);
  const busy = new Case().see(0, registered()).step({ kind: 'tooManyEvents' });
  t.match(busy.verdict, /report more than is kept/);
});

t.test('a plan is not carried out when reports were dropped after it was made', async (t) => {
  const resources = {
    reconnectWindowMs: 5_000,
    presence: () => registered(),
    onPresenceChanged: () => () => undefined,
    gateway: (id: TaskManagerId) => ({
      requestInventory: () => Promise.resolve({ attempts: inventory(id === tm(0) ? 0 : 1) }),
    }),
  } as unknown as ResourceManager;
  const about = { jobId: graph.jobId, record: record(), topology, slots };
  const takeover = new JobTakeover(testEnv(new ManualClock(), 1), resources, about);
  takeover.start();
  takeover.checkpointRead(7);
  const verdict = await takeover.verdict;
  const plan = verdict?.kind === 'adopt' ? verdict.plan : [];
  t.equal(plan.length, 2);
  // A leader that is suspended then keeps what comes, up to a bound.
  const report = { kind: 'endOfData', attemptId: attempt('src', 0) as AttemptId } as const;
  for (let i = 0; i < 10_000; i++) takeover.keep(report);
  t.equal(takeover.whyOutdated(plan), undefined);
  takeover.keep(report);
  t.match(takeover.whyOutdated(plan), /more than is kept/);
  await takeover.close();
});

t.test('a record that does not fit the job is none to adopt by', async (t) => {
  const decide = (
    change: (attempts: Record<string, RecordedAttempt>) => void,
  ): string | undefined => {
    const changed = record();
    change(changed.attempts);
    return new Case(changed).see(0, awaited).verdict;
  };
  const other: RecordedAttempt = { taskManagerId: tm(0), allocationId: 'slot0', attemptNumber: 0 };
  t.match(
    decide((attempts) => {
      delete attempts[attempt('win', 1)];
    }),
    /no attempt is recorded for 1 of its subtasks/,
  );
  t.match(
    decide((attempts) => {
      attempts[attempt('win', 1, 4)] = other;
    }),
    /two attempts are recorded for one subtask/,
  );
  t.match(
    decide((attempts) => {
      attempts[attempt('win', 2)] = other;
    }),
    /no subtask for the recorded attempt/,
  );
  t.match(
    decide((attempts) => {
      attempts[attempt('win', 1)] = other;
    }),
    /do not share slots/,
  );
});

t.test(
  'a TaskManager that does not come back in the window is not waited for longer',
  async (t) => {
    const missing = new Case().step(read(7)).see(0, registered()).tell(0, inventory(0));
    missing.see(1, awaited).step({ kind: 'windowElapsed' });
    t.match(missing.verdict, /^TaskManager tm1, where it had tasks, did not come back$/);
    const slow = new Case().see(0, registered()).see(1, registered());
    slow.tell(0, inventory(0)).tell(1, inventory(1)).step({ kind: 'windowElapsed' });
    t.equal(slow.verdict, undefined, 'a slow checkpoint storage is no reason to restart tasks');
    t.equal(slow.step(read(7)).verdict, 'adopt');
  },
);

t.test('an inventory counts only for the registration it was asked over', async (t) => {
  const again = new Case().step(read(7)).see(0, registered(1)).see(1, registered(1));
  again.tell(1, inventory(1)).see(0, awaited).tell(0, inventory(0), 1);
  t.equal(again.verdict, undefined, 'its session had ended');
  again.see(0, registered(2)).tell(0, inventory(0, { state: 'FINISHED' }), 2);
  t.equal(again.verdict, 'adopt');
  t.match(
    again.effects.flatMap((effect) => (effect.kind === 'adopt' ? effect.plan : [])),
    [{ registration: 2, attempts: [{ state: 'FINISHED' }, { state: 'RUNNING' }] }, {}],
  );
});
