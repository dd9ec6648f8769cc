/**
 * When a standby takes the leader for dead: it held a connection to it, the connection closed, and new ones are
 * refused several times in a row, so the machine is there and the process is not (docs/adr/0016).
 *
 * The accepted socket of a dying process closes before its listener does: one probe may still be accepted. Whoever
 * only closes connections, is slow, or cannot be reached, is left to its supervisor and its lease. A wrong verdict
 * costs a takeover, never more; hence the limit.
 */
import { checkTransition, defineTransitions } from '../lib/base/transitions.js';
import type { LeaderEpoch } from './services.js';

export type PeerDetectionState =
  'IDLE' | 'CONNECTING' | 'WATCHING' | 'PROBING' | 'PAUSING' | 'CLOSED';

export const peerDetectionTransitions = defineTransitions<PeerDetectionState>({
  IDLE: ['CONNECTING', 'CLOSED'],
  CONNECTING: ['WATCHING', 'PAUSING', 'IDLE', 'CLOSED'],
  WATCHING: ['PROBING', 'IDLE', 'CLOSED'],
  PROBING: ['WATCHING', 'PAUSING', 'IDLE', 'CLOSED'],
  PAUSING: ['CONNECTING', 'IDLE', 'CLOSED'],
  CLOSED: [],
});

/** The leader to watch. */
export interface Peer {
  readonly epoch: LeaderEpoch;
  readonly key: string;
  /** `host:port` */
  readonly address: string;
}

/** Inputs about one connection carry its number. */
export type PeerDetectionInput =
  /** Undefined: nobody leads, or this process does, or it is no candidate. */
  | { readonly type: 'leader'; readonly peer: Peer | undefined }
  | { readonly type: 'opened'; readonly connection: number }
  | { readonly type: 'ended'; readonly connection: number; readonly how: ConnectionEnd }
  | { readonly type: 'timerFired' }
  | { readonly type: 'stopped' };

/** `refused`: nobody listens. `failed`: it could not be opened, for any other reason. */
export type ConnectionEnd = 'closed' | 'refused' | 'failed';

export type PeerDetectionEffect =
  | { readonly type: 'connect'; readonly connection: number; readonly address: string }
  | { readonly type: 'disconnect' }
  /** For the record: an open connection ended. */
  | { readonly type: 'noteClosed'; readonly peer: Peer }
  | {
      readonly type: 'depose';
      readonly peer: Peer;
      readonly probes: number;
      readonly closedAt: number;
    }
  /** It would have been deposed, had there not been so many depositions lately. */
  | { readonly type: 'noteLimited'; readonly peer: Peer }
  | { readonly type: 'armTimer'; readonly at: number }
  | { readonly type: 'cancelTimer' };

const probeMs = 5;
const maxProbes = 20;
const refusalsForDeath = 3;
const pause = { initialMs: 200, maxMs: 5_000 };
/** A connection that lasted so long makes pauses short again. */
const stableMs = 1_000;
const depositions = { max: 3, perMs: 60_000 };

export class PeerDetectionMachine {
  #state: PeerDetectionState = 'IDLE';
  #peer: Peer | undefined;
  #connection = 0;
  #openedAt = 0;
  #closedAt = 0;
  #probes = 0;
  #refusals = 0;
  #pauses = 0;
  #deposedAt: number[] = [];

  get state(): PeerDetectionState {
    return this.#state;
  }

