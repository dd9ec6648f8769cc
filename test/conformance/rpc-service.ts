/** What both transports of the control plane must do: the same cases for gRPC and the local one. */
import type { Test } from 'tap';
import type { Env } from '../../lib/base/env.js';
import { MillraceError } from '../../lib/base/errors.js';
import { MetricRegistry } from '../../lib/base/metrics.js';
import { silentLogger } from '../../lib/base/logger.js';
import { SystemClock } from '../../lib/base/system-clock.js';
import { SystemRandom } from '../../lib/base/system-random.js';
import type {
  AllocationId,
  AttemptId,
  Digest,
  JobId,
  OperatorId,
  TaskManagerId,
} from '../../lib/base/ids.js';
import {
  protocolVersion,
  type JobManagerGateway,
  type TaskManagerGateway,
  type TaskManagerRegistrationRequest,
} from '../../lib/gateway/taskmanager-gateway.js';
import { defaultRpcPeerOptions, type RpcPeerOptions } from '../../lib/rpc/rpc-peer.js';
import {
  unfencedEpoch,
  type JobManagerConnector,
  type JobManagerRpcServer,
  type RpcSession,
  type TaskManagerAcceptor,
} from '../../lib/rpc/rpc-service.js';
import type { LeaderEpoch } from '../../ha/services.js';

export interface RpcHarness {
  createServer(env: Env, options: RpcPeerOptions): JobManagerRpcServer;
  createConnector(env: Env, options: RpcPeerOptions): JobManagerConnector;
}

export const testEnv: Env = {
  clock: new SystemClock(),
  random: new SystemRandom(),
  log: silentLogger,
  metrics: new MetricRegistry(),
};

export const testRegistration: TaskManagerRegistrationRequest = {
  protocolVersion,
  taskManagerId: 'tm-1' as TaskManagerId,
  host: 'localhost',
  pid: 1,
  dataAddress: 'localhost:1',
  slots: { slots: [{ slotIndex: 0, attempts: [] }] },
  hardware: { cpuCores: 1, memoryBytes: 1 },
  slotMemoryBytes: 1,
};

const jobId = 'a'.repeat(32) as JobId;
const allocationId = 'b'.repeat(32) as AllocationId;
const attemptId = 'attempt-1' as AttemptId;
const operatorId = 'c'.repeat(32) as OperatorId;
const response = { heartbeatIntervalMs: 1000, heartbeatTimeoutMs: 5000 };

/** A gateway whose unnamed methods fail the test. */
export function gatewayOf<G extends object>(methods: Partial<G>): G {
  return new Proxy(methods, {
    get: (target, name) =>
      (target as Record<string | symbol, unknown>)[name] ??
      ((): never => {
        throw new MillraceError('INVARIANT', `unexpected call of ${String(name)}`);
      }),
  }) as G;
}

interface Started {
  readonly gateway: JobManagerGateway;
  readonly session: RpcSession;
  readonly toTaskManager: TaskManagerGateway;
  readonly jobManagerSession: RpcSession;
}

interface StartOptions {
  readonly epoch?: LeaderEpoch;
  readonly taskManager?: Partial<TaskManagerGateway>;
  readonly jobManager?: Partial<JobManagerGateway>;
  readonly mayAct?: () => boolean;
  readonly peerOptions?: Partial<RpcPeerOptions>;
  readonly connector?: JobManagerConnector;
}

const firstEpoch: LeaderEpoch = { era: 1, revision: 10 };

