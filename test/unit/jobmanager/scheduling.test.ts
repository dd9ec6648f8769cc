import fc from 'fast-check';
import t from 'tap';
import type { AttemptId, OperatorId } from '../../../lib/base/ids.js';
import { SeededRandom } from '../../../lib/base/random.js';
import {
  consumersOf,
  producersOf,
} from '../../../lib/jobmanager/executiongraph/distribution-pattern.js';
import { ExecutionTopology } from '../../../lib/jobmanager/executiongraph/execution-topology.js';
import { FailoverStrategy } from '../../../lib/jobmanager/executiongraph/failover-strategy.js';
import { pipelinedRegions } from '../../../lib/jobmanager/executiongraph/pipelined-regions.js';
import { createRestartStrategy } from '../../../lib/jobmanager/executiongraph/restart-strategy.js';
import { shareSlots } from '../../../lib/jobmanager/executiongraph/slot-sharing.js';
import { SourceCoordinator } from '../../../lib/jobmanager/jobmaster/source-coordinator.js';
import { SplitAssignmentTracker } from '../../../lib/jobmanager/jobmaster/split-assignment-tracker.js';
import type { OperatorEvent } from '../../../lib/operators/stream-operator.js';
import { testGraph } from '../../support/job-graphs.js';

t.test('both ends of a channel agree on it, and every subtask has one', async (t) => {
  const parallelism = fc.integer({ min: 1, max: 40 });
  fc.assert(
    fc.property(
      fc.constantFrom('POINTWISE', 'ALL_TO_ALL'),
      parallelism,
      parallelism,
      (pattern, p, c) => {
        for (let producer = 0; producer < p; producer++) {
          const consumers = consumersOf(pattern, producer, p, c);
          if (consumers.length === 0) return false;
          for (const consumer of consumers) {
            if (!producersOf(pattern, consumer, p, c).includes(producer)) return false;
          }
        }
        for (let consumer = 0; consumer < c; consumer++) {
          const producers = producersOf(pattern, consumer, p, c);
          if (producers.length === 0) return false;
          for (const producer of producers) {
            if (!consumersOf(pattern, producer, p, c).includes(consumer)) return false;
          }
        }
        return true;
      },
    ),
  );
  t.same(consumersOf('POINTWISE', 1, 2, 4), [2, 3], 'as Flink distributes two over four');
  t.same(producersOf('POINTWISE', 1, 5, 2), [2, 3, 4], 'as Flink distributes five over two');
});

t.test(
  'a job needs as many slots as the sum over its groups of the highest parallelism',
  async (t) => {
    const one = testGraph({
      vertices: [
        { name: 'src', parallelism: 6 },
        { name: 'win', parallelism: 6 },
        { name: 'snk', parallelism: 1 },
      ],
    });
    const slots = shareSlots(new ExecutionTopology(one));
    t.equal(slots.length, 6);
    t.same(slots[0]?.positions, [0, 6, 12], 'the first holds a whole pipeline');
    t.same(slots[5]?.positions, [5, 11]);
    const split = testGraph({
      vertices: [
        { name: 'src', parallelism: 2, group: 'in' },
        { name: 'win', parallelism: 3 },
      ],
    });
    t.equal(shareSlots(new ExecutionTopology(split)).length, 5);
  },
);

t.test(
  'an exchange by key makes one region, forward edges as many as the parallelism',
  async (t) => {
    const vertices = [
      { name: 'a', parallelism: 3 },
      { name: 'b', parallelism: 3 },
    ];
    const forward = new ExecutionTopology(testGraph({ vertices, edges: [['a', 'b', 'FORWARD']] }));
    t.same(pipelinedRegions(forward), [
      [0, 3],
      [1, 4],
      [2, 5],
    ]);
    const keyed = new ExecutionTopology(testGraph({ vertices, edges: [['a', 'b', 'HASH']] }));
    t.same(pipelinedRegions(keyed), [[0, 1, 2, 3, 4, 5]]);
  },
);

