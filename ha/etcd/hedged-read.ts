import type { CancelTimer, Clock } from '../../lib/base/clock.js';
import type { MetricRegistry } from '../../lib/base/metrics.js';
import { classify } from './etcd-errors.js';
import type { EtcdMember } from './etcd-member.js';
import type { MemberRanking, RankedMember } from './member-ranking.js';

export interface RaceOptions<T> {
  readonly clock: Clock;
  readonly metrics: MetricRegistry;
  readonly ranking: MemberRanking;
  /** Without an answer for so long, the next member is asked as well. */
  readonly hedgeAfterMs: number;
  readonly run: (member: EtcdMember) => Promise<T>;
  /** Nobody waits any more: failures say nothing about members then. */
  readonly isOver: () => boolean;
}

export type RaceResult<T> =
  | { readonly value: T }
  /** `refusal`: no member would answer otherwise; else every member failed. */
  | { readonly error: unknown; readonly refusal?: 'rejected' | 'lease-not-found' };

/**
 * Asks every member at most once, best first: the next one when one failed or is slow. The first answer wins; slower
 * ones are ignored, and the members that were overtaken are asked after the others from then on. Only for calls that
 * may be repeated.
 */
export function raceRead<T>(options: RaceOptions<T>): Promise<RaceResult<T>> {
  return new Promise((resolve) => {
    new Race(options, resolve).next(false);
  });
}

class Race<T> {
  readonly #options: RaceOptions<T>;
  readonly #resolve: (result: RaceResult<T>) => void;
  readonly #waiting: RankedMember[];
  readonly #asked = new Set<RankedMember>();
  #cancelHedge: CancelTimer = () => undefined;
  #isSettled = false;

  constructor(options: RaceOptions<T>, resolve: (result: RaceResult<T>) => void) {
    this.#options = options;
    this.#resolve = resolve;
    this.#waiting = options.ranking.order();
  }

  next(isHedge: boolean): void {
    const ranked = this.#waiting.shift();
    if (ranked === undefined) return;
    const { clock, metrics, hedgeAfterMs, run } = this.#options;
    this.#cancelHedge();
    if (this.#waiting.length > 0) {
      this.#cancelHedge = clock.setTimer(hedgeAfterMs, () => {
        this.next(true);
      });
    }
    if (isHedge) metrics.counter('etcdHedgedReads').inc();
    this.#asked.add(ranked);
    run(ranked.member).then(
      (value) => {
        this.#onAnswer(ranked, value, isHedge);
      },
      (error: unknown) => {
        this.#onFailure(ranked, error);
      },
    );
  }

  #onAnswer(ranked: RankedMember, value: T, isHedge: boolean): void {
    this.#asked.delete(ranked);
    if (this.#isSettled) return;
    const { ranking, metrics } = this.#options;
    if (isHedge) metrics.counter('etcdHedgedReadsWon').inc();
    ranking.noteSuccess(ranked);
    for (const overtaken of this.#asked) ranking.noteSlow(overtaken);
    this.#settle({ value });
  }

  #onFailure(ranked: RankedMember, error: unknown): void {
    this.#asked.delete(ranked);
    const { ranking, isOver } = this.#options;
    if (isOver()) {
      this.#settle({ error });
      return;
    }
    const failure = classify(error);
    if (failure === 'rejected' || failure === 'lease-not-found') {
      if (!this.#isSettled) ranking.noteSuccess(ranked);
      this.#settle({ error, refusal: failure });
      return;
    }
    ranking.noteFailure(ranked);
    if (this.#isSettled) return;
    if (this.#waiting.length > 0) this.next(false);
    else if (this.#asked.size === 0) this.#settle({ error });
  }

  #settle(result: RaceResult<T>): void {
    if (this.#isSettled) return;
    this.#isSettled = true;
    this.#cancelHedge();
    this.#resolve(result);
  }
}
