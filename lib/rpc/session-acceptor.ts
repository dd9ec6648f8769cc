/** The leader's side of sessions, over any transport: registration first, then both gateways. */
import type { Env } from '../base/env.js';
import { MillraceError } from '../base/errors.js';
import {
  jobManagerMethods,
  registerMethodName,
  registration,
  taskManagerMethods,
  type MethodTable,
} from '../gateway/codecs.js';
import {
  protocolVersion,
  type JobManagerGateway,
  type TaskManagerGateway,
  type TaskManagerRegistrationRequest,
  type TaskManagerRegistrationResponse,
} from '../gateway/taskmanager-gateway.js';
import { compareEpochs, formatEpoch, type LeaderEpoch } from '../../ha/services.js';
import { RpcPeer, type ByteChannel, type RpcPeerOptions } from './rpc-peer.js';
import { unfencedEpoch, type LeaderService } from './rpc-service.js';

/** How long a new connection may take to register. */
const registrationTimeoutMs = 10_000;

interface Registrar {
  register(request: TaskManagerRegistrationRequest): Promise<TaskManagerRegistrationResponse>;
}

const registrarMethods: MethodTable<Registrar> = { [registerMethodName]: registration };

export class SessionAcceptor {
  readonly #env: Env;
  readonly #options: RpcPeerOptions;
  readonly #sessions = new Set<RpcPeer>();
  #service: LeaderService | undefined;

  constructor(env: Env, options: RpcPeerOptions) {
    this.#env = env;
    this.#options = options;
  }

  lead(service: LeaderService): void {
    this.#service = service;
  }

  unlead(reason: string): void {
    this.#service = undefined;
    for (const session of this.#sessions) session.close(reason);
  }

  /** Serves a connection: its first request must be a registration. */
  accept(channel: ByteChannel, peerName: string): void {
    const service = this.#service;
    const peer = new RpcPeer(
      this.#env,
      {
        channel,
        peerName,
        epoch: service?.epoch ?? unfencedEpoch,
        checkEpoch: (epoch, method) => {
          checkLeads(service, epoch, method);
        },
        ...(service !== undefined && { maySend: () => service.mayAct() }),
      },
      this.#options,
    );
    const cancelTimer = this.#env.clock.setTimer(registrationTimeoutMs, () => {
      peer.close('no registration arrived in time');
    });
    this.#sessions.add(peer);
    void peer.closed.then(() => {
      cancelTimer();
      this.#sessions.delete(peer);
    });
    let registered = false;
    peer.serve<Registrar>(registrarMethods, {
      register: async (request) => {
        checkVersion(request);
        if (service === undefined) throw noLeader();
        if (!service.mayAct()) {
          throw new MillraceError('NO_LEADER', 'this leader is suspended: it cannot reach etcd');
        }
        if (registered) throw new MillraceError('RPC_PROTOCOL', 'a session registers once');
        registered = true;
        const gateway = peer.proxy<TaskManagerGateway>(taskManagerMethods);
        const { response, handler } = await service.accept(request, gateway, peer);
        cancelTimer();
        peer.serve<JobManagerGateway>(jobManagerMethods, handler);
        return response;
      },
    });
    peer.start();
  }
}

function noLeader(): MillraceError {
  return new MillraceError('NO_LEADER', 'this JobManager does not lead');
}

function checkVersion(request: TaskManagerRegistrationRequest): void {
  if (request.protocolVersion === protocolVersion) return;
  throw new MillraceError(
    'RPC_PROTOCOL',
    `the TaskManager speaks protocol version ${String(request.protocolVersion)}, this JobManager ${String(protocolVersion)}: run the same release on both`,
  );
}

function checkLeads(service: LeaderService | undefined, epoch: LeaderEpoch, method: string): void {
  if (service === undefined) throw noLeader();
  const order = compareEpochs(epoch, service.epoch);
  if (order === 0 || compareEpochs(epoch, unfencedEpoch) === 0) return;
  const text = `${method} is meant for leader ${formatEpoch(epoch)}, this one is ${formatEpoch(service.epoch)}`;
  // A newer leader is known to the sender: this JobManager is about to learn that it was deposed.
  throw new MillraceError(order < 0 ? 'STALE_EPOCH' : 'NO_LEADER', text);
}
