import type { IWatchResponse } from 'etcd3';
import type { CancelTimer, Clock } from '../../lib/base/clock.js';
import { MillraceError } from '../../lib/base/errors.js';
import type { Watch, WatchEvent, WatchListener, WatchRequest } from '../kv-store.js';
import { fromEvent, toKey } from './etcd-codec.js';
import type { EtcdMember, OpenWatch } from './etcd-member.js';

export interface EtcdWatchOptions {
  readonly request: WatchRequest;
  readonly listener: WatchListener;
  /** etcd must confirm the watch within this time. */
  readonly openTimeoutMs: number;
  /** Called once, when nothing is delivered any more; `failed` unless closed by the owner. */
  readonly onDone: (failed: boolean) => void;
}

/** One watch on one stream of one member. Any irregularity ends it: whoever watches reads again. */
export class EtcdWatch implements Watch {
  readonly #options: EtcdWatchOptions;
  readonly #member: EtcdMember;
  readonly #cancelOpenTimer: CancelTimer;
  #open: OpenWatch | undefined;
  #fragments: WatchEvent[] = [];
  #done = false;

  constructor(clock: Clock, member: EtcdMember, options: EtcdWatchOptions) {
    this.#options = options;
    this.#member = member;
    this.#cancelOpenTimer = clock.setTimer(options.openTimeoutMs, () => {
      this.#fail(new Error(`${member.endpoint} did not open the watch in time`));
    });
    member.openWatch(options.openTimeoutMs).then(
      (open) => {
        this.#attach(open);
      },
      (error: unknown) => {
        this.#fail(error);
      },
    );
  }

  close(): void {
    this.#finish(false);
  }

  #attach(open: OpenWatch): void {
    const { stream } = open;
    // Also after the end: an error event that nobody hears would end the process.
    stream.on('error', (error) => {
      this.#fail(error);
    });
    if (this.#done) {
      open.end();
      return;
    }
    this.#open = open;
    stream.on('data', (response) => {
      this.#onResponse(response);
    });
    stream.on('end', () => {
      this.#fail(new Error('the watch stream ended'));
    });
    const { key, rangeEnd, startRevision } = this.#options.request;
    stream.write({
      create_request: {
        key: toKey(key),
        ...(rangeEnd !== undefined && { range_end: toKey(rangeEnd) }),
        start_revision: String(startRevision),
        fragment: true,
      },
    });
  }

  #onResponse(response: IWatchResponse): void {
    if (this.#done) return;
    if (response.canceled) {
      const reason = response.cancel_reason === '' ? 'no reason given' : response.cancel_reason;
      // What etcd says of a watch under a token that has expired, too.
      if (/permission|token/i.test(reason)) this.#member.forgetToken();
      this.#fail(
        new Error(
          `etcd cancelled the watch (compacted at ${response.compact_revision}; ${reason})`,
        ),
      );
      return;
    }
    if (response.created) this.#cancelOpenTimer();
    this.#fragments.push(...response.events.map(fromEvent));
    // A revision is delivered whole.
    if (response.fragment || this.#fragments.length === 0) return;
    const events = this.#fragments;
    this.#fragments = [];
    this.#options.listener.onEvents(events);
  }

  #fail(cause: unknown): void {
    if (this.#done) return;
    this.#finish(true);
    this.#options.listener.onEnd(
      new MillraceError('ETCD_UNAVAILABLE', 'a watch of etcd ended', { cause }),
    );
  }

  #finish(failed: boolean): void {
    if (this.#done) return;
    this.#done = true;
    this.#cancelOpenTimer();
    this.#open?.end();
    this.#options.onDone(failed);
  }
}
