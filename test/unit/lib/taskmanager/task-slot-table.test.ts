import t from 'tap';
import type { AllocationId, AttemptId, JobId } from '../../../../lib/base/ids.js';
import {
  slotTransitions,
  TaskSlotTable,
  type SlotState,
  type SlotTableInput,
} from '../../../../lib/taskmanager/task-slot-table.machine.js';

const job = 'job' as JobId;
const [a, b] = ['alloc-a' as AllocationId, 'alloc-b' as AllocationId];
const [x, y] = ['x' as AttemptId, 'y' as AttemptId];
const request = (slotIndex: number, allocationId = a, jobId = job): SlotTableInput => ({
  kind: 'slotRequested',
  slotIndex,
  jobId,
  allocationId,
});
const submit = (allocationId = a, attemptIds = [x, y]): SlotTableInput => ({
  kind: 'tasksSubmitted',
  jobId: job,
  allocationId,
  attemptIds,
});

t.test('a slot goes to one allocation, and a repeated request changes nothing', async (t) => {
  const table = new TaskSlotTable(2);
  t.same(table.step(request(0)), []);
  t.same(table.step(request(0)), []);
  t.match(table.step(request(0, b)), [{ kind: 'refuse', code: 'CONFLICT', message: /allocated/ }]);
  t.match(table.step(request(1, a)), [{ kind: 'refuse', message: /already has slot 0/ }]);
  t.match(table.step(request(5, b)), [{ kind: 'refuse', message: /there is no slot 5/ }]);
  t.match(table.step(request(0, a, 'other' as JobId)), [{ kind: 'refuse' }]);
  t.same(table.allocations(), [a]);
});

t.test('tasks start in a slot of their job whose last thread is gone', async (t) => {
  const table = new TaskSlotTable(1);
  t.match(table.step(submit()), [{ kind: 'refuse', message: /holds no slot/ }]);
  table.step(request(0));
  t.same(table.step(submit()), [{ kind: 'startThread', slotIndex: 0 }]);
  t.match(table.step(submit()), [{ kind: 'refuse', message: /is active/ }]);
  t.same(table.liveAttempts(a), [x, y]);
  table.step({ kind: 'threadEnded', allocationId: a });
  t.equal(table.state(0), 'allocated', 'the slot stays with its job');
  t.same(table.step(submit(a, [y])), [{ kind: 'startThread', slotIndex: 0 }]);
  t.equal(table.allocationOf(x), undefined, 'attempts of the deployment before are forgotten');
});

t.test('states are reported once, in legal order, and old news is dropped', async (t) => {
  const table = new TaskSlotTable(1);
  table.step(request(0));
  table.step(submit());
  const report = (attemptId: AttemptId, state: 'RUNNING' | 'FAILED' | 'FINISHED'): unknown =>
    table.step({ kind: 'taskStateReported', allocationId: a, attemptId, state });
  t.match(report(x, 'RUNNING'), [{ kind: 'reportState', jobId: job, attemptId: x }]);
  t.same(report(x, 'RUNNING'), []);
  t.match(report(x, 'FAILED'), [{ state: 'FAILED' }]);
  t.same(report(x, 'FINISHED'), [], 'an attempt that failed does not finish');
  t.same(report('unknown' as AttemptId, 'RUNNING'), []);
  t.same(table.liveAttempts(a), [y]);
  t.same(table.report().slots, [
    {
      slotIndex: 0,
      allocationId: a,
      jobId: job,
      attempts: [
        { attemptId: x, state: 'FAILED' },
        { attemptId: y, state: 'DEPLOYING' },
      ],
    },
  ]);
});

t.test('a slot is free when its thread is gone, not before', async (t) => {
  const table = new TaskSlotTable(1);
  table.step(request(0));
  t.same(table.step({ kind: 'slotFreed', allocationId: a }), [], 'without a thread at once');
  t.equal(table.state(0), 'free');
  table.step(request(0, b));
  table.step(submit(b));
  t.same(table.step({ kind: 'slotFreed', allocationId: b }), [
    { kind: 'endThread', allocationId: b },
  ]);
  t.same(table.step({ kind: 'slotFreed', allocationId: b }), [], 'freeing is idempotent');
  t.match(table.step(request(0, a)), [{ kind: 'refuse', message: /releasing/ }]);
  table.step({ kind: 'threadEnded', allocationId: b });
  t.same(table.report().slots, [{ slotIndex: 0, attempts: [] }]);
  t.same(table.step({ kind: 'threadEnded', allocationId: b }), [], 'of an unknown allocation');
  t.same(table.step(request(0, a)), []);
});

t.test('every transition of the table is taken by some history', async (t) => {
  const taken = new Set<string>();
  const inputs: SlotTableInput[] = [
    request(0),
    { kind: 'slotFreed', allocationId: a },
    request(0),
    submit(),
    { kind: 'threadEnded', allocationId: a },
    submit(),
    { kind: 'slotFreed', allocationId: a },
    { kind: 'threadEnded', allocationId: a },
  ];
  const table = new TaskSlotTable(1);
  let state = table.state(0);
  for (const input of inputs) {
    table.step(input);
    const next = table.state(0);
    if (next !== state) taken.add(`${state} -> ${next}`);
    state = next;
  }
  const legal = Object.entries(slotTransitions).flatMap(
    ([from, to]: [string, readonly SlotState[]]) => to.map((state) => `${from} -> ${state}`),
  );
  t.same([...taken].sort(), legal.sort());
});
