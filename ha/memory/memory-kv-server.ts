/**
 * The state behind in-memory stores: keys with revisions, leases on a Clock and an event history, with
 * the semantics of etcd 3.4 where ha/kv-store.ts relies on them. Every operation is one synchronous
 * step, which makes it linearizable. Clients (memory-kv-store.ts) add asynchrony and faults.
 */
import type { CancelTimer, Clock } from '../../lib/base/clock.js';
import { MillraceError } from '../../lib/base/errors.js';
import type {
  Compare,
  KvEntry,
  LeaseGrant,
  LeaseId,
  RangeRequest,
  RangeResult,
  TxnOp,
  TxnOpResult,
  TxnRequest,
  TxnResult,
  WatchEvent,
  WatchRequest,
} from '../kv-store.js';

/** etcd's defaults: operations per branch, bytes per request. */
const maxTxnOps = 128;
const maxRequestBytes = 1_572_864;
/** Events kept for watches that start in the past. */
const maxHistory = 10_000;

interface Lease {
  ttlMs: number;
  expiresAt: number;
  cancelTimer: CancelTimer;
  readonly keys: Set<string>;
}

interface Subscriber {
  readonly request: WatchRequest;
  readonly deliver: (events: readonly WatchEvent[]) => void;
}

const nothing = new Uint8Array(0);