async function startPair(
  t: Test,
  harness: RpcHarness,
  options: StartOptions = {},
): Promise<Started> {
  const peerOptions = { ...defaultRpcPeerOptions, ...options.peerOptions };
  const epoch = options.epoch ?? firstEpoch;
  const server = harness.createServer(testEnv, peerOptions);
  const address = await server.listen();
  t.teardown(() => server.close());
  let accepted: [TaskManagerGateway, RpcSession] | undefined;
  server.lead({
    epoch,
    mayAct: options.mayAct ?? (() => true),
    accept: (_, gateway, session) => {
      accepted = [gateway, session];
      return Promise.resolve({
        response,
        handler: gatewayOf<JobManagerGateway>(options.jobManager ?? {}),
      });
    },
  });
  const connector = options.connector ?? harness.createConnector(testEnv, peerOptions);
  const connection = await connector.connect(
    { rpcAddress: address, epoch },
    testRegistration,
    gatewayOf<TaskManagerGateway>(options.taskManager ?? {}),
  );
  if (accepted === undefined) throw new Error('the acceptor was not called');
  return { ...connection, toTaskManager: accepted[0], jobManagerSession: accepted[1] };
}

async function startServer(
  t: Test,
  harness: RpcHarness,
  epoch: LeaderEpoch,
  accept?: TaskManagerAcceptor,
): Promise<{ server: JobManagerRpcServer; address: string }> {
  const server = harness.createServer(testEnv, defaultRpcPeerOptions);
  const address = await server.listen();
  t.teardown(() => server.close());
  server.lead({
    epoch,
    mayAct: () => true,
    accept:
      accept ?? (() => Promise.resolve({ response, handler: gatewayOf<JobManagerGateway>({}) })),
  });
  return { server, address };
}

const code = (expected: string): { code: string } => ({ code: expected });

