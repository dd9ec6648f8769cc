/**
 * Finds out whether the tasks of a job go on under this leader: asks the TaskManagers of the last record what they run
 * (the machine decides), and keeps what tasks report until it is decided.
 *
 * An inventory is taken in order with a TaskManager's reports. Those from before it was asked for are in it and not
 * kept; those on its way here may be in it, and repeat what it says; those after it are news.
 */
import type { ExecutionRecord } from '../../../ha/services.js';
import type { CancelTimer } from '../../base/clock.js';
import { sleep } from '../../base/clock.js';
import { Deferred } from '../../base/deferred.js';
import type { Env } from '../../base/env.js';
import { hasCode, toFailure, type Failure } from '../../base/errors.js';
import type { AttemptId, JobId, OperatorId, TaskManagerId } from '../../base/ids.js';
import type { Closeable } from '../../base/lifecycle.js';
import type { TaskStateUpdate } from '../../gateway/taskmanager-gateway.js';
import type { OperatorEvent } from '../../operators/stream-operator.js';
import type { ExecutionTopology } from '../executiongraph/execution-topology.js';
import type { SharedSlot } from '../executiongraph/slot-sharing.js';
import type { ResourceManager } from '../resourcemanager/resource-manager.js';
import {
  JobAdoption,
  type AdoptionPlan,
  type JobAdoptionEffect,
  type JobAdoptionInput,
} from './job-adoption.machine.js';

export type TakeoverVerdict =
  | { readonly kind: 'adopt'; readonly plan: AdoptionPlan }
  | { readonly kind: 'restore'; readonly reason: string; readonly failure?: Failure };

/** What running tasks report that changes the job. */
export type TaskReport =
  | { readonly kind: 'taskState'; readonly attemptId: AttemptId; readonly update: TaskStateUpdate }
  | { readonly kind: 'endOfData'; readonly attemptId: AttemptId }
  | {
      readonly kind: 'operatorEvent';
      readonly attemptId: AttemptId;
      readonly operatorId: OperatorId;
      readonly event: OperatorEvent;
    };

export interface JobTakeoverOptions {
  readonly jobId: JobId;
  readonly record: ExecutionRecord;
  readonly topology: ExecutionTopology;
  readonly slots: readonly SharedSlot[];
}

const reportsMax = 10_000;
const suspendedPollMs = 100;

export class JobTakeover implements Closeable {
  readonly #env: Env;
  readonly #resources: ResourceManager;
  readonly #options: JobTakeoverOptions;
  readonly #machine: JobAdoption;
  readonly #verdict = new Deferred<TakeoverVerdict | undefined>();
  readonly #startedAt: number;
  readonly #closing = new AbortController();
  /** Registrations whose TaskManagers were asked. */
  readonly #asked = new Map<TaskManagerId, number>();
  #reports: TaskReport[] = [];
  #hasLostReports = false;
  #stopWatching: (() => void) | undefined;
  #cancelWindow: CancelTimer | undefined;

  constructor(env: Env, resources: ResourceManager, options: JobTakeoverOptions) {
    this.#env = env;
    this.#resources = resources;
    this.#options = options;
    this.#machine = new JobAdoption(options.record, options.topology, options.slots);
    this.#startedAt = env.clock.now();
  }

  /** Resolves once; with undefined when closed before. */
  get verdict(): Promise<TakeoverVerdict | undefined> {
    return this.#verdict.promise;
  }

  get waitedMs(): number {
    return Math.round(this.#env.clock.now() - this.#startedAt);
  }

  start(): void {
    const { clock } = this.#env;
    this.#cancelWindow = clock.setTimer(this.#resources.reconnectWindowMs, () => {
      this.#step({ kind: 'windowElapsed' });
    });
    const look = (): void => {
      const presence = new Map(
        this.#machine.taskManagerIds.map((id) => [id, this.#resources.presence(id)] as const),
      );
      this.#step({ kind: 'taskManagersChanged', presence });
    };
    this.#stopWatching = this.#resources.onPresenceChanged(look);
    look();
  }

  checkpointRead(checkpointId: number): void {
    this.#step({ kind: 'checkpointRead', checkpointId });
  }

  /** Keeps a report for `takeReports`, unless the inventory that is still to come will tell it. */
  keep(report: TaskReport): void {
    const recorded = this.#options.record.attempts[report.attemptId];
    if (recorded === undefined || !this.#asked.has(recorded.taskManagerId)) return;
    if (this.#reports.length < reportsMax) {
      this.#reports.push(report);
      return;
    }
    // It may be decided already, and wait for the leader to act again.
    this.#hasLostReports = true;
    this.#step({ kind: 'tooManyEvents' });
  }

  /** What was reported since the inventories, in order. Repetitions that would do something twice are left out. */
  takeReports(plan: AdoptionPlan): TaskReport[] {
    const attempts = new Map(
      plan.flatMap((slot) => slot.attempts.map((one) => [one.attemptId, one] as const)),
    );
    // A reader is answered by nobody until then: it still waits for the split its inventory says it awaits.
    return this.#reports
      .splice(0)
      .filter(
        (report) =>
          report.kind !== 'operatorEvent' ||
          report.event.kind !== 'requestSplit' ||
          attempts.get(report.attemptId)?.readers[report.operatorId]?.awaitsSplit !== true,
      );
  }

  /** Why the plan cannot be carried out any more: since its inventories reports were lost. */
  whyOutdated(plan: AdoptionPlan): string | undefined {
    if (this.#hasLostReports) return 'its tasks reported more than is kept until they go on';
    const isCurrent = plan.every(({ taskManagerId, registration }) => {
      const presence = this.#resources.presence(taskManagerId);
      return presence.kind === 'registered' && presence.registration === registration;
    });
    return isCurrent ? undefined : 'a TaskManager was lost while the job was taken over';
  }

  async close(): Promise<void> {
    this.#stop();
    this.#closing.abort();
    this.#verdict.resolve(undefined);
    this.#reports = [];
  }

  #stop(): void {
    this.#stopWatching?.();
    this.#cancelWindow?.();
  }

  #step(input: JobAdoptionInput): void {
    for (const effect of this.#machine.step(input)) this.#execute(effect);
  }

  #execute(effect: JobAdoptionEffect): void {
    switch (effect.kind) {
      case 'requestInventory':
        void this.#requestInventory(effect.taskManagerId, effect.registration);
        return;
      case 'adopt':
      case 'restore':
        this.#stop();
        this.#verdict.resolve(effect);
    }
  }

  async #requestInventory(taskManagerId: TaskManagerId, registration: number): Promise<void> {
    const about = { taskManagerId, registration };
    this.#asked.set(taskManagerId, registration);
    while (!this.#closing.signal.aborted) {
      try {
        const gateway = this.#resources.gateway(taskManagerId);
        if (gateway === undefined || this.#asked.get(taskManagerId) !== registration) return;
        const { attempts } = await gateway.requestInventory({ jobId: this.#options.jobId });
        this.#step({ kind: 'inventoryReceived', ...about, attempts });
        return;
      } catch (error) {
        // The session ended: it registers again, or not.
        if (hasCode(error, 'RPC_DISCONNECTED')) return;
        if (!hasCode(error, 'LEADERSHIP_LOST')) {
          const reason = toFailure(error).message;
          this.#step({ kind: 'inventoryRefused', ...about, reason });
          return;
        }
        // Suspended: asked again when it may act.
        await sleep(this.#env.clock, suspendedPollMs, this.#closing.signal);
      }
    }
  }
}
