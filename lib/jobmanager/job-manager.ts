/**
 * A JobManager: stands by until it is elected, then runs the ResourceManager and the Dispatcher of that
 * leadership. When the leadership is over everything of it is closed, and the process is to end: a clean
 * start is the simplest correct way back.
 */
import {
  compareEpochs,
  type Candidacy,
  type CandidateInfo,
  type LeaderContender,
  type LeaderElection,
  type LeaderInfo,
  type LeaderRetrieval,
  type Leadership,
} from '../../ha/services.js';
import { withTimeout } from '../base/abort.js';
import type { Env } from '../base/env.js';
import type { Closeable } from '../base/lifecycle.js';
import type { ClientGateway } from '../gateway/client-gateway.js';
import { compileChecks } from '../gateway/codecs.js';
import { jobGraphVersion } from '../graph/job-graph.js';
import { checkJobGraph } from '../graph/job-graph-codec.js';
import { prepareJobHistory } from './jobmaster/job-history.js';
import {
  LeaderSession,
  type LeaderSessionDeps,
  type LeaderSessionOptions,
} from './leader-session.js';

export interface JobManagerDeps extends LeaderSessionDeps {
  /** The leadership is over; the process should end with exit code 75 and start afresh. */
  onLeadershipLost(reason: string): void;
  /** What a supervisor is to depose when this process dies; undefined: nothing. */
  onCandidacyChanged?(candidacy: Candidacy | undefined): void;
}

export type JobManagerOptions = LeaderSessionOptions;

/** For closing what a lost leadership ran, before the process is ended anyway. */
const closeTimeoutMs = 5_000;

export class JobManager implements LeaderContender, Closeable {
  readonly #env: Env;
  readonly #deps: JobManagerDeps;
  readonly #options: JobManagerOptions;
  #candidate: CandidateInfo | undefined;
  #election: LeaderElection | undefined;
  #retrieval: LeaderRetrieval | undefined;
  #session: LeaderSession | undefined;
  #closed: Promise<void> | undefined;

  constructor(env: Env, deps: JobManagerDeps, options: JobManagerOptions) {
    this.#env = env;
    this.#deps = deps;
    this.#options = options;
  }

  /** Campaigns from now on. `candidate` carries the bound addresses of both servers. */
  start(candidate: CandidateInfo): void {
    prepareForTakeover();
    prepareJobHistory();
    this.#candidate = candidate;
    this.#retrieval = this.#deps.ha.leaderRetrieval();
    this.#election = this.#deps.ha.createElection(candidate);
    this.#election.start(this);
  }

  /** The Dispatcher, while this JobManager leads and has recovered. */
  gateway(): ClientGateway | undefined {
    return this.#session?.gateway();
  }

  /** As which this process stands for election; undefined before it does. */
  get candidate(): CandidateInfo | undefined {
    return this.#candidate;
  }

  /** This process as the leader, while it is; SUSPENDED as soon as it may not act, whatever etcd still says. */
  own(): { readonly leader: LeaderInfo; readonly leaseSlackMs: number } | undefined {
    const session = this.#session;
    if (session === undefined || this.#candidate === undefined) return undefined;
    const { jobManagerId, rpcAddress, restAddress } = this.#candidate;
    const { epoch, origin } = session.leadership;
    const since = origin.electedAt;
    return {
      leader: { epoch, jobManagerId, rpcAddress, restAddress, state: session.state, since },
      leaseSlackMs: session.leadership.leaseSlackMs(),
    };
  }

  /** Who leads, as far as this process knows. */
  leader(): LeaderInfo | undefined {
    const known = this.#retrieval?.current();
    const own = this.own()?.leader;
    if (known === undefined || own === undefined) return own ?? known;
    return compareEpochs(own.epoch, known.epoch) >= 0 ? own : known;
  }

  /** Hands over: a standby leads within milliseconds, and running tasks go on as if nothing had happened. */
  close(): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  async #close(): Promise<void> {
    const session = this.#session;
    this.#session = undefined;
    // Triggers and commands end at once; what is still being written is refused as soon as the candidacy is gone, and
    // whatever takes longer to close keeps no successor waiting.
    const closed = session?.close('the JobManager is shutting down');
    await this.#election?.close();
    await closed;
    await this.#retrieval?.close();
  }

  // ---- LeaderContender -------------------------------------------------------------------------

  grantLeadership(leadership: Leadership): void {
    const jobManagerId = this.#candidate?.jobManagerId;
    if (this.#closed !== undefined || jobManagerId === undefined) return;
    this.#session = new LeaderSession(
      this.#env,
      { leadership, jobManagerId },
      this.#deps,
      this.#options,
    );
    this.#session.start();
  }

  suspendLeadership(): void {
    this.#session?.suspend();
  }

  candidacyChanged(candidacy: Candidacy | undefined): void {
    this.#deps.onCandidacyChanged?.(candidacy);
  }

  resumeLeadership(): void {
    this.#session?.resume();
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

/** What a first job graph or TaskManager would have to wait for: validators are compiled by their first use. */
function prepareForTakeover(): void {
  compileChecks('jobmanager');
  try {
    checkJobGraph({ version: jobGraphVersion });
  } catch {
    // Refused, as it should be: there is nothing in it.
  }
}
