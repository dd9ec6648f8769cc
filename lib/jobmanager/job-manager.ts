/**
 * A JobManager: stands by until it is elected, then runs the ResourceManager and the Dispatcher of that
 * leadership. When the leadership is over everything of it is closed, and the process is to end: a clean
 * start is the simplest correct way back (decisions.md, Leadership).
 */
import {
  formatEpoch,
  type CandidateInfo,
  type HighAvailability,
  type LeaderContender,
  type LeaderElection,
  type LeaderInfo,
  type LeaderRetrieval,
  type Leadership,
} from '../../ha/services.js';
import { withTimeout } from '../base/abort.js';
import { sleep } from '../base/clock.js';
import type { Env } from '../base/env.js';
import type { Closeable } from '../base/lifecycle.js';
import type { Logger } from '../base/logger.js';
import type { ClientGateway } from '../gateway/client-gateway.js';
import type {
  JobManagerGateway,
  TaskManagerRegistrationRequest,
} from '../gateway/taskmanager-gateway.js';
import { jobGraphVersion } from '../graph/job-graph.js';
import { checkJobGraph } from '../graph/job-graph-codec.js';
import type { JobManagerRpcServer, RpcSession } from '../rpc/rpc-service.js';
import { BundleStore } from './dispatcher/bundle-store.js';
import { Dispatcher, type DispatcherOptions } from './dispatcher/dispatcher.js';
import type { CoordinatorHostFactory } from './jobmaster/coordinator-host.js';
import {
  ResourceManager,
  type ResourceManagerOptions,
} from './resourcemanager/resource-manager.js';

export interface JobManagerDeps {
  readonly ha: HighAvailability;
  readonly rpc: JobManagerRpcServer;
  readonly coordinatorHosts: CoordinatorHostFactory;
  /** The leadership is over; the process should end with exit code 75 and start afresh. */
  onLeadershipLost(reason: string): void;
}

export interface JobManagerOptions
  extends ResourceManagerOptions, Omit<DispatcherOptions, 'clusterUid'> {
  /** Of bundles and HA data. Absolute. */
  readonly storageDir: string;
}

/** For closing what a lost leadership ran, before the process is ended anyway. */
const closeTimeoutMs = 5_000;
/** Between tries to read what is in HA, when etcd does not answer. */
const recoverRetryMs = 250;

export class JobManager implements LeaderContender, Closeable {
  readonly #env: Env;
  readonly #deps: JobManagerDeps;
  readonly #options: JobManagerOptions;
  #election: LeaderElection | undefined;
  #retrieval: LeaderRetrieval | undefined;
  #session: LeaderSession | undefined;
  #candidate: CandidateInfo | undefined;
  #closed: Promise<void> | undefined;

  constructor(env: Env, deps: JobManagerDeps, options: JobManagerOptions) {
    this.#env = env;
    this.#deps = deps;
    this.#options = options;
  }

  /** Campaigns from now on. `candidate` carries the bound addresses of both servers. */
  start(candidate: CandidateInfo): void {
    prepareForTakeover();
    this.#candidate = candidate;
    this.#retrieval = this.#deps.ha.leaderRetrieval();
    this.#election = this.#deps.ha.createElection(candidate);
    this.#election.start(this);
  }

  /** The Dispatcher, while this JobManager leads and has recovered. */
  gateway(): ClientGateway | undefined {
    return this.#session?.gateway();
  }

  /** Who leads, as far as this process knows. */
  leader(): LeaderInfo | undefined {
    return this.#retrieval?.current();
  }

  /** Undefined before `start`. */
  get candidate(): CandidateInfo | undefined {
    return this.#candidate;
  }

