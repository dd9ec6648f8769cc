import type { Clock } from '../../lib/base/clock.js';
import type { MetricRegistry } from '../../lib/base/metrics.js';
import type { EtcdMember } from './etcd-member.js';

export interface RankedMember {
  readonly member: EtcdMember;
  failures: number;
  /** Monotonic ms until which others are preferred. */
  avoidUntil: number;
}

/** A member that was overtaken is asked last for this long, unless it answers. */
const slowPenaltyMs = 1_000;

/** Which member to ask: the one that answered last, then the others, those that failed lately last. */
export class MemberRanking {
  readonly #clock: Clock;
  readonly #metrics: MetricRegistry;
  readonly #members: RankedMember[];

  constructor(clock: Clock, metrics: MetricRegistry, members: readonly EtcdMember[]) {
    this.#clock = clock;
    this.#metrics = metrics;
    this.#members = members.map((member) => ({ member, failures: 0, avoidUntil: 0 }));
  }

  get members(): readonly EtcdMember[] {
    return this.#members.map(({ member }) => member);
  }

  /** Best first. Members that failed lately come after all others, the longest known first. */
  order(): RankedMember[] {
    const now = this.#clock.now();
    const penalty = (ranked: RankedMember): number =>
      ranked.avoidUntil > now ? ranked.avoidUntil : 0;
    // The sort is stable: among equals the one that answered last stays in front.
    return [...this.#members].sort((a, b) => penalty(a) - penalty(b));
  }

  best(): RankedMember {
    return this.order()[0]!;
  }

  noteSuccess(ranked: RankedMember): void {
    ranked.failures = 0;
    ranked.avoidUntil = 0;
    if (this.#members[0] === ranked) return;
    this.#members.splice(this.#members.indexOf(ranked), 1);
    this.#members.unshift(ranked);
  }

  noteSlow(ranked: RankedMember): void {
    ranked.avoidUntil = Math.max(ranked.avoidUntil, this.#clock.now() + slowPenaltyMs);
  }

  noteFailure(ranked: RankedMember): void {
    ranked.failures += 1;
    const penaltyMs = Math.min(5_000, 250 * 2 ** Math.min(ranked.failures, 8));
    ranked.avoidUntil = this.#clock.now() + penaltyMs;
    this.#metrics.counter('etcdFailures', { endpoint: ranked.member.endpoint }).inc();
  }
}
