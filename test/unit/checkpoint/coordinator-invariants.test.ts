import fc from 'fast-check';
import t from 'tap';
import { CheckpointCoordinatorMachine } from '../../../checkpoint/coordinator/checkpoint-coordinator.machine.js';
import type {
  CoordinatorEffect,
  CoordinatorInput,
} from '../../../checkpoint/coordinator/coordinator-messages.js';
import type { CheckpointSubtask } from '../../../checkpoint/types.js';
import type { ErrorCode } from '../../../lib/base/error-codes.js';
import { MillraceError, toFailure, type Failure } from '../../../lib/base/errors.js';
import type { AttemptId, JobId, OperatorId, VertexId } from '../../../lib/base/ids.js';
import { SeededRandom } from '../../../lib/base/random.js';

const failure = (code: ErrorCode): Failure => toFailure(new MillraceError(code, code));
const numRetained = 2;

/** Answers what the machine orders in any order, with any outcome, and checks every order against what is true. */
class World {
  readonly machine: CheckpointCoordinatorMachine;
  readonly #random: SeededRandom;
  /** Answers under way: taken in random order. */
  readonly #underWay: CoordinatorInput[] = [];
  #now = 0;
  #armedAt: number | undefined;
  #nextId = 1;
  #tokens = 0;
  #isActive = false;
  #isOver = false;
  /** What the pointer store has, and what it may have. */
  readonly stored = new Set<number>();
  readonly #maybeStored = new Set<number>();
  readonly #deleted = new Set<number>();
  readonly #told = new Set<number>();
  #adding: number | undefined;
  #highestStored = 0;
  #gate: number | undefined;
  readonly #openTokens = new Set<number>();
  readonly #states: ('running' | 'finished')[] = ['running', 'running', 'running'];

  constructor(seed: number, concurrent: number) {
    this.#random = new SeededRandom(seed);
    const vertex = (id: string, parallelism: number) => ({
      id: id as VertexId,
      name: id,
      parallelism,
      maxParallelism: 128,
      operators: [],
    });
    this.machine = new CheckpointCoordinatorMachine(
      {
        jobId: 'j' as JobId,
        jobName: 'j',
        epochLabel: 'e1.1',
        vertices: [vertex('a', 2), vertex('b', 1)],
      },
      {
        intervalMs: 100,
        timeoutMs: 300,
        minPauseMs: 0,
        maxConcurrent: concurrent,
        tolerableFailures: 1,
        numRetained,
      },
    );
  }

  run(steps: number): void {
    for (let i = 0; i < steps; i += 1) this.#act();
    this.#step({ type: 'closed' });
    this.#isOver = true;
    for (const input of this.#underWay.splice(0)) this.#step(input);
    this.#check(this.#openTokens.size === 0, 'whoever asked is answered');
    const latest = [...this.stored].sort((a, b) => b - a).slice(0, numRetained);
    this.#check(
      latest.every((id) => !this.#deleted.has(id)),
      'the retained checkpoints have their files',
    );
  }

  #act(): void {
    const choice = this.#random.next();
    const pick = Math.floor(this.#random.next() * this.#underWay.length);
    const [answer] = choice < 0.6 ? this.#underWay.splice(pick, 1) : [];
    if (answer !== undefined) {
      this.#step(this.#refreshed(answer));
      // Some messages come twice.
      if (answer.type === 'taskAcknowledged' && this.#random.next() < 0.1)
        this.#underWay.push(answer);
    } else if (choice < 0.8) this.#sleep(this.#random.next() * 120);
    else if (choice < 0.86) this.#request();
    else if (choice < 0.9) this.#toggle();
    else if (choice < 0.93) this.#finishTask();
    else this.#step({ type: 'endOfDataReported', subtasks: this.#subtasks() });
  }

  #sleep(ms: number): void {
    this.#now += ms;
    if (this.#armedAt === undefined || this.#armedAt > this.#now) return;
    this.#armedAt = undefined;
    this.#step({ type: 'timerFired' });
  }

  #request(): void {
    this.#tokens += 1;
    this.#openTokens.add(this.#tokens);
    this.#step({ type: 'checkpointRequested', token: this.#tokens });
  }

  #toggle(): void {
    this.#isActive = !this.#isActive;
    if (this.#isActive) {
      this.#states.fill('running');
      this.#step({ type: 'started', subtasks: this.#subtasks() });
    } else this.#step({ type: 'stopped', reason: 'x' });
  }

