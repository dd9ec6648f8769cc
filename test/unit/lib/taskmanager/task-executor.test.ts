/** The TaskManager's endpoint against a scripted leader over the local transport, with slots that do as told. */
import t from 'tap';
import { Deferred } from '../../../../lib/base/deferred.js';
import { MillraceError, toFailure } from '../../../../lib/base/errors.js';
import type { AllocationId, AttemptId, OperatorId } from '../../../../lib/base/ids.js';
import { testEnv } from '../../../conformance/rpc-service.js';
import {
  ScriptedLeader,
  ackOf,
  allocationId,
  deployed,
  deployment,
  elected,
  first,
  fixture,
  jobId,
  second,
  statesOf,
} from '../../../support/task-executor-fixture.js';

t.test('it registers with the leader and reports slots, metrics and process', async (t) => {
  const f = await fixture(t);
  const leader = await elected(t, f);
  t.match(leader.registration, {
    taskManagerId: 'tm-1',
    dataAddress: 'localhost:1',
    slots: { slots: [{ slotIndex: 0, attempts: [] }, { slotIndex: 1 }] },
  });
  const slot = await deployed(f, leader);
  const metrics = {
    attemptId: first,
    numRecordsIn: 5,
    numRecordsOut: 4,
    numBytesIn: 0,
    numBytesOut: 0,
    busyMs: 1,
    backPressuredMs: 0,
    idleMs: 0,
    currentInputWatermark: -Infinity,
    numLateRecordsDropped: 0,
  };
  slot.events.onReport({ kind: 'metrics', tasks: [metrics] });
  leader.heartbeats = [];
  await leader.until(() => leader.heartbeats.length > 0);
  t.match(leader.heartbeats[0], {
    slots: {
      slots: [{ allocationId, jobId, attempts: [{ attemptId: first, state: 'RUNNING' }, {}] }, {}],
    },
    taskMetrics: [metrics],
    process: { rssBytes: 1, heapUsedBytes: 2, eventLoopLagMs: 3, networkMemoryBytes: 0 },
  });
});

t.test('what the tasks say reaches the leader, and its commands the right slot', async (t) => {
  const f = await fixture(t);
  const leader = await elected(t, f);
  const slot = await deployed(f, leader);
  const checkpoint = { jobId, attemptIds: [first, 'elsewhere' as AttemptId], checkpointId: 7 };
  leader.gateway.triggerCheckpoint({ ...checkpoint, timestamp: 9 });
  leader.gateway.notifyCheckpointComplete(checkpoint);
  leader.gateway.notifyCheckpointAborted(checkpoint);
  const operatorId = 'op' as OperatorId;
  const event = { kind: 'noMoreSplits' } as const;
  const taken = leader.gateway.sendOperatorEvent({ jobId, attemptId: second, operatorId, event });
  await t.rejects(
    leader.gateway.sendOperatorEvent({
      jobId,
      attemptId: 'older' as AttemptId,
      operatorId,
      event,
    }),
    { code: 'STALE_EPOCH' },
  );
  t.same(slot.commands, [
    { kind: 'triggerCheckpoint', attemptIds: [first], checkpointId: 7, timestamp: 9 },
    { kind: 'checkpointComplete', attemptIds: [first], checkpointId: 7 },
    { kind: 'checkpointAborted', attemptIds: [first], checkpointId: 7 },
    { kind: 'operatorEvent', ticket: 1, attemptId: second, operatorId, event },
  ]);
  slot.events.onReport({ kind: 'taken', ticket: 1 });
  await t.resolves(taken);
  const { kind: _, ...ack } = ackOf(first, 7);
  slot.events.onReport(ackOf(first, 7));
  slot.events.onReport({
    kind: 'checkpointDecline',
    attemptId: second,
    checkpointId: 7,
    failure: toFailure(new Error('no')),
  });
  slot.events.onReport({ kind: 'endOfData', attemptId: first });
  await leader.until(() => leader.other.length === 3);
  t.match(leader.other, [
    { kind: 'ack', value: { jobId, ...ack } },
    { kind: 'decline', value: { jobId, attemptId: second, failure: { message: 'no' } } },
    { kind: 'endOfData', value: { jobId, attemptId: first } },
  ]);
});

t.test('a snapshot too large for a message declines its checkpoint', async (t) => {
  const f = await fixture(t);
  const leader = await elected(t, f);
  const slot = await deployed(f, leader);
  const bytes = new Uint8Array(65 * 1024 * 1024);
  const operators = { op: { operator: { kind: 'inline', bytes } } } as never;
  slot.events.onReport({
    kind: 'checkpointAck',
    attemptId: first,
    checkpointId: 3,
    snapshot: { operators, finished: false },
    alignmentMs: 0,
    syncMs: 0,
    asyncMs: 0,
    startDelayMs: 0,
  });
  await leader.until(() => leader.other.length === 1);
  t.match(leader.other, [
    { kind: 'decline', value: { checkpointId: 3, failure: { code: 'RPC_PROTOCOL' } } },
  ]);
});

t.test('cancelled tasks end before the answer, and the slot stays with its job', async (t) => {
  const f = await fixture(t);
  const leader = await elected(t, f);
  const slot = await deployed(f, leader);
  await leader.gateway.cancelTasks({ allocationId });
  t.same(slot.commands, [{ kind: 'cancel' }]);
  t.same(statesOf(leader).slice(2), [`${first} CANCELED`, `${second} CANCELED`]);
  await t.resolves(leader.gateway.cancelTasks({ allocationId }), 'idempotent');
  await t.resolves(leader.gateway.submitTasks(deployment()), 'the slot takes new tasks');
  const next = f.runner.started[1];
  t.not(next, slot, 'in a new thread');
});

