/**
 * What a failed call to etcd means for its caller. etcd3 turns gRPC statuses into classes and drops the
 * code, so the class's name and etcd's own text are what there is to go by.
 */
import { hasCode, MillraceError } from '../../lib/base/errors.js';
import { tokenRefused } from './etcd-clients.js';

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
  // Twice in a row: another member may take its token.
  tokenRefused,
];

const noSpace = 'database space exceeded';

const rejected = [
  noSpace,
  // The server's limit on requests; the client's limit on answers begins with a capital R.
  'received message larger than max',
  'etcdserver: request is too large',
  'etcdserver: duplicate key given in txn request',
  'etcdserver: too many operations in txn request',
];

export function classify(error: unknown): EtcdFailure {
  if (!(error instanceof Error)) return 'unknown';
  if (hasCode(error, 'ETCD_UNAVAILABLE')) return 'not-applied';
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
    `etcd does not answer at ${endpoints.join(', ')}${lastError(cause)}. ` +
      'Check that its members run and that most of them reach each other (etcdctl endpoint health), ' +
      'and that high-availability.etcd.endpoints is right',
    { cause, details: { endpoints: [...endpoints] } },
  );
}

/** What gRPC was last told while connecting: refused, or certificates that do not fit. */
function lastError(cause: unknown): string {
  let text = '';
  for (let error = cause; error instanceof Error; error = error.cause) text = error.message;
  const reason = /Last error: (?:Error: )?(.*?)\.? *(?:Resolution note.*)?$/s.exec(text)?.[1];
  if (reason === undefined || reason === '') return '';
  const isTls = /certificate|self[- ]signed|altname|issuer|SSL|TLS|handshake/i.test(reason);
  return isTls
    ? ` (${reason}: its certificate or ours is not accepted; see high-availability.etcd.ssl.*)`
    : ` (${reason})`;
}

export function unknownOutcome(endpoint: string, cause: unknown): MillraceError {
  return new MillraceError(
    'UNKNOWN_OUTCOME',
    `etcd at ${endpoint} did not confirm a write; it may have happened`,
    { cause, details: { endpoint } },
  );
}

/**
 * The error for a call that no member would answer otherwise; passes MillraceErrors through.
 *
 * @param what such as "write /millrace/v1/a/jobs/b/spec"; user: of the password, if there is one.
 */
export function refused(
  failure: 'rejected' | 'lease-not-found',
  cause: unknown,
  { what = 'answer a request', user }: { readonly what?: string; readonly user?: string } = {},
): MillraceError {
  if (hasCode(cause, 'ETCD_REJECTED') || hasCode(cause, 'ETCD_NO_SPACE')) return cause;
  const text = cause instanceof Error ? cause.message : String(cause);
  if (failure === 'lease-not-found') {
    return new MillraceError('LEASE_NOT_FOUND', 'the lease expired or was revoked', { cause });
  }
  if (text.includes(noSpace)) {
    return new MillraceError(
      'ETCD_NO_SPACE',
      'etcd has no space left and takes no writes (alarm NOSPACE): compact it, defragment every member and disarm the alarm (docs/guides/etcd.md)',
      { cause },
    );
  }
  const who = user === undefined ? 'this client' : `the user "${user}"`;
  if (text.includes('authentication failed')) {
    const message = `etcd does not accept ${who}: high-availability.etcd.username and .password must be those of a user of etcd`;
    return new MillraceError('ETCD_REJECTED', message, { cause });
  }
  if (text.includes('permission denied')) {
    const message = `etcd does not allow ${who} to ${what}: its role needs that range of keys (docs/guides/etcd.md)`;
    return new MillraceError('ETCD_REJECTED', message, { cause });
  }
  return new MillraceError('ETCD_REJECTED', `etcd refused to ${what}: ${text}`, { cause });
}