  #finishTask(): void {
    const index = Math.floor(this.#random.next() * 3);
    if (!this.#isActive || this.#states[index] === 'finished') return;
    this.#states[index] = 'finished';
    this.#step({ type: 'subtaskFinished', attemptId: `t${String(index)}` as AttemptId });
  }

  #subtasks(): CheckpointSubtask[] {
    return this.#states.map((state, i) => ({
      vertexId: (i < 2 ? 'a' : 'b') as VertexId,
      subtaskIndex: i < 2 ? i : 0,
      attemptId: `t${String(i)}` as AttemptId,
      state,
      isRoot: i < 2 || (this.#states[0] === 'finished' && this.#states[1] === 'finished'),
      endOfData: this.#now > 3_000,
    }));
  }

  #refreshed(input: CoordinatorInput): CoordinatorInput {
    if (input.type === 'pointerAdded') this.#settleAdd(input.checkpointId, true);
    if (input.type === 'pointerFailed') {
      const isKnown = input.failure.code === 'CONFLICT';
      if (isKnown) this.#settleAdd(input.checkpointId, false);
    }
    return 'subtasks' in input ? { ...input, subtasks: this.#subtasks() } : input;
  }

  #settleAdd(checkpointId: number, isStored: boolean): void {
    this.#adding = undefined;
    this.#maybeStored.delete(checkpointId);
    if (!isStored) return;
    this.stored.add(checkpointId);
    this.#highestStored = checkpointId;
  }

  #step(input: CoordinatorInput): void {
    for (const effect of this.machine.step(input, this.#now)) this.#on(effect);
  }

  #on(effect: CoordinatorEffect): void {
    const isCommand = !['settle', 'report', 'cancelTimer'].includes(effect.type);
    this.#check(!this.#isOver || !isCommand, `no ${effect.type} after the end`);
    switch (effect.type) {
      case 'takeId':
        this.#check(this.#isActive, 'nothing is triggered while stopped');
        this.#answer(
          0.9,
          {
            type: 'idTaken',
            request: effect.request,
            checkpointId: this.#nextId++,
            timestamp: 1,
            subtasks: [],
          },
          { type: 'idFailed', request: effect.request, failure: failure('ETCD_UNAVAILABLE') },
        );
        return;
      case 'snapshotCoordinators':
        this.#check(this.#gate === undefined, 'one event gate is closed at a time');
        this.#gate = effect.checkpointId;
        this.#answer(
          0.95,
          {
            type: 'coordinatorsSnapshotted',
            checkpointId: effect.checkpointId,
            states: {},
            subtasks: [],
          },
          {
            type: 'coordinatorsFailed',
            checkpointId: effect.checkpointId,
            failure: failure('USER_FUNCTION'),
          },
        );
        return;
      case 'releaseCoordinators':
        this.#check(this.#gate === effect.checkpointId, 'the gate that is opened was closed');
        this.#gate = undefined;
        return;
      case 'triggerTasks':
        this.#check(this.#gate === effect.checkpointId, 'triggered behind a closed gate');
        this.#triggered(effect.checkpointId);
        return;
      case 'storeMetadata':
        this.#answer(
          0.9,
          {
            type: 'metadataStored',
            checkpointId: effect.metadata.checkpointId,
            metadataPath: '',
            sha256: '',
            metadataBytes: 1,
          },
          {
            type: 'metadataFailed',
            checkpointId: effect.metadata.checkpointId,
            failure: failure('DISK_FULL'),
          },
        );
        return;
      case 'addPointer':
        this.#onAdd(effect.pointer.checkpointId, effect.subsumed);
        return;
      case 'notifyComplete':
        this.#check(this.stored.has(effect.checkpointId), 'told only of what is stored');
        this.#told.add(effect.checkpointId);
        return;
      case 'notifyAborted':
        this.#check(!this.#told.has(effect.checkpointId), 'not aborted after it completed');
        return;
      case 'deleteCheckpoint':
      case 'discardStates':
        this.#check(
          !this.stored.has(effect.checkpointId) && !this.#maybeStored.has(effect.checkpointId),
          `${effect.type} of what a pointer may name`,
        );
        if (effect.type === 'deleteCheckpoint') this.#deleted.add(effect.checkpointId);
        return;
      case 'armTimer':
        this.#armedAt = effect.at;
        return;
      case 'cancelTimer':
        this.#armedAt = undefined;
        return;
      case 'settle':
        for (const token of effect.tokens) {
          this.#check(this.#openTokens.delete(token), 'answered once');
        }
        return;
      default:
    }
  }

  #onAdd(checkpointId: number, subsumed: readonly number[]): void {
    this.#check(this.#adding === undefined || this.#adding === checkpointId, 'one add at a time');
    this.#check(checkpointId > this.#highestStored, 'pointers ascend');
    this.#check(!this.#deleted.has(checkpointId), 'its files are there');
    const left = [...this.stored].filter((id) => !subsumed.includes(id));
    this.#check(
      left.length + 1 >= Math.min(numRetained, this.stored.size + 1),
      'enough are retained',
    );
    this.#check(left.length + 1 <= numRetained, 'not more than wanted are retained');
    this.#check(
      subsumed.every((id) => left.every((kept) => kept > id)),
      'the oldest go first',
    );
    this.#adding = checkpointId;
    this.#maybeStored.add(checkpointId);
    const outcome = this.#random.next();
    const failed = (code: ErrorCode): CoordinatorInput => ({
      type: 'pointerFailed',
      checkpointId,
      failure: failure(code),
    });
    if (outcome < 0.75) this.#underWay.push({ type: 'pointerAdded', checkpointId });
    else this.#underWay.push(failed(outcome < 0.95 ? 'ETCD_UNAVAILABLE' : 'CONFLICT'));
    if (outcome < 0.75) for (const id of subsumed) this.stored.delete(id);
  }

  #triggered(checkpointId: number): void {
    this.#states.forEach((state, i) => {
      const attemptId = `t${String(i)}` as AttemptId;
      if (state === 'finished' || this.#random.next() < 0.03) return;
      const handle = { kind: 'file' as const, path: 'f', sizeBytes: 1, crc32: 0 };
      this.#answer(
        0.95,
        {
          type: 'taskAcknowledged',
          checkpointId,
          attemptId,
          snapshot: {
            finished: this.#now > 3_000,
            operators: { ['o' as OperatorId]: { operator: handle } },
          },
        },
        { type: 'taskDeclined', checkpointId, attemptId, failure: failure('USER_FUNCTION') },
      );
    });
  }

  #answer(chance: number, good: CoordinatorInput, bad: CoordinatorInput): void {
    this.#underWay.push(this.#random.next() < chance ? good : bad);
  }

  #check(holds: boolean, what: string): void {
    if (!holds) throw new Error(`does not hold at ${String(Math.round(this.#now))} ms: ${what}`);
  }
}

t.test(
  'whatever happens in whatever order, nothing that counts is lost, told early or deleted',
  (t) => {
    let completed = 0;
    fc.assert(
      fc.property(fc.integer(), fc.integer({ min: 1, max: 3 }), (seed, concurrent) => {
        const world = new World(seed, concurrent);
        world.run(600);
        completed += world.stored.size;
      }),
      { numRuns: 100 },
    );
    t.ok(completed > 100, 'histories in which checkpoints complete');
    t.end();
  },
);
