/**
 * Keeps a TaskManager registered with whoever leads: finds the leader, registers with backoff, sends heartbeats,
 * notices loss by a closed session or by silence, follows a change of leader at once. Its report of slots is taken in
 * the moment from which messages of older leaders are refused: none of them changes anything after it.
 */
import { sleep, type CancelTimer } from '../base/clock.js';
import { childEnv, type Env } from '../base/env.js';
import { hasCode, MillraceError } from '../base/errors.js';
import type { Closeable } from '../base/lifecycle.js';
import { backoffDelay, type BackoffOptions } from '../base/retry.js';
import type {
  HeartbeatPayload,
  HeartbeatResponse,
  JobManagerGateway,
  TaskManagerGateway,
  TaskManagerRegistrationRequest,
  TaskManagerRegistrationResponse,
} from '../gateway/taskmanager-gateway.js';
import type { JobManagerConnector, RpcSession } from '../rpc/rpc-service.js';
import {
  compareEpochs,
  formatEpoch,
  type LeaderInfo,
  type LeaderRetrieval,
} from '../../ha/services.js';
import type { LeaderContact } from './leaderless-clock.js';

export interface LeaderConnectionDeps {
  readonly retrieval: LeaderRetrieval;
  readonly connector: JobManagerConnector;
  /** Serves the leader's calls. */
  readonly handler: TaskManagerGateway;
  readonly registration: () => TaskManagerRegistrationRequest;
  readonly heartbeat: () => HeartbeatPayload;
  readonly onConnected: (gateway: JobManagerGateway) => void;
  readonly onDisconnected: (reason: string) => void;
}

/**
 * The first tries are quick: a leader is found in etcd a moment before it accepts registrations, and one that died is
 * named there for a while yet.
 */
const backoff: BackoffOptions = { initialMs: 20, maxMs: 1_000, multiplier: 1.5, jitter: 0.2 };
/** Heartbeats that may wait for their answer at once. */
const maxHeartbeatsInFlight = 3;

interface Connection {
  readonly response: TaskManagerRegistrationResponse;
  readonly gateway: JobManagerGateway;
  readonly session: RpcSession;
}

export class LeaderConnection implements Closeable {
  readonly #env: Env;
  readonly #deps: LeaderConnectionDeps;
  readonly #closing = new AbortController();
  #unsubscribe: () => void = () => undefined;
  /** Aborted when another leader is known: ends the wait for one, registrations and sessions. */
  #round = new AbortController();
  /** Aborted when trying again may help: ends the pause between tries. */
  #pause = new AbortController();
  #session: RpcSession | undefined;
  /** What the leader said of itself in its last answer. */
  #leaderState: HeartbeatResponse['leaderState'] = 'ACTIVE';
  #leader: LeaderInfo | undefined;
  /** The latest leader there was: whom to register with. */
  #target: LeaderInfo | undefined;
  #loop: Promise<void> = Promise.resolve();

  constructor(env: Env, deps: LeaderConnectionDeps) {
    this.#env = childEnv(env, 'leader-connection');
    this.#deps = deps;
  }

  get isConnected(): boolean {
    return this.#session !== undefined;
  }

  /** How things stand with the leader this TaskManager is registered with. */
  get contact(): LeaderContact {
    return this.#session === undefined ? 'NONE' : this.#leaderState;
  }

  /** Who leads, as far as is known. */
  get leader(): LeaderInfo | undefined {
    return this.#leader;
  }

