/**
 * The port to the consistent store behind high availability. Served by etcd (ha/etcd) and by memory
 * (ha/memory); both pass test/conformance/kv-store.ts. Everything above it is written against these
 * guarantees and nothing else:
 *
 * - Reads, transactions and lease calls are linearizable, unless a read asks for `serializable`.
 * - A call is tried once, except reads and keepalives, which may be tried at several members.
 * - A write rejects with UNKNOWN_OUTCOME when it may or may not have happened, with ETCD_UNAVAILABLE
 *   only when it certainly did not, and with ETCD_REJECTED or LEASE_NOT_FOUND when it was refused.
 * - A watch delivers every event from its start revision on, in order, or says that it ended.
 */
import { invariant } from '../lib/base/assert.js';
import type { Closeable } from '../lib/base/lifecycle.js';

/** Decimal text of a 64-bit id: lease ids exceed what a number holds. */
export type LeaseId = string;

export interface KvEntry {
  readonly key: string;
  /** Empty when only keys were asked for. */
  readonly value: Uint8Array;
  /** Revision of the put that created the key; a deleted key that is put again gets a new one. */
  readonly createRevision: number;
  readonly modRevision: number;
  /** 1 for a new key, one more with every put. */
  readonly version: number;
  readonly leaseId: LeaseId | undefined;
}

export interface CallOptions {
  /** Bound on the whole call, all tries included. Default: the store's. */
  readonly timeoutMs?: number;
}

export interface RangeRequest {
  readonly key: string;
  /** Exclusive end; without it only `key` itself. See `prefixEnd`. */
  readonly rangeEnd?: string;
  /** 0 or absent: no limit. */
  readonly limit?: number;
  readonly keysOnly?: boolean;
  readonly countOnly?: boolean;
  /** Drops entries created later. */
  readonly maxCreateRevision?: number;
  /** Default: by key, ascending. */
  readonly sort?: {
    readonly by: 'key' | 'create' | 'mod';
    readonly order: 'ascending' | 'descending';
  };
  /** Answered by one member without asking the others; possibly stale. */
  readonly serializable?: boolean;
}

export interface RangeResult {
  /** Store revision at which the range was read. */
  readonly revision: number;
  readonly entries: readonly KvEntry[];
  /** True when `limit` cut entries off. */
  readonly more: boolean;
  /** Entries in the range, not cut by `limit` (nor filtered by `maxCreateRevision`). */
  readonly count: number;
}

/**
 * With `rangeEnd`, the comparison must hold for every key of the range; an empty range counts as one
 * absent key (revisions and version 0). So `create > n` over a range fails when the range is empty.
 */
export interface Compare {
  readonly target: 'create' | 'mod' | 'version';
  readonly key: string;
  readonly rangeEnd?: string;
  readonly op: '=' | '!=' | '>' | '<';
  readonly value: number;
}

export type TxnOp =
  | {
      readonly op: 'put';
      readonly key: string;
      readonly value: Uint8Array;
      readonly leaseId?: LeaseId;
    }
  | { readonly op: 'delete'; readonly key: string; readonly rangeEnd?: string }
  | ({ readonly op: 'get' } & Omit<RangeRequest, 'serializable'>)
  | ({ readonly op: 'txn' } & TxnRequest);

export interface TxnRequest {
  /** All must hold. */
  readonly compare: readonly Compare[];
  readonly then: readonly TxnOp[];
  readonly else?: readonly TxnOp[];
}

export type TxnOpResult =
  | { readonly op: 'put' }
  | { readonly op: 'delete'; readonly deleted: number }
  | ({ readonly op: 'get' } & RangeResult)
  | ({ readonly op: 'txn' } & TxnResult);

export interface TxnResult {
  readonly succeeded: boolean;
  readonly revision: number;
  /** One per operation of the branch that ran. */
  readonly results: readonly TxnOpResult[];
}

export interface WatchEvent {
  readonly type: 'put' | 'delete';
  /** Of a deletion: key and modRevision only. */
  readonly entry: KvEntry;
}

