import { errorCodes, type ErrorCode, type ErrorDomain, type RetryHint } from './error-codes.js';

export interface ErrorOptions {
  readonly cause?: unknown;
  /** Plain data that helps the reader: ids, paths, limits. Never user records. */
  readonly details?: Readonly<Record<string, unknown>>;
}

/**
 * The one error type that crosses Millrace. `code` comes from the table in error-codes.ts, which also
 * says who can act (`domain`) and whether trying again helps (`retry`). Match on `code`, never on the text.
 */
export class MillraceError extends Error {
  readonly code: ErrorCode;
  readonly retry: RetryHint;
  readonly domain: ErrorDomain;
  readonly details: Readonly<Record<string, unknown>>;

  constructor(code: ErrorCode, message: string, options: ErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = 'MillraceError';
    this.code = code;
    this.retry = errorCodes[code].retry;
    this.domain = errorCodes[code].domain;
    this.details = options.details ?? {};
  }
}

/** An error as plain data, for RPC, REST, etcd and logs (Flink's SerializedThrowable). */
export interface Failure {
  readonly name: string;
  readonly message: string;
  readonly code?: ErrorCode;
  readonly retry?: RetryHint;
  readonly domain?: ErrorDomain;
  readonly details?: Readonly<Record<string, unknown>>;
  readonly stack?: string;
  readonly cause?: Failure;
}

/** Bounds for failures of user code, which can be arbitrarily deep or long. */
const maxCauses = 8;
const maxText = 16_384;

export function toFailure(error: unknown, depth = 0): Failure {
  if (!(error instanceof Error)) {
    if (isFailure(error)) return error;
    return { name: 'NonError', message: clip(typeof error === 'string' ? error : safeJson(error)) };
  }
  const coded = error instanceof MillraceError ? error : undefined;
  return {
    name: error.name,
    message: clip(error.message),
    ...(coded && { code: coded.code, retry: coded.retry, domain: coded.domain }),
    ...(coded && Object.keys(coded.details).length > 0 && { details: coded.details }),
    ...(error.stack !== undefined && { stack: clip(error.stack) }),
    ...(error.cause !== undefined &&
      depth < maxCauses && { cause: toFailure(error.cause, depth + 1) }),
  };
}

/** The error again, in another process; an unknown code (of a newer peer) becomes REMOTE. */
export function fromFailure(failure: Failure): MillraceError {
  const known = failure.code !== undefined && failure.code in errorCodes ? failure.code : 'REMOTE';
  const prefix = known === 'REMOTE' && failure.name !== 'Error' ? `${failure.name}: ` : '';
  const error = new MillraceError(known, prefix + failure.message, {
    ...(failure.details !== undefined && { details: failure.details }),
    ...(failure.cause !== undefined && { cause: fromFailure(failure.cause) }),
  });
  if (failure.stack !== undefined) error.stack = failure.stack;
  return error;
}

/** Innermost cause: what a person wants to read first. */
export function rootCause(failure: Failure): Failure {
  return failure.cause === undefined ? failure : rootCause(failure.cause);
}

export function hasCode(error: unknown, code: ErrorCode): error is MillraceError {
  return error instanceof MillraceError && error.code === code;
}

function isFailure(value: unknown): value is Failure {
  return typeof value === 'object' && value !== null && 'name' in value && 'message' in value;
}

function clip(text: string): string {
  return text.length > maxText
    ? `${text.slice(0, maxText)}… (${String(text.length)} characters)`
    : text;
}

function safeJson(value: unknown): string {
  try {
    return JSON.stringify(value) ?? String(value);
  } catch {
    return String(value);
  }
}
