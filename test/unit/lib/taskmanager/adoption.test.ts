/** A TaskManager keeps its tasks through a change of leader, and says what the next one must know to go on with them. */
import t from 'tap';
import { Deferred } from '../../../../lib/base/deferred.js';
import type { AllocationId, AttemptId, JobId, OperatorId } from '../../../../lib/base/ids.js';
import type { OperatorEvent } from '../../../../lib/operators/stream-operator.js';
import {
  ScriptedLeader,
  ackOf,
  allocationId,
  deployed,
  elected,
  first,
  fixture,
  jobId,
  second,
  statesOf,
} from '../../../support/task-executor-fixture.js';

t.test('a newer leader finds the tasks of the older one running', async (t) => {
  const f = await fixture(t);
  const old = await elected(t, f, 1);
  const slot = await deployed(f, old);
  const fresh = await elected(t, f, 2);
  t.same(slot.commands, [], 'nothing was asked of them');
  t.match(fresh.registration.slots.slots, [
    {
      slotIndex: 0,
      allocationId,
      jobId,
      attempts: [
        { attemptId: first, state: 'RUNNING' },
        { attemptId: second, state: 'RUNNING' },
      ],
    },
    { slotIndex: 1, attempts: [] },
  ]);
  t.match(await old.session.closed, /another leader/);
  await t.rejects(old.gateway.cancelTasks({ allocationId }), { code: 'RPC_DISCONNECTED' });
  old.gateway.notifyCheckpointComplete({ jobId, attemptIds: [first], checkpointId: 3 });
  await fresh.until(() => fresh.heartbeats.length > 1);
  t.same(slot.commands, [], 'nothing is committed because an older leader says so');
  await fresh.gateway.freeSlot({ allocationId, cause: 'not adopted' });
  t.same(slot.commands, [{ kind: 'cancel' }], 'the new one frees what it does not adopt');
});

t.test('what happened while there was no leader is in the inventory of the next', async (t) => {
  const f = await fixture(t);
  const old = await elected(t, f, 1);
  const slot = await deployed(f, old);
  const operatorId = 'o' as OperatorId;
  const say = (event: OperatorEvent): void => {
    slot.events.onReport({ kind: 'operatorEvent', attemptId: first, operatorId, event });
  };
  say({ kind: 'readerRegistered', host: '' });
  await old.until(() => old.other.length === 1);
  const checkpoint = { jobId, attemptIds: [first, second], checkpointId: 7 };
  old.gateway.triggerCheckpoint({ ...checkpoint, timestamp: 9 });
  const event = { kind: 'addSplits', splits: [{ id: 's' }] } as const;
  const taken = old.gateway.sendOperatorEvent({ jobId, attemptId: first, operatorId, event });
  await slot.until(() => slot.commands.length === 2);
  slot.takeAll();
  await taken;
  f.leadership.vanish();
  await old.server.close();
  await old.session.closed;

  slot.events.onReport(ackOf(first, 7));
  slot.events.onReport({ kind: 'endOfData', attemptId: first });
  say({ kind: 'requestSplit' });
  slot.events.onReport({ kind: 'taskState', attemptId: second, state: 'FINISHED' });
  const fresh = await elected(t, f, 2);
  t.strictSame(await fresh.gateway.requestInventory({ jobId: 'b'.repeat(32) as JobId }), {
    attempts: [],
  });
  t.strictSame(await fresh.gateway.requestInventory({ jobId }), {
    attempts: [
      {
        attemptId: first,
        allocationId,
        slotIndex: 0,
        state: 'RUNNING',
        lastCheckpointId: 7,
        completedCheckpointId: 0,
        endOfData: true,
        readers: {
          o: {
            isRegistered: true,
            awaitsSplit: true,
            noMoreSplits: false,
            given: [{ after: 7, splits: [{ id: 's' }] }],
          },
        },
      },
      {
        attemptId: second,
        allocationId,
        slotIndex: 0,
        state: 'FINISHED',
        lastCheckpointId: 0,
        completedCheckpointId: 0,
        endOfData: false,
        readers: { o: { isRegistered: false, awaitsSplit: false, noMoreSplits: false, given: [] } },
      },
    ],
  });
  t.strictSame(fresh.other, [], 'nothing else is told once more');
});

