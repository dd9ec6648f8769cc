/**
 * Decides when a process is a candidate, the leader, suspended, or no longer either.
 *
 * - A candidacy is one lease and one key, created once; its create revision is its place in the queue
 *   and, when it leads, the revision of its epoch. Once the key is gone the candidacy is over, whatever
 *   was under way: a new round begins with a new lease and a new key. Answers of older rounds are dropped,
 *   so nobody leads without a key of its own.
 * - What is observed only triggers; a leadership begins with a transaction that compares the whole queue.
 * - The local lease deadline suspends a leadership; only the store can end it (or a very long outage).
 */
import { checkTransition, defineTransitions } from '../lib/base/transitions.js';

export type ElectionState =
  'IDLE' | 'JOINING' | 'WAITING' | 'ELECTING' | 'LEADING' | 'SUSPENDED' | 'CLOSED';

export const electionTransitions = defineTransitions<ElectionState>({
  IDLE: ['JOINING', 'CLOSED'],
  JOINING: ['JOINING', 'WAITING', 'CLOSED'],
  WAITING: ['ELECTING', 'JOINING', 'CLOSED'],
  ELECTING: ['LEADING', 'WAITING', 'JOINING', 'CLOSED'],
  LEADING: ['SUSPENDED', 'JOINING', 'CLOSED'],
  SUSPENDED: ['LEADING', 'JOINING', 'CLOSED'],
  CLOSED: [],
});

/** Inputs about one candidacy carry its round. */
export type ElectionInput =
  | { readonly type: 'started' }
  | { readonly type: 'leaseHeld'; readonly round: number; readonly leaseId: string }
  | { readonly type: 'leaseOverdue'; readonly round: number }
  | { readonly type: 'leaseRecovered'; readonly round: number }
  | { readonly type: 'leaseLost'; readonly round: number }
  | { readonly type: 'registered'; readonly round: number; readonly revision: number }
  /** Whether the key exists is unknown, or its lease does not. */
  | { readonly type: 'registrationFailed'; readonly round: number }
  | {
      readonly type: 'candidatesObserved';
      /** Store revision of the observation. */
      readonly revision: number;
      /** Create revisions, ascending. */
      readonly queue: readonly number[];
    }
  | { readonly type: 'elected'; readonly round: number }
  /** Another candidate is before this one, or the outcome is not known. */
  | { readonly type: 'notElected'; readonly round: number }
  /** A transaction showed that the candidate key is gone. */
  | { readonly type: 'candidateGone'; readonly round: number }
  /** A guarded transaction succeeded while suspended. */
  | { readonly type: 'probeSucceeded'; readonly round: number }
  | { readonly type: 'probeFailed'; readonly round: number }
  | { readonly type: 'timerFired' }
  | { readonly type: 'closed' };

export type ElectionEffect =
  | { readonly type: 'openLease'; readonly round: number }
  | { readonly type: 'register'; readonly round: number; readonly leaseId: string }
  | { readonly type: 'elect'; readonly round: number; readonly revision: number }
  | { readonly type: 'probe'; readonly round: number; readonly revision: number }
  | { readonly type: 'grant'; readonly round: number; readonly revision: number }
  | { readonly type: 'suspend' }
  | { readonly type: 'resume' }
  | { readonly type: 'revoke'; readonly reason: string }
  /**
   * The leader, or the candidate just before this standby, has left the queue. For the record: what
   * follows from it is decided by the queue as a whole.
   */
  | { readonly type: 'predecessorGone'; readonly revision: number; readonly wasLeader: boolean }
  /** Reads the queue now rather than at the next resync. */
  | { readonly type: 'observe' }
  /** Revokes the lease, which deletes the candidate key and the leader's record. After `revoke`. */
  | { readonly type: 'leave' }
  | { readonly type: 'armTimer'; readonly at: number }
  | { readonly type: 'cancelTimer' };

export interface ElectionMachineOptions {
  /** Suspended this long, a leadership ends although nobody deposed it. Default 10 min. */
  readonly outageGraceMs: number;
}

const retryMs = 200;
const probeMs = 500;
const rejoin = { initialMs: 50, maxMs: 2_000 };

export class ElectionMachine {
  readonly #options: ElectionMachineOptions;
  #state: ElectionState = 'IDLE';
  #round = 0;
  #isLeaseValid = false;
  #revision: number | undefined;
  #observed: { readonly revision: number; readonly queue: readonly number[] } | undefined;
  #suspendedAt = 0;
  #isProbing = false;
  /** Candidacies that ended since one last led. */
  #failedRounds = 0;
  #isLeaseOpen = false;

  constructor(options: ElectionMachineOptions = { outageGraceMs: 600_000 }) {
    this.#options = options;
  }

  get state(): ElectionState {
    return this.#state;
  }

  get round(): number {
    return this.#round;
  }

