/**
 * The only way a leader writes: transactions that compare the create revision of its candidate key
 * (docs/adr/0003). The key of a deposed leader is gone before its successor can be elected, so nothing it
 * writes can land after the successor's first write; no clock is involved.
 *
 * A write whose answer was lost is sent again: its own comparisons keep it from being applied twice,
 * and the id it put into its values (`w`) tells its first attempt's success from somebody else's.
 */
import { sleep } from '../lib/base/clock.js';
import type { Env } from '../lib/base/env.js';
import { hasCode, MillraceError } from '../lib/base/errors.js';
import { backoffDelay } from '../lib/base/retry.js';
import {
  prefixEnd,
  type Compare,
  type KvEntry,
  type KvStore,
  type RangeRequest,
  type RangeResult,
  type TxnOp,
  type TxnResult,
} from './kv-store.js';
import { formatEpoch, type LeaderEpoch } from './services.js';
import { writeIdOf } from './values.js';

export interface FencedRequest {
  /** On top of the leadership; must fail once the write has happened (absence, mod revision). */
  readonly compare: readonly Compare[];
  readonly then: readonly TxnOp[];
  /** Keys read when a comparison fails. */
  readonly read?: readonly string[];
  /** As in the values put; absent only for writes that may be repeated as they are (deletions). */
  readonly writeId?: string;
}

export type FencedOutcome =
  | { readonly committed: true }
  /** A comparison failed though this leader leads; `current` has the entries that were asked for. */
  | { readonly committed: false; readonly current: ReadonlyMap<string, KvEntry> };

export interface FenceOptions {
  readonly candidateKey: string;
  readonly epoch: LeaderEpoch;
  /** Aborts when the leadership is over. */
  readonly signal: AbortSignal;
  /** Whether the local lease deadline has not passed. */
  readonly mayAct: () => boolean;
  /** Called when a transaction shows that the candidate key is gone. */
  readonly onLost: () => void;
  /** How long a write may wait for an answer or for the end of a suspension. Default 10 s. */
  readonly outcomeTimeoutMs?: number;
}

const backoff = { initialMs: 50, maxMs: 1_000, multiplier: 2, jitter: 0.2 };
const pageSize = 500;

export class FencedWriter {
  readonly #env: Env;
  readonly #kv: KvStore;
  readonly #options: FenceOptions;
  readonly #guard: Compare;
  #sequence = 0;

