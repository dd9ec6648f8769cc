/**
 * A process's candidacy: the driver of leader-election.machine.ts. It owns the lease, the candidate key
 * and, while it leads, the Leadership handed to the contender.
 */
import type { CancelTimer } from '../lib/base/clock.js';
import { sleep } from '../lib/base/clock.js';
import type { Env } from '../lib/base/env.js';
import { hasCode } from '../lib/base/errors.js';
import { backoffDelay } from '../lib/base/retry.js';
import { prefixEnd, type Compare, type LeaseId, type TxnResult } from './kv-store.js';
import { deposeCandidate } from './depose.js';
import {
  ElectionMachine,
  type ElectionEffect,
  type ElectionInput,
  type ElectionState,
} from './leader-election.machine.js';
import { WatchedLeaderRetrieval } from './leader-retrieval.js';
import { ElectedLeadership, type LeadershipDeps } from './leadership.js';
import { encodeCandidate, encodeLeader } from './leadership-watch.js';
import { LeaseKeeper } from './lease-keeper.js';
import type { PeerConnector } from './peer-connection.js';
import { PeerDetector } from './peer-detector.js';
import { compareEpochs, formatEpoch } from './services.js';
import type {
  CandidateInfo,
  LeaderContender,
  LeaderElection,
  LeaderEpoch,
  LeaderInfo,
  LeadershipOrigin,
} from './services.js';

export interface ElectionOptions {
  readonly era: number;
  readonly leaseTtlMs: number;
  /** Bound on one renewal at one member. */
  readonly tryTimeoutMs: number;
  readonly outcomeTimeoutMs: number;
  readonly outageGraceMs: number;
  /** How to watch the leader while standing by; absent: not at all. */
  readonly peerConnector?: PeerConnector;
}

/** One round: one lease, one key. */
interface Candidacy {
  readonly round: number;
  readonly key: string;
  readonly keeper: LeaseKeeper;
  leaseId: LeaseId | undefined;
  /** Once the key is registered. */
  revision: number | undefined;
}

const registrationTries = 6;
const registrationBackoff = { initialMs: 50, maxMs: 500, multiplier: 2, jitter: 0.2 };

export class KvLeaderElection implements LeaderElection {
  readonly #env: Env;
  readonly #deps: LeadershipDeps;
  readonly #info: CandidateInfo;
  readonly #options: ElectionOptions;
  readonly #machine: ElectionMachine;
  readonly #closing = new AbortController();
  readonly #work = new Set<Promise<unknown>>();
  readonly #since: number;
  #contender: LeaderContender | undefined;
  #candidacy: Candidacy | undefined;
  #leadership: ElectedLeadership | undefined;
  #retrieval: WatchedLeaderRetrieval | undefined;
  /** The latest leader that was not this process, and when it was seen to be gone (wall-clock ms). */
  #predecessor: LeaderInfo | undefined;
  #noticedAt: number | undefined;
  /** The one this process deposed last. */
  #deposed: LeaderEpoch | undefined;
  #detector: PeerDetector | undefined;
  #unsubscribe: () => void = () => undefined;
  #cancelTimer: CancelTimer = () => undefined;

  constructor(env: Env, deps: LeadershipDeps, info: CandidateInfo, options: ElectionOptions) {
    this.#env = env;
    this.#deps = deps;
    this.#info = info;
    this.#options = options;
    this.#machine = new ElectionMachine({ outageGraceMs: options.outageGraceMs });
    this.#since = env.clock.wallTime();
  }

  get state(): ElectionState {
    return this.#machine.state;
  }

