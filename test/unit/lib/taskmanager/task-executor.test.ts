/** The TaskManager's endpoint against a scripted leader over the local transport, with slots that do as told. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { Deferred } from '../../../../lib/base/deferred.js';
import type { Env } from '../../../../lib/base/env.js';
import { MillraceError, toFailure } from '../../../../lib/base/errors.js';
import type {
  AllocationId,
  AttemptId,
  JobId,
  JobManagerId,
  OperatorId,
  TaskManagerId,
} from '../../../../lib/base/ids.js';
import type {
  HeartbeatPayload,
  JobManagerGateway,
  TaskManagerGateway,
  TaskManagerRegistrationRequest,
  TaskStateUpdate,
} from '../../../../lib/gateway/taskmanager-gateway.js';
import type { SlotDeployment } from '../../../../lib/gateway/task-deployment-descriptor.js';
import { defaultRpcPeerOptions } from '../../../../lib/rpc/rpc-peer.js';
import { LocalRpcService } from '../../../../lib/rpc/local-rpc-service.js';
import type { JobManagerRpcServer, RpcSession } from '../../../../lib/rpc/rpc-service.js';
import type { OperatorEvent } from '../../../../lib/operators/stream-operator.js';
import type { SlotCommand } from '../../../../lib/task/slot-api.js';
import { BlobCache } from '../../../../lib/taskmanager/blob-cache.js';
import type {
  RunningSlot,
  SlotEvents,
  SlotRunner,
  SlotStart,
} from '../../../../lib/taskmanager/slot-runner.js';
import { TaskExecutor, type TaskExecutorDeps } from '../../../../lib/taskmanager/task-executor.js';
import type { LeaderInfo, LeaderRetrieval } from '../../../../ha/services.js';
import { testEnv } from '../../../conformance/rpc-service.js';

const jobId = 'a'.repeat(32) as JobId;
const allocationId = 'alloc' as AllocationId;
const [first, second] = ['attempt-1' as AttemptId, 'attempt-2' as AttemptId];

/** A clock whose delays are a hundredth: patience in tests is short. */
const hasty = (env: Env, factor = 0.01): Env => ({
  ...env,
  clock: {
    now: () => env.clock.now() / factor,
    wallTime: () => env.clock.wallTime(),
    setTimer: (delayMs, fn) => env.clock.setTimer(delayMs * factor, fn),
  },
});

class Leadership implements LeaderRetrieval {
  #leader: LeaderInfo | undefined;
  readonly #listeners = new Set<(leader: LeaderInfo | undefined) => void>();

  current(): LeaderInfo | undefined {
    return this.#leader;
  }

  subscribe(listener: (leader: LeaderInfo | undefined) => void): () => void {
    this.#listeners.add(listener);
    listener(this.#leader);
    return () => this.#listeners.delete(listener);
  }

  elect(rpcAddress: string, revision: number, state: LeaderInfo['state'] = 'ACTIVE'): void {
    this.#set({
      epoch: { era: 1, revision },
      jobManagerId: `jm-${revision}` as JobManagerId,
      rpcAddress,
      restAddress: '',
      state,
      since: 0,
    });
  }

  vanish(): void {
    this.#set(undefined);
  }

  async close(): Promise<void> {
    this.#listeners.clear();
  }

  #set(leader: LeaderInfo | undefined): void {
    this.#leader = leader;
    for (const listener of this.#listeners) listener(leader);
  }
}

/** A slot whose tasks the test plays. */
class ScriptedSlot implements RunningSlot {
  readonly commands: SlotCommand[] = [];
  readonly start: SlotStart;
  readonly events: SlotEvents;
  /** False: it ignores cancel and must be terminated. */
  obeys = true;
  #heard = new Deferred<void>();

  constructor(start: SlotStart, events: SlotEvents) {
    this.start = start;
    this.events = events;
  }

  send(command: SlotCommand): void {
    this.commands.push(command);
    const heard = this.#heard;
    this.#heard = new Deferred();
    heard.resolve();
    if (command.kind === 'cancel' && this.obeys) {
      for (const { attemptId } of this.start.deployment.tasks) {
        this.events.onReport({ kind: 'taskState', attemptId, state: 'CANCELED' });
      }
      this.events.onReport({ kind: 'closed' });
      this.events.onEnded(undefined);
    }
  }

