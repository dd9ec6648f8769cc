/**
 * The control-plane port between JobManager and TaskManagers: one ordered, bidirectional session per
 * TaskManager, opened by the TaskManager to the leader. Implemented over gRPC (processes) and locally
 * by encode and decode (one process). Calls are numbered requests with answers, one-way messages keep
 * their order; a closed session rejects what is in flight with RPC_DISCONNECTED and is the first sign
 * that a peer died.
 */
import type { Closeable } from '../base/lifecycle.js';
import type { LeaderEpoch } from '../../ha/services.js';
import type {
  JobManagerGateway,
  TaskManagerGateway,
  TaskManagerRegistrationRequest,
  TaskManagerRegistrationResponse,
} from '../gateway/taskmanager-gateway.js';

/** Without high availability a TaskManager asks for whoever is at the configured address: no fencing. */
export const unfencedEpoch: LeaderEpoch = { era: 0, revision: 0 };

export interface RpcSession {
  /** Resolves with one sentence when the session is over, whoever ended it. */
  readonly closed: Promise<string>;
  close(reason: string): void;
}

/** What a leader does with a TaskManager that registers. A rejection refuses it with that error. */
export type TaskManagerAcceptor = (
  registration: TaskManagerRegistrationRequest,
  gateway: TaskManagerGateway,
  session: RpcSession,
) => Promise<{
  readonly response: TaskManagerRegistrationResponse;
  readonly handler: JobManagerGateway;
}>;

export interface LeaderService {
  readonly epoch: LeaderEpoch;
  /** Asked before every message to a TaskManager: after the lease deadline nothing is sent (LEADERSHIP_LOST). */
  mayAct(): boolean;
  readonly accept: TaskManagerAcceptor;
}

export interface JobManagerRpcServer extends Closeable {
  /** Binds; resolves with `host:port`. PORT_IN_USE names the port and its key. */
  listen(): Promise<string>;
  /** From now on registrations are accepted under this epoch; before, they are refused with NO_LEADER. */
  lead(service: LeaderService): void;
  /** Closes every session of the leadership. */
  unlead(reason: string): void;
}

export interface JobManagerConnector {
  /**
   * Connects and registers. `handler` serves the leader's calls; the connector refuses calls of an epoch older
   * than the newest this process has seen with STALE_EPOCH. Rejects with NO_LEADER, RPC_DISCONNECTED, STALE_EPOCH, RPC_PROTOCOL.
   * Once `signal` aborts no answer is waited for any more: it is RPC_DISCONNECTED.
   */
  connect(
    leader: { readonly rpcAddress: string; readonly epoch: LeaderEpoch },
    registration: TaskManagerRegistrationRequest,
    handler: TaskManagerGateway,
    signal?: AbortSignal,
  ): Promise<{
    readonly response: TaskManagerRegistrationResponse;
    readonly gateway: JobManagerGateway;
    readonly session: RpcSession;
  }>;
}
