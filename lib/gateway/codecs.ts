/**
 * The methods of both directions of the control plane with the schemas of their messages. A table must name
 * every method of its gateway with fitting types: the compiler holds the two together.
 */
import { Type, type Static, type TSchema } from '@sinclair/typebox';
import type {
  AllocationId,
  AttemptId,
  Digest,
  JobId,
  OperatorId,
  TaskManagerId,
  VertexId,
} from '../base/ids.js';
import type { MetricSample } from '../base/metrics.js';
import type { JobGraph, JobVertex, JobEdge } from '../graph/job-graph.js';
import type { OperatorEvent } from '../operators/stream-operator.js';
import type { TaskRestore, TaskStateSnapshot } from '../state/state-handle.js';
import type { ExecutionState } from './execution-state.js';
import type {
  JobManagerGateway,
  TaskManagerGateway,
  TaskManagerRegistrationRequest,
  TaskManagerRegistrationResponse,
} from './taskmanager-gateway.js';
import { Bytes, Count, FailureSchema, Id, messageCheck, type MessageCheck } from './schema.js';

/** `patience`: cancelling and freeing wait for user code to end, up to task.cancellation.timeout. */
export interface MethodSpec<Req, Res> {
  readonly kind: 'request' | 'oneway';
  readonly patience: 'normal' | 'cancellation';
  readonly request: MessageCheck<Req>;
  readonly response: MessageCheck<Res>;
}

export type MethodTable<G> = {
  readonly [M in keyof G]: G[M] extends (request: infer Req) => infer Res
    ? MethodSpec<Req, Awaited<Res>>
    : never;
};

const noAnswer: MessageCheck<void> = Object.assign(() => undefined, { compile: () => undefined });

function oneway<S extends TSchema>(name: string, schema: S): MethodSpec<Static<S>, void> {
  return {
    kind: 'oneway',
    patience: 'normal',
    request: messageCheck(name, schema),
    response: noAnswer,
  };
}

function command<S extends TSchema>(
  name: string,
  schema: S,
  patience: 'normal' | 'cancellation' = 'normal',
): MethodSpec<Static<S>, void> {
  return { kind: 'request', patience, request: messageCheck(name, schema), response: noAnswer };
}

function query<S extends TSchema, R extends TSchema>(
  name: string,
  schema: S,
  answer: R,
): MethodSpec<Static<S>, Static<R>> {
  return {
    kind: 'request',
    patience: 'normal',
    request: messageCheck(name, schema),
    response: messageCheck(`the answer to ${name}`, answer),
  };
}

// ---- Parts ------------------------------------------------------------------------------------

const jobId = Id<JobId>();
const attemptId = Id<AttemptId>();
const allocationId = Id<AllocationId>();
const taskManagerId = Id<TaskManagerId>();
const operatorId = Id<OperatorId>();
const checkpointId = Type.Integer({ minimum: 1 });

const executionState = Type.Unsafe<ExecutionState>({
  enum: [
    'CREATED',
    'SCHEDULED',
    'DEPLOYING',
    'INITIALIZING',
    'RUNNING',
    'FINISHED',
    'CANCELING',
    'CANCELED',
    'FAILED',
  ] satisfies ExecutionState[],
});

const slotReport = Type.Object({
  slots: Type.Array(
    Type.Object({
      slotIndex: Count,
      allocationId: Type.Optional(allocationId),
      jobId: Type.Optional(jobId),
      attempts: Type.Array(Type.Object({ attemptId, state: executionState })),
    }),
  ),
});

const operatorEvent = Type.Unsafe<OperatorEvent>(
  Type.Union([
    Type.Object({ kind: Type.Literal('readerRegistered'), host: Type.String() }),
    Type.Object({ kind: Type.Literal('requestSplit') }),
    Type.Object({ kind: Type.Literal('sourceEvent') }),
    Type.Object({ kind: Type.Literal('addSplits'), splits: Type.Array(Type.Unknown()) }),
    Type.Object({ kind: Type.Literal('noMoreSplits') }),
  ]),
);

const stateHandle = Type.Union([
  Type.Object({ kind: Type.Literal('inline'), bytes: Bytes }),
  Type.Object({
    kind: Type.Literal('file'),
    path: Type.String({ minLength: 1 }),
    sizeBytes: Count,
    crc32: Count,
  }),
]);

const keyedStateHandle = Type.Object({
  range: Type.Object({ start: Type.Integer(), end: Type.Integer() }),
  sections: Type.Array(Type.Object({ keyGroup: Count, offset: Count, length: Count })),
  data: stateHandle,
});

const taskStateSnapshot = Type.Unsafe<TaskStateSnapshot>(
  Type.Object({
    operators: Type.Record(
      Type.String(),
      Type.Object({
        keyed: Type.Optional(keyedStateHandle),
        operator: Type.Optional(stateHandle),
        watermark: Type.Optional(Type.Number()),
      }),
    ),
    finished: Type.Boolean(),
  }),
);

