/**
 * Puts `GET /ha` together. Every JobManager answers it from what it knows itself, whoever leads and whether or not
 * etcd answers: what cannot be read now is what was read last, and marked so. Only the lease's slack is asked of the leader.
 */
import {
  compareEpochs,
  type HighAvailability,
  type LeaderInfo,
  type StoreMember,
  type TakeoverRecord,
} from '../../ha/services.js';
import { withTimeout } from '../base/abort.js';
import type { Env } from '../base/env.js';
import {
  storeTrouble,
  toLeaderView,
  toStandbys,
  toTakeoverView,
  type HaLeaderView,
  type HaView,
} from './ha-view.js';

/** What this process is, while it leads. */
export interface OwnLeadership {
  readonly leader: LeaderInfo;
  readonly leaseSlackMs: number;
}

export interface HaSource {
  readonly ha: Pick<HighAvailability, 'clusterUid' | 'candidates' | 'storeHealth' | 'takeovers'>;
  readonly clusterId: string;
  /** Undefined before it stands for election. */
  readonly jobManagerId: () => string | undefined;
  /** Who leads, as this process knows. */
  readonly leader: () => LeaderInfo | undefined;
  /** Undefined while this process does not lead. */
  readonly own: () => OwnLeadership | undefined;
}

/** `/ha` of the leader at this address; rejects when it does not answer in time. */
export type AskLeader = (restAddress: string, signal: AbortSignal) => Promise<HaView>;

/** Less than what a client waits. */
const readTimeoutMs = 1_500;

export class HaObserver {
  readonly #env: Env;
  readonly #source: HaSource;
  #takeovers: readonly TakeoverRecord[] = [];
  /** Wall-clock ms at which everything was read last. */
  #readAt: number | null = null;

  constructor(env: Env, source: HaSource) {
    this.#env = env;
    this.#source = source;
  }

  /** @param askLeader absent: this answer is for another JobManager, which wants to know of this one only, and soon. */
  async view(askLeader?: AskLeader): Promise<HaView> {
    const { ha } = this.#source;
    const own = this.#source.own();
    const known = newest(own?.leader, this.#source.leader());
    if (askLeader === undefined) return this.#assemble([], toLeader(own, known, undefined), null);
    const [members, unread, fromLeader] = await Promise.all([
      ha.storeHealth?.() ?? Promise.resolve([]),
      this.#readTakeovers(),
      own === undefined && known !== undefined ? this.#ask(known, askLeader) : undefined,
    ]);
    const reason = storeTrouble(members) ?? unread;
    if (reason === undefined) this.#readAt = this.#env.clock.wallTime();
    const stale = reason === undefined ? null : { since: this.#readAt, reason };
    return this.#assemble(members, toLeader(own, known, fromLeader), stale);
  }

  /** The last takeover that this process led, for its metrics. */
  async lastOwnTakeover(): Promise<TakeoverRecord | undefined> {
    await this.#readTakeovers();
    const id = this.#source.jobManagerId();
    return this.#takeovers.find(({ jobManagerId }) => jobManagerId === id);
  }

  #assemble(
    members: readonly StoreMember[],
    leader: HaLeaderView | null,
    stale: HaView['stale'],
  ): HaView {
    const { ha, clusterId, jobManagerId } = this.#source;
    return {
      cluster: { id: clusterId, uid: ha.clusterUid },
      now: this.#env.clock.wallTime(),
      answeredBy: jobManagerId() ?? null,
      state: leader?.state ?? 'NONE',
      leader,
      standbys: toStandbys(ha.candidates(), leader?.epoch),
      store: {
        type: ha.storeHealth === undefined ? 'memory' : 'etcd',
        healthy: storeTrouble(members) === undefined,
        members,
      },
      takeovers: this.#takeovers.map(toTakeoverView),
      stale,
    };
  }

  /** Resolves with why they could not be read; what was read last stays. */
  async #readTakeovers(): Promise<string | undefined> {
    try {
      const read = this.#source.ha.takeovers({ timeoutMs: readTimeoutMs });
      this.#takeovers = await withTimeout(
        this.#env.clock,
        readTimeoutMs,
        'reading takeovers',
        read,
      );
      return undefined;
    } catch (error) {
      return error instanceof Error ? error.message : String(error);
    }
  }

  async #ask(known: LeaderInfo, askLeader: AskLeader): Promise<HaLeaderView | undefined> {
    const over = new AbortController();
    try {
      const answer = askLeader(known.restAddress, over.signal);
      const { leader } = await withTimeout(this.#env.clock, readTimeoutMs, 'the leader', answer);
      return leader ?? undefined;
    } catch {
      // It is being replaced, or cut off: what is known of it has to do.
      return undefined;
    } finally {
      over.abort();
    }
  }
}

function newest(a: LeaderInfo | undefined, b: LeaderInfo | undefined): LeaderInfo | undefined {
  if (a === undefined || b === undefined) return a ?? b;
  // Of the same leadership its own word counts: it knows first that it is suspended.
  return compareEpochs(a.epoch, b.epoch) >= 0 ? a : b;
}

function toLeader(
  own: OwnLeadership | undefined,
  known: LeaderInfo | undefined,
  fromLeader: HaLeaderView | undefined,
): HaLeaderView | null {
  if (known === undefined) return null;
  const view = toLeaderView(known);
  if (own?.leader === known) return { ...view, leaseSlackMs: Math.round(own.leaseSlackMs) };
  return fromLeader?.epoch === view.epoch ? fromLeader : view;
}
