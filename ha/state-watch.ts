/**
 * The state under a key prefix, kept current: list, then watch from there, and list again at every end
 * of a watch and every resync period. Emits states, never events: a watch event that got lost costs at
 * most one resync period. Emits nothing when nothing changed.
 */
import type { CancelTimer } from '../lib/base/clock.js';
import type { Env } from '../lib/base/env.js';
import type { Closeable } from '../lib/base/lifecycle.js';
import { listPrefix, prefixEnd, type KvEntry, type KvStore, type Watch } from './kv-store.js';

export interface PrefixState {
  /** Store revision up to which the state is known. */
  readonly revision: number;
  readonly entries: ReadonlyMap<string, KvEntry>;
}

export interface StateWatchOptions {
  readonly prefix: string;
  /** Default 1,000 ms. */
  readonly resyncMs?: number;
  /** Wait after a failed list. Default 200 ms. */
  readonly retryMs?: number;
  readonly onState: (state: PrefixState) => void;
  /** The store did not answer; the state last emitted may be stale from here on. Once per episode. */
  readonly onUnavailable?: (error: unknown) => void;
}

export class StateWatch implements Closeable {
  readonly #env: Env;
  readonly #kv: KvStore;
  readonly #options: Required<Pick<StateWatchOptions, 'resyncMs' | 'retryMs'>> & StateWatchOptions;
  readonly #entries = new Map<string, KvEntry>();
  #revision = 0;
  #watch: Watch | undefined;
  #cancelTimer: CancelTimer = () => undefined;
  #listing: Promise<void> | undefined;
  #listAgain = false;
  #started = false;
  #closed = false;
  #failures = 0;
  /** Watches in a row that ended soon after they were opened. */
  #shortWatches = 0;

  constructor(env: Env, kv: KvStore, options: StateWatchOptions) {
    this.#env = env;
    this.#kv = kv;
    this.#options = { resyncMs: 1_000, retryMs: 200, ...options };
  }

  start(): void {
    if (this.#started || this.#closed) return;
    this.#started = true;
    this.#list();
  }

  /** Lists now, without waiting for the resync period. */
  refresh(): void {
    if (this.#started && !this.#closed) this.#list();
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#cancelTimer();
    this.#watch?.close();
    await this.#listing;
  }

  #list(): void {
    this.#cancelTimer();
    if (this.#listing !== undefined) {
      this.#listAgain = true;
      return;
    }
    this.#listAgain = false;
    this.#listing = this.#listOnce().finally(() => {
      this.#listing = undefined;
      if (this.#closed) return;
      if (this.#listAgain) this.#list();
      else this.#arm(this.#failures > 0 ? this.#options.retryMs : this.#options.resyncMs);
    });
  }

  async #listOnce(): Promise<void> {
    try {
      const { revision, entries } = await listPrefix(this.#kv, this.#options.prefix);
      if (this.#closed) return;
      this.#failures = 0;
      this.#adopt(revision, entries);
    } catch (error) {
      if (this.#closed) return;
      this.#failures += 1;
      this.#env.log.debug({ err: error, attempt: this.#failures }, 'listing watched keys failed');
      if (this.#failures === 1) this.#options.onUnavailable?.(error);
    }
  }

  #adopt(revision: number, entries: readonly KvEntry[]): void {
    const isFirst = this.#revision === 0;
    // The watch may already be further than the list that was under way meanwhile.
    if (revision >= this.#revision) {
      const changed =
        entries.length !== this.#entries.size ||
        entries.some((e) => this.#entries.get(e.key)?.modRevision !== e.modRevision);
      if (changed && !isFirst && this.#watch !== undefined) {
        this.#env.metrics.counter('watchResyncCorrections').inc();
        this.#env.log.debug({ event: 'watch.corrected' }, 'a resync found what the watch missed');
      }
      this.#entries.clear();
      for (const entry of entries) this.#entries.set(entry.key, entry);
      this.#revision = revision;
      if (changed || isFirst) this.#emit();
    }
    if (this.#watch === undefined) this.#openWatch();
  }

  #openWatch(): void {
    const { prefix } = this.#options;
    const openedAt = this.#env.clock.now();
    const startRevision = this.#revision + 1;
    const request = { key: prefix, rangeEnd: prefixEnd(prefix), startRevision };
    const watch: Watch = this.#kv.watch(request, {
      onEvents: (events) => {
        if (this.#closed || this.#watch !== watch) return;
        let changed = false;
        for (const { type, entry } of events) {
          // A list may have been ahead of the watch.
          if (entry.modRevision <= this.#revision) continue;
          changed = true;
          if (type === 'put') this.#entries.set(entry.key, entry);
          else this.#entries.delete(entry.key);
        }
        if (!changed) return;
        this.#revision = Math.max(this.#revision, events.at(-1)?.entry.modRevision ?? 0);
        this.#emit();
      },
      onEnd: (error) => {
        if (this.#closed || this.#watch !== watch) return;
        this.#watch = undefined;
        this.#env.log.debug({ err: error }, 'watch ended, listing again');
        const { retryMs } = this.#options;
        this.#shortWatches =
          this.#env.clock.now() - openedAt < retryMs ? this.#shortWatches + 1 : 0;
        // Watches that are refused as soon as they are opened must not become a loop.
        if (this.#shortWatches > 1) this.#arm(retryMs);
        else this.#list();
      },
    });
    this.#watch = watch;
  }

  #emit(): void {
    this.#options.onState({ revision: this.#revision, entries: new Map(this.#entries) });
  }

  #arm(delayMs: number): void {
    this.#cancelTimer();
    this.#cancelTimer = this.#env.clock.setTimer(delayMs, () => {
      this.#list();
    });
  }
}