const taskRestore = Type.Unsafe<TaskRestore>(
  Type.Object({
    checkpointId: Count,
    operators: Type.Record(
      Type.String(),
      Type.Object({
        keyed: Type.Array(keyedStateHandle),
        operator: Type.Array(stateHandle),
        unchangedParallelism: Type.Boolean(),
        watermark: Type.Optional(Type.Number()),
      }),
    ),
    finished: Type.Boolean(),
    baseDirectory: Type.String(),
  }),
);

// ---- Deployment -------------------------------------------------------------------------------
// The graph was checked in depth when it was submitted; here its shape is enough.

const jobVertex = Type.Unsafe<JobVertex>(
  Type.Object({
    id: Id<VertexId>(),
    name: Type.String(),
    parallelism: Type.Integer({ minimum: 1 }),
    maxParallelism: Type.Integer({ minimum: 1 }),
    operators: Type.Array(
      Type.Object({
        id: operatorId,
        name: Type.String(),
        chainedTo: Type.Array(Type.Object({ operator: operatorId })),
      }),
      { minItems: 1 },
    ),
  }),
);

const jobEdge = Type.Unsafe<JobEdge>(
  Type.Object({
    id: Type.String({ minLength: 1 }),
    source: Id<VertexId>(),
    sourceOperator: operatorId,
    target: Id<VertexId>(),
    shipStrategy: Type.String(),
  }),
);

const jobGraph = Type.Unsafe<JobGraph>(
  Type.Object({
    version: Type.Integer(),
    jobId,
    name: Type.String(),
    vertices: Type.Array(jobVertex),
    edges: Type.Array(jobEdge),
    config: Type.Object({
      bufferTimeoutMs: Type.Number(),
      autoWatermarkIntervalMs: Type.Number(),
      compile: Type.Boolean(),
    }),
    main: Type.Object({
      argv: Type.Array(Type.String()),
      environment: Type.Record(Type.String(), Type.String()),
      captureTime: Type.Number(),
      seed: Type.Number(),
    }),
    bundle: Type.Optional(Type.Object({ digest: Id<Digest>(), sizeBytes: Count })),
    fingerprint: Type.String(),
  }),
);

const channels = Type.Array(
  Type.Object({
    channelId: Type.String({ minLength: 1 }),
    peer: Type.Object({
      taskManagerId,
      dataAddress: Type.String(),
      allocationId,
      attemptId,
      subtaskIndex: Count,
    }),
  }),
);

const slotDeployment = Type.Object({
  jobId,
  allocationId,
  generation: Count,
  jobGraph,
  checkpointDirectory: Type.String({ minLength: 1 }),
  epochLabel: Type.String({ minLength: 1 }),
  tasks: Type.Array(
    Type.Object({
      attemptId,
      vertex: jobVertex,
      subtaskIndex: Count,
      attemptNumber: Count,
      generation: Count,
      outputs: Type.Array(
        Type.Object({
          edge: jobEdge,
          targetParallelism: Count,
          targetMaxParallelism: Count,
          channels,
        }),
      ),
      inputs: Type.Array(Type.Object({ edge: jobEdge, channels })),
      restore: Type.Optional(taskRestore),
    }),
    { minItems: 1 },
  ),
});

// ---- Registration -----------------------------------------------------------------------------

export const registerMethodName = 'register';

export const registration: MethodSpec<
  TaskManagerRegistrationRequest,
  TaskManagerRegistrationResponse
> = query(
  'a registration',
  Type.Object({
    protocolVersion: Type.Integer(),
    taskManagerId,
    host: Type.String(),
    pid: Type.Integer(),
    dataAddress: Type.String({ minLength: 1 }),
    slots: slotReport,
    hardware: Type.Object({ cpuCores: Type.Number(), memoryBytes: Type.Number() }),
    slotMemoryBytes: Type.Number(),
  }),
  Type.Object({
    heartbeatIntervalMs: Type.Number({ exclusiveMinimum: 0 }),
    heartbeatTimeoutMs: Type.Number({ exclusiveMinimum: 0 }),
  }),
);

// ---- JobManager -> TaskManager ----------------------------------------------------------------

const checkpointNotice = Type.Object({ jobId, attemptIds: Type.Array(attemptId), checkpointId });

