/** A standby's eye on the leader: the driver of peer-detection.machine.ts. */
import type { CancelTimer } from '../lib/base/clock.js';
import type { Env } from '../lib/base/env.js';
import type { Closeable } from '../lib/base/lifecycle.js';
import { deposeCandidate } from './depose.js';
import type { Keys } from './keys.js';
import type { KvStore } from './kv-store.js';
import type { LeadershipState, LeadershipWatch } from './leadership-watch.js';
import type { PeerConnector, PeerConnection } from './peer-connection.js';
import {
  PeerDetectionMachine,
  type Peer,
  type PeerDetectionEffect,
  type PeerDetectionInput,
} from './peer-detection.machine.js';
import { formatEpoch, type LeaderEpoch } from './services.js';

export interface PeerDetectorDeps {
  readonly kv: KvStore;
  readonly keys: Keys;
  readonly watch: LeadershipWatch;
  readonly connector: PeerConnector;
  /** This process's own place in the queue; without one it judges nobody. */
  ownRevision(): number | undefined;
  /** This process ended the leadership of that epoch; its connection was seen to be closed at `noticedAt` (wall-clock ms). */
  onDeposed(epoch: LeaderEpoch, noticedAt: number): void;
}

export class PeerDetector implements Closeable {
  readonly #env: Env;
  readonly #deps: PeerDetectorDeps;
  readonly #machine = new PeerDetectionMachine();
  readonly #work = new Set<Promise<void>>();
  readonly #unsubscribe: () => void;
  #connection: PeerConnection | undefined;
  #cancelTimer: CancelTimer = () => undefined;

  constructor(env: Env, deps: PeerDetectorDeps) {
    this.#env = env;
    this.#deps = deps;
    this.#unsubscribe = deps.watch.subscribe(() => {
      this.update();
    });
  }

  /** To be called when `ownRevision` changed. */
  update(): void {
    const { state } = this.#deps.watch;
    this.#step({ type: 'leader', peer: state && this.#peerOf(state) });
  }

  async close(): Promise<void> {
    this.#unsubscribe();
    this.#step({ type: 'stopped' });
    await Promise.all(this.#work);
  }

  #peerOf({ candidates, leader }: LeadershipState): Peer | undefined {
    const own = this.#deps.ownRevision();
    const first = candidates[0];
    if (own === undefined || first === undefined || leader === undefined) return undefined;
    if (first.createRevision === own) return undefined;
    return { epoch: leader.epoch, key: first.key, address: leader.rpcAddress };
  }

  #step(input: PeerDetectionInput): void {
    for (const effect of this.#machine.step(input, this.#env.clock.now())) this.#execute(effect);
  }

  #execute(effect: PeerDetectionEffect): void {
    const { clock, log } = this.#env;
    switch (effect.type) {
      case 'connect':
        this.#connect(effect.connection, effect.address);
        break;
      case 'disconnect':
        this.#connection?.close();
        this.#connection = undefined;
        break;
      case 'noteClosed':
        log.info(
          {
            event: 'peer.closed',
            epoch: formatEpoch(effect.peer.epoch),
            wallTime: clock.wallTime(),
          },
          'the connection to the leader closed',
        );
        break;
      case 'depose':
        this.#depose(effect.peer, effect.probes, effect.closedAt);
        break;
      case 'noteLimited':
        log.warn(
          { event: 'peer.depose-limited', epoch: formatEpoch(effect.peer.epoch) },
          'the leader refuses connections, but too many leaders were deposed in the last minute: left to its lease',
        );
        break;
      case 'armTimer':
        this.#cancelTimer();
        this.#cancelTimer = clock.setTimer(effect.at - clock.now(), () => {
          this.#step({ type: 'timerFired' });
        });
        break;
      case 'cancelTimer':
        this.#cancelTimer();
        break;
    }
  }

  #connect(connection: number, address: string): void {
    this.#connection?.close();
    this.#connection = this.#deps.connector(address, {
      onOpened: () => {
        this.#step({ type: 'opened', connection });
      },
      onEnded: (how) => {
        this.#step({ type: 'ended', connection, how });
      },
    });
  }

  #depose({ epoch, key }: Peer, probes: number, closedAt: number): void {
    const { clock, log } = this.#env;
    // It may have left the queue itself meanwhile.
    if (this.#deps.ownRevision() === undefined) return;
    const began = clock.now();
    const noticedAt = clock.wallTime() - (began - closedAt);
    const work: Promise<void> = deposeCandidate(this.#deps.kv, this.#deps.keys, epoch, { key })
      .then((deposed) => {
        if (deposed) this.#deps.onDeposed(epoch, noticedAt);
        // Its deletion is known here before the watch says so.
        this.#deps.watch.refresh();
        log.info(
          {
            event: 'peer.deposed',
            epoch: formatEpoch(epoch),
            deposed,
            probes,
            tookMs: Math.round(clock.now() - closedAt),
            wallTime: clock.wallTime(),
          },
          deposed ? 'deposed the leader, which is gone' : 'the leader was deposed already',
        );
      })
      .catch((err: unknown) => {
        log.warn(
          { event: 'peer.depose-failed', epoch: formatEpoch(epoch), err },
          'the leader is gone, but it could not be deposed: left to its lease',
        );
      })
      .finally(() => this.#work.delete(work));
    this.#work.add(work);
  }
}