  terminate(): void {
    this.events.onEnded(undefined);
  }

  /** Answers whatever waits to be taken. */
  takeAll(): void {
    for (const command of this.commands) {
      if ('ticket' in command) {
        this.events.onReport({ kind: 'taken', ticket: command.ticket });
      }
    }
  }

  /** Waits until `condition` holds after some command. */
  async until(condition: () => boolean): Promise<void> {
    while (!condition()) await this.#heard.promise;
  }
}

class ScriptedRunner implements SlotRunner {
  readonly isPreemptive = true;
  readonly started: ScriptedSlot[] = [];
  readonly prepared: number[] = [];
  next = new Deferred<ScriptedSlot>();

  prepare(slots: number): void {
    this.prepared.push(slots);
  }

  start(start: SlotStart, events: SlotEvents): RunningSlot {
    const slot = new ScriptedSlot(start, events);
    this.started.push(slot);
    this.next.resolve(slot);
    this.next = new Deferred();
    return slot;
  }
}

interface Accepted {
  readonly registration: TaskManagerRegistrationRequest;
  readonly gateway: TaskManagerGateway;
  readonly session: RpcSession;
}

/** A leader that records what it is told. */
class ScriptedLeader {
  readonly updates: TaskStateUpdate[] = [];
  readonly other: { kind: string; value: unknown }[] = [];
  readonly server: JobManagerRpcServer;
  heartbeats: HeartbeatPayload[] = [];
  answersHeartbeats = true;
  leaderState: 'ACTIVE' | 'SUSPENDED' = 'ACTIVE';
  /** Runs while a registration is being accepted. */
  onAccept: () => void = () => undefined;
  /** What the answer to a registration waits for. */
  acceptance: Promise<void> = Promise.resolve();
  address = '';
  #accepted = new Deferred<Accepted>();
  #heard = new Deferred<void>();

  constructor(rpc: LocalRpcService) {
    this.server = rpc.createServer(testEnv, defaultRpcPeerOptions);
  }

  async start(t: Test, revision: number): Promise<void> {
    this.address = await this.server.listen();
    t.teardown(() => this.server.close());
    this.server.lead({
      epoch: { era: 1, revision },
      mayAct: () => true,
      accept: (registration, gateway, session) => {
        const accepted = this.#accepted;
        this.#accepted = new Deferred();
        this.onAccept();
        accepted.resolve({ registration, gateway, session });
        return this.acceptance.then(() => ({
          response: { heartbeatIntervalMs: 100, heartbeatTimeoutMs: 500 },
          handler: this.#handler(),
        }));
      },
    });
  }

  accepted(): Promise<Accepted> {
    return this.#accepted.promise;
  }

  /** Waits until `condition` holds after some message. */
  async until(condition: () => boolean): Promise<void> {
    while (!condition()) await this.#heard.promise;
  }

  #note(): void {
    const heard = this.#heard;
    this.#heard = new Deferred();
    heard.resolve();
  }

  #handler(): JobManagerGateway {
    const record =
      (kind: string) =>
      (value: unknown): void => {
        this.other.push({ kind, value });
        this.#note();
      };
    return {
      heartbeat: async (payload) => {
        this.heartbeats.push(payload);
        this.#note();
        if (!this.answersHeartbeats) await new Promise<void>(() => undefined);
        return { leaderState: this.leaderState };
      },
      updateTaskState: (update) => {
        this.updates.push(update);
        this.#note();
      },
      acknowledgeCheckpoint: record('ack'),
      declineCheckpoint: record('decline'),
      reportEndOfData: record('endOfData'),
      sendOperatorEvent: record('operatorEvent'),
      fetchBlob: () => Promise.reject(new MillraceError('JOB_NOT_FOUND', 'no bundle here')),
    };
  }
}

interface Fixture {
  readonly rpc: LocalRpcService;
  readonly leadership: Leadership;
  readonly runner: ScriptedRunner;
  readonly executor: TaskExecutor;
  readonly fatal: Promise<MillraceError>;
}

