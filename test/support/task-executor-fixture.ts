/** A TaskManager's endpoint against a scripted leader over the local transport, with slots that do as told. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Test } from 'tap';
import { Deferred } from '../../lib/base/deferred.js';
import type { Env } from '../../lib/base/env.js';
import { MillraceError } from '../../lib/base/errors.js';
import type {
  AllocationId,
  AttemptId,
  JobId,
  JobManagerId,
  TaskManagerId,
} from '../../lib/base/ids.js';
import type {
  HeartbeatPayload,
  JobManagerGateway,
  TaskManagerGateway,
  TaskManagerRegistrationRequest,
  TaskStateUpdate,
} from '../../lib/gateway/taskmanager-gateway.js';
import type { SlotDeployment } from '../../lib/gateway/task-deployment-descriptor.js';
import { defaultRpcPeerOptions } from '../../lib/rpc/rpc-peer.js';
import { LocalRpcService } from '../../lib/rpc/local-rpc-service.js';
import type { JobManagerRpcServer, RpcSession } from '../../lib/rpc/rpc-service.js';
import type { SlotCommand } from '../../lib/task/slot-api.js';
import { BlobCache } from '../../lib/taskmanager/blob-cache.js';
import type {
  RunningSlot,
  SlotEvents,
  SlotRunner,
  SlotStart,
} from '../../lib/taskmanager/slot-runner.js';
import {
  TaskExecutor,
  type TaskExecutorDeps,
  type TaskExecutorOptions,
} from '../../lib/taskmanager/task-executor.js';
import type { LeaderInfo, LeaderRetrieval } from '../../ha/services.js';
import { testEnv } from '../conformance/rpc-service.js';

export const jobId = 'a'.repeat(32) as JobId;
export const allocationId = 'alloc' as AllocationId;
export const [first, second] = ['attempt-1' as AttemptId, 'attempt-2' as AttemptId];

/** A clock whose delays are a hundredth: patience in tests is short. */
const hasty = (env: Env, factor = 0.01): Env => ({
  ...env,
  clock: {
    now: () => env.clock.now() / factor,
    wallTime: () => env.clock.wallTime(),
    setTimer: (delayMs, fn) => env.clock.setTimer(delayMs * factor, fn),
  },
});

export class Leadership implements LeaderRetrieval {
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
export class ScriptedSlot implements RunningSlot {
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

export class ScriptedRunner implements SlotRunner {
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

export interface Accepted {
  readonly registration: TaskManagerRegistrationRequest;
  readonly gateway: TaskManagerGateway;
  readonly session: RpcSession;
}

/** A leader that records what it is told. */
export class ScriptedLeader {
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

export interface Fixture {
  readonly rpc: LocalRpcService;
  readonly leadership: Leadership;
  readonly runner: ScriptedRunner;
  readonly executor: TaskExecutor;
  readonly fatal: Promise<MillraceError>;
}

export async function fixture(
  t: Test,
  deps: Partial<TaskExecutorDeps> = {},
  options: Pick<TaskExecutorOptions, 'expectsRestart'> = {},
): Promise<Fixture> {
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
      ...options,
    },
  );
  t.teardown(async () => {
    await executor.close();
    await rm(directory, { recursive: true, force: true });
  });
  executor.start();
  return { rpc, leadership, runner, executor, fatal: fatal.promise };
}

export async function elected(
  t: Test,
  f: Fixture,
  revision = 1,
): Promise<ScriptedLeader & Accepted> {
  const leader = new ScriptedLeader(f.rpc);
  await leader.start(t, revision);
  const accepted = leader.accepted();
  f.leadership.elect(leader.address, revision);
  return Object.assign(leader, await accepted);
}

export function deployment(attemptIds = [first, second], bundle = false): SlotDeployment {
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

export async function deployed(f: Fixture, leader: Accepted): Promise<ScriptedSlot> {
  await leader.gateway.requestSlot({ jobId, allocationId, slotIndex: 0 });
  const started = f.runner.next.promise;
  await leader.gateway.submitTasks(deployment());
  const slot = await started;
  for (const attemptId of [first, second]) {
    slot.events.onReport({ kind: 'taskState', attemptId, state: 'RUNNING' });
  }
  return slot;
}

export const ackOf = (attemptId: AttemptId, checkpointId: number) =>
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

export const statesOf = (leader: ScriptedLeader): string[] =>
  leader.updates.map(({ attemptId, state }) => `${attemptId} ${state}`);
