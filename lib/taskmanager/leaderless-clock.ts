/**
 * How long tasks may go on without a leader. A TaskManager that reads etcd and finds nobody to register with gives its
 * slots up soon: somebody else may run its tasks. While etcd itself is out, nobody can be elected, and tasks go on
 * much longer. Pure.
 */
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
    readonly isConnected: boolean;
    readonly isHaReadable: boolean;
    readonly elapsedMs: number;
  },
): LeaderlessState {
  if (seen.isConnected) return withLeader;
  return seen.isHaReadable
    ? { withoutLeaderMs: state.withoutLeaderMs + seen.elapsedMs, outageMs: 0 }
    : { ...state, outageMs: state.outageMs + seen.elapsedMs };
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