  start(): void {
    this.#unsubscribe = this.#deps.retrieval.subscribe((leader) => {
      this.#onLeader(leader);
    });
    this.#loop = this.#run();
  }

  /** Tells the leader why. */
  async close(reason = 'the TaskManager stopped'): Promise<void> {
    this.#unsubscribe();
    this.#closing.abort();
    this.#session?.close(reason);
    this.#round.abort();
    this.#pause.abort();
    await this.#loop;
  }

  #onLeader(leader: LeaderInfo | undefined): void {
    this.#leader = leader;
    // Without one the session, if any, tells when it is over.
    if (leader === undefined) return;
    const isOther =
      this.#target === undefined ||
      compareEpochs(this.#target.epoch, leader.epoch) !== 0 ||
      this.#target.rpcAddress !== leader.rpcAddress;
    this.#target = leader;
    if (isOther) {
      this.#round.abort();
      this.#round = new AbortController();
    }
    // A state that changed to ACTIVE is a good moment to try again, but no reason to leave.
    this.#pause.abort();
    this.#pause = new AbortController();
  }

  async #run(): Promise<void> {
    let attempt = 0;
    while (!this.#closing.signal.aborted) {
      const leader = this.#target;
      const round = this.#round.signal;
      // Taken before the try: what is heard during it may be what it failed for want of.
      const pause = this.#pause.signal;
      if (leader === undefined) {
        await aborted(round);
        continue;
      }
      try {
        const { connector, handler, registration } = this.#deps;
        const connection = await connector.connect(leader, registration(), handler, round);
        attempt = 0;
        // The same leader that became ACTIVE meanwhile is no reason to leave it again.
        const isStill =
          this.#leader !== undefined && compareEpochs(this.#leader.epoch, leader.epoch) === 0;
        await this.#stay(connection, isStill ? this.#round.signal : round);
      } catch (error) {
        this.#logFailure(error, leader, attempt);
      }
      if (this.#closing.signal.aborted) return;
      if (round.aborted) attempt = 0;
      else {
        await sleep(this.#env.clock, backoffDelay(backoff, attempt, this.#env.random), pause);
        attempt = pause.aborted ? 0 : attempt + 1;
      }
    }
  }

  /** Until the session is over or another leader is known. */
  async #stay(connection: Connection, round: AbortSignal): Promise<void> {
    const { response, gateway, session } = connection;
    if (round.aborted) {
      session.close('another leader is known');
      return;
    }
    this.#session = session;
    this.#leaderState = 'ACTIVE';
    const leave = (): void => {
      session.close('another leader is known');
    };
    round.addEventListener('abort', leave, { once: true });
    this.#env.log.info({ event: 'taskmanager.registered' }, 'registered with the leader');
    this.#deps.onConnected(gateway);
    const stopHeartbeats = this.#startHeartbeats(response, gateway, session);
    const reason = await session.closed;
    stopHeartbeats();
    round.removeEventListener('abort', leave);
    this.#session = undefined;
    this.#env.log.warn({ event: 'taskmanager.disconnected', reason }, 'lost the leader');
    this.#deps.onDisconnected(reason);
  }

  #startHeartbeats(
    timing: TaskManagerRegistrationResponse,
    gateway: JobManagerGateway,
    session: RpcSession,
  ): CancelTimer {
    const { clock } = this.#env;
    const { heartbeatIntervalMs, heartbeatTimeoutMs } = timing;
    let lastAnswer = clock.now();
    let lastTick = lastAnswer;
    let inFlight = 0;
    const beat = (): void => {
      inFlight += 1;
      gateway.heartbeat(this.#deps.heartbeat()).then(
        ({ leaderState }) => {
          inFlight -= 1;
          lastAnswer = clock.now();
          this.#noteLeaderState(session, leaderState);
        },
        (error: unknown) => {
          inFlight -= 1;
          // Refused is answered; a leader that is none any more is left.
          if (hasCode(error, 'NO_LEADER') || hasCode(error, 'STALE_EPOCH')) {
            session.close(error.message);
          } else if (!hasCode(error, 'TIMEOUT') && !hasCode(error, 'RPC_DISCONNECTED')) {
            lastAnswer = clock.now();
          }
        },
      );
    };
    const tick = (): void => {
      const now = clock.now();
      // This process did not run for a while: answers may wait in the socket, so look once more first.
      if (now - lastTick > heartbeatTimeoutMs / 2) lastAnswer = Math.max(lastAnswer, lastTick);
      const wasHeldUp = now - lastTick > heartbeatIntervalMs * 2;
      lastTick = now;
      if (!wasHeldUp && now - lastAnswer > heartbeatTimeoutMs) {
        session.close(`the leader did not answer heartbeats for ${String(heartbeatTimeoutMs)} ms`);
        return;
      }
      if (inFlight < maxHeartbeatsInFlight) beat();
      cancelTimer = clock.setTimer(heartbeatIntervalMs, tick);
    };
    let cancelTimer = clock.setTimer(0, tick);
    return () => {
      cancelTimer();
    };
  }

  #noteLeaderState(session: RpcSession, state: HeartbeatResponse['leaderState']): void {
    if (session !== this.#session || state === this.#leaderState) return;
    this.#leaderState = state;
    if (state === 'ACTIVE') {
      this.#env.log.info({ event: 'taskmanager.leader-resumed' }, 'the leader acts again');
    } else {
      this.#env.log.warn(
        { event: 'taskmanager.leader-suspended' },
        'the leader is suspended: it does not reach etcd; tasks go on',
      );
    }
  }

  #logFailure(error: unknown, leader: LeaderInfo, attempt: number): void {
    const fields = {
      event: 'taskmanager.registration-failed',
      err: error,
      leader: leader.rpcAddress,
      epoch: formatEpoch(leader.epoch),
      attempt,
    };
    // One line per episode; the usual ones during a take-over heal within a few tries.
    const isUsual = error instanceof MillraceError && error.retry === 'backoff' && attempt !== 5;
    if (isUsual) this.#env.log.debug(fields, 'registration failed; trying again');
    else this.#env.log.warn(fields, 'registration failed; trying again');
  }
}

function aborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve();
  return new Promise((resolve) => {
    signal.addEventListener(
      'abort',
      () => {
        resolve();
      },
      { once: true },
    );
  });
}
