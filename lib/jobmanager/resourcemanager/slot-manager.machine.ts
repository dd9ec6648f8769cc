/**
 * The slots of all registered TaskManagers against what jobs require (pure). A job gets all the slots
 * it misses at once or none, so that two jobs never block each other with halves; jobs are served in
 * the order they came, and a job that does not fit lets later ones pass. Slots are taken from the
 * TaskManager with the largest share of free slots, which spreads a job evenly.
 *
 * What a TaskManager holds when it registers is of an earlier leader. It is kept (`held`) for a job that may go on
 * with its running tasks, until the job has claimed or given up what it had; all else is freed.
 *
 * Invariant: a slot is held by at most one allocation, an allocation holds exactly one slot.
 */
import { unreachable } from '../../base/assert.js';
import type { AllocationId, JobId, TaskManagerId } from '../../base/ids.js';
import type { SlotReport } from '../../gateway/taskmanager-gateway.js';

export type SlotManagerInput =
  | {
      readonly kind: 'taskManagerRegistered';
      readonly taskManagerId: TaskManagerId;
      readonly report: SlotReport;
    }
  | {
      readonly kind: 'taskManagerLost';
      readonly taskManagerId: TaskManagerId;
      readonly reason: string;
    }
  /** Of a heartbeat. */
  | {
      readonly kind: 'slotsReported';
      readonly taskManagerId: TaskManagerId;
      readonly report: SlotReport;
    }
  /** How many slots the job needs in all, those it holds included; 0 when it ends. */
  | { readonly kind: 'requirementsDeclared'; readonly jobId: JobId; readonly slots: number }
  | { readonly kind: 'slotConfirmed'; readonly allocationId: AllocationId }
  | { readonly kind: 'slotRefused'; readonly allocationId: AllocationId; readonly reason: string }
  /** The job gives a slot back. */
  | { readonly kind: 'slotReleased'; readonly allocationId: AllocationId; readonly cause: string }
  /** The TaskManager confirmed that the slot is empty. */
  | {
      readonly kind: 'slotFreed';
      readonly taskManagerId: TaskManagerId;
      readonly allocationId: AllocationId;
    }
  /** The TaskManager did not confirm: its next report says what holds the slot. */
  | {
      readonly kind: 'slotNotFreed';
      readonly taskManagerId: TaskManagerId;
      readonly allocationId: AllocationId;
    }
  /** The job goes on with these of the slots it held under an earlier leader; its other ones are freed. */
  | {
      readonly kind: 'heldClaimed';
      readonly jobId: JobId;
      readonly allocationIds: readonly AllocationId[];
    }
  /** The job goes on with none of them, now or later. */
  | { readonly kind: 'heldDiscarded'; readonly jobId: JobId; readonly cause: string }
  /** All that is stored of jobs was read: what others than these hold belongs to nobody. */
  | { readonly kind: 'jobsRecovered'; readonly jobIds: readonly JobId[] }
  /** After a takeover slots are handed out only when the expected TaskManagers are there, or the wait is over. */
  | { readonly kind: 'allocationOpened' };

export type SlotManagerEffect =
  | {
      readonly kind: 'requestSlot';
      readonly taskManagerId: TaskManagerId;
      readonly slotIndex: number;
      readonly jobId: JobId;
      readonly allocationId: AllocationId;
    }
  | {
      readonly kind: 'freeSlot';
      readonly taskManagerId: TaskManagerId;
      readonly allocationId: AllocationId;
      readonly cause: string;
    }
  | {
      readonly kind: 'slotAllocated';
      readonly jobId: JobId;
      readonly taskManagerId: TaskManagerId;
      readonly allocationId: AllocationId;
      /** Ascends in the order of allocation, which alternates between TaskManagers; confirmations do not. */
      readonly sequence: number;
    }
  | {
      readonly kind: 'slotsLost';
      readonly jobId: JobId;
      readonly allocationIds: readonly AllocationId[];
      readonly reason: string;
    };

type SlotState =
  | { readonly kind: 'free' }
  /** Asked of the TaskManager, not confirmed. */
  | {
      readonly kind: 'pending';
      readonly jobId: JobId;
      readonly allocationId: AllocationId;
      readonly sequence: number;
    }
  | {
      readonly kind: 'allocated';
      readonly jobId: JobId;
      readonly allocationId: AllocationId;
      readonly isMissing: boolean;
    }
  /** In use by tasks of an earlier leader, for whose job it has not been decided whether it goes on with them. */
  | { readonly kind: 'held'; readonly jobId: JobId; readonly allocationId: AllocationId }
  | { readonly kind: 'releasing'; readonly allocationId: AllocationId }
  /** Out of use until the TaskManager's next report; `reason` is its refusal, where it gave one. */
  | { readonly kind: 'unknown'; readonly reason?: string };

