import t from 'tap';
import { MillraceError, toFailure } from '../../../../lib/base/errors.js';
import type { AllocationId, AttemptId, JobId, OperatorId } from '../../../../lib/base/ids.js';
import type { SlotDeployment } from '../../../../lib/gateway/task-deployment-descriptor.js';
import { AttemptInventories } from '../../../../lib/taskmanager/attempt-inventory.js';

const jobId = 'job' as JobId;
const [reading, mapping] = ['reading' as AttemptId, 'mapping' as AttemptId];
const [source, other] = ['source' as OperatorId, 'map' as OperatorId];

function deployment(
  options: { restoredFrom?: number; job?: JobId; allocation?: string } = {},
): SlotDeployment {
  const { restoredFrom, job = jobId, allocation = 'allocation' } = options;
  const task = (attemptId: AttemptId, id: OperatorId, kind: string): unknown => ({
    attemptId,
    vertex: { operators: [{ id, kind }] },
    ...(restoredFrom !== undefined && { restore: { checkpointId: restoredFrom } }),
  });
  return {
    jobId: job,
    allocationId: allocation as AllocationId,
    tasks: [task(reading, source, 'source'), task(mapping, other, 'operator')],
  } as unknown as SlotDeployment;
}

function deployed(restoredFrom?: number): AttemptInventories {
  const inventories = new AttemptInventories();
  inventories.deployed(deployment({ ...(restoredFrom !== undefined && { restoredFrom }) }), 2);
  return inventories;
}

const readerOf = (inventories: AttemptInventories): unknown =>
  inventories.of(jobId)[0]?.readers[source];
const give = (inventories: AttemptInventories, ...splits: unknown[]): void =>
  inventories.toReader(reading, source, { kind: 'addSplits', splits });

t.test('it begins as deployed, and belongs to one job', async (t) => {
  const inventories = deployed();
  const attempt = {
    allocationId: 'allocation',
    slotIndex: 2,
    state: 'DEPLOYING',
    lastCheckpointId: 0,
    completedCheckpointId: 0,
    endOfData: false,
  };
  const reader = { isRegistered: false, awaitsSplit: false, noMoreSplits: false, given: [] };
  t.strictSame(inventories.of(jobId), [
    { ...attempt, attemptId: reading, readers: { [source]: reader } },
    { ...attempt, attemptId: mapping, readers: {} },
  ]);
  t.strictSame(inventories.of('other' as JobId), []);
});

t.test('the last checkpoint is the highest acknowledged or restored from', async (t) => {
  const last = (inventories: AttemptInventories): unknown =>
    inventories.of(jobId)[0]?.lastCheckpointId;
  const inventories = deployed(7);
  t.equal(last(inventories), 7);
  inventories.acknowledged(reading, 9);
  inventories.acknowledged(reading, 8);
  t.equal(last(inventories), 9);
  inventories.triggered(reading, 12);
  t.equal(last(inventories), 9, 'not one that was only begun');
});

t.test('the completed checkpoint is the highest it was told of or restored from', async (t) => {
  const completed = (inventories: AttemptInventories): unknown =>
    inventories.of(jobId)[0]?.completedCheckpointId;
  const inventories = deployed(7);
  t.equal(completed(inventories), 7);
  inventories.acknowledged(reading, 9);
  t.equal(completed(inventories), 7, 'not one that it only acknowledged');
  inventories.completed(reading, 9);
  inventories.completed(reading, 8);
  inventories.completed(reading, 0);
  t.equal(completed(inventories), 9);
});

t.test(
  'states, failures and the end of data are kept when nobody was there to be told',
  async (t) => {
    const inventories = deployed();
    const failure = toFailure(new MillraceError('USER_FUNCTION', 'boom'));
    inventories.stateChanged(reading, 'RUNNING', undefined);
    inventories.stateChanged(reading, 'FAILED', failure);
    inventories.stateChanged(mapping, 'RUNNING', undefined);
    inventories.endOfData(mapping);
    t.match(inventories.of(jobId), [
      { state: 'FAILED', failure, endOfData: false },
      { state: 'RUNNING', failure: undefined, endOfData: true },
    ]);
    inventories.canceling('allocation' as AllocationId);
    t.match(
      inventories.of(jobId).map(({ state }) => state),
      ['FAILED', 'CANCELING'],
      'what is being ended is not to be adopted',
    );
  },
);

t.test('splits are kept with the checkpoint they came after, until one covers them', async (t) => {
  const inventories = deployed();
  give(inventories, 'a');
  inventories.triggered(reading, 1);
  give(inventories, 'b', 'c');
  inventories.triggered(reading, 2);
  give(inventories, 'd');
  const given = (): unknown => (readerOf(inventories) as { given: unknown }).given;
  t.strictSame(given(), [
    { after: 0, splits: ['a'] },
    { after: 1, splits: ['b', 'c'] },
    { after: 2, splits: ['d'] },
  ]);
  inventories.completed(reading, 1);
  t.match(given(), [{ after: 1 }, { after: 2 }]);
  inventories.completed(mapping, 9);
  t.match(given(), [{ after: 1 }, { after: 2 }], 'another attempt’s is none of its business');
  inventories.completed(reading, 2);
  inventories.completed(reading, 1);
  t.strictSame(given(), [{ after: 2, splits: ['d'] }]);
});

t.test('splits of a restored reader come after the checkpoint it was restored from', async (t) => {
  const inventories = deployed(7);
  give(inventories, 'a');
  t.match(readerOf(inventories), { given: [{ after: 7, splits: ['a'] }] });
});

t.test('a request stands until it is answered, by splits or by their end', async (t) => {
  const inventories = deployed();
  const ask = (): void => inventories.fromReader(reading, source, { kind: 'requestSplit' });
  inventories.fromReader(reading, source, { kind: 'readerRegistered', host: '' });
  t.match(readerOf(inventories), { isRegistered: true, awaitsSplit: false });
  ask();
  t.match(readerOf(inventories), { awaitsSplit: true, noMoreSplits: false });
  give(inventories, 'a');
  t.match(readerOf(inventories), { awaitsSplit: false });
  ask();
  inventories.toReader(reading, source, { kind: 'noMoreSplits' });
  t.match(readerOf(inventories), { awaitsSplit: false, noMoreSplits: true });
  inventories.fromReader(reading, other, { kind: 'requestSplit' });
  inventories.fromReader('gone' as AttemptId, source, { kind: 'requestSplit' });
  t.match(readerOf(inventories), { awaitsSplit: false }, 'events of nobody change nothing');
});

t.test(
  'what a slot ran before is forgotten with the next deployment, or when it is freed',
  async (t) => {
    const inventories = deployed();
    give(inventories, 'a');
    inventories.deployed(deployment({ restoredFrom: 3 }), 2);
    t.match(inventories.of(jobId), [
      { lastCheckpointId: 3, readers: { source: { given: [] } } },
      {},
    ]);
    inventories.forget('elsewhere' as AllocationId);
    t.equal(inventories.of(jobId).length, 2);
    inventories.forget('allocation' as AllocationId);
    t.strictSame(inventories.of(jobId), []);
  },
);
