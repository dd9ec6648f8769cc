import fc from 'fast-check';
import t from 'tap';
import { MillraceError, toFailure, type Failure } from '../../../lib/base/errors.js';
import type { AllocationId, AttemptId, TaskManagerId } from '../../../lib/base/ids.js';
import { isGloballyTerminal } from '../../../lib/gateway/job-status.js';
import type { JobGraph } from '../../../lib/graph/job-graph.js';
import { ExceptionHistory } from '../../../lib/jobmanager/executiongraph/exception-history.js';
import {
  ExecutionGraph,
  type AdoptedExecution,
  type ExecutionGraphEffect,
  type ExecutionGraphInput,
} from '../../../lib/jobmanager/executiongraph/execution-graph.machine.js';
import { ExecutionTopology } from '../../../lib/jobmanager/executiongraph/execution-topology.js';
import type { SlotLocation } from '../../../lib/jobmanager/executiongraph/execution.js';
import { FailoverStrategy } from '../../../lib/jobmanager/executiongraph/failover-strategy.js';
import { createRestartStrategy } from '../../../lib/jobmanager/executiongraph/restart-strategy.js';
import { shareSlots } from '../../../lib/jobmanager/executiongraph/slot-sharing.js';
import { SeededRandom } from '../../../lib/base/random.js';
import { testGraph } from '../../support/job-graphs.js';

const failure = (message: string): Failure =>
  toFailure(new MillraceError('USER_FUNCTION', message));

/** Drives the machine as a JobMaster does; a test decides when answers come. */
class Harness {
  readonly history = new ExceptionHistory(16);
  readonly graph: ExecutionGraph;
  readonly log: ExecutionGraphEffect[] = [];
  /** What was asked for and not answered yet. */
  readonly open: ExecutionGraphEffect[] = [];
  readonly deployed = new Set<string>();
  now = 0;
  #allocations = 0;
  #locations = new Map<string, SlotLocation>();

  constructor(job: JobGraph, isRecovered = false) {
    const topology = new ExecutionTopology(job);
    const slots = shareSlots(topology);
    let nonce = 0;
    this.graph = new ExecutionGraph(
      {
        topology,
        slots,
        failover: new FailoverStrategy(topology, slots),
        restartStrategy: createRestartStrategy(job.config.restartStrategy, new SeededRandom(1)),
        history: this.history,
        newAttemptId: ({ subtask }, generation) =>
          `${subtask.vertex.name}_${String(subtask.subtaskIndex)}_${String(generation)}_${String((nonce += 1))}` as AttemptId,
        firstGeneration: isRecovered ? 4 : 0,
        isRecovered,
      },
      { now: 0, wall: 1 },
    );
  }

  step(input: ExecutionGraphInput): void {
    for (const effect of this.graph.step(input, { now: this.now, wall: this.now + 1 })) {
      this.log.push(effect);
      if (effect.kind === 'deploySlots') {
        for (const key of effect.slotKeys) {
          if (this.deployed.has(key)) throw new Error(`${key} is deployed twice`);
          this.deployed.add(key);
        }
      } else if (
        ['requestSlots', 'prepareDeployment', 'cancelSlot', 'armRestartTimer'].includes(effect.kind)
      ) {
        this.open.push(effect);
      }
    }
  }

  /** Answers one open effect; undefined when there is none of the kind. */
  answer(kind?: ExecutionGraphEffect['kind']): boolean {
    const index = this.open.findIndex((effect) => kind === undefined || effect.kind === kind);
    const [effect] = index < 0 ? [] : this.open.splice(index, 1);
    switch (effect?.kind) {
      case 'requestSlots':
        this.step({
          kind: 'slotsAllocated',
          round: effect.round,
          slots: this.#allocate(effect.slotKeys),
        });
        return true;
      case 'prepareDeployment':
        this.step({ kind: 'deploymentPrepared', round: effect.round });
        return true;
      case 'cancelSlot':
        this.deployed.delete(effect.slotKey);
        this.step({
          kind: 'slotCanceled',
          slotKey: effect.slotKey,
          allocationId: effect.allocationId,
        });
        return true;
      case 'armRestartTimer':
        this.now += effect.delayMs;
        this.step({ kind: 'restartDelayElapsed', round: effect.round });
        return true;
      default:
        return false;
    }
  }

  answerAll(): void {
    while (this.answer()) continue;
  }

  /** Every deployed task reports this state. */
  report(state: 'RUNNING' | 'FINISHED'): void {
    for (const { current } of this.graph.vertices) {
      if (current !== undefined)
        this.step({ kind: 'taskStateChanged', attemptId: current.attemptId, state });
    }
  }

