/**
 * The one table of options: key, type, default, bounds and meaning. The loader, config/millrace.yaml and
 * docs/reference/configuration.md follow from it. A key is Flink's wherever Flink has one; the name here is the
 * key in camelCase.
 */
import {
  boolType,
  durationType,
  enumType,
  floatType,
  intType,
  listType,
  memoryType,
  optional,
  type OptionType,
  stringType,
} from './option-types.js';

export interface Option<T> {
  readonly key: string;
  readonly type: OptionType<T>;
  readonly default: T;
  /** Meaning, and what breaks when it is too small or too large. One or two sentences. */
  readonly doc: string;
  /** Never shown in logs, status pages or error messages. */
  readonly isSecret?: boolean;
}

/** `fallback` is text, so that the table reads as the file does: '10 s', '32kb'. */
function option<T>(key: string, type: OptionType<T>, fallback: string, doc: string): Option<T> {
  return { key, type, default: type.parse(fallback), doc };
}

const port = (): OptionType<number> => intType({ min: 0, max: 65_535 });
const unset = '';

export const options = {
  // --- job -----------------------------------------------------------------------------------------------------
  parallelismDefault: option(
    'parallelism.default',
    intType({ min: 1, max: 32_768 }),
    '1',
    'Parallelism of operators that do not set their own.',
  ),
  pipelineName: option(
    'pipeline.name',
    optional(stringType()),
    unset,
    'Name of the job, when execute() gives none.',
  ),
  pipelineMaxParallelism: option(
    'pipeline.max-parallelism',
    optional(intType({ min: 1, max: 32_768 })),
    unset,
    'Number of key groups, the upper limit of parallelism for the whole life of the state. Unset: from the parallelism by Flink’s formula, at least 128.',
  ),
  pipelineOperatorChainingEnabled: option(
    'pipeline.operator-chaining.enabled',
    boolType(),
    'true',
    'Whether operators that can be chained run in one task. Off only to find out which operator is slow.',
  ),
  pipelineCompile: option(
    'pipeline.compile',
    boolType(),
    'true',
    'Whether a chain of operators runs as one generated function. Off, each operator is a call of its own: several times slower, the same results; for debugging.',
  ),
  pipelineAutoWatermarkInterval: option(
    'pipeline.auto-watermark-interval',
    durationType({ min: 1 }),
    '200 ms',
    'How often sources emit watermarks. Shorter means earlier windows and less efficient buffers.',
  ),
  executionBufferTimeoutInterval: option(
    'execution.buffer-timeout.interval',
    durationType(),
    '100 ms',
    'Longest time a record waits in a buffer that is not full. 0 sends every record at once, at a high price in throughput.',
  ),
  executionMainTimeout: option(
    'execution.main.timeout',
    durationType({ min: 1000 }),
    '1 min',
    'Longest time a job’s main may take to reach execute(), at submission and again in every slot.',
  ),

  // --- checkpoints ---------------------------------------------------------------------------------------------
  executionCheckpointingInterval: option(
    'execution.checkpointing.interval',
    durationType(),
    '10 s',
    'Time between the starts of periodic checkpoints. 0 switches them off: then nothing restarts and sinks commit only at the end.',
  ),
  executionCheckpointingTimeout: option(
    'execution.checkpointing.timeout',
    durationType({ min: 10 }),
    '10 min',
    'Longest time from trigger to completion, after which a checkpoint is aborted.',
  ),
  executionCheckpointingMinPause: option(
    'execution.checkpointing.min-pause',
    durationType(),
    '0',
    'Least time between the end of one checkpoint and the start of the next.',
  ),
  executionCheckpointingMaxConcurrentCheckpoints: option(
    'execution.checkpointing.max-concurrent-checkpoints',
    intType({ min: 1, max: 16 }),
    '1',
    'How many checkpoints may be in progress at once.',
  ),
  executionCheckpointingTolerableFailedCheckpoints: option(
    'execution.checkpointing.tolerable-failed-checkpoints',
    intType({ min: 0 }),
    '0',
    'How many checkpoints in a row may fail before the job is restarted.',
  ),
  executionCheckpointingNumRetained: option(
    'execution.checkpointing.num-retained',
    intType({ min: 1, max: 100 }),
    '3',
    'How many completed checkpoints are kept.',
  ),
  executionCheckpointingDir: option(
    'execution.checkpointing.dir',
    optional(stringType()),
    unset,
    'Directory of checkpoints, reachable under the same path from every process. Unset: `<high-availability.storageDir>`.',
  ),
  stateStorageSmallStateThreshold: option(
    'state.storage.small-state-threshold',
    memoryType({ max: 1024 ** 2 }),
    '20kb',
    'State up to this size per task is kept inside the checkpoint’s metadata instead of in a file of its own.',
  ),

  // --- restart -------------------------------------------------------------------------------------------------
  restartStrategyType: option(
    'restart-strategy.type',
    enumType('exponential-delay', 'fixed-delay', 'none'),
    'exponential-delay',
    'What happens after a failure. Without checkpointing it is `none` unless it is set.',
  ),
  restartStrategyExponentialDelayInitialBackoff: option(
    'restart-strategy.exponential-delay.initial-backoff',
    durationType({ min: 1 }),
    '1 s',
    'Delay before the first restart.',
  ),
  restartStrategyExponentialDelayMaxBackoff: option(
    'restart-strategy.exponential-delay.max-backoff',
    durationType({ min: 1 }),
    '1 min',
    'Longest delay between restarts.',
  ),
  restartStrategyExponentialDelayBackoffMultiplier: option(
    'restart-strategy.exponential-delay.backoff-multiplier',
    floatType({ min: 1 }),
    '1.5',
    'Factor by which the delay grows from one failure to the next.',
  ),
  restartStrategyExponentialDelayResetBackoffThreshold: option(
    'restart-strategy.exponential-delay.reset-backoff-threshold',
    durationType({ min: 1 }),
    '1 h',
    'Time without a failure after which the delay starts again at its initial value.',
  ),
  restartStrategyExponentialDelayJitterFactor: option(
    'restart-strategy.exponential-delay.jitter-factor',
    floatType({ min: 0, max: 1 }),
    '0.1',
    'Random share of the delay, added or taken away, so that jobs do not restart in step.',
  ),
  restartStrategyExponentialDelayAttemptsBeforeResetBackoff: option(
    'restart-strategy.exponential-delay.attempts-before-reset-backoff',
    intType({ min: 1, infinite: true }),
    'infinite',
    'How many restarts without a reset before the job fails for good.',
  ),
  restartStrategyFixedDelayAttempts: option(
    'restart-strategy.fixed-delay.attempts',
    intType({ min: 0, infinite: true }),
    '1',
    'How many restarts before the job fails for good.',
  ),
  restartStrategyFixedDelayDelay: option(
    'restart-strategy.fixed-delay.delay',
    durationType(),
    '1 s',
    'Delay before each restart.',
  ),

  // --- liveness and slots --------------------------------------------------------------------------------------
  heartbeatInterval: option(
    'heartbeat.interval',
    durationType({ min: 10 }),
    '1 s',
    'How often JobManager and TaskManagers tell each other that they live.',
  ),
  heartbeatTimeout: option(
    'heartbeat.timeout',
    durationType({ min: 50 }),
    '5 s',
    'Silence after which the other side counts as lost. A closed connection is noticed at once, without this.',
  ),
  slotRequestTimeout: option(
    'slot.request.timeout',
    durationType({ min: 100 }),
    '5 min',
    'How long a job waits for slots before the attempt to schedule it fails.',
  ),
  taskmanagerNumberOfTaskSlots: option(
    'taskmanager.numberOfTaskSlots',
    intType({ min: 1, max: 256 }),
    '1',
    'Slots of a TaskManager, each a thread. One slot per TaskManager is hard isolation; more than the machine has cores loses throughput.',
  ),
  taskmanagerSlotThreading: option(
    'taskmanager.slot.threading',
    enumType('worker', 'in-process'),
    'worker',
    'Whether a slot is a worker thread of its own. `in-process` is for debugging: no memory limit, and a job that loops for ever takes the TaskManager with it.',
  ),
  taskmanagerMemorySlotHeapSize: option(
    'taskmanager.memory.slot.heap.size',
    memoryType({ min: 32 * 1024 ** 2 }),
    '256m',
    'Heap a slot’s tasks may use before they fail with SLOT_MEMORY; V8 ends the thread at twice this.',
  ),
  taskmanagerMemorySlotYoungGenerationSize: option(
    'taskmanager.memory.slot.young-generation.size',
    memoryType({ min: 3 * 1024 ** 2, max: 1024 ** 3 }),
    '96mb',
    'Room for new objects in the heap of a slot’s thread, in addition to its heap size: a third of it may fill before a collection. More helps jobs that keep many records for a moment (windows, records kept whole), and costs caches where they do not.',
  ),
  taskmanagerSlotV8Flags: option(
    'taskmanager.slot.v8-flags',
    listType(),
    '--max-inlined-bytecode-size-cumulative=4000',
    'Flags of V8 for the process of the TaskManager, set before a slot compiles anything. The default lets a long generated chain be inlined as a whole.',
  ),
  taskmanagerSlotPollingEnabled: option(
    'taskmanager.slot.polling.enabled',
    boolType(),
    'true',
    'Whether threads that exchange records look for more for up to 0.1 ms before they sleep, as long as that pays: a wake-up costs 50 us. Off saves processor time where other programs need it.',
  ),
  taskmanagerSlotBlockedThreshold: option(
    'taskmanager.slot.blocked.threshold',
    durationType(),
    '100 ms',
    'A call of user code that holds up its slot’s thread, and so every task in it, for longer than this is logged as a warning that names the operator. 0 switches that off.',
  ),
  taskCancellationTimeout: option(
    'task.cancellation.timeout',
    durationType(),
    '30 s',
    'How long a cancelled task may take to end before its TaskManager process exits.',
  ),
  taskmanagerResourceId: option(
    'taskmanager.resource-id',
    optional(stringType()),
    unset,
    'Name of the TaskManager. Unset: drawn at random at start.',
  ),
  taskmanagerRegistrationTimeout: option(
    'taskmanager.registration.timeout',
    durationType({ min: 1000 }),
    '5 min',
    'How long a TaskManager tries to register with a leader before it exits.',
  ),
  taskmanagerLeaderlessTimeout: option(
    'taskmanager.leaderless.timeout',
    durationType({ min: 1000 }),
    '30 s',
    'How long tasks go on while their TaskManager reads etcd and no leader has it registered.',
  ),

  // --- network -------------------------------------------------------------------------------------------------
  taskmanagerHost: option(
    'taskmanager.host',
    stringType(),
    'localhost',
    'Address under which other processes reach this TaskManager.',
  ),
  taskmanagerDataPort: option(
    'taskmanager.data.port',
    port(),
    '0',
    'Port over which TaskManagers exchange records; 0 takes a free one.',
  ),
  taskmanagerNetworkMemoryBufferSize: option(
    'taskmanager.network.memory.buffer-size',
    memoryType({ min: 1024, max: 1024 ** 2 }),
    '32kb',
    'Size of one buffer. Records larger than it span buffers.',
  ),
  taskmanagerNetworkMemoryBuffersPerChannel: option(
    'taskmanager.network.memory.buffers-per-channel',
    intType({ min: 2, max: 1024 }),
    '32',
    'Buffers of a channel, and so its credit. Fewer means earlier back-pressure; more lets a channel run on while its other end pauses (a collection of garbage, another task’s turn), at the price of memory (1 MB a channel) and of records in flight at a barrier.',
  ),
  jobmanagerRpcAddress: option(
    'jobmanager.rpc.address',
    stringType(),
    'localhost',
    'Address under which TaskManagers reach this JobManager.',
  ),
  jobmanagerRpcPort: option(
    'jobmanager.rpc.port',
    port(),
    '0',
    'Control port of a JobManager; 0 takes a free one. Without high availability TaskManagers need a fixed one.',
  ),
  jobmanagerRpcBindPort: option(
    'jobmanager.rpc.bind-port',
    optional(port()),
    unset,
    'Port the JobManager listens on where the one others reach (`jobmanager.rpc.port`) is another: behind a proxy or a mapped port. Unset: the same.',
  ),
  restAddress: option(
    'rest.address',
    stringType(),
    'localhost',
    'Address under which clients and other JobManagers reach the REST server.',
  ),
  restPort: option('rest.port', port(), '8081', 'Port of the REST server; 0 takes a free one.'),
  restBindAddress: option(
    'rest.bind-address',
    stringType(),
    'localhost',
    'Address the REST server listens on. REST runs code, so anything but loopback requires `rest.token`.',
  ),
  restToken: {
    ...option(
      'rest.token',
      optional(stringType()),
      unset,
      'Bearer token every REST request must carry.',
    ),
    isSecret: true,
  },

  // --- high availability ---------------------------------------------------------------------------------------
  highAvailabilityType: option(
    'high-availability.type',
    enumType('etcd', 'none'),
    'none',
    'Where leadership and jobs are kept. `none`: in the memory of the only JobManager.',
  ),
  highAvailabilityClusterId: option(
    'high-availability.cluster-id',
    stringType(),
    'default',
    'Name of the cluster: the prefix of its keys in etcd. Two clusters on one etcd need two names.',
  ),
  highAvailabilityStorageDir: option(
    'high-availability.storageDir',
    optional(stringType()),
    unset,
    'Directory of job bundles and, by default, checkpoints, reachable under the same path from every process. Required with `etcd`.',
  ),
  highAvailabilityControlOutageGrace: option(
    'high-availability.control-outage-grace',
    durationType({ min: 1000 }),
    '10 min',
    'How long a suspended leader and running tasks wait for etcd to come back before they give up.',
  ),
  highAvailabilityJobRecovery: option(
    'high-availability.job-recovery',
    enumType('adopt', 'restore'),
    'adopt',
    'What a new leader does with running jobs. `adopt`: their tasks go on undisturbed when all that was recorded is found running, else the job is restored. `restore`: every job starts again from its last checkpoint.',
  ),
  highAvailabilityTaskmanagerReconnectWindow: option(
    'high-availability.taskmanager-reconnect-window',
    durationType({ min: 100 }),
    '5 s',
    'How long a new leader waits for TaskManagers that etcd still knows, before jobs that had tasks there are restored without them.',
  ),
  highAvailabilityOrphanSweepMinAge: option(
    'high-availability.orphan-sweep.min-age',
    durationType({ min: 1000 }),
    '1 h',
    'Files of checkpoints and jobs that nothing names (left by a leader that died) are deleted when they are older. It must be longer than any checkpoint takes.',
  ),
  jobstoreExpirationTime: option(
    'jobstore.expiration-time',
    durationType({ min: 1000 }),
    '1 h',
    'How long jobs that have ended are remembered. A job that is forgotten is unknown to REST, and its id could be submitted again.',
  ),
  jobstoreMaxCapacity: option(
    'jobstore.max-capacity',
    intType({ min: 0 }),
    '1000',
    'How many jobs that have ended are remembered, the newest ones.',
  ),
  highAvailabilityPeerDetectionEnabled: option(
    'high-availability.peer-detection.enabled',
    boolType(),
    'true',
    'Whether standbys hold a connection to the leader and depose it when the connection closes and new ones are refused: milliseconds instead of the lease’s time. Off where JobManagers reach each other through a proxy or NAT, which may refuse for a leader that lives.',
  ),
  highAvailabilityEtcdEndpoints: option(
    'high-availability.etcd.endpoints',
    listType(),
    '',
    'Client URLs of all etcd members. Required with `etcd`.',
  ),
  highAvailabilityEtcdLeaseTtl: option(
    'high-availability.etcd.lease-ttl',
    durationType({ min: 1000, max: 60_000 }),
    '3 s',
    'Lease of a leader, in whole seconds: after a machine is lost, a successor leads within this and half a second. Use 5 s with an etcd whose election timeout is 1 s.',
  ),
  highAvailabilityEtcdElectionTimeout: option(
    'high-availability.etcd.election-timeout',
    durationType({ min: 50, max: 50_000 }),
    '500 ms',
    'election-timeout of the etcd in use, which cannot be read from it; it bounds the lease from below.',
  ),

  // --- supervisor ----------------------------------------------------------------------------------------------
  supervisorHeartbeatInterval: option(
    'supervisor.heartbeat.interval',
    durationType({ min: 10, max: 10_000 }),
    '200 ms',
    'How often a supervised process tells its supervisor that its event loop turns.',
  ),
  supervisorHeartbeatTimeout: option(
    'supervisor.heartbeat.timeout',
    durationType({ min: 0 }),
    '2 s',
    'A supervised process silent for so long is killed, deposed and started again; 0 leaves it alone. Shorter bounds a hang more tightly, at the risk of killing a process that is only busy.',
  ),
  supervisorRestartInitialDelay: option(
    'supervisor.restart.initial-delay',
    durationType({ min: 1 }),
    '1 s',
    'Pause before a JobManager that ended is started again (a TaskManager: from the second time in a row), doubled each time until it lived for a minute.',
  ),
  supervisorRestartMaxDelay: option(
    'supervisor.restart.max-delay',
    durationType({ min: 1 }),
    '30 s',
    'Longest pause before a process is started again.',
  ),
  highAvailabilityEtcdQuotaBackendSize: option(
    'high-availability.etcd.quota-backend-size',
    optional(memoryType()),
    unset,
    'quota-backend-bytes of the etcd in use, which cannot be read from it: the leader warns when a database reaches 80 % of it. Unset: no warning.',
  ),
  highAvailabilityEtcdUsername: option(
    'high-availability.etcd.username',
    optional(stringType()),
    unset,
    'User of etcd, when it has users with passwords. With `client-cert-auth` the user is the certificate’s common name instead.',
  ),
  highAvailabilityEtcdPassword: {
    ...option(
      'high-availability.etcd.password',
      optional(stringType()),
      unset,
      'Its password. Use `https://` endpoints with it.',
    ),
    isSecret: true,
  },
  highAvailabilityEtcdSslCaFile: option(
    'high-availability.etcd.ssl.ca-file',
    optional(stringType()),
    unset,
    'PEM file of the authorities that signed etcd’s certificates. Unset: those Node trusts. Files are read again when they change.',
  ),
  highAvailabilityEtcdSslCertFile: option(
    'high-availability.etcd.ssl.cert-file',
    optional(stringType()),
    unset,
    'PEM file with this process’s certificate for etcd (`client-cert-auth`); with its key or not at all.',
  ),
  highAvailabilityEtcdSslKeyFile: option(
    'high-availability.etcd.ssl.key-file',
    optional(stringType()),
    unset,
    'PEM file with the key of `high-availability.etcd.ssl.cert-file`.',
  ),
  highAvailabilityEtcdSslServerName: option(
    'high-availability.etcd.ssl.server-name',
    optional(stringType()),
    unset,
    'Name that etcd’s certificates carry, where it is not the host of the endpoints.',
  ),

  // --- processes -----------------------------------------------------------------------------------------------
  ioTmpDirs: option(
    'io.tmp.dirs',
    optional(stringType()),
    unset,
    'Directory of temporary files and the blob cache. Unset: the system’s.',
  ),
  envLogLevel: option(
    'env.log.level',
    enumType('trace', 'debug', 'info', 'warn', 'error'),
    'info',
    'Least level that is logged.',
  ),
  envLogDir: option(
    'env.log.dir',
    optional(stringType()),
    unset,
    'Directory of log files. Unset: standard error.',
  ),
  webExceptionHistorySize: option(
    'web.exception-history-size',
    intType({ min: 0, max: 1000 }),
    '16',
    'How many failures of a job REST remembers.',
  ),
  webCheckpointsHistory: option(
    'web.checkpoints.history',
    intType({ min: 0, max: 1000 }),
    '10',
    'How many checkpoints of a job REST remembers.',
  ),
} as const satisfies Record<string, Option<never> | Option<unknown>>;

/** Every option, in the order of the table. */
export const allOptions: readonly Option<unknown>[] = Object.values(options);
