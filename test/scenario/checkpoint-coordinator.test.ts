import t from 'tap';
import { MillraceError, toFailure, type Failure } from '../../lib/base/errors.js';
import type { ErrorCode } from '../../lib/base/error-codes.js';
import type { AttemptId, JobId, OperatorId, VertexId } from '../../lib/base/ids.js';
import {
  CheckpointCoordinatorMachine,
  coordinatorTransitions,
  type CoordinatorState,
} from '../../checkpoint/coordinator/checkpoint-coordinator.machine.js';
import type {
  CoordinatorEffect,
  CoordinatorInput,
} from '../../checkpoint/coordinator/coordinator-messages.js';
import {
  PendingCheckpoint,
  pendingTransitions,
  type PendingState,
} from '../../checkpoint/coordinator/pending-checkpoint.js';
import type { CheckpointSubtask } from '../../checkpoint/types.js';
import { runScript, scriptPath } from './script.js';

const failure = (code: string): Failure =>
  toFailure(new MillraceError(code as ErrorCode, `injected ${code}`));

/** A job of a source `a` with two subtasks and a sink `b` with one. */
class CoordinatorScript {
  #now = 0;
  #machine: CheckpointCoordinatorMachine;
  #tasks: CheckpointSubtask[] = [];
  #request = 0;
  #nextId = 1;
  #armedAt: number | undefined;

  constructor() {
    this.#machine = this.#create([]);
  }

  run(line: string): string[] {
    const [command = '', ...words] = line.split(' ');
    if (command === 'new') {
      this.#machine = this.#create(words);
      return [];
    }
    if (command === 'tasks') {
      this.#tasks = words.map(parseTask);
      return [];
    }
    if (command === 'sleep') {
      this.#now += Number(words[0]);
      if (this.#armedAt === undefined || this.#armedAt > this.#now) return ['(no timer is due)'];
      this.#armedAt = undefined;
      return this.#step({ type: 'timerFired' });
    }
    return this.#step(this.#input(command, words));
  }

  #create(words: readonly string[]): CheckpointCoordinatorMachine {
    const set = Object.fromEntries(words.map((word) => word.split('=')));
    const number = (name: string, fallback: number): number => Number(set[name] ?? fallback);
    this.#now = 0;
    this.#nextId = 1;
    this.#armedAt = undefined;
    const vertex = (id: string, parallelism: number) => ({
      id: id as VertexId,
      name: id,
      parallelism,
      maxParallelism: 128,
      operators: [{ id: `op-${id}` as OperatorId, name: id, maxParallelism: 128 }],
    });
    return new CheckpointCoordinatorMachine(
      {
        jobId: 'job' as JobId,
        jobName: 'script',
        epochLabel: 'e1.1',
        vertices: [vertex('a', 2), vertex('b', 1)],
      },
      {
        intervalMs: number('interval', 1000),
        timeoutMs: number('timeout', 5000),
        minPauseMs: number('pause', 0),
        maxConcurrent: number('concurrent', 1),
        tolerableFailures: number('tolerable', 0),
        numRetained: number('retained', 1),
      },
    );
  }

  #input(command: string, words: readonly string[]): CoordinatorInput {
    const [first = '', second = '', ...rest] = words;
    const checkpointId = Number(first);
    const subtasks = this.#tasks;
    switch (command) {
      case 'start':
        return { type: 'started', subtasks };
      case 'stop':
        return { type: 'stopped', reason: 'a task failed' };
      case 'close':
        return { type: 'closed' };
      case 'resumed':
        return { type: 'resumed', suspendedMs: Number(first) };
      case 'trigger-uncertain':
        return { type: 'triggerUncertain', checkpointId };
      case 'pointers':
        return { type: 'pointersLoaded', pointers: words.map(parsePointer) };
      case 'request':
        return { type: 'checkpointRequested', token: Number(first) };
      case 'id': {
        const id = first === '' ? this.#nextId : checkpointId;
        this.#nextId = id + 1;
        return {
          type: 'idTaken',
          request: this.#request,
          checkpointId: id,
          timestamp: 1_000_000 + this.#now,
          subtasks,
        };
      }
      case 'stale-id':
        return {
          type: 'idTaken',
          request: this.#request - 1,
          checkpointId,
          timestamp: 0,
          subtasks,
        };
      case 'id-fails':
        return { type: 'idFailed', request: this.#request, failure: failure(first) };
      case 'coordinators':
        return {
          type: 'coordinatorsSnapshotted',
          checkpointId,
          states: { ['op-a' as OperatorId]: new Uint8Array(3) },
          subtasks,
        };
      case 'coordinators-fail':
        return { type: 'coordinatorsFailed', checkpointId, failure: failure(second) };
      case 'ack': {
        const file = rest.find((word) => word.startsWith('file='))?.slice(5);
        return {
          type: 'taskAcknowledged',
          checkpointId,
          attemptId: second as AttemptId,
          snapshot: {
            finished: rest.includes('finished'),
            operators:
              file === undefined
                ? {}
                : {
                    ['op' as OperatorId]: {
                      operator: { kind: 'file', path: file, sizeBytes: 10, crc32: 0 },
                    },
                  },
          },
        };
      }
      case 'decline':
        return {
          type: 'taskDeclined',
          checkpointId,
          attemptId: second as AttemptId,
          failure: failure(rest[0] ?? ''),
        };
      case 'finished':
        return { type: 'subtaskFinished', attemptId: first as AttemptId };
      case 'end-of-data':
        return { type: 'endOfDataReported', subtasks };
      case 'stored':
        return {
          type: 'metadataStored',
          checkpointId,
          metadataPath: `/c/chk-${first}/_metadata`,
          sha256: 'aa',
          metadataBytes: 100,
        };
      case 'store-fails':
        return { type: 'metadataFailed', checkpointId, failure: failure(second) };
      case 'added':
        return { type: 'pointerAdded', checkpointId };
      case 'add-fails':
        return { type: 'pointerFailed', checkpointId, failure: failure(second) };
      default:
        throw new Error(`unknown command ${command}`);
    }
  }