async function fixture(t: Test, deps: Partial<TaskExecutorDeps> = {}): Promise<Fixture> {
  const directory = await mkdtemp(join(tmpdir(), 'millrace-te-'));
  const env = hasty(testEnv);
  const rpc = new LocalRpcService();
  const leadership = new Leadership();
  const runner = new ScriptedRunner();
  const fatal = new Deferred<MillraceError>();
  const executor = new TaskExecutor(
    env,
    {
      retrieval: leadership,
      connector: rpc.createConnector(testEnv),
      runner,
      blobs: new BlobCache(env, { directory }),
      processStats: () => ({
        rssBytes: 1,
        heapUsedBytes: 2,
        eventLoopLagMs: 3,
        networkMemoryBytes: 0,
      }),
      onFatal: (error) => {
        fatal.resolve(error);
      },
      ...deps,
    },
    {
      taskManagerId: 'tm-1' as TaskManagerId,
      host: 'localhost',
      dataAddress: 'localhost:1',
      pid: 1,
      slots: 2,
      hardware: { cpuCores: 1, memoryBytes: 1 },
      slotMemoryBytes: 1,
      cancellationTimeoutMs: 5_000,
      registrationTimeoutMs: 20_000,
      leaderlessTimeoutMs: 10_000,
      outageGraceMs: 60_000,
    },
  );
  t.teardown(async () => {
    await executor.close();
    await rm(directory, { recursive: true, force: true });
  });
  executor.start();
  return { rpc, leadership, runner, executor, fatal: fatal.promise };
}

async function elected(t: Test, f: Fixture, revision = 1): Promise<ScriptedLeader & Accepted> {
  const leader = new ScriptedLeader(f.rpc);
  await leader.start(t, revision);
  const accepted = leader.accepted();
  f.leadership.elect(leader.address, revision);
  return Object.assign(leader, await accepted);
}

function deployment(attemptIds = [first, second], bundle = false): SlotDeployment {
  const vertex = {
    id: 'v',
    name: 'Map',
    parallelism: 1,
    maxParallelism: 128,
    slotSharingGroup: 'default',
    operators: [{ id: 'o', name: 'Map', kind: 'source', chainedTo: [] }],
  };
  const graph = {
    version: 1,
    jobId,
    name: 'job',
    vertices: [vertex],
    edges: [],
    config: { bufferTimeoutMs: 1, autoWatermarkIntervalMs: 1, compile: true },
    main: { argv: [], environment: {}, captureTime: 0, seed: 0 },
    fingerprint: 'f',
    ...(bundle && { bundle: { digest: 'd'.repeat(64), sizeBytes: 1 } }),
  };
  return {
    jobId,
    allocationId,
    generation: 0,
    jobGraph: graph as unknown as SlotDeployment['jobGraph'],
    checkpointDirectory: '/nowhere',
    epochLabel: 'e1.1',
    tasks: attemptIds.map((attemptId, subtaskIndex) => ({
      attemptId,
      vertex: vertex as unknown as SlotDeployment['tasks'][number]['vertex'],
      subtaskIndex,
      attemptNumber: 0,
      generation: 0,
      outputs: [],
      inputs: [],
    })),
  };
}

async function deployed(f: Fixture, leader: Accepted): Promise<ScriptedSlot> {
  await leader.gateway.requestSlot({ jobId, allocationId, slotIndex: 0 });
  const started = f.runner.next.promise;
  await leader.gateway.submitTasks(deployment());
  const slot = await started;
  for (const attemptId of [first, second]) {
    slot.events.onReport({ kind: 'taskState', attemptId, state: 'RUNNING' });
  }
  return slot;
}

const ackOf = (attemptId: AttemptId, checkpointId: number) =>
  ({
    kind: 'checkpointAck',
    attemptId,
    checkpointId,
    snapshot: { operators: {}, finished: false },
    alignmentMs: 1,
    syncMs: 2,
    asyncMs: 3,
    startDelayMs: 4,
  }) as const;

const statesOf = (leader: ScriptedLeader): string[] =>
  leader.updates.map(({ attemptId, state }) => `${attemptId} ${state}`);

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

t.test('a leader that does not answer is not waited for when another is known', async (t) => {
  const f = await fixture(t);
  const silent = new ScriptedLeader(f.rpc);
  await silent.start(t, 1);
  silent.acceptance = new Promise(() => undefined);
  const asked = silent.accepted();
  f.leadership.elect(silent.address, 1);
  const { session } = await asked;
  await elected(t, f, 2);
  t.match(await session.closed, /registration|leader|closed/);
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