  step(input: ElectionInput, now: number): ElectionEffect[] {
    if (this.#state === 'CLOSED' || ('round' in input && input.round !== this.#round)) return [];
    switch (input.type) {
      case 'started':
        return this.#join();
      case 'leaseHeld':
        this.#isLeaseValid = true;
        return [{ type: 'register', round: this.#round, leaseId: input.leaseId }];
      case 'leaseOverdue':
        return this.#onLeaseOverdue(now);
      case 'leaseRecovered':
        this.#isLeaseValid = true;
        return this.#state === 'SUSPENDED' ? this.#probe() : this.#consider();
      case 'leaseLost':
        return this.#over('its lease expired or was revoked', now);
      case 'registered':
        this.#revision = input.revision;
        this.#go('WAITING');
        return [{ type: 'cancelTimer' }, ...this.#consider()];
      case 'registrationFailed':
        return this.#over('its candidate key could not be written', now);
      case 'candidatesObserved': {
        const before = this.#observed?.queue ?? [];
        this.#observed = input;
        return this.#onObserved(now, before);
      }
      case 'elected':
        return this.#onElected();
      case 'notElected':
        if (this.#state !== 'ELECTING') return [];
        this.#go('WAITING');
        return [{ type: 'observe' }, { type: 'armTimer', at: now + retryMs }];
      case 'candidateGone':
        return this.#over('its candidate key was deleted', now);
      case 'probeSucceeded':
        return this.#onProbed(now, true);
      case 'probeFailed':
        return this.#onProbed(now, false);
      case 'timerFired':
        return this.#onTimer(now);
      case 'closed':
        return this.#onClosed();
    }
  }

  #join(): ElectionEffect[] {
    this.#go('JOINING');
    this.#round += 1;
    this.#isLeaseOpen = true;
    return [{ type: 'openLease', round: this.#round }];
  }

  #onObserved(now: number, before: readonly number[]): ElectionEffect[] {
    const own = this.#revision;
    if (own !== undefined && this.#observed !== undefined && this.#observed.revision >= own) {
      if (!this.#observed.queue.includes(own)) {
        return this.#over('its candidate key was deleted', now);
      }
    }
    return [...this.#notice(before), ...this.#consider()];
  }

  /** Compares the queue with the one observed before, for a standby. */
  #notice(before: readonly number[]): ElectionEffect[] {
    const own = this.#revision;
    if (this.#state !== 'WAITING' || own === undefined) return [];
    const ahead = before.filter((revision) => revision < own);
    const gone = [ahead[0], ahead.at(-1)].find(
      (revision) => revision !== undefined && this.#observed?.queue.includes(revision) === false,
    );
    if (gone === undefined) return [];
    return [{ type: 'predecessorGone', revision: gone, wasLeader: gone === ahead[0] }];
  }

  /** Stands for election when the queue, as last seen, has nobody before this candidate. */
  #consider(): ElectionEffect[] {
    const own = this.#revision;
    if (this.#state !== 'WAITING' || own === undefined || !this.#isLeaseValid) return [];
    if (this.#observed === undefined || this.#observed.revision < own) return [{ type: 'observe' }];
    if (this.#observed.queue[0] !== own) return [];
    this.#go('ELECTING');
    return [{ type: 'elect', round: this.#round, revision: own }];
  }

  #onElected(): ElectionEffect[] {
    if (this.#state !== 'ELECTING' || this.#revision === undefined) return [];
    if (!this.#isLeaseValid) {
      // Elected, but too late to act on it; the transaction is repeated when the lease is good again.
      this.#go('WAITING');
      return [];
    }
    this.#go('LEADING');
    this.#failedRounds = 0;
    return [
      { type: 'cancelTimer' },
      { type: 'grant', round: this.#round, revision: this.#revision },
    ];
  }

  #onLeaseOverdue(now: number): ElectionEffect[] {
    this.#isLeaseValid = false;
    if (this.#state !== 'LEADING') return [];
    this.#go('SUSPENDED');
    this.#suspendedAt = now;
    return [{ type: 'suspend' }, ...this.#probe(), { type: 'armTimer', at: now + probeMs }];
  }

  #probe(): ElectionEffect[] {
    if (this.#isProbing || this.#revision === undefined) return [];
    this.#isProbing = true;
    return [{ type: 'probe', round: this.#round, revision: this.#revision }];
  }

  #onProbed(now: number, succeeded: boolean): ElectionEffect[] {
    this.#isProbing = false;
    if (this.#state !== 'SUSPENDED') return [];
    if (succeeded && this.#isLeaseValid) {
      this.#go('LEADING');
      return [{ type: 'cancelTimer' }, { type: 'resume' }];
    }
    if (now - this.#suspendedAt < this.#options.outageGraceMs) return [];
    return this.#over('it could not confirm its leadership for too long', now);
  }

  #onTimer(now: number): ElectionEffect[] {
    switch (this.#state) {
      case 'JOINING':
        return this.#isLeaseOpen ? [] : this.#join();
      case 'WAITING':
        return this.#consider();
      case 'SUSPENDED':
        if (now - this.#suspendedAt >= this.#options.outageGraceMs) {
          return this.#over('it could not confirm its leadership for too long', now);
        }
        return [...this.#probe(), { type: 'armTimer', at: now + probeMs }];
      default:
        return [];
    }
  }

  /** Ends this candidacy, and the leadership with it; the next one begins after a pause. */
  #over(reason: string, now: number): ElectionEffect[] {
    if (this.#state === 'IDLE') return [];
    const effects = this.#leave(reason);
    this.#go('JOINING');
    const delay = Math.min(rejoin.maxMs, rejoin.initialMs * 2 ** Math.min(this.#failedRounds, 16));
    this.#failedRounds += 1;
    return [...effects, { type: 'armTimer', at: now + delay }];
  }

  #onClosed(): ElectionEffect[] {
    const effects = this.#state === 'IDLE' ? [] : this.#leave('this process resigned');
    this.#go('CLOSED');
    return [...effects, { type: 'cancelTimer' }];
  }

  #leave(reason: string): ElectionEffect[] {
    const effects: ElectionEffect[] = [];
    if (this.#state === 'LEADING' || this.#state === 'SUSPENDED') {
      effects.push({ type: 'revoke', reason });
    }
    if (this.#isLeaseOpen) effects.push({ type: 'leave' });
    this.#round += 1;
    this.#isLeaseOpen = false;
    this.#isLeaseValid = false;
    this.#isProbing = false;
    this.#revision = undefined;
    return effects;
  }

  #go(to: ElectionState): void {
    checkTransition('leader election', electionTransitions, this.#state, to);
    this.#state = to;
  }
}
