/** What `GET /ha` answers: who leads, who stands by, how the store is, and how the last takeovers went. */
import {
  compareEpochs,
  formatEpoch,
  type CandidateView,
  type LeaderInfo,
  type StoreMember,
  type TakeoverRecord,
} from '../../ha/services.js';

/** NONE: nobody leads, one is being elected. */
export type HaState = 'NONE' | LeaderInfo['state'];

export interface HaLeaderView {
  readonly jobManagerId: string;
  readonly rpcAddress: string;
  readonly restAddress: string;
  /** `era.revision`. */
  readonly epoch: string;
  /** Wall-clock ms of the grant. */
  readonly since: number;
  readonly state: LeaderInfo['state'];
  /** Time left until it would suspend itself, ms; negative when it had to. Only the leader knows: absent when it does not answer. */
  readonly leaseSlackMs?: number;
}

export interface HaCandidateView {
  readonly jobManagerId: string;
  readonly rpcAddress: string;
  readonly restAddress: string;
  /** In which it would lead: the lowest is next. */
  readonly epoch: string;
  /** Wall-clock ms since which it stands by. */
  readonly since: number;
}

export interface HaTakeoverView {
  readonly epoch: string;
  readonly jobManagerId: string;
  readonly previous: { readonly epoch: string; readonly jobManagerId: string } | null;
  readonly cause: TakeoverRecord['cause'];
  /** Wall-clock ms at which the phases count from: the predecessor was seen to be gone; the election, of a first leader. */
  readonly noticedAt: number;
  /** Ms since `noticedAt`; null while a phase is not over. */
  readonly phases: {
    readonly elected: number;
    readonly recovered: number;
    readonly active: number;
    readonly settled: number | null;
  };
  readonly jobs: { readonly adopted: number; readonly restored: number; readonly failed: number };
}

export interface HaView {
  readonly cluster: { readonly id: string; readonly uid: string };
  /** Wall-clock ms of the JobManager that answers. */
  readonly now: number;
  readonly answeredBy: string | null;
  readonly state: HaState;
  readonly leader: HaLeaderView | null;
  readonly standbys: readonly HaCandidateView[];
  readonly store: {
    readonly type: 'etcd' | 'memory';
    /** More than half of the members are. */
    readonly healthy: boolean;
    readonly members: readonly StoreMember[];
  };
  /** The newest first. */
  readonly takeovers: readonly HaTakeoverView[];
  /** Not null: something could not be read, and what is shown of it is what was known before. */
  readonly stale: { readonly since: number | null; readonly reason: string } | null;
}

export function toLeaderView(leader: LeaderInfo): HaLeaderView {
  return { ...leader, epoch: formatEpoch(leader.epoch) };
}

export function toTakeoverView(record: TakeoverRecord): HaTakeoverView {
  const noticedAt = record.noticedAt ?? record.electedAt;
  const since = (at: number): number => Math.max(0, at - noticedAt);
  const { previous } = record;
  return {
    epoch: formatEpoch(record.epoch),
    jobManagerId: record.jobManagerId,
    previous: previous === undefined ? null : { ...previous, epoch: formatEpoch(previous.epoch) },
    cause: record.cause,
    noticedAt,
    phases: {
      elected: since(record.electedAt),
      recovered: since(record.recoveredAt),
      active: since(record.activeAt),
      settled: record.settledAt === undefined ? null : since(record.settledAt),
    },
    jobs: {
      adopted: record.jobsAdopted,
      restored: record.jobsRestored,
      failed: record.jobsFailed,
    },
  };
}

/** All candidates but the leader, in the order in which they would lead. */
export function toStandbys(
  candidates: readonly CandidateView[],
  leaderEpoch: string | undefined,
): HaCandidateView[] {
  return candidates
    .filter(({ epoch }) => formatEpoch(epoch) !== leaderEpoch)
    .sort((a, b) => compareEpochs(a.epoch, b.epoch))
    .map((one) => ({ ...one, epoch: formatEpoch(one.epoch) }));
}

/** Why members are not healthy, in a sentence; undefined when a majority is. */
export function storeTrouble(members: readonly StoreMember[]): string | undefined {
  const ill = members.filter(({ isHealthy }) => !isHealthy);
  if (members.length === 0 || 2 * ill.length < members.length) return undefined;
  const whys = [...new Set(ill.map(({ error }) => error ?? 'not healthy'))].join('; ');
  return `etcd has no healthy majority: ${String(ill.length)} of ${String(members.length)} members fail (${whys})`;
}