  attempt(position: number): AttemptId {
    return this.graph.vertices[position]?.current?.attemptId ?? ('' as AttemptId);
  }

  fail(position: number, cause = failure('boom')): void {
    this.step({
      kind: 'taskStateChanged',
      attemptId: this.attempt(position),
      state: 'FAILED',
      failure: cause,
    });
  }

  lose(slotKeys: readonly string[]): void {
    const allocationIds = new Set(
      slotKeys.flatMap((key) => this.#locations.get(key)?.allocationId ?? []),
    );
    for (const key of slotKeys) {
      this.#locations.delete(key);
      this.deployed.delete(key);
    }
    this.step({
      kind: 'slotsLost',
      allocationIds,
      failure: toFailure(new MillraceError('SLOT_LOST', 'gone')),
    });
  }

  #allocate(slotKeys: readonly string[]): Map<string, SlotLocation> {
    for (const key of slotKeys) {
      if (this.#locations.has(key)) continue;
      this.#locations.set(key, {
        allocationId: `alloc-${String((this.#allocations += 1))}` as AllocationId,
        taskManagerId: 'tm' as TaskManagerId,
        dataAddress: 'tm:1',
      });
    }
    return new Map(slotKeys.map((key) => [key, this.#locations.get(key) as SlotLocation]));
  }

  /** Every slot runs since an earlier leader. */
  adopt(finished: readonly number[] = []): void {
    const attempts = new Map<number, AdoptedExecution>();
    for (const { slotKey, subtask } of this.graph.vertices) {
      const location = this.#allocate([slotKey]).get(slotKey);
      if (location === undefined) continue;
      this.deployed.add(slotKey);
      const { position, subtaskIndex, vertex } = subtask;
      attempts.set(position, {
        attemptId: `${vertex.name}_${String(subtaskIndex)}_3_old` as AttemptId,
        attemptNumber: 2,
        generation: 3,
        state: finished.includes(position) ? 'FINISHED' : 'RUNNING',
        location,
        endOfData: position === 1,
      });
    }
    this.step({ kind: 'adopted', attempts });
  }

  kinds(): string[] {
    return this.log.splice(0).map(({ kind }) => kind);
  }
}

const keyed = testGraph({
  vertices: [
    { name: 'src', parallelism: 2 },
    { name: 'win', parallelism: 2 },
  ],
  edges: [['src', 'win', 'HASH']],
});
const parallel = testGraph({
  vertices: [
    { name: 'src', parallelism: 3 },
    { name: 'map', parallelism: 3 },
  ],
  edges: [['src', 'map', 'FORWARD']],
});

function running(job: JobGraph): Harness {
  const harness = new Harness(job);
  harness.step({ kind: 'started' });
  harness.answerAll();
  harness.report('RUNNING');
  harness.kinds();
  return harness;
}

t.test('attempts are recorded before anything is deployed', async (t) => {
  const harness = new Harness(keyed);
  harness.step({ kind: 'started' });
  t.same(harness.kinds(), ['statusChanged', 'requestSlots']);
  t.equal(harness.graph.status, 'CREATED');
  harness.answer('requestSlots');
  t.same(harness.kinds(), ['prepareDeployment']);
  harness.answer('prepareDeployment');
  t.same(harness.kinds(), ['statusChanged', 'deploySlots']);
  harness.report('RUNNING');
  t.same(harness.kinds(), ['allTasksRunning', 'startCheckpoints']);
  harness.report('FINISHED');
  t.equal(harness.graph.status, 'FINISHED');
  t.match(harness.log.at(-1), { kind: 'jobEnded', status: 'FINISHED' });
});

t.test('only the region of a failed task restarts, and others keep their attempts', async (t) => {
  const harness = running(parallel);
  const kept = harness.attempt(0);
  harness.fail(4);
  t.equal(harness.graph.status, 'RESTARTING');
  t.same(harness.kinds(), [
    'taskFailed',
    'stopCheckpoints',
    'statusChanged',
    'cancelSlot',
    'armRestartTimer',
  ]);
  harness.answerAll();
  t.match(
    harness.log.find(({ kind }) => kind === 'prepareDeployment'),
    { slotKeys: ['default/1'], isFull: false },
  );
  harness.report('RUNNING');
  t.equal(harness.graph.status, 'RUNNING');
  t.equal(harness.attempt(0), kept);
  t.match(harness.attempt(1), /^src_1_1_/, 'its pipeline has a new generation');
  t.equal(harness.graph.vertices[1]?.current?.attemptNumber, 1);
});

t.test('what fails along with a failure belongs to it and costs no further restart', async (t) => {
  const harness = running(keyed);
  harness.fail(2, failure('root'));
  harness.fail(3, failure('connection to a dead peer'));
  const { entries } = harness.history.view(5).exceptionHistory;
  t.equal(entries.length, 1);
  t.match(entries[0]?.concurrentExceptions, [
    { failure: { message: 'connection to a dead peer' } },
  ]);
  harness.answerAll();
  harness.report('RUNNING');
  t.equal(harness.graph.status, 'RUNNING');
  t.equal(harness.graph.generation, 1);
});

t.test(
  'tasks are gone before their successors start, however long the delay was over',
  async (t) => {
    const harness = running(keyed);
    harness.fail(0);
    harness.answer('armRestartTimer');
    t.same(
      harness.open.map(({ kind }) => kind),
      ['cancelSlot', 'cancelSlot'],
    );
    harness.answer('cancelSlot');
    t.notOk(harness.open.some(({ kind }) => kind === 'requestSlots'));
    harness.answer('cancelSlot');
    t.ok(harness.open.some(({ kind }) => kind === 'requestSlots'));
  },
);

t.test('answers to an older round are dropped', async (t) => {
  const harness = running(keyed);
  harness.fail(0);
  harness.answer('armRestartTimer');
  harness.answer('cancelSlot');
  harness.answer('cancelSlot');
  const [stale] = harness.open.splice(0);
  harness.lose(['default/0']);
  harness.step({ kind: 'failedGlobally', failure: failure('coordinator') });
  if (stale?.kind === 'requestSlots') {
    harness.step({ kind: 'slotsAllocated', round: stale.round, slots: new Map() });
  }
  t.notOk(harness.log.some(({ kind }) => kind === 'prepareDeployment'));
  harness.answerAll();
  harness.report('RUNNING');
  t.equal(harness.graph.status, 'RUNNING');
});

t.test('a shortage ends a job that never ran and only restarts one that did', async (t) => {
  for (const isRecovered of [false, true]) {
    const harness = new Harness(keyed, isRecovered);
    harness.step({ kind: 'started' });
    const [request] = harness.open.splice(0);
    const round = request?.kind === 'requestSlots' ? request.round : -1;
    harness.step({
      kind: 'slotsUnavailable',
      round,
      failure: toFailure(new MillraceError('NO_RESOURCE_AVAILABLE', 'needs 2')),
    });
    t.equal(harness.graph.status, isRecovered ? 'RESTARTING' : 'FAILED');
    if (isRecovered) t.equal(harness.graph.generation, 4, 'after the recorded ones');
  }
});

t.test('a failure that is final is not restarted', async (t) => {
  const harness = running(keyed);
  harness.fail(0, toFailure(new MillraceError('JOB_FINGERPRINT', 'another graph')));
  t.equal(harness.graph.status, 'FAILING');
  harness.answerAll();
  t.match(harness.log.at(-1), {
    kind: 'jobEnded',
    status: 'FAILED',
    failure: { code: 'JOB_FINGERPRINT' },
  });
});

t.test('cancelling waits for the tasks, and a lost TaskManager counts as gone', async (t) => {
  const harness = running(keyed);
  harness.step({ kind: 'cancelRequested' });
  t.equal(harness.graph.status, 'CANCELLING');
  harness.answer('cancelSlot');
  t.equal(harness.graph.status, 'CANCELLING');
  harness.lose(['default/1']);
  t.equal(harness.graph.status, 'CANCELED');
});

t.test('adopted tasks go on, and restart as others do when they fail', async (t) => {
  const harness = new Harness(parallel, true);
  harness.adopt([0]);
  t.same(harness.kinds(), ['statusChanged']);
  t.equal(harness.graph.status, 'RECONCILING', 'no checkpoint yet: not all are handed over');
  harness.step({ kind: 'adoptionCompleted' });
  t.same(harness.kinds(), ['statusChanged', 'allTasksRunning', 'startCheckpoints']);
  t.equal(harness.graph.generation, 3);
  t.match(harness.graph.vertices[1]?.current, { endOfData: true, attemptNumber: 2 });
  harness.fail(1);
  harness.answerAll();
  t.match(harness.attempt(1), /_4_/, 'the next generation');
  t.match(harness.graph.vertices[1]?.current, { attemptNumber: 3 });
  t.match(harness.attempt(2), /_3_old/, 'another region is left alone');

  const ended = new Harness(parallel, true);
  ended.adopt([0, 1, 2, 3, 4, 5]);
  ended.step({ kind: 'adoptionCompleted' });
  t.equal(ended.graph.status, 'FINISHED');
});

t.test(
  'an adoption that fails restarts all of the job and counts as no failure of it',
  async (t) => {
    const noRestart: JobGraph = {
      ...parallel,
      config: { ...parallel.config, restartStrategy: { type: 'none' } },
    };
    for (const isHandedOver of [false, true]) {
      const harness = new Harness(noRestart, true);
      harness.adopt();
      if (isHandedOver) harness.step({ kind: 'adoptionCompleted' });
      harness.step({ kind: 'adoptionFailed', failure: failure('refused') });
      harness.answerAll();
      if (!isHandedOver) harness.step({ kind: 'adoptionCompleted' });
      harness.report('RUNNING');
      t.equal(harness.graph.status, 'RUNNING');
      for (const { current } of harness.graph.vertices) t.equal(current?.generation, 4);
    }
    const half = new Harness(parallel, true);
    half.adopt();
    half.fail(1);
    half.answerAll();
    for (const { current } of half.graph.vertices)
      t.equal(current?.generation, 4, 'what is not handed over yet cannot be left alone');
    const cancelled = new Harness(parallel, true);
    cancelled.adopt();
    cancelled.step({ kind: 'cancelRequested' });
    cancelled.answerAll();
    t.equal(cancelled.graph.status, 'CANCELED');
  },
);

t.test('a suspended job does nothing any more', async (t) => {
  const harness = running(keyed);
  harness.step({ kind: 'suspended' });
  harness.kinds();
  harness.fail(0);
  harness.step({ kind: 'cancelRequested' });
  t.same(harness.log, []);
  t.equal(harness.graph.status, 'SUSPENDED');
});

t.test(
  'over random failures no slot runs two generations, and the job runs again or ends',
  async (t) => {
    const event = fc.oneof(
      {
        weight: 6,
        arbitrary: fc.record({ kind: fc.constant('answer' as const), pick: fc.nat(20) }),
      },
      { weight: 3, arbitrary: fc.record({ kind: fc.constant('report' as const) }) },
      { weight: 2, arbitrary: fc.record({ kind: fc.constant('fail' as const), pick: fc.nat(5) }) },
      { weight: 1, arbitrary: fc.record({ kind: fc.constant('lose' as const), pick: fc.nat(2) }) },
      { weight: 1, arbitrary: fc.record({ kind: fc.constant('global' as const) }) },
      { weight: 1, arbitrary: fc.record({ kind: fc.constant('handOver' as const) }) },
      { weight: 1, arbitrary: fc.record({ kind: fc.constant('refuse' as const) }) },
    );
    const job: JobGraph = {
      ...parallel,
      config: {
        ...parallel.config,
        restartStrategy: { type: 'fixed-delay', attempts: 1_000, delayMs: 10 },
      },
    };
    fc.assert(
      fc.property(
        fc.array(event, { maxLength: 80 }),
        fc.boolean(),
        fc.boolean(),
        (events, cancels, adopts) => {
          const harness = new Harness(job, adopts);
          if (adopts) harness.adopt();
          else harness.step({ kind: 'started' });
          for (const one of events) {
            if (one.kind === 'answer' && harness.open.length > 0) {
              harness.open.push(...harness.open.splice(0, one.pick % harness.open.length));
              harness.answer();
            } else if (one.kind === 'report') harness.report('RUNNING');
            else if (one.kind === 'fail') harness.fail(one.pick);
            else if (one.kind === 'lose') harness.lose([`default/${String(one.pick)}`]);
            else if (one.kind === 'global')
              harness.step({ kind: 'failedGlobally', failure: failure('global') });
            else if (one.kind === 'handOver') harness.step({ kind: 'adoptionCompleted' });
            else if (one.kind === 'refuse')
              harness.step({ kind: 'adoptionFailed', failure: failure('refused') });
          }
          harness.step({ kind: 'adoptionCompleted' });
          if (cancels) harness.step({ kind: 'cancelRequested' });
          harness.answerAll();
          harness.report('RUNNING');
          const { status } = harness.graph;
          return cancels
            ? isGloballyTerminal(status) && harness.deployed.size === 0
            : status === 'RUNNING' && harness.deployed.size === 3;
        },
      ),
      { numRuns: 500 },
    );
    t.pass('held for all histories');
  },
);
