/**
 * What a failed call to etcd means for its caller. etcd3 turns gRPC statuses into classes and drops the
 * code, so the class's name and etcd's own text are what there is to go by.
 */
import { hasCode, MillraceError } from '../../lib/base/errors.js';

export type EtcdFailure =
  /** Certainly without effect: another member may be asked. */
  | 'not-applied'
  /** May have happened. */
  | 'unknown'
  /** Refused for what it is; no member would answer otherwise. */
  | 'rejected'
  | 'lease-not-found';

const rejectedClasses = new Set([
  'GRPCInvalidArgumentError',
  'GRPCFailedPreconditionError',
  'GRPCOutOfRangeError',
  'GRPCNotImplementedError',
  'GRPCUnauthenticatedError',
  'GRPCAlreadyExistsError',
  'EtcdPermissionDeniedError',
  'EtcdInvalidAuthTokenError',
  'EtcdAuthenticationFailedError',
]);

/** Texts of failures that come before the request reaches etcd's raft. */
const notApplied = [
  'No connection established',
  'Name resolution failed',
  // Deadlines that passed before a connection was even chosen.
  'waiting for name resolution',
  'Waiting for LB pick',
  'Channel closed before call started',
  'etcdserver: no leader',
  'etcdserver: too many requests',
];

const rejected = [
  'database space exceeded',
  // The server's limit on requests; the client's limit on answers begins with a capital R.
  'received message larger than max',
  'etcdserver: request is too large',
  'etcdserver: duplicate key given in txn request',
  'etcdserver: too many operations in txn request',
];

export function classify(error: unknown): EtcdFailure {
  if (!(error instanceof Error)) return 'unknown';
  const { name } = error.constructor;
  const { message } = error;
  if (name === 'EtcdLeaseInvalidError' || message.includes('requested lease not found')) {
    return 'lease-not-found';
  }
  if (notApplied.some((text) => message.includes(text))) return 'not-applied';
  if (rejectedClasses.has(name) || rejected.some((text) => message.includes(text))) {
    return 'rejected';
  }
  return 'unknown';
}

export function unavailable(endpoints: readonly string[], cause: unknown): MillraceError {
  return new MillraceError(
    'ETCD_UNAVAILABLE',
    `etcd does not answer at ${endpoints.join(', ')}. ` +
      'Check that its members run and that most of them reach each other (etcdctl endpoint health), ' +
      'and that high-availability.etcd.endpoints is right',
    { cause, details: { endpoints: [...endpoints] } },
  );
}

export function unknownOutcome(endpoint: string, cause: unknown): MillraceError {
  return new MillraceError(
    'UNKNOWN_OUTCOME',
    `etcd at ${endpoint} did not confirm a write; it may have happened`,
    { cause, details: { endpoint } },
  );
}

/** The error for a call that no member would answer otherwise; passes MillraceErrors through. */
export function refused(failure: 'rejected' | 'lease-not-found', cause: unknown): MillraceError {
  if (hasCode(cause, 'ETCD_REJECTED')) return cause;
  const text = cause instanceof Error ? cause.message : String(cause);
  return failure === 'lease-not-found'
    ? new MillraceError('LEASE_NOT_FOUND', 'the lease expired or was revoked', { cause })
    : new MillraceError('ETCD_REJECTED', `etcd refused a request: ${text}`, { cause });
}
