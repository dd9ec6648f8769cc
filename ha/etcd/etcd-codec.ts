/** Requests and answers of ha/kv-store.ts in etcd's protocol. 64-bit numbers are decimal text there. */
import type {
  ICompare,
  IEvent,
  IKeyValue,
  IRangeRequest,
  IRangeResponse,
  IRequestOp,
  IResponseOp,
  ITxnRequest,
  ITxnResponse,
} from 'etcd3';
import { invariant } from '../../lib/base/assert.js';
import type {
  Compare,
  KvEntry,
  RangeRequest,
  RangeResult,
  TxnOp,
  TxnOpResult,
  TxnRequest,
  TxnResult,
  WatchEvent,
} from '../kv-store.js';

export function toSafeInteger(text: string): number {
  const value = Number(text);
  invariant(Number.isSafeInteger(value), 'an etcd revision is a safe integer', { text });
  return value;
}

export const toKey = (key: string): Buffer => Buffer.from(key, 'utf8');

const toRange = (range: {
  readonly key: string;
  readonly rangeEnd?: string;
}): { key: Buffer; range_end?: Buffer } => ({
  key: toKey(range.key),
  ...(range.rangeEnd !== undefined && { range_end: toKey(range.rangeEnd) }),
});

const sortTargets = { key: 'Key', create: 'Create', mod: 'Mod' } as const;
const sortOrders = { ascending: 'Ascend', descending: 'Descend' } as const;

export function toRangeRequest(request: RangeRequest): IRangeRequest {
  const { limit, keysOnly, countOnly, maxCreateRevision, sort, serializable } = request;
  return {
    ...toRange(request),
    ...(limit !== undefined && { limit }),
    ...(keysOnly !== undefined && { keys_only: keysOnly }),
    ...(countOnly !== undefined && { count_only: countOnly }),
    ...(maxCreateRevision !== undefined && { max_create_revision: String(maxCreateRevision) }),
    ...(sort !== undefined && {
      sort_target: sortTargets[sort.by],
      sort_order: sortOrders[sort.order],
    }),
    ...(serializable !== undefined && { serializable }),
  };
}

export function fromRangeResponse(response: IRangeResponse, revision?: string): RangeResult {
  return {
    revision: toSafeInteger(revision ?? response.header.revision),
    entries: response.kvs.map(fromKeyValue),
    more: response.more,
    count: toSafeInteger(response.count),
  };
}

function fromKeyValue(kv: IKeyValue): KvEntry {
  return {
    key: kv.key.toString('utf8'),
    value: kv.value,
    createRevision: toSafeInteger(kv.create_revision),
    modRevision: toSafeInteger(kv.mod_revision),
    version: toSafeInteger(kv.version),
    leaseId: kv.lease === '0' ? undefined : kv.lease,
  };
}

const compareTargets = {
  create: { target: 'Create', field: 'create_revision' },
  mod: { target: 'Mod', field: 'mod_revision' },
  version: { target: 'Version', field: 'version' },
} as const;
const compareResults = { '=': 'Equal', '!=': 'NotEqual', '>': 'Greater', '<': 'Less' } as const;

function toCompare(compare: Compare): ICompare {
  const { target, field } = compareTargets[compare.target];
  return {
    ...toRange(compare),
    target,
    result: compareResults[compare.op],
    [field]: String(compare.value),
  };
}

function toRequestOp(op: TxnOp): IRequestOp {
  switch (op.op) {
    case 'put':
      return {
        request_put: {
          key: toKey(op.key),
          value: Buffer.from(op.value.buffer, op.value.byteOffset, op.value.byteLength),
          ...(op.leaseId !== undefined && { lease: op.leaseId }),
        },
      };
    case 'delete':
      return { request_delete_range: toRange(op) };
    case 'get':
      return { request_range: toRangeRequest(op) };
    case 'txn':
      return { request_txn: toTxnRequest(op) };
  }
}

export function toTxnRequest(request: TxnRequest): ITxnRequest {
  return {
    compare: request.compare.map(toCompare),
    success: request.then.map(toRequestOp),
    failure: (request.else ?? []).map(toRequestOp),
  };
}

export function fromTxnResponse(
  response: ITxnResponse,
  request: TxnRequest,
  revision = response.header.revision,
): TxnResult {
  const branch = response.succeeded ? request.then : (request.else ?? []);
  return {
    succeeded: response.succeeded,
    revision: toSafeInteger(revision),
    results: branch.map((op, i) => {
      const part = response.responses[i];
      invariant(part !== undefined, 'etcd answers every operation of a transaction');
      return fromResponseOp(op, part, revision);
    }),
  };
}

/** Answers inside a transaction have no header of their own worth reading. */
function fromResponseOp(op: TxnOp, part: IResponseOp, revision: string): TxnOpResult {
  switch (op.op) {
    case 'put':
      return { op: 'put' };
    case 'delete':
      return { op: 'delete', deleted: toSafeInteger(part.response_delete_range.deleted) };
    case 'get':
      return { ...fromRangeResponse(part.response_range, revision), op: 'get' };
    case 'txn':
      return { ...fromTxnResponse(part.response_txn, op, revision), op: 'txn' };
  }
}

export function fromEvent(event: IEvent): WatchEvent {
  return { type: event.type === 'Delete' ? 'delete' : 'put', entry: fromKeyValue(event.kv) };
}

/** What a request does, for people: "read a", "write a and 3 more". */
export function describeRequest(request: RangeRequest | TxnRequest): string {
  if ('key' in request) return `read ${request.key}`;
  const keys = (ops: readonly TxnOp[], wanted: (op: TxnOp) => boolean): string[] =>
    ops.flatMap((op) =>
      op.op === 'txn' ? keys([...op.then, ...(op.else ?? [])], wanted) : wanted(op) ? [op.key] : [],
    );
  const all = [...request.then, ...(request.else ?? [])];
  const written = keys(all, ({ op }) => op !== 'get');
  const named =
    written.length > 0 ? written : [...keys(all, () => true), ...request.compare.map((c) => c.key)];
  const more = named.length > 1 ? ` and ${String(named.length - 1)} more` : '';
  return `${written.length > 0 ? 'write' : 'read'} ${named[0] ?? 'nothing'}${more}`;
}

/** etcd's limits unless it was started with others. */
const maxTxnOps = 128;
const maxRequestBytes = 1.5 * 1_024 * 1_024;

/** Why etcd would refuse a transaction for its size; `undefined` when it would not. */
export function excessOf(request: TxnRequest): string | undefined {
  const parts = [request.compare, request.then, request.else ?? []];
  const most = Math.max(...parts.map((part) => part.length));
  if (most > maxTxnOps) {
    return `${String(most)} operations in one transaction, and etcd takes ${String(maxTxnOps)}`;
  }
  const bytes = sizeOf(request);
  return bytes <= maxRequestBytes
    ? undefined
    : `${String(bytes)} bytes in one request, and etcd takes ${String(maxRequestBytes)}`;
}

function sizeOf(request: TxnRequest): number {
  let bytes = 0;
  for (const { key } of request.compare) bytes += key.length;
  for (const op of [...request.then, ...(request.else ?? [])]) {
    if (op.op === 'txn') bytes += sizeOf(op);
    else bytes += op.key.length + (op.op === 'put' ? op.value.byteLength : 0);
  }
  return bytes;
}