t.test('a new leader goes on with exactly the tasks it knows of', async (t) => {
  const f = await fixture(t);
  await deployed(f, await elected(t, f, 1));
  const { gateway } = await elected(t, f, 2);
  const [slot] = f.runner.started;
  const terms = { epochLabel: 'e1.2', completedCheckpointId: 7, abortedCheckpointId: 640 };
  const adopt = (request: { attemptIds?: AttemptId[]; job?: string }): Promise<void> =>
    gateway.adoptTasks({
      jobId: (request.job ?? jobId) as JobId,
      allocationId,
      attemptIds: request.attemptIds ?? [first, second],
      ...terms,
    });
  for (const wrong of [
    { attemptIds: [first] },
    { attemptIds: [first, second, 'third' as AttemptId] },
    { attemptIds: [first, 'third' as AttemptId] },
    { job: 'b'.repeat(32) },
  ]) {
    await t.rejects(adopt(wrong), { code: 'CONFLICT' });
  }
  t.strictSame(slot?.commands, [], 'the tasks heard nothing of these');
  let isTaken = false;
  const adopted = adopt({ attemptIds: [second, first] }).then(() => {
    isTaken = true;
  });
  await slot?.until(() => slot.commands.length === 1);
  t.strictSame(slot?.commands, [{ kind: 'adopt', ticket: 1, ...terms }]);
  t.notOk(isTaken, 'answered when the thread has taken it');
  slot?.takeAll();
  await adopted;
});

t.test('tasks that end while they are adopted are adopted only when all ended well', async (t) => {
  for (const [state, code] of [
    ['FINISHED', undefined],
    ['FAILED', 'SLOT_LOST'],
  ] as const) {
    const f = await fixture(t);
    const slot = await deployed(f, await elected(t, f, 1));
    const { gateway } = await elected(t, f, 2);
    const adopting = gateway.adoptTasks({
      jobId,
      allocationId,
      attemptIds: [first, second],
      epochLabel: 'e1.2',
      completedCheckpointId: 0,
      abortedCheckpointId: 640,
    });
    await slot.until(() => slot.commands.length === 1);
    slot.events.onReport({ kind: 'taskState', attemptId: first, state: 'FINISHED' });
    slot.events.onReport({ kind: 'taskState', attemptId: second, state });
    slot.events.onEnded(undefined);
    if (code === undefined) await t.resolves(adopting);
    else await t.rejects(adopting, { code });
  }
});

t.test('tasks that all ended well are adopted without a thread', async (t) => {
  const f = await fixture(t);
  const old = await elected(t, f, 1);
  const slot = await deployed(f, old);
  for (const attemptId of [first, second]) {
    slot.events.onReport({ kind: 'taskState', attemptId, state: 'FINISHED' });
  }
  slot.events.onEnded(undefined);
  const { gateway } = await elected(t, f, 2);
  const terms = { epochLabel: 'e1.2', completedCheckpointId: 7, abortedCheckpointId: 640 };
  const request = { jobId, allocationId, attemptIds: [first, second], ...terms };
  await t.resolves(gateway.adoptTasks(request));
  await gateway.freeSlot({ allocationId, cause: 'test' });
  await t.rejects(gateway.adoptTasks(request), { code: 'CONFLICT' }, 'its slot was freed');
  t.strictSame(await gateway.requestInventory({ jobId }), { attempts: [] });
});

t.test('threads are made ready for what a new leader does not adopt, not before', async (t) => {
  const f = await fixture(t);
  await deployed(f, await elected(t, f, 1));
  f.runner.prepared.length = 0;
  const { gateway } = await elected(t, f, 2);
  t.strictSame(f.runner.prepared, []);
  await gateway.freeSlot({ allocationId, cause: 'restored' });
  t.strictSame(f.runner.prepared, [1]);
});

t.test('where leaders restore, threads are made ready while nobody leads', async (t) => {
  const f = await fixture(t, {}, { expectsRestart: true });
  await deployed(f, await elected(t, f, 1));
  f.runner.prepared.length = 0;
  await elected(t, f, 2);
  t.strictSame(f.runner.prepared, [1], 'one for each slot that runs tasks');
});

t.test(
  'a task that ends between question and registration is told of, one way or the other',
  async (t) => {
    const f = await fixture(t);
    const slot = await deployed(f, await elected(t, f, 1));
    const fresh = new ScriptedLeader(f.rpc);
    await fresh.start(t, 2);
    const registered = new Deferred<void>();
    fresh.acceptance = registered.promise;
    const accepted = fresh.accepted();
    f.leadership.elect(fresh.address, 2);
    const { gateway } = await accepted;
    // As the JobMaster does, which hears of the TaskManager before that hears that it is registered.
    const asked = gateway.requestInventory({ jobId });
    // Calls are served in order: the question has arrived.
    await gateway.cancelTasks({ allocationId: 'none' as AllocationId });
    slot.events.onReport({ kind: 'taskState', attemptId: first, state: 'FAILED' });
    registered.resolve();
    const { attempts } = await asked;
    const found = attempts.find(({ attemptId }) => attemptId === first)?.state;
    t.ok(
      found === 'FAILED' || statesOf(fresh).includes(`${first} FAILED`),
      `found ${String(found)}`,
    );
  },
);

t.test('a leader that does not answer is not waited for when another is known', async (t) => {
  const f = await fixture(t);
  const silent = new ScriptedLeader(f.rpc);
  await silent.start(t, 1);
  silent.acceptance = new Promise(() => undefined);
  const asked = silent.accepted();
  f.leadership.elect(silent.address, 1);
  const { session } = await asked;
  await elected(t, f, 2);
  t.equal(await session.closed, 'another leader is known');
});