  start(contender: LeaderContender): void {
    if (this.#contender !== undefined || this.#closing.signal.aborted) return;
    this.#contender = contender;
    this.#unsubscribe = this.#deps.watch.subscribe(({ revision, candidates }) => {
      const queue = candidates.map((candidate) => candidate.createRevision);
      this.#step({ type: 'candidatesObserved', revision, queue });
    });
    this.#retrieval = new WatchedLeaderRetrieval(this.#deps.watch);
    this.#retrieval.subscribe((leader) => {
      this.#rememberLeader(leader);
      contender.leaderChanged?.(leader);
    });
    this.#detector = this.#createDetector();
    this.#step({ type: 'started' });
  }

  async close(): Promise<void> {
    this.#closing.abort();
    this.#unsubscribe();
    await this.#retrieval?.close();
    this.#step({ type: 'closed' });
    await this.#detector?.close();
    await Promise.all(this.#work);
  }

  /** Stops renewing the lease, as a stopped process does; for tests. */
  pauseLease(): void {
    this.#candidacy?.keeper.pause();
  }

  #step(input: ElectionInput): void {
    for (const effect of this.#machine.step(input, this.#env.clock.now())) this.#execute(effect);
  }

  #execute(effect: ElectionEffect): void {
    switch (effect.type) {
      case 'openLease':
        this.#openLease(effect.round);
        break;
      case 'register':
        this.#run(effect.round, (candidacy) => this.#register(candidacy, effect.leaseId));
        break;
      case 'elect':
        this.#run(effect.round, (candidacy) => this.#elect(candidacy, effect.revision));
        break;
      case 'probe':
        this.#run(effect.round, (candidacy) => this.#probe(candidacy, effect.revision));
        break;
      case 'grant':
        this.#grant(effect.round, effect.revision);
        break;
      case 'suspend':
        this.#log('leader.suspended', 'leadership suspended');
        if (this.#leadership) this.#contender?.suspendLeadership(this.#leadership);
        break;
      case 'resume':
        this.#log('leader.resumed', 'leadership resumed');
        if (this.#leadership) this.#contender?.resumeLeadership(this.#leadership);
        break;
      case 'revoke':
        this.#revoke(effect.reason);
        break;
      case 'predecessorGone':
        if (effect.wasLeader) this.#noticedAt ??= this.#env.clock.wallTime();
        this.#log('election.predecessor-gone', 'a candidate before this one has left the queue', {
          predecessor: formatEpoch(this.#epoch(effect.revision)),
          wasLeader: effect.wasLeader,
        });
        break;
      case 'observe':
        this.#deps.watch.refresh();
        break;
      case 'leave':
        this.#track(this.#leave());
        break;
      case 'armTimer':
        this.#cancelTimer();
        this.#cancelTimer = this.#env.clock.setTimer(effect.at - this.#env.clock.now(), () => {
          this.#step({ type: 'timerFired' });
        });
        break;
      case 'cancelTimer':
        this.#cancelTimer();
        break;
    }
  }

  #openLease(round: number): void {
    const { leaseTtlMs: ttlMs, tryTimeoutMs } = this.#options;
    const keeper = new LeaseKeeper(
      this.#env,
      this.#deps.kv,
      { ttlMs, tryTimeoutMs },
      {
        onHeld: (leaseId) => {
          // Fault: election.lease-held
          this.#env.fault?.('election.lease-held');
          candidacy.leaseId = leaseId;
          this.#step({ type: 'leaseHeld', round, leaseId });
        },
        onOverdue: () => {
          this.#step({ type: 'leaseOverdue', round });
        },
        onRecovered: () => {
          this.#step({ type: 'leaseRecovered', round });
        },
        onLost: () => {
          this.#step({ type: 'leaseLost', round });
        },
      },
    );
    const key = this.#deps.keys.candidate(this.#info.jobManagerId, this.#env.random.hex(8));
    const candidacy: Candidacy = { round, key, keeper, leaseId: undefined, revision: undefined };
    this.#candidacy = candidacy;
    keeper.start();
  }

  /** Creates the candidate key; the nonce in it makes a repetition recognizable. */
  async #register(candidacy: Candidacy, leaseId: LeaseId): Promise<void> {
    const { round, key } = candidacy;
    this.#contender?.candidacyChanged?.({ key });
    const { clock, random, log } = this.#env;
    const value = encodeCandidate(this.#info, this.#options.era, this.#since);
    for (let attempt = 0; attempt < registrationTries; attempt += 1) {
      try {
        const result = await this.#deps.kv.txn({
          compare: [{ target: 'create', key, op: '=', value: 0 }],
          then: [{ op: 'put', key, value, leaseId }],
          else: [{ op: 'get', key }],
        });
        const revision = result.succeeded ? result.revision : firstEntry(result)?.createRevision;
        if (revision === undefined) break;
        // Fault: election.registered
        this.#env.fault?.('election.registered');
        candidacy.revision = revision;
        this.#contender?.candidacyChanged?.({ epoch: this.#epoch(revision), key });
        this.#step({ type: 'registered', round, revision });
        this.#detector?.update();
        return;
      } catch (error) {
        log.warn({ err: error, attempt }, 'registering as a candidate failed');
        if (!isTransient(error) || this.#machine.round !== round) break;
        await sleep(
          clock,
          backoffDelay(registrationBackoff, attempt, random),
          this.#closing.signal,
        );
      }
    }
    this.#step({ type: 'registrationFailed', round });
  }

  /** What it left is nobody's to depose once the lease is revoked, unless it has registered again meanwhile. */
  async #leave(): Promise<void> {
    const candidacy = this.#candidacy;
    this.#candidacy = undefined;
    this.#detector?.update();
    if (candidacy === undefined) return;
    await Promise.all([this.#depose(candidacy), candidacy.keeper.close()]);
    if (this.#candidacy === undefined) this.#contender?.candidacyChanged?.(undefined);
  }

  /** Besides the lease's revocation, which a member may leave unanswered. */
  async #depose({ key, revision }: Candidacy): Promise<void> {
    if (revision === undefined) return;
    const { kv, keys } = this.#deps;
    try {
      const call = { key, timeoutMs: this.#options.tryTimeoutMs };
      await deposeCandidate(kv, keys, this.#epoch(revision), call);
    } catch (error) {
      this.#env.log.debug({ err: error }, 'the candidate key is left to its lease');
    }
  }

  /** The transaction that makes a leader: this key exists and no candidate is older, at one moment. */
  async #elect({ round, key, leaseId }: Candidacy, revision: number): Promise<void> {
    const { candidatesPrefix, leader } = this.#deps.keys;
    const compare: Compare[] = [
      { target: 'create', key, op: '=', value: revision },
      {
        target: 'create',
        key: candidatesPrefix,
        rangeEnd: prefixEnd(candidatesPrefix),
        op: '>',
        value: revision - 1,
      },
    ];
    const epoch = this.#epoch(revision);
    const since = this.#env.clock.wallTime();
    const info = { ...this.#info, epoch, state: 'RECOVERING' as const, since };
    const value = encodeLeader(info, `${formatEpoch(epoch)}.0`);
    const announce = { op: 'put' as const, key: leader, value, ...(leaseId && { leaseId }) };
    const orElse = [{ op: 'get' as const, key }];
    try {
      let result: TxnResult;
      try {
        result = await this.#deps.kv.txn({ compare, then: [announce], else: orElse });
      } catch (error) {
        // A full database takes no puts, but a leader is what an administrator needs then:
        // the queue alone elects, and observers take the address from the candidate key.
        if (!hasCode(error, 'ETCD_NO_SPACE')) throw error;
        result = await this.#deps.kv.txn({ compare, then: [], else: orElse });
      }
      if (result.succeeded) {
        // Fault: election.elected
        this.#env.fault?.('election.elected');
        this.#step({ type: 'elected', round });
      } else if (firstEntry(result) === undefined) this.#step({ type: 'candidateGone', round });
      else this.#step({ type: 'notElected', round });
    } catch (error) {
      this.#env.log.warn({ err: error }, 'the outcome of an election is not known');
      // Repeating it is harmless: the comparisons decide again.
      this.#step({ type: 'notElected', round });
    }
  }

  async #probe({ round, key }: Candidacy, revision: number): Promise<void> {
    try {
      const { succeeded } = await this.#deps.kv.txn({
        compare: [{ target: 'create', key, op: '=', value: revision }],
        then: [{ op: 'get', key }],
      });
      this.#step({ type: succeeded ? 'probeSucceeded' : 'candidateGone', round });
    } catch (error) {
      this.#env.log.debug({ err: error }, 'probing the store failed');
      this.#step({ type: 'probeFailed', round });
    }
  }

  #grant(round: number, revision: number): void {
    const candidacy = this.#candidacy;
    if (candidacy?.leaseId === undefined) return;
    const leadership = new ElectedLeadership(this.#env, this.#deps, {
      epoch: this.#epoch(revision),
      origin: this.#origin(),
      candidate: this.#info,
      candidateKey: candidacy.key,
      leaseId: candidacy.leaseId,
      mayAct: () =>
        this.#machine.state === 'LEADING' &&
        this.#machine.round === round &&
        candidacy.keeper.isValid(),
      leaseSlackMs: () => candidacy.keeper.validUntil - this.#env.clock.now(),
      onLost: () => {
        this.#step({ type: 'candidateGone', round });
      },
      outcomeTimeoutMs: this.#options.outcomeTimeoutMs,
    });
    this.#leadership = leadership;
    this.#log('leader.granted', 'leadership granted');
    this.#contender?.grantLeadership(leadership);
  }

  #revoke(reason: string): void {
    const leadership = this.#leadership;
    if (leadership === undefined) return;
    this.#log('leader.revoked', 'leadership revoked', { reason });
    this.#leadership = undefined;
    leadership.end(reason);
    this.#contender?.revokeLeadership(leadership, reason);
  }

  #rememberLeader(leader: LeaderInfo | undefined): void {
    if (leader === undefined) {
      if (this.#predecessor !== undefined) this.#noticedAt ??= this.#env.clock.wallTime();
      return;
    }
    if (leader.jobManagerId === this.#info.jobManagerId) return;
    this.#predecessor = leader;
    this.#noticedAt = undefined;
  }

  #origin(): LeadershipOrigin {
    const electedAt = this.#env.clock.wallTime();
    const previous = this.#predecessor;
    return {
      cause: isSameEpoch(previous?.epoch, this.#deposed) ? 'peer' : 'gone',
      electedAt,
      ...(previous !== undefined && {
        previous: { epoch: previous.epoch, jobManagerId: previous.jobManagerId },
        noticedAt: this.#noticedAt ?? electedAt,
      }),
    };
  }

  #createDetector(): PeerDetector | undefined {
    const { peerConnector: connector } = this.#options;
    if (connector === undefined) return undefined;
    const { kv, keys, watch } = this.#deps;
    return new PeerDetector(this.#env, {
      kv,
      keys,
      watch,
      connector,
      ownRevision: () => this.#candidacy?.revision,
      onDeposed: (epoch, noticedAt) => {
        this.#deposed = epoch;
        this.#noticedAt = noticedAt;
      },
    });
  }

  #epoch(revision: number): LeaderEpoch {
    return { era: this.#options.era, revision };
  }

  #run(round: number, work: (candidacy: Candidacy) => Promise<void>): void {
    const candidacy = this.#candidacy;
    if (candidacy?.round === round) this.#track(work(candidacy));
  }

  #track(work: Promise<unknown> | undefined): void {
    if (work === undefined) return;
    this.#work.add(work);
    void work.finally(() => this.#work.delete(work));
  }

  #log(event: string, message: string, fields: Readonly<Record<string, unknown>> = {}): void {
    const epoch = this.#leadership && formatEpoch(this.#leadership.epoch);
    this.#env.log.info({ event, epoch, ...fields }, message);
  }
}

function isSameEpoch(a: LeaderEpoch | undefined, b: LeaderEpoch | undefined): boolean {
  return a !== undefined && b !== undefined && compareEpochs(a, b) === 0;
}

function firstEntry(result: TxnResult): { readonly createRevision: number } | undefined {
  const [first] = result.results;
  return first?.op === 'get' ? first.entries[0] : undefined;
}

function isTransient(error: unknown): boolean {
  return hasCode(error, 'ETCD_UNAVAILABLE') || hasCode(error, 'UNKNOWN_OUTCOME');
}