export const taskManagerMethods: MethodTable<TaskManagerGateway> = {
  requestSlot: command('requestSlot', Type.Object({ jobId, allocationId, slotIndex: Count })),
  freeSlot: command(
    'freeSlot',
    Type.Object({ allocationId, cause: Type.String() }),
    'cancellation',
  ),
  submitTasks: command('submitTasks', slotDeployment),
  cancelTasks: command('cancelTasks', Type.Object({ allocationId }), 'cancellation'),
  triggerCheckpoint: oneway(
    'triggerCheckpoint',
    Type.Object({
      jobId,
      attemptIds: Type.Array(attemptId),
      checkpointId,
      timestamp: Type.Number(),
    }),
  ),
  notifyCheckpointComplete: oneway('notifyCheckpointComplete', checkpointNotice),
  notifyCheckpointAborted: oneway('notifyCheckpointAborted', checkpointNotice),
  sendOperatorEvent: command(
    'sendOperatorEvent',
    Type.Object({ jobId, attemptId, operatorId, event: operatorEvent }),
  ),
  requestInventory: query(
    'requestInventory',
    Type.Object({ jobId }),
    Type.Object({
      attempts: Type.Array(
        Type.Object({
          attemptId,
          allocationId,
          slotIndex: Count,
          state: executionState,
          failure: Type.Optional(FailureSchema),
          lastCheckpointId: Count,
          completedCheckpointId: Count,
          endOfData: Type.Boolean(),
          readers: Type.Record(
            Type.String(),
            Type.Object({
              isRegistered: Type.Boolean(),
              awaitsSplit: Type.Boolean(),
              noMoreSplits: Type.Boolean(),
              given: Type.Array(Type.Object({ after: Count, splits: Type.Array(Type.Unknown()) })),
            }),
          ),
        }),
      ),
    }),
  ),
  adoptTasks: command(
    'adoptTasks',
    Type.Object({
      jobId,
      allocationId,
      attemptIds: Type.Array(attemptId),
      epochLabel: Type.String({ minLength: 1 }),
      completedCheckpointId: Count,
      abortedCheckpointId: Count,
    }),
  ),
  requestLog: query(
    'requestLog',
    Type.Object({
      jobId: Type.Optional(jobId),
      maxLines: Count,
      stream: Type.Union([Type.Literal('log'), Type.Literal('stdout')]),
    }),
    Type.Object({ lines: Type.Array(Type.String()) }),
  ),
};

// ---- TaskManager -> JobManager ----------------------------------------------------------------

const metricSample = Type.Unsafe<MetricSample>(
  Type.Object({
    name: Type.String(),
    type: Type.String(),
    labels: Type.Record(Type.String(), Type.String()),
    value: Type.Number(),
  }),
);

const taskMetrics = Type.Object({
  attemptId,
  numRecordsIn: Type.Number(),
  numRecordsOut: Type.Number(),
  numBytesIn: Type.Number(),
  numBytesOut: Type.Number(),
  busyMs: Type.Number(),
  backPressuredMs: Type.Number(),
  idleMs: Type.Number(),
  currentInputWatermark: Type.Optional(Type.Number()),
  currentOutputWatermark: Type.Optional(Type.Number()),
  numLateRecordsDropped: Type.Number(),
  user: Type.Optional(Type.Array(metricSample)),
});

export const jobManagerMethods: MethodTable<JobManagerGateway> = {
  heartbeat: query(
    'heartbeat',
    Type.Object({
      slots: slotReport,
      taskMetrics: Type.Array(taskMetrics),
      process: Type.Object({
        rssBytes: Type.Number(),
        heapUsedBytes: Type.Number(),
        eventLoopLagMs: Type.Number(),
        networkMemoryBytes: Type.Number(),
      }),
    }),
    Type.Object({
      leaderState: Type.Union([Type.Literal('ACTIVE'), Type.Literal('SUSPENDED')]),
    }),
  ),
  updateTaskState: oneway(
    'updateTaskState',
    Type.Object({
      jobId,
      attemptId,
      state: executionState,
      failure: Type.Optional(FailureSchema),
      metrics: Type.Optional(taskMetrics),
    }),
  ),
  acknowledgeCheckpoint: oneway(
    'acknowledgeCheckpoint',
    Type.Object({
      jobId,
      attemptId,
      checkpointId,
      snapshot: taskStateSnapshot,
      alignmentMs: Type.Number(),
      syncMs: Type.Number(),
      asyncMs: Type.Number(),
      startDelayMs: Type.Number(),
    }),
  ),
  declineCheckpoint: oneway(
    'declineCheckpoint',
    Type.Object({ jobId, attemptId, checkpointId, failure: FailureSchema }),
  ),
  reportEndOfData: oneway('reportEndOfData', Type.Object({ jobId, attemptId })),
  sendOperatorEvent: oneway(
    'sendOperatorEvent',
    Type.Object({ jobId, attemptId, operatorId, event: operatorEvent }),
  ),
  fetchBlob: query(
    'fetchBlob',
    Type.Object({ jobId, digest: Id<Digest>(), offset: Count }),
    Type.Object({ bytes: Bytes, end: Type.Boolean() }),
  ),
};

/**
 * Compiles what this side of the control plane checks: milliseconds for each kind of message, a tenth of a second in all,
 * that a takeover or a first deployment would wait for.
 */
export function compileChecks(side: 'jobmanager' | 'taskmanager'): void {
  const isJobManager = side === 'jobmanager';
  const specs = (table: object): MethodSpec<unknown, unknown>[] =>
    Object.values<MethodSpec<unknown, unknown>>(table as Record<string, never>);
  registration[isJobManager ? 'request' : 'response'].compile();
  const served = isJobManager ? jobManagerMethods : taskManagerMethods;
  const called = isJobManager ? taskManagerMethods : jobManagerMethods;
  for (const { request } of specs(served)) request.compile();
  for (const { response } of specs(called)) response.compile();
}