export interface WatchRequest {
  readonly key: string;
  readonly rangeEnd?: string;
  /** First revision to deliver; usually one more than that of the range read before. */
  readonly startRevision: number;
}

export interface WatchListener {
  /** Events of one or more revisions in order; never an empty array. */
  onEvents(events: readonly WatchEvent[]): void;
  /**
   * The watch is over, whatever the reason (disconnected, compacted, cancelled by the store); called
   * at most once, never after `close` nor from within `watch`. What was missed is unknown: read the state again.
   */
  onEnd(error: Error): void;
}

/** An open watch. */
export interface Watch {
  /** Ends it at once; nothing is delivered afterwards. */
  close(): void;
}

export interface LeaseGrant {
  readonly leaseId: LeaseId;
  /** What the store granted; may be longer than asked for (etcd: whole seconds, with a minimum). */
  readonly ttlMs: number;
}

export interface KvStore extends Closeable {
  /** What to name in messages, such as the endpoints. */
  readonly description: string;
  range(request: RangeRequest, options?: CallOptions): Promise<RangeResult>;
  get(key: string, options?: CallOptions): Promise<KvEntry | undefined>;
  txn(request: TxnRequest, options?: CallOptions): Promise<TxnResult>;
  watch(request: WatchRequest, listener: WatchListener): Watch;
  /** Not repeated: a lease whose answer was lost expires by itself. */
  grantLease(ttlMs: number, options?: CallOptions): Promise<LeaseGrant>;
  /**
   * One renewal at one member; a failure makes the next call prefer another member. Resolves with the
   * renewed time to live, or 0 when the lease does not exist (any more).
   */
  keepAliveOnce(leaseId: LeaseId, options?: CallOptions): Promise<number>;
  /** Deletes the lease and its keys; resolves as well when it does not exist. */
  revokeLease(leaseId: LeaseId, options?: CallOptions): Promise<void>;
  /** Remaining time to live in ms (etcd: whole seconds, rounded down); `undefined` when there is no such lease. */
  timeToLive(leaseId: LeaseId, options?: CallOptions): Promise<number | undefined>;
}

/** The exclusive end of the range of all keys that begin with `prefix` (ASCII, as all keys of ha/keys.ts). */
export function prefixEnd(prefix: string): string {
  const last = prefix.charCodeAt(prefix.length - 1);
  invariant(last < 0x7f, 'a key prefix ends in an ASCII character', { prefix });
  return prefix.slice(0, -1) + String.fromCharCode(last + 1);
}

/** Whether every operation only reads, so that repeating it is harmless. */
export function isReadOnly(request: TxnRequest): boolean {
  const reads = (op: TxnOp): boolean => op.op === 'get' || (op.op === 'txn' && isReadOnly(op));
  return request.then.every(reads) && (request.else ?? []).every(reads);
}

const pageSize = 500;

/**
 * All entries under a prefix in key order, read in pages. `revision` is that of the first page: a
 * watch from `revision + 1` sees every change the later pages may or may not have seen.
 */
export async function listPrefix(
  kv: KvStore,
  prefix: string,
  options: { readonly keysOnly?: boolean } & CallOptions = {},
): Promise<{ revision: number; entries: KvEntry[] }> {
  const { keysOnly, ...call } = options;
  const rangeEnd = prefixEnd(prefix);
  const entries: KvEntry[] = [];
  let revision: number | undefined;
  for (let key = prefix; ;) {
    const page = await kv.range(
      { key, rangeEnd, limit: pageSize, ...(keysOnly === true && { keysOnly }) },
      call,
    );
    revision ??= page.revision;
    entries.push(...page.entries);
    const last = page.entries.at(-1);
    if (!page.more || last === undefined) return { revision, entries };
    key = `${last.key}\0`;
  }
}

const encoder = new TextEncoder();
const decoder = new TextDecoder();

export const encodeText = (text: string): Uint8Array => encoder.encode(text);
export const decodeText = (bytes: Uint8Array): string => decoder.decode(bytes);