  step(input: PeerDetectionInput, now: number): PeerDetectionEffect[] {
    if (this.#state === 'CLOSED') return [];
    switch (input.type) {
      case 'leader':
        return this.#onLeader(input.peer);
      case 'opened':
        return input.connection === this.#connection ? this.#onOpened(now) : [];
      case 'ended':
        if (input.connection !== this.#connection) return [];
        // An end is told once.
        this.#connection += 1;
        return this.#onEnded(input.how, now);
      case 'timerFired':
        return this.#state === 'PROBING' || this.#state === 'PAUSING' ? this.#connect() : [];
      case 'stopped':
        this.#connection += 1;
        this.#go('CLOSED');
        return [{ type: 'cancelTimer' }, { type: 'disconnect' }];
    }
  }

  #onLeader(peer: Peer | undefined): PeerDetectionEffect[] {
    if (isSame(peer, this.#peer)) return [];
    const effects: PeerDetectionEffect[] = [];
    if (this.#state !== 'IDLE') {
      this.#go('IDLE');
      effects.push({ type: 'cancelTimer' }, { type: 'disconnect' });
    }
    this.#peer = peer;
    this.#connection += 1;
    this.#probes = 0;
    this.#pauses = 0;
    return [...effects, ...this.#connect()];
  }

  #connect(): PeerDetectionEffect[] {
    if (this.#peer === undefined) return [];
    // While probing, the state tells what a refusal means.
    if (this.#state !== 'PROBING') this.#go('CONNECTING');
    this.#connection += 1;
    return [{ type: 'connect', connection: this.#connection, address: this.#peer.address }];
  }

  #onOpened(now: number): PeerDetectionEffect[] {
    this.#go('WATCHING');
    this.#openedAt = now;
    this.#refusals = 0;
    return [];
  }

  #onEnded(how: ConnectionEnd, now: number): PeerDetectionEffect[] {
    const peer = this.#peer;
    if (peer === undefined) return [];
    if (this.#state === 'WATCHING') return this.#onLost(peer, now);
    // Never connected to it: an address that is wrong, or a proxy's, refuses for a leader that lives.
    if (this.#state !== 'PROBING') return this.#pause(now);
    this.#refusals = how === 'refused' ? this.#refusals + 1 : 0;
    if (this.#refusals >= refusalsForDeath) return this.#judge(peer, now);
    return this.#probe(now);
  }

  #onLost(peer: Peer, now: number): PeerDetectionEffect[] {
    const wasStable = now - this.#openedAt >= stableMs;
    if (wasStable || this.#probes === 0) {
      this.#probes = 0;
      this.#closedAt = now;
    }
    if (wasStable) this.#pauses = 0;
    this.#refusals = 0;
    this.#go('PROBING');
    return [{ type: 'noteClosed', peer }, ...this.#probe(now)];
  }

  #probe(now: number): PeerDetectionEffect[] {
    if (this.#probes >= maxProbes) return this.#pause(now);
    this.#probes += 1;
    // The first at once.
    if (this.#probes === 1) return this.#connect();
    return [{ type: 'armTimer', at: now + probeMs }];
  }

  #judge(peer: Peer, now: number): PeerDetectionEffect[] {
    const probes = this.#probes;
    const closedAt = this.#closedAt;
    this.#deposedAt = this.#deposedAt.filter((at) => now - at < depositions.perMs);
    const verdict: PeerDetectionEffect[] = [];
    if (this.#deposedAt.length >= depositions.max) verdict.push({ type: 'noteLimited', peer });
    else {
      this.#deposedAt.push(now);
      verdict.push({ type: 'depose', peer, probes, closedAt });
    }
    // Should it still lead after that, it is looked at again.
    return [...verdict, ...this.#pause(now)];
  }

  #pause(now: number): PeerDetectionEffect[] {
    this.#probes = 0;
    this.#go('PAUSING');
    const delayMs = Math.min(pause.maxMs, pause.initialMs * 2 ** Math.min(this.#pauses, 16));
    this.#pauses += 1;
    return [{ type: 'armTimer', at: now + delayMs }];
  }

  #go(to: PeerDetectionState): void {
    checkTransition('peer detection', peerDetectionTransitions, this.#state, to);
    this.#state = to;
  }
}

function isSame(a: Peer | undefined, b: Peer | undefined): boolean {
  return a?.key === b?.key && a?.epoch.revision === b?.epoch.revision && a?.address === b?.address;
}