  #step(input: CoordinatorInput): string[] {
    const before = this.#machine.state;
    const effects = this.#machine.step(input, this.#now);
    const after = this.#machine.state;
    if (before !== after) lifeSeen.add(`${before} -> ${after}`);
    for (const effect of effects) {
      if (effect.type === 'takeId') this.#request = effect.request;
      if (effect.type === 'armTimer') this.#armedAt = effect.at;
      if (effect.type === 'cancelTimer') this.#armedAt = undefined;
    }
    return [
      ...(before === after ? [] : [`${before} -> ${after}`]),
      ...effects.map((effect) => this.#describe(effect)),
    ];
  }

  #describe(effect: CoordinatorEffect): string {
    switch (effect.type) {
      case 'takeId':
      case 'cancelTimer':
      case 'collectGarbage':
        return effect.type;
      case 'armTimer':
        return `armTimer +${String(effect.at - this.#now)}`;
      case 'triggerTasks':
      case 'notifyComplete':
      case 'notifyAborted':
        return `${effect.type} ${String(effect.checkpointId)} ${effect.attempts.join(',')}`;
      case 'snapshotCoordinators':
      case 'releaseCoordinators':
      case 'deleteCheckpoint':
        return `${effect.type} ${String(effect.checkpointId)}`;
      case 'discardStates':
        return `discardStates ${String(effect.checkpointId)} ${effect.handles.map((h) => (h.kind === 'file' ? h.path : '')).join(',')}`;
      case 'storeMetadata': {
        const { vertices, checkpointId, coordinators } = effect.metadata;
        const flags = vertices.map(
          (v) => `${v.vertexId}:${v.subtasks.map((s) => (s.finished ? 'F' : 'R')).join('')}`,
        );
        return `storeMetadata ${String(checkpointId)} ${flags.join(' ')} coordinators:${Object.keys(coordinators).join(',')}`;
      }
      case 'addPointer':
        return `addPointer ${String(effect.pointer.checkpointId)} ${String(effect.pointer.sizeBytes)} B subsumed:${effect.subsumed.join(',')}`;
      case 'failJob':
        return `failJob ${effect.failure.message} <- ${effect.failure.cause?.message ?? ''}`;
      case 'report': {
        const { event } = effect;
        if (event.kind === 'aborted')
          return `report aborted ${String(event.checkpointId)} ${event.reason}`;
        if (event.kind === 'completed')
          return `report completed ${String(event.pointer.checkpointId)} after ${String(event.durationMs)} ms`;
        return `report ${event.kind} ${String(event.checkpointId)} tasks:${String(event.tasks)}`;
      }
      case 'settle':
        return `settle ${effect.tokens.join(',')} ${effect.outcome.kind}${effect.outcome.kind === 'failed' ? `: ${effect.outcome.failure.message}` : ''}`;
    }
  }
}

const lifeSeen = new Set<string>();
const pendingSeen = new Set<string>();

/** Every transition of a table, as text. */
function allTransitions<S extends string>(table: Readonly<Record<S, readonly S[]>>): string[] {
  const states = Object.keys(table) as S[];
  return states.flatMap((from) => table[from].map((to) => `${from} -> ${to}`)).sort();
}

/** `a0=root`, `a0=root,end`, `b0=running`, `b0=finished`, `b0=off`. */
function parseTask(word: string): CheckpointSubtask {
  const [name = '', flags = ''] = word.split('=');
  const set = new Set(flags.split(','));
  return {
    vertexId: name.slice(0, 1) as VertexId,
    subtaskIndex: Number(name.slice(1)),
    attemptId: name as AttemptId,
    state: set.has('finished') ? 'finished' : set.has('off') ? 'notRunning' : 'running',
    isRoot: set.has('root'),
    endOfData: set.has('end'),
  };
}

/** `7`, or `7s` for a savepoint. */
function parsePointer(word: string) {
  return {
    checkpointId: Number.parseInt(word, 10),
    metadataPath: `/c/${word}`,
    sha256: '',
    timestamp: 0,
    sizeBytes: 1,
    kind: word.endsWith('s') ? ('savepoint' as const) : ('checkpoint' as const),
  };
}

t.test('the coordinator decides as its script says', (t) => {
  const script = new CoordinatorScript();
  const go = PendingCheckpoint.prototype.go;
  PendingCheckpoint.prototype.go = function (to) {
    pendingSeen.add(`${this.state} -> ${to}`);
    go.call(this, to);
  };
  runScript(
    scriptPath(import.meta.url, 'checkpoint-coordinator.txt'),
    (line) => script.run(line),
    (found, expected, message) => t.equal(found, expected, message),
  );
  t.strictSame([...lifeSeen].sort(), allTransitions<CoordinatorState>(coordinatorTransitions));
  t.strictSame([...pendingSeen].sort(), allTransitions<PendingState>(pendingTransitions));
  t.end();
});
