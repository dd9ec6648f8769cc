import type { ErrorCode, RetryHint } from '../base/error-codes.js';
import { MillraceError, toFailure, type Failure } from '../base/errors.js';

/**
 * On answers of a leader that may not act: it cannot reach etcd, and another one may lead meanwhile. What it says is how
 * things were, so a client asks the other JobManagers first.
 */
export const suspendedHeader = 'x-millrace-suspended';

/** Body of every answer that is not a success. `errors` is Flink's; its first line says what happened, the others why. */
export interface ErrorBody {
  readonly errors: readonly string[];
  readonly code: ErrorCode | 'INTERNAL';
  readonly retry: RetryHint;
  readonly details?: Readonly<Record<string, unknown>>;
}

const statusByCode: Partial<Record<ErrorCode, number>> = {
  JOB_NOT_FOUND: 404,
  CHECKPOINT_NOT_FOUND: 404,
  NOT_FOUND: 404,
  UNAUTHORIZED: 401,
  REQUEST_INVALID: 400,
  CONFIG: 400,
  JOB_INVALID: 400,
  JOB_FINGERPRINT: 400,
  BLOB_CORRUPT: 400,
  RECORD_UNSUPPORTED: 400,
  CHECKPOINT_INCOMPATIBLE: 400,
  JOB_DUPLICATE: 409,
  CONFLICT: 409,
  NO_LEADER: 503,
  LEADERSHIP_LOST: 503,
  STALE_EPOCH: 503,
  // The leadership that worked on it ended: the next leader answers.
  CLOSED: 503,
  ABORTED: 503,
  ETCD_UNAVAILABLE: 503,
  UNKNOWN_OUTCOME: 503,
  LEASE_NOT_FOUND: 503,
  RPC_DISCONNECTED: 503,
  DISK_FULL: 507,
  TIMEOUT: 504,
};

export function statusOf(error: unknown): number {
  if (error instanceof MillraceError) return statusByCode[error.code] ?? 500;
  // Errors of the HTTP layer carry a status of their own.
  if (error instanceof Error && 'statusCode' in error && typeof error.statusCode === 'number') {
    return error.statusCode >= 400 ? error.statusCode : 500;
  }
  return 500;
}

export function toErrorBody(error: unknown): ErrorBody {
  const failure = toFailure(error);
  const status = statusOf(error);
  const isRequest = failure.code === undefined && status >= 400 && status < 500;
  return {
    errors: messages(failure),
    code: failure.code ?? (isRequest ? 'REQUEST_INVALID' : 'INTERNAL'),
    retry: failure.retry ?? (isRequest ? 'never' : 'backoff'),
    ...(failure.details !== undefined && { details: failure.details }),
  };
}

function messages(failure: Failure): string[] {
  return [failure.message, ...(failure.cause === undefined ? [] : messages(failure.cause))];
}

/** Of a request that found no JobManager behind its address. */
export function disconnected(message: string, cause: unknown): MillraceError {
  return new MillraceError('RPC_DISCONNECTED', `${message} (${describe(cause)})`, { cause });
}

function describe(cause: unknown): string {
  if (!(cause instanceof Error)) return String(cause);
  // Several addresses of one name were tried: the first says enough.
  if (cause instanceof AggregateError && cause.errors[0] instanceof Error)
    return cause.errors[0].message;
  return cause.message === '' ? cause.name : cause.message;
}
