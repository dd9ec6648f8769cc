/**
 * A KvStore in memory: "no high availability" and tests. Several stores may share one
 * MemoryKvServer, as processes share an etcd; each has its own faults, as each has its own network.
 */
import type { CancelTimer, Clock } from '../../lib/base/clock.js';
import { sleep } from '../../lib/base/clock.js';
import { MillraceError } from '../../lib/base/errors.js';
import {
  isReadOnly,
  type CallOptions,
  type KvEntry,
  type KvStore,
  type LeaseGrant,
  type LeaseId,
  type RangeRequest,
  type RangeResult,
  type TxnRequest,
  type TxnResult,
  type Watch,
  type WatchEvent,
  type WatchListener,
  type WatchRequest,
} from '../kv-store.js';
import { MemoryKvServer } from './memory-kv-server.js';

/** `lose-request`: never arrives. `lose-response`: happens, but the caller is not told. */
export type WriteFault = 'none' | 'lose-request' | 'lose-response';

/** Faults of one store's connection; fields may be changed at any time. */
export interface MemoryKvFaults {
  /** Every call rejects with ETCD_UNAVAILABLE after `latencyMs`; open watches end at their next event. */
  unavailable: boolean;
  /** Added before every call takes effect. */
  latencyMs: number;
  /** Asked for every transaction with writes. */
  onWrite: (request: TxnRequest) => WriteFault;
  /** Added before events are delivered; they stay in order as long as it does not shrink. */
  watchDelayMs: number;
  /** Asked for every event; true loses it without a trace. */
  dropEvent: (event: WatchEvent) => boolean;
}

export class MemoryKvStore implements KvStore {
  readonly description = 'the in-memory store';
  readonly server: MemoryKvServer;
  readonly faults: MemoryKvFaults = {
    unavailable: false,
    latencyMs: 0,
    onWrite: () => 'none',
    watchDelayMs: 0,
    dropEvent: () => false,
  };
  readonly #clock: Clock;
  readonly #ownsServer: boolean;
  readonly #watches = new Set<MemoryWatch>();
  readonly #closing = new AbortController();

  /** Without a server it gets one of its own, which it closes with itself. */
  constructor(clock: Clock, server?: MemoryKvServer) {
    this.#clock = clock;
    this.#ownsServer = server === undefined;
    this.server = server ?? new MemoryKvServer(clock);
  }

  async range(request: RangeRequest, _options?: CallOptions): Promise<RangeResult> {
    await this.#arrive();
    return this.server.range(request);
  }

  async get(key: string, options?: CallOptions): Promise<KvEntry | undefined> {
    const { entries } = await this.range({ key }, options);
    return entries[0];
  }

  async txn(request: TxnRequest, _options?: CallOptions): Promise<TxnResult> {
    await this.#arrive();
    const fault = isReadOnly(request) ? 'none' : this.faults.onWrite(request);
    if (fault === 'lose-request') throw unknownOutcome();
    const result = this.server.txn(request);
    if (fault === 'lose-response') throw unknownOutcome();
    return result;
  }

  watch(request: WatchRequest, listener: WatchListener): Watch {
    const watch = new MemoryWatch(this.#clock, this.faults, listener);
    const unsubscribe = this.server.subscribe(request, (events) => {
      watch.push(events);
    });
    watch.onClose = () => {
      this.#watches.delete(watch);
      unsubscribe?.();
    };
    this.#watches.add(watch);
    if (unsubscribe === undefined) {
      watch.end(
        new MillraceError('ETCD_REJECTED', 'the start revision of the watch was compacted'),
      );
    }
    return watch;
  }

  async grantLease(ttlMs: number, _options?: CallOptions): Promise<LeaseGrant> {
    await this.#arrive();
    return this.server.grantLease(ttlMs);
  }

  async keepAliveOnce(leaseId: LeaseId, _options?: CallOptions): Promise<number> {
    await this.#arrive();
    return this.server.keepAlive(leaseId);
  }

  async revokeLease(leaseId: LeaseId, _options?: CallOptions): Promise<void> {
    await this.#arrive();
    this.server.revokeLease(leaseId);
  }

  async timeToLive(leaseId: LeaseId, _options?: CallOptions): Promise<number | undefined> {
    await this.#arrive();
    return this.server.timeToLive(leaseId);
  }

  /** Ends all open watches, as a lost connection does. */
  disconnectWatches(): void {
    for (const watch of [...this.#watches]) {
      watch.end(new MillraceError('ETCD_UNAVAILABLE', 'the connection of the watch was lost'));
    }
  }

  async close(): Promise<void> {
    this.#closing.abort();
    for (const watch of [...this.#watches]) watch.close();
    if (this.#ownsServer) this.server.close();
  }

  /** The way to the server: always asynchronous, so that callers cannot rely on less. */
  async #arrive(): Promise<void> {
    if (this.faults.latencyMs > 0) {
      await sleep(this.#clock, this.faults.latencyMs, this.#closing.signal);
    } else {
      await Promise.resolve();
    }
    if (this.#closing.signal.aborted) throw new MillraceError('CLOSED', 'the store is closed');
    if (this.faults.unavailable) {
      throw new MillraceError('ETCD_UNAVAILABLE', 'the in-memory store is made unavailable');
    }
  }
}

class MemoryWatch implements Watch {
  onClose: () => void = () => undefined;
  readonly #clock: Clock;
  readonly #faults: MemoryKvFaults;
  readonly #listener: WatchListener;
  readonly #timers = new Set<CancelTimer>();
  #closed = false;

  constructor(clock: Clock, faults: MemoryKvFaults, listener: WatchListener) {
    this.#clock = clock;
    this.#faults = faults;
    this.#listener = listener;
  }

  push(events: readonly WatchEvent[]): void {
    if (this.#faults.unavailable) {
      // A silent connection loses nothing by itself, but what it missed is known only to a new one.
      this.end(new MillraceError('ETCD_UNAVAILABLE', 'the connection of the watch was lost'));
      return;
    }
    const kept = events.filter((event) => !this.#faults.dropEvent(event));
    if (kept.length === 0) return;
    this.#later(() => {
      this.#listener.onEvents(kept);
    });
  }

  end(error: Error): void {
    this.#later(() => {
      this.close();
      this.#listener.onEnd(error);
    });
  }

  close(): void {
    this.#closed = true;
    for (const cancel of this.#timers) cancel();
    this.#timers.clear();
    this.onClose();
  }

  #later(deliver: () => void): void {
    const guarded = (): void => {
      if (!this.#closed) deliver();
    };
    if (this.#faults.watchDelayMs === 0) {
      void Promise.resolve().then(guarded);
      return;
    }
    const cancel = this.#clock.setTimer(this.#faults.watchDelayMs, () => {
      this.#timers.delete(cancel);
      guarded();
    });
    this.#timers.add(cancel);
  }
}

function unknownOutcome(): MillraceError {
  return new MillraceError('UNKNOWN_OUTCOME', 'the in-memory store was told to lose this answer');
}
