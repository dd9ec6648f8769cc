/** What exists for the time of one leadership: ResourceManager, Dispatcher, and what TaskManagers may say to them. */
import {
  formatEpoch,
  type HighAvailability,
  type LeaderInfo,
  type Leadership,
} from '../../ha/services.js';
import { sleep } from '../base/clock.js';
import type { Env } from '../base/env.js';
import type { JobManagerId } from '../base/ids.js';
import type { Closeable } from '../base/lifecycle.js';
import type { Logger } from '../base/logger.js';
import type { ClientGateway } from '../gateway/client-gateway.js';
import type {
  JobManagerGateway,
  TaskManagerRegistrationRequest,
} from '../gateway/taskmanager-gateway.js';
import type { JobManagerRpcServer, RpcSession } from '../rpc/rpc-service.js';
import { BundleStore } from './dispatcher/bundle-store.js';
import { Dispatcher, type DispatcherOptions } from './dispatcher/dispatcher.js';
import type { CoordinatorHostFactory } from './jobmaster/coordinator-host.js';
import {
  ResourceManager,
  type ResourceManagerOptions,
} from './resourcemanager/resource-manager.js';
import { TakeoverRecorder } from './takeover-recorder.js';

export interface LeaderSessionDeps {
  readonly ha: HighAvailability;
  readonly rpc: JobManagerRpcServer;
  readonly coordinatorHosts: CoordinatorHostFactory;
}

export interface LeaderSessionOptions
  extends ResourceManagerOptions, Omit<DispatcherOptions, 'clusterUid'> {
  /** Of bundles and HA data. Absolute. */
  readonly storageDir: string;
}

/** Between tries to read what is in HA, when etcd does not answer. */
const recoverRetryMs = 250;

export class LeaderSession implements Closeable {
  readonly #env: Env;
  readonly #log: Logger;
  readonly #leadership: Leadership;
  readonly #deps: LeaderSessionDeps;
  readonly #options: LeaderSessionOptions;
  readonly #jobManagerId: JobManagerId;
  readonly #closing = new AbortController();
  #resources: ResourceManager | undefined;
  #dispatcher: Dispatcher | undefined;
  #isRecovered = false;
  #isActive = false;
  /** When the lease deadline was seen to have passed: monotonic and wall-clock ms. */
  #suspended: { readonly at: number; readonly wall: number } | undefined;
  #started: Promise<void> = Promise.resolve();

  constructor(
    env: Env,
    led: { readonly leadership: Leadership; readonly jobManagerId: JobManagerId },
    deps: LeaderSessionDeps,
    options: LeaderSessionOptions,
  ) {
    const epoch = formatEpoch(led.leadership.epoch);
    this.#env = { ...env, log: env.log.child({ epoch }) };
    this.#log = this.#env.log.child({ component: 'job-manager' });
    this.#leadership = led.leadership;
    this.#jobManagerId = led.jobManagerId;
    this.#deps = deps;
    this.#options = options;
  }

  gateway(): ClientGateway | undefined {
    return this.#isRecovered ? this.#dispatcher : undefined;
  }

  get state(): LeaderInfo['state'] {
    if (!this.#leadership.mayAct()) return 'SUSPENDED';
    return this.#isActive ? 'ACTIVE' : 'RECOVERING';
  }

  get leadership(): Leadership {
    return this.#leadership;
  }

  start(): void {
    this.#started = this.#start();
  }

  /** Whoever writes or sends asks mayAct first; this is for what people are told. */
  suspend(): void {
    this.#suspended ??= this.#instant();
  }

  /** What was held goes on; time that nobody could act in counts against nothing. */
  resume(): void {
    const suspended = this.#suspended;
    this.#suspended = undefined;
    if (suspended === undefined) return;
    this.#dispatcher?.onResumed(this.#env.clock.now() - suspended.at);
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
        this.#isRecovered = false;
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
    const takeover = new TakeoverRecorder(
      { ...this.#env, log: this.#log },
      leadership,
      this.#jobManagerId,
    );
    const dispatcher = new Dispatcher(
      this.#env,
      {
        leadership,
        resources,
        takeover,
        bundles: new BundleStore(this.#options.storageDir, clusterUid, this.#env.random),
        coordinatorHosts: this.#deps.coordinatorHosts,
        suspension: () => this.#suspension(),
      },
      { ...this.#options, clusterUid },
    );
    this.#resources = resources;
    this.#dispatcher = dispatcher;
    resources.start();
    // TaskManagers register while jobs are read: what they hold is asked for job by job.
    this.#deps.rpc.lead({
      epoch: leadership.epoch,
      mayAct: () => leadership.mayAct(),
      accept: async (registration, gateway, session) => ({
        response: resources.register(registration, gateway, session),
        handler: taskManagerHandler(registration, session, { leadership, resources, dispatcher }),
      }),
    });
    const expected = leadership.listTaskManagers().then((infos) => {
      resources.expect(infos);
    });
    await Promise.all([expected, dispatcher.recover()]);
    takeover.recovered();
    this.#isRecovered = true;
    // Fault: leader.recovered
    this.#env.fault?.('leader.recovered');
    await leadership.publishActive();
    // Fault: leader.active
    this.#env.fault?.('leader.active');
    this.#isActive = true;
    this.#log.info(
      { event: 'leader.active', wallTime: this.#env.clock.wallTime() },
      'leader is active',
    );
    takeover.active();
    dispatcher.onActive();
  }

  /** One sentence while the leader may not act. */
  #suspension(): string | undefined {
    if (this.#leadership.mayAct()) return undefined;
    this.#suspended ??= this.#instant();
    const since = new Date(this.#suspended.wall).toISOString();
    return `the leader is suspended: etcd does not answer since ${since}; records keep flowing, no checkpoint completes, and no job is started, cancelled or restarted until it does`;
  }

  #instant(): { at: number; wall: number } {
    const { clock } = this.#env;
    return { at: clock.now(), wall: clock.wallTime() };
  }
}

/** What a registered TaskManager may say. */
function taskManagerHandler(
  { taskManagerId }: TaskManagerRegistrationRequest,
  session: RpcSession,
  {
    leadership,
    resources,
    dispatcher,
  }: {
    readonly leadership: Leadership;
    readonly resources: ResourceManager;
    readonly dispatcher: Dispatcher;
  },
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
      return { leaderState: leadership.mayAct() ? 'ACTIVE' : 'SUSPENDED' };
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