  constructor(env: Env, kv: KvStore, options: FenceOptions) {
    this.#env = env;
    this.#kv = kv;
    this.#options = options;
    this.#guard = {
      target: 'create',
      key: options.candidateKey,
      op: '=',
      value: options.epoch.revision,
    };
  }

  nextWriteId(): string {
    this.#sequence += 1;
    return `${formatEpoch(this.#options.epoch)}.${String(this.#sequence)}`;
  }

  /** Rejects with LEADERSHIP_LOST, or with ETCD_UNAVAILABLE when the outcome could not be learned in time. */
  async write(request: FencedRequest): Promise<FencedOutcome> {
    const { clock, random, metrics } = this.#env;
    const deadline = clock.now() + (this.#options.outcomeTimeoutMs ?? 10_000);
    let maybeWritten = false;
    for (let attempt = 0; ; attempt += 1) {
      if (this.#options.signal.aborted) throw this.#over(maybeWritten, firstKey(request.then));
      let failure: unknown;
      if (this.#options.mayAct()) {
        try {
          const result = await this.#kv.txn(this.#guarded(request));
          return this.#judge(request, result, maybeWritten);
        } catch (error) {
          if (hasCode(error, 'UNKNOWN_OUTCOME')) {
            maybeWritten = true;
            metrics.counter('unknownOutcomes').inc();
          } else if (!hasCode(error, 'ETCD_UNAVAILABLE')) {
            // Refused now, but an earlier try may have been committed.
            if (maybeWritten && (await this.#wasWritten(request))) return { committed: true };
            throw error;
          }
          failure = error;
        }
      }
      if (clock.now() >= deadline) throw this.#timedOut(maybeWritten, failure);
      // Also the wait for the end of a suspension: its length is not ours to know.
      await sleep(clock, backoffDelay(backoff, attempt, random), this.#options.signal);
    }
  }

  /** Reads as of a moment at which this leader led. */
  async read(ranges: readonly Omit<RangeRequest, 'serializable'>[]): Promise<RangeResult[]> {
    if (this.#options.signal.aborted) throw leadershipLost(this.#options.epoch, false);
    const result = await this.#kv.txn({
      compare: [this.#guard],
      then: ranges.map((range) => ({ ...range, op: 'get' as const })),
    });
    if (!result.succeeded) {
      this.#options.onLost();
      throw leadershipLost(this.#options.epoch, false);
    }
    return result.results.map((part) => {
      if (part.op !== 'get') throw new MillraceError('INVARIANT', 'a get was answered otherwise');
      return part;
    });
  }

  async readOne(key: string): Promise<KvEntry | undefined> {
    const [range] = await this.read([{ key }]);
    return range?.entries[0];
  }

  /** All entries under a prefix in key order, in pages. */
  async list(prefix: string, options: { readonly keysOnly?: boolean } = {}): Promise<KvEntry[]> {
    const rangeEnd = prefixEnd(prefix);
    const entries: KvEntry[] = [];
    for (let key = prefix; ;) {
      const [page] = await this.read([{ key, rangeEnd, limit: pageSize, ...options }]);
      entries.push(...(page?.entries ?? []));
      const last = page?.entries.at(-1);
      if (page?.more !== true || last === undefined) return entries;
      key = `${last.key}\0`;
    }
  }

  #guarded(request: FencedRequest): {
    compare: Compare[];
    then: readonly TxnOp[];
    else: TxnOp[];
  } {
    const keys = [this.#options.candidateKey, ...(request.read ?? [])];
    return {
      compare: [this.#guard, ...request.compare],
      then: request.then,
      else: keys.map((key) => ({ op: 'get', key })),
    };
  }

  #judge(request: FencedRequest, result: TxnResult, maybeWritten: boolean): FencedOutcome {
    if (result.succeeded) return { committed: true };
    const [candidate, ...read] = result.results.map((part) =>
      part.op === 'get' ? part.entries[0] : undefined,
    );
    const mine = (entry: KvEntry | undefined): boolean =>
      request.writeId !== undefined && writeIdOf(entry) === request.writeId;
    if (maybeWritten && read.some(mine)) {
      this.#env.metrics.counter('unknownOutcomesCommitted').inc();
      return { committed: true };
    }
    if (candidate?.createRevision !== this.#options.epoch.revision) {
      const error = this.#over(maybeWritten, firstKey(request.then));
      this.#options.onLost();
      throw error;
    }
    const current = new Map<string, KvEntry>();
    for (const entry of read) if (entry !== undefined) current.set(entry.key, entry);
    return { committed: false, current };
  }

  async #wasWritten(request: FencedRequest): Promise<boolean> {
    const then = (request.read ?? []).map((key) => ({ op: 'get' as const, key }));
    const { results } = await this.#kv.txn({ compare: [], then });
    return results.some(
      (part) =>
        part.op === 'get' &&
        request.writeId !== undefined &&
        writeIdOf(part.entries[0]) === request.writeId,
    );
  }

  /** A write that came too late: refused by the guard, or not sent any more. */
  #over(maybeWritten: boolean, key: string | undefined): MillraceError {
    const { epoch } = this.#options;
    const outcome = maybeWritten ? 'unknown' : 'not written';
    this.#env.metrics.counter('fencedOut').inc();
    this.#env.log.warn(
      { event: 'leader.write-refused', key, outcome, epoch: formatEpoch(epoch) },
      'a write of a leadership that is over was refused',
    );
    return leadershipLost(epoch, maybeWritten);
  }

  #timedOut(maybeWritten: boolean, cause: unknown): MillraceError {
    const outcome = maybeWritten ? 'unknown' : 'not written';
    return new MillraceError(
      'ETCD_UNAVAILABLE',
      `${this.#kv.description} did not confirm a write in time; outcome: ${outcome}`,
      { cause, details: { outcome } },
    );
  }
}

function leadershipLost(epoch: LeaderEpoch, maybeWritten: boolean): MillraceError {
  return new MillraceError(
    'LEADERSHIP_LOST',
    maybeWritten
      ? 'this process leads no longer; whether its last write happened is for its successor to see'
      : 'this process leads no longer; nothing was written',
    { details: { epoch: formatEpoch(epoch), outcome: maybeWritten ? 'unknown' : 'not written' } },
  );
}

function firstKey(ops: readonly TxnOp[]): string | undefined {
  for (const op of ops) if (op.op === 'put' || op.op === 'delete') return op.key;
  return undefined;
}
