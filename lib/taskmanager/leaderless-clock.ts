/**
 * How long tasks may go on without a leader. A TaskManager that reads etcd and is registered with nobody gives its
 * slots up soon, whoever etcd says leads: that leader has long given its tasks to others. While etcd itself is out,
 * nobody can be elected, and tasks go on much longer. A suspended leader that answers is company, but no end of the
 * outage: it gives up itself after the same time. Pure.
 */
export type LeaderContact = 'ACTIVE' | 'SUSPENDED' | 'NONE';

export interface LeaderlessState {
  /** ms without a session while etcd could be read; stands still while it cannot. */
  readonly withoutLeaderMs: number;
  /** ms since etcd could last be read. */
  readonly outageMs: number;
}

export interface LeaderlessLimits {
  readonly leaderlessTimeoutMs: number;
  readonly outageGraceMs: number;
}

export const withLeader: LeaderlessState = { withoutLeaderMs: 0, outageMs: 0 };

/** The state `elapsedMs` later. */
export function advanceLeaderless(
  state: LeaderlessState,
  seen: {
    /** What the leader this TaskManager is registered with said last. */
    readonly leader: LeaderContact;
    /** By an own linearizable read. */
    readonly isHaReadable: boolean;
    readonly elapsedMs: number;
  },
): LeaderlessState {
  const { leader, isHaReadable, elapsedMs } = seen;
  if (leader === 'ACTIVE') return withLeader;
  const withoutLeaderMs =
    leader === 'SUSPENDED' ? 0 : state.withoutLeaderMs + (isHaReadable ? elapsedMs : 0);
  return { withoutLeaderMs, outageMs: isHaReadable ? 0 : state.outageMs + elapsedMs };
}

/** One sentence when the tasks have to be given up. */
export function leaderlessExpiry(
  state: LeaderlessState,
  limits: LeaderlessLimits,
): string | undefined {
  if (state.withoutLeaderMs >= limits.leaderlessTimeoutMs) {
    return `no leader for ${String(limits.leaderlessTimeoutMs)} ms (taskmanager.leaderless.timeout)`;
  }
  if (state.outageMs >= limits.outageGraceMs) {
    return `etcd did not answer for ${String(limits.outageGraceMs)} ms (high-availability.control-outage-grace)`;
  }
  return undefined;
}