interface TaskManagerSlots {
  readonly id: TaskManagerId;
  readonly slots: SlotState[];
}

interface Place {
  readonly taskManager: TaskManagerSlots;
  readonly index: number;
}

export interface SlotManagerView {
  readonly total: number;
  readonly free: number;
}

export interface SlotManagerOptions {
  readonly newAllocationId: () => AllocationId;
  /** False to hold allocations until `allocationOpened`. Default true. */
  readonly isOpen?: boolean;
  /** Whether slots are kept for jobs of an earlier leader. Default false: they are freed at once. */
  readonly keepsHeld?: boolean;
}

export class SlotManager {
  readonly #newAllocationId: () => AllocationId;
  readonly #keepsHeld: boolean;
  /** In order of registration. */
  readonly #taskManagers = new Map<TaskManagerId, TaskManagerSlots>();
  /** In order of submission. */
  readonly #requirements = new Map<JobId, number>();
  readonly #places = new Map<AllocationId, Place>();
  /** Jobs that have claimed or given up what they held. */
  readonly #settled = new Set<JobId>();
  /** Jobs of earlier leaders; undefined while they are being read. */
  #recovered: ReadonlySet<JobId> | undefined;
  #isOpen: boolean;
  #sequence = 0;
  #effects: SlotManagerEffect[] = [];

  constructor({ newAllocationId, isOpen = true, keepsHeld = false }: SlotManagerOptions) {
    this.#newAllocationId = newAllocationId;
    this.#isOpen = isOpen;
    this.#keepsHeld = keepsHeld;
  }

  step(input: SlotManagerInput): readonly SlotManagerEffect[] {
    this.#effects = [];
    this.#take(input);
    this.#allocate();
    return this.#effects;
  }

  view(taskManagerId?: TaskManagerId): SlotManagerView {
    const states = [...this.#taskManagers.values()]
      .filter(({ id }) => taskManagerId === undefined || id === taskManagerId)
      .flatMap(({ slots }) => slots);
    return { total: states.length, free: states.filter(({ kind }) => kind === 'free').length };
  }

  allocations(
    taskManagerId: TaskManagerId,
  ): { index: number; jobId: JobId; allocationId: AllocationId }[] {
    const slots = this.#taskManagers.get(taskManagerId)?.slots ?? [];
    return slots.flatMap((slot, index) =>
      slot.kind === 'pending' || slot.kind === 'allocated' || slot.kind === 'held'
        ? [{ index, jobId: slot.jobId, allocationId: slot.allocationId }]
        : [],
    );
  }

  /** For people: why the job does not get its slots. Undefined when it lacks none. */
  shortage(jobId: JobId): string | undefined {
    const needed = this.#requirements.get(jobId) ?? 0;
    const held = this.#heldBy(jobId);
    if (held >= needed) return undefined;
    const slots = [...this.#taskManagers.values()].flatMap((one) => one.slots);
    const exist = `needs ${count(needed)}, ${String(slots.length)} exist`;
    if (slots.length < needed) return exist;
    const taken = slots.filter((slot) => 'jobId' in slot && slot.jobId !== jobId).length;
    const said = `${exist}, of which ${String(taken)} are in use by other jobs`;
    const closed = slots.filter(({ kind }) => kind === 'releasing' || kind === 'unknown').length;
    if (closed === 0) return said;
    const refusal = slots.flatMap((slot) =>
      slot.kind === 'unknown' ? (slot.reason ?? []) : [],
    )[0];
    return `${said} and ${String(closed)} cannot be used yet${refusal === undefined ? '' : `: ${refusal}`}`;
  }

  #take(input: SlotManagerInput): void {
    switch (input.kind) {
      case 'taskManagerRegistered':
        return this.#onRegistered(input.taskManagerId, input.report);
      case 'taskManagerLost':
        return this.#onLost(input.taskManagerId, input.reason);
      case 'slotsReported':
        return this.#onReport(input.taskManagerId, input.report);
      case 'requirementsDeclared':
        if (input.slots > 0) this.#requirements.set(input.jobId, input.slots);
        else this.#requirements.delete(input.jobId);
        return;
      case 'slotConfirmed':
        return this.#onConfirmed(input.allocationId);
      case 'slotRefused':
        return this.#onRefused(input.allocationId, input.reason);
      case 'slotReleased':
        return this.#onReleased(input.allocationId, input.cause);
      case 'slotFreed':
        return this.#onFreed(input.taskManagerId, input.allocationId, { kind: 'free' });
      case 'slotNotFreed':
        return this.#onFreed(input.taskManagerId, input.allocationId, { kind: 'unknown' });
      case 'heldClaimed':
        return this.#onClaimed(input.jobId, new Set(input.allocationIds));
      case 'heldDiscarded':
        this.#settled.add(input.jobId);
        return this.#releaseHeld((slot) => slot.jobId === input.jobId, input.cause);
      case 'jobsRecovered':
        return this.#onJobsRecovered(new Set(input.jobIds));
      case 'allocationOpened':
        this.#isOpen = true;
        return;
      default:
        return unreachable(input);
    }
  }

  #onRegistered(id: TaskManagerId, report: SlotReport): void {
    if (this.#taskManagers.has(id)) this.#onLost(id, 'the TaskManager registered again');
    const taskManager: TaskManagerSlots = {
      id,
      slots: report.slots.map((): SlotState => ({ kind: 'free' })),
    };
    this.#taskManagers.set(id, taskManager);
    for (const { slotIndex, allocationId, jobId } of report.slots) {
      if (allocationId === undefined) continue;
      const place = { taskManager, index: slotIndex };
      if (jobId !== undefined && this.#mayClaim(jobId)) {
        this.#places.set(allocationId, place);
        taskManager.slots[slotIndex] = { kind: 'held', jobId, allocationId };
      } else this.#release(place, allocationId, 'no job of this leader holds the slot');
    }
  }

  /** A job that has not settled was given nothing by this leader yet: nothing of it was declared lost. */
  #mayClaim(jobId: JobId): boolean {
    if (!this.#keepsHeld || this.#settled.has(jobId)) return false;
    return this.#recovered === undefined || this.#recovered.has(jobId);
  }

  #onClaimed(jobId: JobId, claimed: ReadonlySet<AllocationId>): void {
    this.#settled.add(jobId);
    const missing: AllocationId[] = [];
    for (const allocationId of claimed) {
      const place = this.#places.get(allocationId);
      const slot = place?.taskManager.slots[place.index];
      if (place === undefined || slot?.kind !== 'held' || slot.jobId !== jobId)
        missing.push(allocationId);
      else
        place.taskManager.slots[place.index] = {
          kind: 'allocated',
          jobId,
          allocationId,
          isMissing: false,
        };
    }
    this.#releaseHeld((slot) => slot.jobId === jobId, 'the job does not run there');
    if (missing.length === 0) return;
    const reason = 'the TaskManager was lost while the job was taken over';
    this.#effects.push({ kind: 'slotsLost', jobId, allocationIds: missing, reason });
  }

