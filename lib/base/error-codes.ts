/** `now`: try again at once; `backoff`: try again later; `never`: something must be changed first. */
export type RetryHint = 'now' | 'backoff' | 'never';

/** Who can act: the job's author, Millrace's developers and administrators, or whoever runs what we depend on. */
export type ErrorDomain = 'user' | 'system' | 'external';

/** The hint as a sentence for people. */
export const retryAdvice: Readonly<Record<RetryHint, string>> = {
  now: 'try again',
  backoff: 'trying again later may help',
  never: 'trying again will not help until something is changed',
};

interface ErrorCodeEntry {
  readonly retry: RetryHint;
  readonly domain: ErrorDomain;
  /** One line of meaning, for the reference. */
  readonly meaning: string;
}

const entry = (retry: RetryHint, domain: ErrorDomain, meaning: string): ErrorCodeEntry => ({
  retry,
  domain,
  meaning,
});

/** The closed table of codes; docs/reference/errors.md is generated from it. */
export const errorCodes = {
  INVARIANT: entry('never', 'system', 'a promise inside Millrace was broken: a bug to report'),
  REMOTE: entry('backoff', 'system', 'another process failed in a way this version does not know'),
  CLOSED: entry('never', 'system', 'the component was closed'),
  ABORTED: entry('never', 'system', 'the operation was cancelled by its caller'),
  TIMEOUT: entry('backoff', 'external', 'no answer within the bound'),
  CONFIG: entry('never', 'user', 'the configuration has an unknown key or an ill-typed value'),
  REQUEST_INVALID: entry('never', 'user', 'a REST request is malformed or too large'),
  NOT_FOUND: entry('never', 'user', 'a REST path or what it names does not exist'),
  UNAUTHORIZED: entry(
    'never',
    'user',
    'a REST request lacks the token or comes from a foreign site',
  ),
  PORT_IN_USE: entry('never', 'external', 'another process listens on the port'),

  ETCD_MISSING: entry('never', 'external', 'the etcd program is not installed'),
  ETCD_UNAVAILABLE: entry('backoff', 'external', 'etcd does not answer or has no quorum'),
  ETCD_REJECTED: entry(
    'never',
    'external',
    'etcd refused a request that will not become right by repeating it',
  ),
  ETCD_NO_SPACE: entry(
    'backoff',
    'external',
    'etcd has no space left (alarm NOSPACE); leadership and running tasks go on without writes',
  ),
  UNKNOWN_OUTCOME: entry(
    'backoff',
    'external',
    'a write may or may not have happened; its caller must read back',
  ),
  LEASE_NOT_FOUND: entry(
    'backoff',
    'system',
    'the etcd lease expired or was revoked; its owner registers again',
  ),
  LEADERSHIP_LOST: entry(
    'never',
    'system',
    'this process is no longer the leader; a successor acts',
  ),
  CONFLICT: entry('backoff', 'system', 'the object was changed by somebody else meanwhile'),
  CLUSTER_MISMATCH: entry(
    'never',
    'user',
    'two clusters share one id, or HA data and storage belong to different clusters',
  ),
  CLUSTER_NOT_FOUND: entry('never', 'user', 'no local cluster, or no process of it, has this name'),
  CLUSTER_START: entry('never', 'external', 'a local cluster could not be started'),
  DRILL_FAILED: entry('never', 'system', 'a drill found that something did not hold'),
  NO_LEADER: entry(
    'backoff',
    'system',
    'no JobManager leads right now; one is elected within the lease',
  ),
  ADOPTION_REFUSED: entry(
    'backoff',
    'system',
    'tasks could not go on under a new leader; their job is restored from its latest checkpoint',
  ),
  STALE_EPOCH: entry('never', 'system', 'the message belongs to an older leadership or attempt'),

  RPC_DISCONNECTED: entry('backoff', 'external', 'the connection to the peer closed'),
  RPC_OVERLOADED: entry('backoff', 'system', 'too many requests wait for the answers of one peer'),
  RPC_PROTOCOL: entry('never', 'system', 'a message does not fit the protocol or its version'),

  JOB_NOT_FOUND: entry('never', 'user', 'no job has this id'),
  JOB_DUPLICATE: entry('never', 'user', 'a job with this id exists or has ended'),
  JOB_INVALID: entry('never', 'user', 'the job graph is not valid'),
  JOB_TYPE_ERROR: entry('never', 'user', 'the job does not type-check'),
  JOB_MAIN_FAILED: entry('never', 'user', "the job's main threw"),
  JOB_NO_EXECUTE: entry(
    'never',
    'user',
    "the job's main never called execute within its time limit",
  ),
  JOB_SECOND_EXECUTE: entry('never', 'user', "the job's main called execute a second time"),
  JOB_FINGERPRINT: entry('never', 'user', 're-running main gave another graph than was submitted'),
  JOB_FAILED: entry('never', 'user', 'the job failed and its restart strategy gave up'),
  JOB_ENDED: entry('never', 'user', 'the job had ended before it could be cancelled'),
  JOB_CANCELED: entry('never', 'user', 'the job was cancelled'),
  RECOVERY_FAILED: entry('never', 'external', 'a job could not be recovered; other jobs go on'),
  USER_FUNCTION: entry('backoff', 'user', 'a user function threw'),
  NO_RESOURCE_AVAILABLE: entry('backoff', 'user', 'the job needs more slots than the cluster has'),
  SLOT_MEMORY: entry('backoff', 'user', 'the tasks of a slot exceeded its memory limit'),
  SLOT_LOST: entry('backoff', 'system', 'a slot thread or its TaskManager ended'),
  TASK_CANCEL_TIMEOUT: entry(
    'backoff',
    'user',
    'a task did not end in time after it was cancelled',
  ),
  OVERDRAFT_EXCEEDED: entry(
    'never',
    'user',
    'one record produced more output than may be buffered',
  ),
  RECORD_UNSUPPORTED: entry(
    'never',
    'user',
    'a record, key or state holds a value that cannot be encoded',
  ),
  NETWORK: entry('backoff', 'external', 'the connection between two TaskManagers failed'),

  CHECKPOINT_FAILED: entry('backoff', 'system', 'a checkpoint could not be completed'),
  CHECKPOINT_NOT_FOUND: entry('never', 'user', 'no checkpoint is stored there'),
  CHECKPOINT_CORRUPT: entry('never', 'external', 'checkpoint data is damaged or was changed'),
  CHECKPOINT_INCOMPATIBLE: entry(
    'never',
    'user',
    'the state does not fit the job it is restored into',
  ),
  CHECKPOINT_STORAGE: entry('backoff', 'external', 'checkpoint storage cannot be read or written'),
  COMMIT_FAILED: entry(
    'backoff',
    'external',
    'a sink could not commit its output within its tries; nothing is lost',
  ),
  COMMITTABLE_LOST: entry(
    'never',
    'external',
    'pending output of a sink is neither pending nor committed',
  ),

  FILE_NOT_FOUND: entry('never', 'user', 'an input file or directory does not exist'),
  DISK_FULL: entry('backoff', 'external', 'no space is left on the device'),
  IO: entry('backoff', 'external', 'a file could not be read or written'),
  BLOB_CORRUPT: entry('backoff', 'external', "a job's bundle does not have its digest"),
} as const satisfies Record<string, ErrorCodeEntry>;

export type ErrorCode = keyof typeof errorCodes;
