/**
 * How a job comes up under a leader: it goes on with tasks that run since an earlier one, or all its tasks are started
 * from a checkpoint. Reads the checkpoint and asks for what runs at the same time.
 */
import type { CheckpointCoordinator } from '../../../checkpoint/coordinator/checkpoint-coordinator.js';
import type {
  CheckpointIdCounter,
  CheckpointPointer,
  ExecutionRecord,
} from '../../../ha/services.js';
import type { Env } from '../../base/env.js';
import { toFailure } from '../../base/errors.js';
import type { JobId } from '../../base/ids.js';
import type { CloseableRegistry } from '../../base/lifecycle.js';
import { exceptionInfo, type ExceptionHistory } from '../executiongraph/exception-history.js';
import type {
  ExecutionGraph,
  ExecutionGraphInput,
} from '../executiongraph/execution-graph.machine.js';
import type { ExecutionTopology } from '../executiongraph/execution-topology.js';
import type { SharedSlot } from '../executiongraph/slot-sharing.js';
import type { ResourceManager, SlotOwner } from '../resourcemanager/resource-manager.js';
import { adoptedAttempts } from './adopted-attempts.js';
import type { AdoptionPlan } from './job-adoption.machine.js';
import type { JobRecovered } from './job-master-options.js';
import type { JobRecovery, StartingPoint } from './job-recovery.js';
import type { JobSlots } from './job-slots.js';
import { JobTakeover, type TakeoverVerdict, type TaskReport } from './job-takeover.js';
import type { AdoptionTerms, SlotCommands } from './slot-commands.js';
import type { SourceCoordinators } from './source-coordinators.js';

export interface JobStartDeps {
  readonly jobId: JobId;
  readonly resources: ResourceManager;
  readonly owner: SlotOwner;
  readonly execution: ExecutionGraph;
  readonly topology: ExecutionTopology;
  readonly slots: readonly SharedSlot[];
  readonly history: ExceptionHistory;
  readonly slotPool: JobSlots;
  readonly commands: SlotCommands;
  readonly sources: SourceCoordinators;
  readonly recovery: JobRecovery;
  readonly ids: CheckpointIdCounter;
  readonly registry: CloseableRegistry;
  /** The last recorded attempts: it has run before. */
  readonly record: ExecutionRecord | undefined;
  readonly epochLabel: string;
  /** Replaces the job's checkpoint coordinator by one for the graph as recovered so far. */
  readonly openCheckpoints: () => CheckpointCoordinator;
  /** Runs `task` in the JobMaster's mailbox, when it may act. */
  readonly run: (task: () => void) => void;
  readonly apply: (input: ExecutionGraphInput) => void;
  /** As `apply`, of what runs in the mailbox already. */
  readonly step: (input: ExecutionGraphInput) => void;
  /** The leadership or the job is over: whatever failed is no failure of the job. */
  readonly isOver: (error: unknown) => boolean;
  readonly onReport: (report: TaskReport) => void;
  readonly onSettled: (how: JobRecovered) => void;
}

interface ReadCheckpoint extends StartingPoint {
  readonly pointers: readonly CheckpointPointer[];
}

export class JobStart {
  readonly #env: Env;
  readonly #deps: JobStartDeps;
  /** While it is found out whether running tasks go on. */
  #takeover: JobTakeover | undefined;
  #recovered: JobRecovered | undefined;
  #firstGeneration: number;
  #isClosed = false;

  constructor(env: Env, deps: JobStartDeps) {
    this.#env = env;
    this.#deps = deps;
    this.#firstGeneration = (deps.record?.generation ?? -1) + 1;
  }

  /** How the job came up; undefined until that is known. */
  get recovered(): JobRecovered | undefined {
    return this.#recovered;
  }

  get isTakingOver(): boolean {
    return this.#takeover !== undefined;
  }

  /** Of the tasks that run first under this leader. */
  get firstGeneration(): number {
    return this.#firstGeneration;
  }