  #onJobsRecovered(jobIds: ReadonlySet<JobId>): void {
    this.#recovered = jobIds;
    this.#releaseHeld((slot) => !jobIds.has(slot.jobId), 'no job of this leader holds the slot');
  }

  #releaseHeld(
    isMeant: (slot: Extract<SlotState, { kind: 'held' }>) => boolean,
    cause: string,
  ): void {
    for (const [allocationId, place] of [...this.#places]) {
      const slot = place.taskManager.slots[place.index];
      if (slot?.kind === 'held' && isMeant(slot)) this.#release(place, allocationId, cause);
    }
  }

  #onLost(id: TaskManagerId, reason: string): void {
    const taskManager = this.#taskManagers.get(id);
    if (taskManager === undefined) return;
    this.#taskManagers.delete(id);
    const lost = new Map<JobId, AllocationId[]>();
    for (const slot of taskManager.slots) {
      if ('allocationId' in slot) this.#places.delete(slot.allocationId);
      if (slot.kind !== 'allocated') continue;
      lost.set(slot.jobId, [...(lost.get(slot.jobId) ?? []), slot.allocationId]);
    }
    for (const [jobId, allocationIds] of lost)
      this.#effects.push({ kind: 'slotsLost', jobId, allocationIds, reason });
  }

  #onReport(id: TaskManagerId, report: SlotReport): void {
    const taskManager = this.#taskManagers.get(id);
    if (taskManager === undefined) return;
    for (const { slotIndex, allocationId } of report.slots) {
      const slot = taskManager.slots[slotIndex];
      if (slot === undefined) continue;
      const place = { taskManager, index: slotIndex };
      if (slot.kind === 'allocated' && slot.allocationId !== allocationId)
        this.#onMismatch(place, slot);
      else if (slot.kind === 'allocated' && slot.isMissing)
        taskManager.slots[slotIndex] = { ...slot, isMissing: false };
      else if (slot.kind === 'held' && slot.allocationId !== allocationId)
        this.#onHeldGone(place, slot.allocationId, allocationId);
      else if (slot.kind === 'free' || slot.kind === 'unknown') {
        if (allocationId === undefined) taskManager.slots[slotIndex] = { kind: 'free' };
        else this.#release(place, allocationId, 'no job holds the slot');
      }
    }
  }

  /** The TaskManager gave it up before the job could claim it. */
  #onHeldGone(place: Place, was: AllocationId, is: AllocationId | undefined): void {
    this.#places.delete(was);
    if (is === undefined) place.taskManager.slots[place.index] = { kind: 'free' };
    else this.#release(place, is, 'no job holds the slot');
  }

  /** One report may have been on its way when the slot was confirmed; a second one is the truth. */
  #onMismatch(
    { taskManager, index }: Place,
    slot: Extract<SlotState, { kind: 'allocated' }>,
  ): void {
    if (!slot.isMissing) {
      taskManager.slots[index] = { ...slot, isMissing: true };
      return;
    }
    this.#places.delete(slot.allocationId);
    taskManager.slots[index] = { kind: 'unknown' };
    const reason = `TaskManager ${taskManager.id} no longer has the slot`;
    this.#effects.push({
      kind: 'slotsLost',
      jobId: slot.jobId,
      allocationIds: [slot.allocationId],
      reason,
    });
  }

  #onConfirmed(allocationId: AllocationId): void {
    const place = this.#places.get(allocationId);
    const slot = place?.taskManager.slots[place.index];
    if (place === undefined || slot?.kind !== 'pending') return;
    const { jobId, sequence } = slot;
    // The job ended while the TaskManager was asked.
    if (!this.#requirements.has(jobId))
      return this.#release(place, allocationId, 'the job has ended');
    place.taskManager.slots[place.index] = {
      kind: 'allocated',
      jobId,
      allocationId,
      isMissing: false,
    };
    const taskManagerId = place.taskManager.id;
    this.#effects.push({ kind: 'slotAllocated', jobId, taskManagerId, allocationId, sequence });
  }

  #onRefused(allocationId: AllocationId, reason: string): void {
    const place = this.#places.get(allocationId);
    if (place?.taskManager.slots[place.index]?.kind !== 'pending') return;
    this.#places.delete(allocationId);
    place.taskManager.slots[place.index] = { kind: 'unknown', reason };
  }

  #onReleased(allocationId: AllocationId, cause: string): void {
    const place = this.#places.get(allocationId);
    const slot = place?.taskManager.slots[place.index];
    if (place === undefined || slot?.kind !== 'allocated') return;
    this.#release(place, allocationId, cause);
  }

  #onFreed(id: TaskManagerId, allocationId: AllocationId, state: SlotState): void {
    const slots = this.#taskManagers.get(id)?.slots;
    const index =
      slots?.findIndex((slot) => slot.kind === 'releasing' && slot.allocationId === allocationId) ??
      -1;
    if (slots === undefined || index < 0) return;
    slots[index] = state;
  }

  #release({ taskManager, index }: Place, allocationId: AllocationId, cause: string): void {
    this.#places.delete(allocationId);
    taskManager.slots[index] = { kind: 'releasing', allocationId };
    this.#effects.push({ kind: 'freeSlot', taskManagerId: taskManager.id, allocationId, cause });
  }

  #allocate(): void {
    if (!this.#isOpen) return;
    for (const [jobId, needed] of this.#requirements) {
      const missing = needed - this.#heldBy(jobId);
      if (missing <= 0 || missing > this.view().free) continue;
      for (let i = 0; i < missing; i++) this.#takeSlot(jobId);
    }
  }

  #takeSlot(jobId: JobId): void {
    let best: TaskManagerSlots | undefined;
    let bestShare = 0;
    for (const taskManager of this.#taskManagers.values()) {
      const free = taskManager.slots.filter(({ kind }) => kind === 'free').length;
      const share = free / taskManager.slots.length;
      if (free > 0 && share > bestShare) [best, bestShare] = [taskManager, share];
    }
    if (best === undefined) return;
    const index = best.slots.findIndex(({ kind }) => kind === 'free');
    const allocationId = this.#newAllocationId();
    this.#sequence += 1;
    best.slots[index] = { kind: 'pending', jobId, allocationId, sequence: this.#sequence };
    this.#places.set(allocationId, { taskManager: best, index });
    this.#effects.push({
      kind: 'requestSlot',
      taskManagerId: best.id,
      slotIndex: index,
      jobId,
      allocationId,
    });
  }

  #heldBy(jobId: JobId): number {
    let held = 0;
    for (const { taskManager, index } of this.#places.values()) {
      const slot = taskManager.slots[index];
      if (slot !== undefined && 'jobId' in slot && slot.jobId === jobId) held += 1;
    }
    return held;
  }
}

function count(slots: number): string {
  return slots === 1 ? '1 slot' : `${String(slots)} slots`;
}