export class MemoryKvServer {
  readonly #clock: Clock;
  readonly #entries = new Map<string, KvEntry>();
  readonly #leases = new Map<LeaseId, Lease>();
  readonly #subscribers = new Set<Subscriber>();
  #history: WatchEvent[] = [];
  /** Watches may start at any later revision. */
  #compactedRevision = 0;
  #revision = 1;
  #lastLease = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  get revision(): number {
    return this.#revision;
  }

  range(request: Omit<RangeRequest, 'serializable'>): RangeResult {
    const all = this.#select(request);
    const { maxCreateRevision = Infinity, sort = { by: 'key', order: 'ascending' } } = request;
    const matching = all.filter((entry) => entry.createRevision <= maxCreateRevision);
    const sign = sort.order === 'ascending' ? 1 : -1;
    matching.sort((a, b) => {
      if (sort.by === 'create') return sign * (a.createRevision - b.createRevision);
      if (sort.by === 'mod') return sign * (a.modRevision - b.modRevision);
      return a.key < b.key ? -sign : sign;
    });
    const limit = request.limit === undefined || request.limit === 0 ? Infinity : request.limit;
    const cut = request.countOnly === true ? [] : matching.slice(0, limit);
    return {
      revision: this.#revision,
      entries: request.keysOnly === true ? cut.map((entry) => ({ ...entry, value: nothing })) : cut,
      more: request.countOnly !== true && matching.length > limit,
      count: all.length,
    };
  }

  txn(request: TxnRequest): TxnResult {
    this.#check(request);
    const events: WatchEvent[] = [];
    const result = this.#run(request, events);
    if (events.length > 0) this.#commit(events);
    return { ...result, revision: this.#revision };
  }

  grantLease(ttlMs: number): LeaseGrant {
    this.#lastLease += 1;
    const leaseId = String(7_587_000_000_000_000 + this.#lastLease);
    const lease: Lease = { ttlMs, expiresAt: 0, cancelTimer: () => undefined, keys: new Set() };
    this.#leases.set(leaseId, lease);
    this.#renew(leaseId, lease);
    return { leaseId, ttlMs };
  }

  keepAlive(leaseId: LeaseId): number {
    const lease = this.#leases.get(leaseId);
    if (lease === undefined) return 0;
    this.#renew(leaseId, lease);
    return lease.ttlMs;
  }

  revokeLease(leaseId: LeaseId): void {
    const lease = this.#leases.get(leaseId);
    if (lease === undefined) return;
    lease.cancelTimer();
    this.#leases.delete(leaseId);
    const events: WatchEvent[] = [];
    for (const key of [...lease.keys].sort()) this.#delete(key, this.#revision + 1, events);
    if (events.length > 0) this.#commit(events);
  }

  timeToLive(leaseId: LeaseId): number | undefined {
    const lease = this.#leases.get(leaseId);
    return lease && Math.max(0, lease.expiresAt - this.#clock.now());
  }

  /** Returns the unsubscriber, or `undefined` when the start revision was compacted. */
  subscribe(
    request: WatchRequest,
    deliver: (events: readonly WatchEvent[]) => void,
  ): (() => void) | undefined {
    if (request.startRevision <= this.#compactedRevision) return undefined;
    const past = this.#history.filter((event) => wanted(request, event));
    const subscriber: Subscriber = { request, deliver };
    this.#subscribers.add(subscriber);
    if (past.length > 0) deliver(past);
    return () => {
      this.#subscribers.delete(subscriber);
    };
  }

  /** Forgets all history: watches from earlier revisions are refused. */
  compact(): void {
    this.#compactedRevision = this.#revision;
    this.#history = [];
  }

  /** Leases that have not ended; for tests that look for leaks. */
  get leaseCount(): number {
    return this.#leases.size;
  }

  /** Stops the timers of leases; nothing expires afterwards. */
  close(): void {
    for (const lease of this.#leases.values()) lease.cancelTimer();
    this.#subscribers.clear();
  }

  #renew(leaseId: LeaseId, lease: Lease): void {
    lease.cancelTimer();
    lease.expiresAt = this.#clock.now() + lease.ttlMs;
    lease.cancelTimer = this.#clock.setTimer(lease.ttlMs, () => {
      this.revokeLease(leaseId);
    });
  }

  #select(range: { readonly key: string; readonly rangeEnd?: string }): KvEntry[] {
    const { key, rangeEnd } = range;
    if (rangeEnd === undefined) {
      const entry = this.#entries.get(key);
      return entry === undefined ? [] : [entry];
    }
    return [...this.#entries.values()].filter((entry) => entry.key >= key && entry.key < rangeEnd);
  }

  #holds(compare: Compare): boolean {
    const selected = this.#select(compare);
    const absent = { createRevision: 0, modRevision: 0, version: 0 };
    return (selected.length === 0 ? [absent] : selected).every((entry) => {
      const actual =
        compare.target === 'create'
          ? entry.createRevision
          : compare.target === 'mod'
            ? entry.modRevision
            : entry.version;
      switch (compare.op) {
        case '=':
          return actual === compare.value;
        case '!=':
          return actual !== compare.value;
        case '>':
          return actual > compare.value;
        case '<':
          return actual < compare.value;
      }
    });
  }

  /** Runs against the current state; all changes get the next revision. */
  #run(request: TxnRequest, events: WatchEvent[]): TxnResult {
    const succeeded = request.compare.every((compare) => this.#holds(compare));
    const branch = succeeded ? request.then : (request.else ?? []);
    const results = branch.map((op): TxnOpResult => {
      switch (op.op) {
        case 'put':
          this.#put(op, events);
          return { op: 'put' };
        case 'delete': {
          const doomed = this.#select(op);
          for (const entry of doomed) this.#delete(entry.key, this.#revision + 1, events);
          return { op: 'delete', deleted: doomed.length };
        }
        case 'get':
          return { ...this.range(op), op: 'get' };
        case 'txn':
          return { ...this.#run(op, events), op: 'txn' };
      }
    });
    return { succeeded, revision: this.#revision, results };
  }

  #put(op: Extract<TxnOp, { op: 'put' }>, events: WatchEvent[]): void {
    const revision = this.#revision + 1;
    const before = this.#entries.get(op.key);
    if (before?.leaseId !== undefined) this.#leases.get(before.leaseId)?.keys.delete(op.key);
    if (op.leaseId !== undefined) this.#leases.get(op.leaseId)?.keys.add(op.key);
    const entry: KvEntry = {
      key: op.key,
      value: op.value.slice(),
      createRevision: before?.createRevision ?? revision,
      modRevision: revision,
      version: (before?.version ?? 0) + 1,
      leaseId: op.leaseId,
    };
    this.#entries.set(op.key, entry);
    events.push({ type: 'put', entry });
  }

  #delete(key: string, revision: number, events: WatchEvent[]): void {
    const before = this.#entries.get(key);
    if (before === undefined) return;
    if (before.leaseId !== undefined) this.#leases.get(before.leaseId)?.keys.delete(key);
    this.#entries.delete(key);
    const entry: KvEntry = {
      key,
      value: nothing,
      createRevision: 0,
      modRevision: revision,
      version: 0,
      leaseId: undefined,
    };
    events.push({ type: 'delete', entry });
  }

  #commit(events: readonly WatchEvent[]): void {
    this.#revision += 1;
    this.#history.push(...events);
    if (this.#history.length > maxHistory) {
      const dropped = this.#history.splice(0, this.#history.length - maxHistory / 2);
      this.#compactedRevision = dropped.at(-1)?.entry.modRevision ?? this.#compactedRevision;
    }
    for (const subscriber of [...this.#subscribers]) {
      const mine = events.filter((event) => wanted(subscriber.request, event));
      if (mine.length > 0) subscriber.deliver(mine);
    }
  }

  /** Refuses, before anything is changed, what etcd refuses. */
  #check(request: TxnRequest): void {
    let bytes = 0;
    const visit = (txn: TxnRequest): void => {
      for (const branch of [txn.then, txn.else ?? []]) {
        if (branch.length > maxTxnOps) {
          throw rejected(`a transaction has ${String(branch.length)} operations, at most 128 fit`);
        }
        const puts = new Set<string>();
        for (const op of branch) {
          if (op.op === 'txn') visit(op);
          if (op.op !== 'put') continue;
          if (puts.has(op.key)) throw rejected(`a transaction puts ${op.key} twice`);
          puts.add(op.key);
          bytes += op.value.length + op.key.length;
          if (op.leaseId !== undefined && !this.#leases.has(op.leaseId)) {
            throw new MillraceError('LEASE_NOT_FOUND', `lease ${op.leaseId} does not exist`);
          }
        }
      }
    };
    visit(request);
    if (bytes > maxRequestBytes) {
      throw rejected(
        `a request has ${String(bytes)} bytes, at most ${String(maxRequestBytes)} fit`,
      );
    }
  }
}

function rejected(message: string): MillraceError {
  return new MillraceError('ETCD_REJECTED', message);
}

function wanted(request: WatchRequest, event: WatchEvent): boolean {
  const { key, modRevision } = event.entry;
  if (modRevision < request.startRevision) return false;
  return request.rangeEnd === undefined
    ? key === request.key
    : key >= request.key && key < request.rangeEnd;
}