  begin(): void {
    const { jobId, record, resources, registry, topology, slots } = this.#deps;
    if (record === undefined || !resources.mayAdopt) {
      this.#needSlots('the job starts anew');
      registry.run('start the job', this.#schedule(this.#readCheckpoint()));
      return;
    }
    const takeover = new JobTakeover(this.#env, resources, { jobId, record, topology, slots });
    this.#takeover = takeover;
    takeover.start();
    registry.run('take over the job', this.#takeOver(takeover));
  }

  /** Whether a report of a task waits until it is decided if the task goes on. */
  keep(report: TaskReport): boolean {
    this.#takeover?.keep(report);
    return this.#takeover !== undefined;
  }

  allRunning(): void {
    this.settle(this.#deps.record === undefined ? 'new' : 'restored');
  }

  settle(how: JobRecovered): void {
    if (this.#recovered !== undefined) return;
    this.#recovered = how;
    this.#deps.onSettled(how);
  }

  /** The job or the leadership is over. */
  close(): void {
    this.#isClosed = true;
    void this.#takeover?.close();
    this.#takeover = undefined;
  }

  /** Slots and the coordinator's thread come while the checkpoint is read. */
  #needSlots(cause: string): void {
    const { jobId, resources, sources, execution, owner } = this.#deps;
    resources.discardHeld(jobId, cause);
    sources.warmUp();
    resources.declareRequirements(jobId, execution.slotCount, owner);
  }

  async #schedule(reading: Promise<ReadCheckpoint | undefined>): Promise<void> {
    if ((await reading) === undefined || this.#isClosed) return;
    this.#deps.openCheckpoints();
    this.#deps.apply({ kind: 'started' });
  }

  /** Comes first: its numbers of key groups are part of every later checkpoint. Undefined when the job is over. */
  async #readCheckpoint(): Promise<ReadCheckpoint | undefined> {
    const reader = this.#deps.openCheckpoints();
    try {
      const point = await this.#deps.recovery.initialize();
      return { ...point, pointers: reader.pointers };
    } catch (error) {
      if (!this.#deps.isOver(error)) {
        this.#deps.apply({ kind: 'failedGlobally', failure: toFailure(error) });
      }
      return undefined;
    } finally {
      await reader.close();
    }
  }

  // ---- Taking over -----------------------------------------------------------------------------

  async #takeOver(takeover: JobTakeover): Promise<void> {
    const isSettled = this.#deps.resources.beginTakeover();
    // Before a checkpoint somebody named is read, which takes ids.
    const bound = this.#deps.recovery.takeAbortBound(this.#deps.ids);
    const reading = this.#readCheckpoint();
    // Awaited only when the job is adopted.
    bound.catch(() => undefined);
    try {
      void reading.then((read) => {
        if (read !== undefined) takeover.checkpointRead(read.checkpoint?.pointer.checkpointId ?? 0);
      });
      const verdict = await takeover.verdict;
      if (verdict === undefined) return;
      if (verdict.kind === 'restore') {
        this.#deps.run(() => {
          this.#restoreInstead(verdict, reading);
        });
        return;
      }
      const [read, abortBound] = await Promise.all([reading, bound]);
      if (read === undefined || abortBound === undefined) return;
      this.#deps.run(() => {
        this.#adopt(takeover, verdict.plan, read, abortBound);
      });
    } catch (error) {
      if (this.#deps.isOver(error)) return;
      const reason = `no checkpoint could be begun: ${toFailure(error).message}`;
      this.#deps.run(() => {
        this.#restoreInstead({ reason }, reading);
      });
    } finally {
      isSettled();
    }
  }

  #restoreInstead(
    { reason, failure }: Omit<Extract<TakeoverVerdict, { kind: 'restore' }>, 'kind'>,
    reading: Promise<ReadCheckpoint | undefined>,
  ): void {
    this.#takeover = undefined;
    if (this.#deps.execution.status !== 'INITIALIZING') return;
    this.#env.log.info(
      { event: 'job.adoption-refused', reason, failure: failure?.message },
      'the job is restored, as its tasks cannot go on',
    );
    if (failure !== undefined)
      this.#deps.history.addRoot(exceptionInfo(failure, this.#env.clock.wallTime()));
    this.#needSlots(`the job is restored: ${reason}`);
    this.#deps.registry.run('start the job', this.#schedule(reading));
  }

  /** All that must not be seen half done: from here on the job is as if this JobMaster had deployed it. */
  #adopt(
    takeover: JobTakeover,
    plan: AdoptionPlan,
    read: ReadCheckpoint,
    abortBound: number,
  ): void {
    const { execution, resources, sources, recovery, slotPool } = this.#deps;
    if (execution.status !== 'INITIALIZING') return;
    const reason = takeover.whyOutdated(plan);
    if (reason !== undefined) {
      this.#restoreInstead({ reason }, Promise.resolve(read));
      return;
    }
    this.#takeover = undefined;
    this.#firstGeneration = execution.generation;
    this.#deps.openCheckpoints().goOn(read.pointers);
    const { attempts, slots, readers } = adoptedAttempts(
      plan,
      this.#deps.topology,
      (id) => resources.dataAddress(id) ?? '',
    );
    const allocationIds = plan.map(({ allocationId }) => allocationId);
    resources.claimHeld(this.#deps.jobId, allocationIds, this.#deps.owner);
    slotPool.step({ kind: 'slotsAdopted', slots });
    this.#deps.step({ kind: 'adopted', attempts });
    sources.adopt({
      checkpointId: read.checkpoint?.pointer.checkpointId ?? 0,
      readers,
      states: () => recovery.adoptedEnumeratorStates(read.checkpoint),
      mayStart: resources.takeoversOver(),
    });
    for (const report of takeover.takeReports(plan)) this.#deps.onReport(report);
    const terms = {
      epochLabel: this.#deps.epochLabel,
      completedCheckpointId: read.isOwn ? (read.checkpoint?.pointer.checkpointId ?? 0) : 0,
      abortedCheckpointId: abortBound,
    };
    this.#deps.registry.run('adopt tasks', this.#adoptSlots(plan, terms, takeover.waitedMs));
  }

  async #adoptSlots(plan: AdoptionPlan, terms: AdoptionTerms, waitedMs: number): Promise<void> {
    const running = plan.filter((slot) => slot.attempts.some(({ state }) => state === 'RUNNING'));
    await Promise.all(running.map(({ slotKey }) => this.#deps.commands.adopt(slotKey, terms)));
    this.#deps.run(() => {
      if (this.#deps.execution.status !== 'RECONCILING') return;
      this.#env.log.info(
        {
          event: 'job.adopted',
          generation: this.#deps.execution.generation,
          attempts: this.#deps.execution.vertices.length,
          waitedMs,
          checkpointId: terms.completedCheckpointId,
          wallTime: this.#env.clock.wallTime(),
        },
        'the job goes on with its running tasks',
      );
      this.settle('adopted');
      this.#deps.step({ kind: 'adoptionCompleted' });
    });
  }
}