t.test('tasks that do not obey are ended with their thread', async (t) => {
  const f = await fixture(t);
  const leader = await elected(t, f);
  const slot = await deployed(f, leader);
  slot.obeys = false;
  await leader.gateway.freeSlot({ allocationId, cause: 'test' });
  t.same(statesOf(leader).slice(2), [`${first} CANCELED`, `${second} CANCELED`]);
  await t.resolves(
    leader.gateway.requestSlot({ jobId, allocationId: 'other' as AllocationId, slotIndex: 0 }),
  );
});

t.test('a thread that cannot be ended ends the process', async (t) => {
  const f = await fixture(t);
  const leader = await elected(t, f);
  const slot = await deployed(f, leader);
  slot.obeys = false;
  slot.terminate = () => undefined;
  leader.gateway.cancelTasks({ allocationId }).catch(() => undefined);
  t.match(await f.fatal, { code: 'TASK_CANCEL_TIMEOUT', message: /task\.cancellation\.timeout/ });
  slot.events.onEnded(undefined);
});

t.test('a slot that dies fails the tasks that had not ended', async (t) => {
  const f = await fixture(t);
  const leader = await elected(t, f);
  const slot = await deployed(f, leader);
  slot.events.onReport({ kind: 'taskState', attemptId: first, state: 'FINISHED' });
  slot.events.onEnded(toFailure(new MillraceError('SLOT_LOST', 'gone')));
  await leader.until(() => leader.updates.length === 4);
  t.same(statesOf(leader).slice(2), [`${first} FINISHED`, `${second} FAILED`]);
  t.match(leader.updates[3]?.failure, { code: 'SLOT_LOST' });
});

t.test('a bundle that cannot be fetched fails the tasks', async (t) => {
  const f = await fixture(t);
  const leader = await elected(t, f);
  await leader.gateway.requestSlot({ jobId, allocationId, slotIndex: 1 });
  await leader.gateway.submitTasks(deployment([first], true));
  await leader.until(() => leader.updates.length === 1);
  t.match(leader.updates, [
    { attemptId: first, state: 'FAILED', failure: { code: 'JOB_NOT_FOUND' } },
  ]);
});

t.test('a broken session to the same leader keeps tasks running', async (t) => {
  const f = await fixture(t);
  const leader = await elected(t, f);
  const slot = await deployed(f, leader);
  const again = leader.accepted();
  leader.session.close('link broken');
  t.match((await again).registration.slots.slots[0], {
    allocationId,
    attempts: [{ attemptId: first, state: 'RUNNING' }, { attemptId: second }],
  });
  t.same(slot.commands, []);
});

t.test('what a leader publishes of itself does not end its sessions', async (t) => {
  const f = await fixture(t);
  const leader = new ScriptedLeader(f.rpc);
  await leader.start(t, 1);
  let over: string | undefined;
  leader.onAccept = () => {
    f.leadership.elect(leader.address, 1, 'ACTIVE');
  };
  const accepted = leader.accepted();
  f.leadership.elect(leader.address, 1, 'RECOVERING');
  const { session, gateway } = await accepted;
  void session.closed.then((reason) => {
    over = reason;
  });
  f.leadership.vanish();
  f.leadership.elect(leader.address, 1, 'SUSPENDED');
  f.leadership.elect(leader.address, 1, 'ACTIVE');
  await leader.until(() => leader.heartbeats.length >= 2);
  await t.resolves(gateway.requestSlot({ jobId, allocationId, slotIndex: 0 }));
  t.equal(over, undefined);
});

t.test('a leader that does not answer heartbeats is left', async (t) => {
  const f = await fixture(t);
  const leader = await elected(t, f);
  leader.answersHeartbeats = false;
  t.match(await leader.session.closed, /did not answer heartbeats for 500 ms/);
});

t.test('tasks are given up when there is no leader for long, not while etcd is out', async (t) => {
  let isReadable = false;
  const f = await fixture(t, {
    probeHa: () => (isReadable ? Promise.resolve() : Promise.reject(new Error('no quorum'))),
  });
  const leader = await elected(t, f);
  const slot = await deployed(f, leader);
  const ended = new Deferred<void>();
  slot.send = (command) => {
    slot.commands.push(command);
    slot.events.onEnded(undefined);
    ended.resolve();
  };
  f.leadership.vanish();
  await leader.server.close();
  // 20 s of the hasty clock: twice the leaderless time.
  await new Promise<void>((resolve) => testEnv.clock.setTimer(200, resolve));
  t.same(slot.commands, [], 'etcd cannot be read: tasks go on');
  isReadable = true;
  await ended.promise;
  t.same(slot.commands, [{ kind: 'cancel' }]);
});

t.test('a TaskManager that never finds a leader gives up', async (t) => {
  const f = await fixture(t);
  t.match(await f.fatal, {
    code: 'NO_LEADER',
    message: /no JobManager led.*taskmanager\.registration\.timeout/,
  });
});

t.test('closing tells the leader, ends the tasks and refuses new ones', async (t) => {
  const f = await fixture(t);
  const leader = await elected(t, f);
  const slot = await deployed(f, leader);
  await Promise.all([f.executor.close(), f.executor.close()]);
  t.equal(await leader.session.closed, 'the TaskManager shuts down');
  t.same(slot.commands, [{ kind: 'cancel' }]);
  await t.rejects(f.executor.submitTasks(deployment()), { code: 'CLOSED' });
});
