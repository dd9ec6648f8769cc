/** The TaskManager's side of sessions, over any transport. Remembers the newest epoch across sessions. */
import type { Env } from '../base/env.js';
import { MillraceError } from '../base/errors.js';
import {
  jobManagerMethods,
  registerMethodName,
  registration as registrationMethod,
  taskManagerMethods,
} from '../gateway/codecs.js';
import type {
  JobManagerGateway,
  TaskManagerGateway,
  TaskManagerRegistrationRequest,
  TaskManagerRegistrationResponse,
} from '../gateway/taskmanager-gateway.js';
import { compareEpochs, formatEpoch, type LeaderEpoch } from '../../ha/services.js';
import { RpcPeer, type ByteChannel, type RpcPeerOptions } from './rpc-peer.js';
import { unfencedEpoch, type JobManagerConnector, type RpcSession } from './rpc-service.js';

export class SessionConnector implements JobManagerConnector {
  readonly #env: Env;
  readonly #open: (address: string) => ByteChannel;
  readonly #options: RpcPeerOptions;
  /** Only grows. A leader older than this is refused whatever it says. */
  #newest: LeaderEpoch | undefined;

  constructor(env: Env, open: (address: string) => ByteChannel, options: RpcPeerOptions) {
    this.#env = env;
    this.#open = open;
    this.#options = options;
  }

  async connect(
    leader: { readonly rpcAddress: string; readonly epoch: LeaderEpoch },
    registration: TaskManagerRegistrationRequest,
    handler: TaskManagerGateway,
    signal?: AbortSignal,
  ): Promise<{
    readonly response: TaskManagerRegistrationResponse;
    readonly gateway: JobManagerGateway;
    readonly session: RpcSession;
  }> {
    // Without high availability epochs mean nothing: a restarted JobManager may begin with a lower one.
    if (compareEpochs(leader.epoch, unfencedEpoch) === 0) this.#newest = undefined;
    this.#raise(leader.epoch, 'registration');
    const peerName = `JobManager ${leader.rpcAddress}`;
    const peer = new RpcPeer(
      this.#env,
      {
        channel: this.#open(leader.rpcAddress),
        peerName,
        epoch: leader.epoch,
        checkEpoch: (epoch, method) => {
          this.#raise(epoch, method);
        },
      },
      this.#options,
    );
    peer.serve<TaskManagerGateway>(taskManagerMethods, handler);
    peer.start();
    const giveUp = (): void => {
      peer.close('another leader is known');
    };
    signal?.addEventListener('abort', giveUp, { once: true });
    try {
      const response = await peer.call(registerMethodName, registrationMethod, registration);
      return { response, gateway: peer.proxy<JobManagerGateway>(jobManagerMethods), session: peer };
    } catch (error) {
      peer.close('registration failed');
      throw error;
    } finally {
      signal?.removeEventListener('abort', giveUp);
    }
  }

  #raise(epoch: LeaderEpoch, method: string): void {
    if (this.#newest !== undefined && compareEpochs(epoch, this.#newest) < 0) {
      throw new MillraceError(
        'STALE_EPOCH',
        `${method} is of leader ${formatEpoch(epoch)}, but leader ${formatEpoch(this.#newest)} is known`,
      );
    }
    this.#newest = epoch;
  }
}