export function testRpcService(t: Test, harness: RpcHarness): void {
  t.test('registration gives both sides a gateway to the other', async (t) => {
    const seen: unknown[] = [];
    const pair = await startPair(t, harness, {
      taskManager: {
        requestSlot: async (request) => {
          seen.push(request);
        },
      },
      jobManager: {
        fetchBlob: async ({ offset }) => ({ bytes: new Uint8Array([1, 2, offset]), end: true }),
      },
    });
    await pair.toTaskManager.requestSlot({ jobId, allocationId, slotIndex: 3 });
    t.same(seen, [{ jobId, allocationId, slotIndex: 3 }]);
    const digest = 'd'.repeat(64) as Digest;
    const { bytes, end } = await pair.gateway.fetchBlob({ jobId, digest, offset: 7 });
    t.equal(bytes.constructor, Uint8Array, 'bytes are a plain Uint8Array');
    t.same([...bytes], [1, 2, 7]);
    t.equal(end, true);
  });

  t.test(
    'values survive that plain msgpack or JSON would change, and nothing is shared',
    async (t) => {
      let received: unknown;
      const pair = await startPair(t, harness, {
        taskManager: {
          sendOperatorEvent: async ({ event }) => {
            received = event;
          },
        },
      });
      const split = {
        negativeZero: -0,
        nan: NaN,
        low: -Infinity,
        big: 2n ** 80n,
        small: 5n,
        date: new Date(7),
        map: new Map([['k', -0]]),
        bytes: new Uint8Array([9]),
        list: [undefined, null, -0],
        left: undefined,
      };
      const event = { kind: 'addSplits', splits: [split] } as const;
      await pair.toTaskManager.sendOperatorEvent({ jobId, attemptId, operatorId, event });
      const { left: _, ...expected } = split;
      t.strictSame(received, { kind: 'addSplits', splits: [expected] });
      const copy = (received as { splits: (typeof split)[] }).splits[0]!;
      t.ok(Object.is(copy.negativeZero, -0) && Object.is(copy.list[2], -0), 'minus zero');
      t.ok(Object.is(copy.map.get('k'), -0), 'minus zero in a map');
      t.notOk('left' in copy, 'undefined fields are left out');
      t.not(copy.bytes, split.bytes);
      copy.bytes[0] = 1;
      t.equal(split.bytes[0], 9, 'bytes are copied');
    },
  );

  t.test('one-way messages and requests arrive in the order they were sent, later', async (t) => {
    const seen: string[] = [];
    const pair = await startPair(t, harness, {
      taskManager: {
        triggerCheckpoint: ({ checkpointId }) => void seen.push(`trigger ${checkpointId}`),
        notifyCheckpointComplete: ({ checkpointId }) => void seen.push(`complete ${checkpointId}`),
        requestSlot: async () => void seen.push('request'),
      },
    });
    const notice = { jobId, attemptIds: [attemptId] };
    for (let id = 1; id <= 50; id++) {
      pair.toTaskManager.triggerCheckpoint({ ...notice, checkpointId: id, timestamp: 0 });
      pair.toTaskManager.notifyCheckpointComplete({ ...notice, checkpointId: id });
    }
    t.same(seen, [], 'nothing is delivered inside the call');
    await pair.toTaskManager.requestSlot({ jobId, allocationId, slotIndex: 0 });
    const expected = Array.from({ length: 50 }, (_, i) => [
      `trigger ${i + 1}`,
      `complete ${i + 1}`,
    ]);
    t.same(seen, [...expected.flat(), 'request']);
  });

  t.test('an error crosses with its code, retry hint, details and cause', async (t) => {
    const pair = await startPair(t, harness, {
      taskManager: {
        requestSlot: () =>
          Promise.reject(
            new MillraceError('CONFLICT', 'slot 1 is taken', {
              details: { slotIndex: 1 },
              cause: new TypeError('inner'),
            }),
          ),
        freeSlot: () => {
          throw new RangeError('thrown at once');
        },
      },
    });
    const refused = pair.toTaskManager.requestSlot({ jobId, allocationId, slotIndex: 1 });
    await t.rejects(refused, {
      code: 'CONFLICT',
      retry: 'backoff',
      message: 'slot 1 is taken',
      details: { slotIndex: 1 },
      cause: { message: /inner/ },
    });
    await t.rejects(pair.toTaskManager.freeSlot({ allocationId, cause: 'x' }), {
      code: 'REMOTE',
      message: /RangeError: thrown at once/,
    });
  });

  t.test('a malformed message is refused with the path of its fault', async (t) => {
    const pair = await startPair(t, harness, {
      taskManager: { requestSlot: async () => undefined },
    });
    const bad = { jobId, allocationId, slotIndex: -1 };
    await t.rejects(pair.toTaskManager.requestSlot(bad), {
      code: 'RPC_PROTOCOL',
      message: /requestSlot at \/slotIndex must be >= 0/,
    });
    const newer = { jobId, allocationId, slotIndex: 1, addedLater: 'x' };
    await t.resolves(pair.toTaskManager.requestSlot(newer), 'unknown fields are tolerated');
  });

  t.test('a malformed answer is refused by the one who asked', async (t) => {
    const pair = await startPair(t, harness, {
      jobManager: { fetchBlob: (async () => ({ bytes: 'no bytes', end: true })) as never },
    });
    const digest = 'd'.repeat(64) as Digest;
    await t.rejects(pair.gateway.fetchBlob({ jobId, digest, offset: 0 }), code('RPC_PROTOCOL'));
  });

  t.test('another protocol version is refused in the handshake', async (t) => {
    const { address } = await startServer(t, harness, firstEpoch);
    const connector = harness.createConnector(testEnv, defaultRpcPeerOptions);
    const registration = { ...testRegistration, protocolVersion: protocolVersion + 1 };
    await t.rejects(
      connector.connect({ rpcAddress: address, epoch: firstEpoch }, registration, gatewayOf({})),
      { code: 'RPC_PROTOCOL', message: /protocol version/ },
    );
  });

  t.test('a refusal of the leader reaches the TaskManager', async (t) => {
    const { address } = await startServer(t, harness, firstEpoch, () =>
      Promise.reject(new MillraceError('CLUSTER_MISMATCH', 'another cluster')),
    );
    const connector = harness.createConnector(testEnv, defaultRpcPeerOptions);
    await t.rejects(
      connector.connect(
        { rpcAddress: address, epoch: firstEpoch },
        testRegistration,
        gatewayOf({}),
      ),
      code('CLUSTER_MISMATCH'),
    );
  });

  t.test('a JobManager that does not lead refuses registrations', async (t) => {
    const server = harness.createServer(testEnv, defaultRpcPeerOptions);
    const address = await server.listen();
    t.teardown(() => server.close());
    const connector = harness.createConnector(testEnv, defaultRpcPeerOptions);
    await t.rejects(
      connector.connect(
        { rpcAddress: address, epoch: firstEpoch },
        testRegistration,
        gatewayOf({}),
      ),
      code('NO_LEADER'),
    );
  });

  t.test('nobody at the address is a disconnection', async (t) => {
    const { server, address } = await startServer(t, harness, firstEpoch);
    await server.close();
    const connector = harness.createConnector(testEnv, defaultRpcPeerOptions);
    await t.rejects(
      connector.connect(
        { rpcAddress: address, epoch: firstEpoch },
        testRegistration,
        gatewayOf({}),
      ),
      code('RPC_DISCONNECTED'),
    );
  });

  t.test('an older leader is refused once a newer one is known, across sessions', async (t) => {
    const connector = harness.createConnector(testEnv, defaultRpcPeerOptions);
    const old = await startPair(t, harness, {
      connector,
      epoch: { era: 1, revision: 900 },
      taskManager: { requestSlot: async () => undefined },
    });
    await old.toTaskManager.requestSlot({ jobId, allocationId, slotIndex: 0 });
    // The era counts first: revisions run backwards when etcd is restored from a backup.
    const fresh = await startPair(t, harness, {
      connector,
      epoch: { era: 2, revision: 5 },
      taskManager: { requestSlot: async () => undefined },
    });
    await fresh.toTaskManager.requestSlot({ jobId, allocationId, slotIndex: 0 });
    await t.rejects(
      old.toTaskManager.requestSlot({ jobId, allocationId, slotIndex: 0 }),
      code('STALE_EPOCH'),
    );
    const { address } = await startServer(t, harness, { era: 1, revision: 901 });
    await t.rejects(
      connector.connect(
        { rpcAddress: address, epoch: { era: 1, revision: 901 } },
        testRegistration,
        gatewayOf({}),
      ),
      code('STALE_EPOCH'),
    );
  });

  t.test('a TaskManager that looks for another leadership is refused', async (t) => {
    const { address } = await startServer(t, harness, { era: 1, revision: 20 });
    const connect = (revision: number): Promise<unknown> =>
      harness
        .createConnector(testEnv, defaultRpcPeerOptions)
        .connect(
          { rpcAddress: address, epoch: { era: 1, revision } },
          testRegistration,
          gatewayOf({}),
        );
    await t.rejects(connect(19), code('STALE_EPOCH'));
    await t.rejects(connect(21), code('NO_LEADER'));
  });

  t.test(
    'without high availability any leadership is accepted, even one that begins anew',
    async (t) => {
      const connector = harness.createConnector(testEnv, defaultRpcPeerOptions);
      for (const revision of [7, 3]) {
        const toTaskManager: TaskManagerGateway[] = [];
        const { address } = await startServer(t, harness, { era: 1, revision }, (_, gateway) => {
          toTaskManager.push(gateway);
          return Promise.resolve({
            response,
            handler: gatewayOf<JobManagerGateway>({
              heartbeat: async () => ({ leaderState: 'ACTIVE' }),
            }),
          });
        });
        const { gateway } = await connector.connect(
          { rpcAddress: address, epoch: unfencedEpoch },
          testRegistration,
          gatewayOf<TaskManagerGateway>({ requestSlot: async () => undefined }),
        );
        await t.resolves(toTaskManager[0]!.requestSlot({ jobId, allocationId, slotIndex: 0 }));
        const process = { rssBytes: 1, heapUsedBytes: 1, eventLoopLagMs: 0, networkMemoryBytes: 0 };
        await t.resolves(gateway.heartbeat({ slots: { slots: [] }, taskMetrics: [], process }));
      }
    },
  );

  t.test('a leader past its deadline sends nothing but still answers', async (t) => {
    let mayAct = true;
    const seen: number[] = [];
    const pair = await startPair(t, harness, {
      mayAct: () => mayAct,
      taskManager: {
        requestSlot: async () => undefined,
        triggerCheckpoint: ({ checkpointId }) => void seen.push(checkpointId),
      },
      jobManager: { heartbeat: async () => ({ leaderState: 'ACTIVE' }) },
    });
    mayAct = false;
    await t.rejects(
      pair.toTaskManager.requestSlot({ jobId, allocationId, slotIndex: 0 }),
      code('LEADERSHIP_LOST'),
    );
    const trigger = { jobId, attemptIds: [attemptId], timestamp: 0 };
    pair.toTaskManager.triggerCheckpoint({ ...trigger, checkpointId: 1 });
    const process = { rssBytes: 1, heapUsedBytes: 1, eventLoopLagMs: 0, networkMemoryBytes: 0 };
    await t.resolves(
      pair.gateway.heartbeat({ slots: { slots: [] }, taskMetrics: [], process }),
      'heartbeats are answered',
    );
    mayAct = true;
    pair.toTaskManager.triggerCheckpoint({ ...trigger, checkpointId: 2 });
    await pair.toTaskManager.requestSlot({ jobId, allocationId, slotIndex: 0 });
    t.same(seen, [2], 'the trigger of the suspended leader was dropped');
  });

  t.test('closing a session tells the reason and rejects what is in flight', async (t) => {
    const pair = await startPair(t, harness, {
      taskManager: { requestSlot: () => new Promise<void>(() => undefined) },
    });
    const inFlight = pair.toTaskManager.requestSlot({ jobId, allocationId, slotIndex: 0 });
    pair.session.close('the TaskManager drains');
    await t.rejects(inFlight, code('RPC_DISCONNECTED'));
    t.equal(await pair.jobManagerSession.closed, 'the TaskManager drains');
    t.equal(await pair.session.closed, 'the TaskManager drains');
    await t.rejects(
      pair.toTaskManager.requestSlot({ jobId, allocationId, slotIndex: 0 }),
      code('RPC_DISCONNECTED'),
    );
    pair.session.close('again');
  });

  t.test('the end of a leadership closes its sessions', async (t) => {
    let handed: RpcSession | undefined;
    const { server, address } = await startServer(t, harness, firstEpoch, (_, __, session) => {
      handed = session;
      return Promise.resolve({ response, handler: gatewayOf<JobManagerGateway>({}) });
    });
    const connector = harness.createConnector(testEnv, defaultRpcPeerOptions);
    const connection = await connector.connect(
      { rpcAddress: address, epoch: firstEpoch },
      testRegistration,
      gatewayOf({}),
    );
    server.unlead('revoked');
    t.equal(await connection.session.closed, 'revoked');
    t.equal(await handed?.closed, 'revoked');
    await t.rejects(
      connector.connect(
        { rpcAddress: address, epoch: firstEpoch },
        testRegistration,
        gatewayOf({}),
      ),
      code('NO_LEADER'),
    );
  });

  t.test('waiting is bounded in time and number', async (t) => {
    const pair = await startPair(t, harness, {
      peerOptions: { requestTimeoutMs: 50, cancellationTimeoutMs: 150, maxPendingRequests: 2 },
      taskManager: {
        requestSlot: () => new Promise<void>(() => undefined),
        cancelTasks: () => new Promise<void>(() => undefined),
      },
    });
    const ask = (): Promise<void> =>
      pair.toTaskManager.requestSlot({ jobId, allocationId, slotIndex: 0 });
    const started = testEnv.clock.now();
    const waiting = [ask(), pair.toTaskManager.cancelTasks({ allocationId })];
    await t.rejects(ask(), code('RPC_OVERLOADED'));
    await t.rejects(waiting[0]!, { code: 'TIMEOUT', message: /requestSlot within 50 ms/ });
    await t.rejects(waiting[1]!, code('TIMEOUT'));
    t.ok(testEnv.clock.now() - started >= 145, 'cancelling has more patience');
  });
}