t.test('a failure restarts its region, widened over shared slots', async (t) => {
  const vertices = [
    { name: 'a', parallelism: 3 },
    { name: 'b', parallelism: 3 },
    { name: 'c', parallelism: 1, isSource: true },
  ];
  const topology = new ExecutionTopology(testGraph({ vertices, edges: [['a', 'b', 'FORWARD']] }));
  const slots = shareSlots(topology);
  const failover = new FailoverStrategy(topology, slots);
  t.same(failover.slotsToRestart('default/1'), ['default/1']);
  const joined = new ExecutionTopology(
    testGraph({
      vertices: [
        ...vertices.slice(0, 2),
        { name: 'c', parallelism: 2, isSource: true },
        { name: 'd', parallelism: 1 },
      ],
      edges: [
        ['a', 'b', 'FORWARD'],
        ['c', 'd', 'HASH'],
      ],
    }),
  );
  const wider = new FailoverStrategy(joined, shareSlots(joined));
  t.same(
    wider.slotsToRestart('default/0'),
    ['default/0', 'default/1'],
    'the exchange c -> d lies in both slots',
  );
  t.same(wider.slotsToRestart('default/2'), ['default/2']);
});

t.test('restart strategies follow Flink', async (t) => {
  const random = new SeededRandom(1);
  t.match(createRestartStrategy({ type: 'none' }, random).onFailure(0), { kind: 'giveUp' });

  const fixed = createRestartStrategy({ type: 'fixed-delay', attempts: 2, delayMs: 5 }, random);
  t.same(
    [fixed.onFailure(0), fixed.onFailure(9)].map((one) => one.kind),
    ['restart', 'restart'],
  );
  t.match(fixed.onFailure(20), { kind: 'giveUp', reason: /2 restarts/ });

  const exponential = createRestartStrategy(
    {
      type: 'exponential-delay',
      initialBackoffMs: 1_000,
      maxBackoffMs: 3_000,
      backoffMultiplier: 2,
      resetBackoffThresholdMs: 60_000,
      jitterFactor: 0,
      attemptsBeforeResetBackoff: 4,
    },
    random,
  );
  t.same(exponential.onFailure(0), { kind: 'restart', delayMs: 1_000 });
  t.same(
    exponential.onFailure(400),
    { kind: 'restart', delayMs: 600 },
    'the pending restart answers this one too',
  );
  t.same(exponential.onFailure(2_000), { kind: 'restart', delayMs: 2_000 });
  t.same(exponential.onFailure(5_000), { kind: 'restart', delayMs: 3_000 }, 'capped');
  t.same(
    exponential.onFailure(100_000),
    { kind: 'restart', delayMs: 1_000 },
    'quiet for long enough: from the start',
  );
  let now = 102_000;
  for (let i = 0; i < 3; i++) {
    t.equal(exponential.onFailure(now).kind, 'restart');
    now += 4_000;
  }
  t.match(exponential.onFailure(now), { kind: 'giveUp', reason: /4 restarts/ });
});

t.test('splits that the restored checkpoint does not cover come back in order', async (t) => {
  const tracker = new SplitAssignmentTracker();
  tracker.record(0, ['a']);
  tracker.record(1, ['x']);
  tracker.onSnapshot(1);
  tracker.record(0, ['b', 'c']);
  tracker.onSnapshot(2);
  tracker.record(0, ['d']);
  tracker.onCheckpointComplete(1);
  t.same(tracker.takeBack(0, 1), ['b', 'c', 'd']);
  t.same(tracker.takeBack(0, 1), [], 'once');
  t.same(tracker.takeBack(1, 1), [], 'covered by the checkpoint');
  tracker.record(1, ['y']);
  tracker.onSnapshot(3);
  t.same(tracker.takeBack(1, undefined), ['y'], 'without a checkpoint everything comes back');
});

t.test('what an enumerator said to the reader before is not said to its successor', async (t) => {
  const sent: [AttemptId, OperatorEvent][] = [];
  const source = new SourceCoordinator('s' as OperatorId, {
    command: () => undefined,
    sendEvent: (attemptId, event) => {
      sent.push([attemptId, event]);
      return Promise.resolve();
    },
    onSendFailed: () => undefined,
  });
  const [first, second] = ['a' as AttemptId, 'b' as AttemptId];
  source.onReaderEvent(0, first, { kind: 'readerRegistered', host: '' });
  source.onReaderAdded(0);
  source.onAssigned(0, ['x']);
  source.resetSubtask(0, undefined);
  source.onReaderEvent(0, second, { kind: 'readerRegistered', host: '' });
  // On its way since before "x" was given back: the new reader would end without it.
  source.onNoMoreSplits(0);
  t.same(sent, [[first, { kind: 'addSplits', splits: ['x'] }]]);
  source.onReaderAdded(0);
  source.onAssigned(0, ['x']);
  source.onNoMoreSplits(0);
  t.same(sent.slice(1), [
    [second, { kind: 'addSplits', splits: ['x'] }],
    [second, { kind: 'noMoreSplits' }],
  ]);
});