  /** This process's own leadership, while it has one: it knows before etcd does that it is suspended. */
  own(): { readonly leader: LeaderInfo; readonly leaseSlackMs: number } | undefined {
    const standing = this.#session?.standing();
    if (standing === undefined || this.#candidate === undefined) return undefined;
    const { leaseSlackMs, ...leader } = standing;
    return { leader: { ...this.#candidate, ...leader }, leaseSlackMs };
  }

  /** Resigns: a standby takes over within milliseconds, running tasks go on until it does. */
  close(): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  async #close(): Promise<void> {
    const session = this.#session;
    this.#session = undefined;
    // Nothing may be written or sent any more when the successor begins.
    await session?.close('the JobManager is shutting down');
    await this.#election?.close();
    await this.#retrieval?.close();
  }

  // ---- LeaderContender -------------------------------------------------------------------------

  grantLeadership(leadership: Leadership): void {
    if (this.#closed !== undefined) return;
    this.#session = new LeaderSession(this.#env, leadership, this.#deps, this.#options);
    this.#session.start();
  }

  suspendLeadership(): void {
    // Nothing to do, here and below: whoever writes or sends asks mayAct first.
  }

  resumeLeadership(): void {
    // What waited goes on by itself.
  }

  revokeLeadership(_leadership: Leadership, reason: string): void {
    const session = this.#session;
    this.#session = undefined;
    if (this.#closed !== undefined) return;
    const { clock, log } = this.#env;
    // It may act no more, whatever is still being closed: user code must not keep the process from ending.
    withTimeout(
      clock,
      closeTimeoutMs,
      'closing what was led',
      session?.close(reason) ?? Promise.resolve(),
    )
      .catch((err: unknown) => {
        log.warn({ err }, 'the leadership was not closed cleanly');
      })
      .finally(() => {
        this.#deps.onLeadershipLost(reason);
      });
  }
}

/** What exists for the time of one leadership. */
class LeaderSession implements Closeable {
  readonly #env: Env;
  readonly #log: Logger;
  readonly #leadership: Leadership;
  readonly #deps: JobManagerDeps;
  readonly #options: JobManagerOptions;
  readonly #closing = new AbortController();
  #resources: ResourceManager | undefined;
  #dispatcher: Dispatcher | undefined;
  readonly #since: number;
  #isRecovered = false;
  #started: Promise<void> = Promise.resolve();

  constructor(env: Env, leadership: Leadership, deps: JobManagerDeps, options: JobManagerOptions) {
    const epoch = formatEpoch(leadership.epoch);
    this.#env = { ...env, log: env.log.child({ epoch }) };
    this.#log = this.#env.log.child({ component: 'job-manager' });
    this.#leadership = leadership;
    this.#since = env.clock.wallTime();
    this.#deps = deps;
    this.#options = options;
  }

  standing(): Pick<LeaderInfo, 'epoch' | 'state' | 'since'> & { readonly leaseSlackMs: number } {
    const leadership = this.#leadership;
    const state = this.#isRecovered ? 'ACTIVE' : 'RECOVERING';
    return {
      epoch: leadership.epoch,
      state: leadership.mayAct() ? state : 'SUSPENDED',
      since: this.#since,
      leaseSlackMs: leadership.leaseSlackMs(),
    };
  }

  gateway(): ClientGateway | undefined {
    return this.#isRecovered ? this.#dispatcher : undefined;
  }

  start(): void {
    this.#started = this.#start();
  }

  async close(reason = 'the leadership ended'): Promise<void> {
    this.#closing.abort();
    this.#deps.rpc.unlead(reason);
    await this.#started;
    await this.#dispatcher?.close();
    await this.#resources?.close();
  }

  async #start(): Promise<void> {
    while (!this.#closing.signal.aborted) {
      try {
        await this.#lead();
        return;
      } catch (err) {
        if (this.#closing.signal.aborted) return;
        this.#log.warn({ err }, 'could not recover yet');
        this.#deps.rpc.unlead('the leader could not recover');
        await this.#dispatcher?.close();
        await this.#resources?.close();
        await sleep(this.#env.clock, recoverRetryMs, this.#closing.signal);
      }
    }
  }

  async #lead(): Promise<void> {
    const leadership = this.#leadership;
    const resources = new ResourceManager(this.#env, this.#options);
    const { clusterUid } = this.#deps.ha;
    const dispatcher = new Dispatcher(
      this.#env,
      {
        leadership,
        resources,
        bundles: new BundleStore(this.#options.storageDir, clusterUid, this.#env.random),
        coordinatorHosts: this.#deps.coordinatorHosts,
      },
      { ...this.#options, clusterUid },
    );
    this.#resources = resources;
    this.#dispatcher = dispatcher;
    resources.start();
    // TaskManagers may register while jobs are read: what they hold of an earlier leader is freed either way.
    this.#deps.rpc.lead({
      epoch: leadership.epoch,
      mayAct: () => leadership.mayAct(),
      accept: async (registration, gateway, session) => ({
        response: resources.register(registration, gateway, session),
        handler: taskManagerHandler(registration, session, resources, dispatcher),
      }),
    });
    const expected = leadership.listTaskManagers().then((infos) => {
      resources.expect(infos.map(({ taskManagerId }) => taskManagerId));
    });
    await Promise.all([expected, dispatcher.recover()]);
    this.#isRecovered = true;
    await leadership.publishActive();
    this.#log.info(
      { event: 'leader.active', wallTime: this.#env.clock.wallTime() },
      'leader is active',
    );
  }
}

/** What a registered TaskManager may say. */
function taskManagerHandler(
  { taskManagerId }: TaskManagerRegistrationRequest,
  session: RpcSession,
  resources: ResourceManager,
  dispatcher: Dispatcher,
): JobManagerGateway {
  return {
    heartbeat: async (payload) => {
      resources.onHeartbeat(taskManagerId, session, payload);
      const jobs = new Map(
        payload.slots.slots.flatMap(({ jobId, attempts }) =>
          jobId === undefined ? [] : attempts.map(({ attemptId }) => [attemptId, jobId] as const),
        ),
      );
      for (const metrics of payload.taskMetrics) {
        const jobId = jobs.get(metrics.attemptId);
        if (jobId !== undefined) dispatcher.jobMaster(jobId)?.onTaskMetrics(metrics);
      }
    },
    updateTaskState: (update) => {
      dispatcher.jobMaster(update.jobId)?.onTaskState(update);
    },
    acknowledgeCheckpoint: (ack) => {
      dispatcher.jobMaster(ack.jobId)?.onCheckpointAck(ack);
    },
    declineCheckpoint: (decline) => {
      dispatcher.jobMaster(decline.jobId)?.onCheckpointDecline(decline);
    },
    reportEndOfData: ({ jobId, attemptId }) => {
      dispatcher.jobMaster(jobId)?.onEndOfData(attemptId);
    },
    sendOperatorEvent: ({ jobId, attemptId, operatorId, event }) => {
      dispatcher.jobMaster(jobId)?.onOperatorEvent(attemptId, operatorId, event);
    },
    fetchBlob: ({ jobId, digest, offset }) => dispatcher.fetchBlob(jobId, digest, offset),
  };
}

/** What a first job graph would have to wait for: the schema's validator is compiled by its first use. */
function prepareForTakeover(): void {
  try {
    checkJobGraph({ version: jobGraphVersion });
  } catch {
    // Refused, as it should be: there is nothing in it.
  }
}
