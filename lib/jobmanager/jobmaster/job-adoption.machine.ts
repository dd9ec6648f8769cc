/**
 * Decides whether a new leader goes on with the tasks of a job that run since an earlier one, or restores the job
 * (pure). Adopt if and only if the recorded attempts are exactly one for each subtask, each is reported RUNNING or
 * FINISHED by the TaskManager and in the slot recorded, none that runs is older than the latest completed checkpoint,
 * and none knows of a later one: what is stored is of an earlier time then (etcd restored from a backup). What
 * contradicts the record decides at once; what is only missing is waited for until the window ends.
 */
import { unreachable } from '../../base/assert.js';
import type { Failure } from '../../base/errors.js';
import type { AllocationId, AttemptId, OperatorId, TaskManagerId } from '../../base/ids.js';
import type { ExecutionRecord } from '../../../ha/services.js';
import type { AttemptInventory, ReaderInventory } from '../../gateway/taskmanager-gateway.js';
import type { ExecutionTopology } from '../executiongraph/execution-topology.js';
import type { SharedSlot } from '../executiongraph/slot-sharing.js';
import type { TaskManagerPresence } from '../resourcemanager/task-manager-presence.js';

/** One attempt that goes on. */
export interface PlannedAttempt {
  readonly position: number;
  readonly attemptId: AttemptId;
  readonly attemptNumber: number;
  readonly generation: number;
  readonly state: 'RUNNING' | 'FINISHED';
  readonly endOfData: boolean;
  readonly readers: Readonly<Record<OperatorId, ReaderInventory>>;
}

export interface PlannedSlot {
  readonly slotKey: string;
  readonly taskManagerId: TaskManagerId;
  /** The inventory came over this registration: events of another one are not in order with it. */
  readonly registration: number;
  readonly allocationId: AllocationId;
  readonly attempts: readonly PlannedAttempt[];
}

export type AdoptionPlan = readonly PlannedSlot[];

export type JobAdoptionInput =
  /** Of every TaskManager of the record. */
  | {
      readonly kind: 'taskManagersChanged';
      readonly presence: ReadonlyMap<TaskManagerId, TaskManagerPresence>;
    }
  | {
      readonly kind: 'inventoryReceived';
      readonly taskManagerId: TaskManagerId;
      readonly registration: number;
      readonly attempts: readonly AttemptInventory[];
    }
  | {
      readonly kind: 'inventoryRefused';
      readonly taskManagerId: TaskManagerId;
      readonly registration: number;
      readonly reason: string;
    }
  /** The checkpoint a restore would begin from; 0 when there is none. */
  | { readonly kind: 'checkpointRead'; readonly checkpointId: number }
  /** high-availability.taskmanager-reconnect-window. */
  | { readonly kind: 'windowElapsed' }
  /** More events of running tasks wait for the decision than are kept. */
  | { readonly kind: 'tooManyEvents' };

export type JobAdoptionEffect =
  | {
      readonly kind: 'requestInventory';
      readonly taskManagerId: TaskManagerId;
      readonly registration: number;
    }
  | { readonly kind: 'adopt'; readonly plan: AdoptionPlan }
  /** `failure`: of the task because of which. */
  | { readonly kind: 'restore'; readonly reason: string; readonly failure?: Failure };

interface Recorded {
  readonly position: number;
  readonly attemptId: AttemptId;
  readonly taskManagerId: TaskManagerId;
  readonly allocationId: AllocationId;
  readonly attemptNumber: number;
  readonly generation: number;
}

interface TaskManager {
  presence: TaskManagerPresence;
  /** The registration that was asked for its inventory. */
  asked: number | undefined;
  inventory: ReadonlyMap<AttemptId, AttemptInventory> | undefined;
}

export class JobAdoption {
  readonly #slots: readonly SharedSlot[];
  /** By position; undefined when the record does not fit the job. */
  readonly #recorded: readonly Recorded[] | string;
  readonly #taskManagers: ReadonlyMap<TaskManagerId, TaskManager>;
  #checkpointId: number | undefined;
  #isWindowOver = false;
  #isDecided = false;

  constructor(record: ExecutionRecord, topology: ExecutionTopology, slots: readonly SharedSlot[]) {
    this.#slots = slots;
    this.#recorded = readRecord(record, topology, slots);
    this.#taskManagers = new Map(
      Object.values(record.attempts).map(({ taskManagerId }) => [
        taskManagerId,
        { presence: { kind: 'awaited' }, asked: undefined, inventory: undefined },
      ]),
    );
  }

  /** Those the record names. */
  get taskManagerIds(): readonly TaskManagerId[] {
    return [...this.#taskManagers.keys()];
  }

  step(input: JobAdoptionInput): readonly JobAdoptionEffect[] {
    if (this.#isDecided) return [];
    if (typeof this.#recorded === 'string') return this.#restore(this.#recorded);
    switch (input.kind) {
      case 'taskManagersChanged':
        return this.#onTaskManagers(input.presence);
      case 'inventoryReceived':
        return this.#onInventory(input);
      case 'inventoryRefused':
        return this.#isAsked(input)
          ? this.#restore(
              `TaskManager ${input.taskManagerId} does not say what it runs: ${input.reason}`,
            )
          : [];
      case 'checkpointRead':
        this.#checkpointId = input.checkpointId;
        return this.#decide();
      case 'windowElapsed':
        this.#isWindowOver = true;
        return this.#decide();
      case 'tooManyEvents':
        return this.#restore('its tasks report more than is kept until it is decided');
      default:
        return unreachable(input);
    }
  }

  #onTaskManagers(
    presence: ReadonlyMap<TaskManagerId, TaskManagerPresence>,
  ): readonly JobAdoptionEffect[] {
    const effects: JobAdoptionEffect[] = [];
    for (const [taskManagerId, taskManager] of this.#taskManagers) {
      const now = presence.get(taskManagerId) ?? taskManager.presence;
      taskManager.presence = now;
      if (now.kind === 'gone')
        return this.#restore(`TaskManager ${taskManagerId}, where it had tasks, ${now.reason}`);
      if (now.kind === 'awaited') taskManager.asked = taskManager.inventory = undefined;
      else if (taskManager.asked !== now.registration) {
        taskManager.asked = now.registration;
        taskManager.inventory = undefined;
        effects.push({
          kind: 'requestInventory',
          taskManagerId,
          registration: now.registration,
        });
      }
    }
    return [...effects, ...this.#decide()];
  }

  #onInventory(
    input: Extract<JobAdoptionInput, { kind: 'inventoryReceived' }>,
  ): readonly JobAdoptionEffect[] {
    const taskManager = this.#taskManagers.get(input.taskManagerId);
    if (taskManager === undefined || !this.#isAsked(input)) return [];
    taskManager.inventory = new Map(input.attempts.map((one) => [one.attemptId, one]));
    return this.#decide();
  }

  #isAsked(input: { taskManagerId: TaskManagerId; registration: number }): boolean {
    return this.#taskManagers.get(input.taskManagerId)?.asked === input.registration;
  }

  #decide(): readonly JobAdoptionEffect[] {
    if (typeof this.#recorded === 'string') return this.#restore(this.#recorded);
    const found = new Map<number, PlannedAttempt>();
    for (const recorded of this.#recorded) {
      const attempt = this.#taskManagers.get(recorded.taskManagerId)?.inventory;
      if (attempt === undefined) continue;
      const checked = this.#check(recorded, attempt.get(recorded.attemptId));
      if ('reason' in checked) return this.#restore(checked.reason, checked.failure);
      found.set(recorded.position, checked);
    }
    if (this.#isWindowOver) {
      const missing = [...this.#taskManagers].find(([, { inventory }]) => inventory === undefined);
      if (missing !== undefined)
        return this.#restore(`TaskManager ${missing[0]}, where it had tasks, did not come back`);
    }
    if (found.size < this.#recorded.length || this.#checkpointId === undefined) return [];
    this.#isDecided = true;
    return [{ kind: 'adopt', plan: this.#plan(this.#recorded, found) }];
  }

  #check(
    { position, attemptId, allocationId, attemptNumber, generation }: Recorded,
    reported: AttemptInventory | undefined,
  ): PlannedAttempt | { readonly reason: string; readonly failure?: Failure } {
    if (reported === undefined) return { reason: `its TaskManager does not run ${attemptId}` };
    const { state, lastCheckpointId, completedCheckpointId, endOfData, readers, failure } =
      reported;
    if (reported.allocationId !== allocationId)
      return { reason: `${attemptId} runs in another slot than the recorded one` };
    if (state !== 'RUNNING' && state !== 'FINISHED')
      return { reason: `${attemptId} is ${state}`, ...(failure !== undefined && { failure }) };
    // What has finished took part in its last checkpoint; later ones know it as finished.
    if (state === 'RUNNING' && lastCheckpointId < (this.#checkpointId ?? 0)) {
      const latest = String(this.#checkpointId);
      return {
        reason: `${attemptId} knows checkpoint ${String(lastCheckpointId)}, the latest is ${latest}`,
      };
    }
    // Enumerators would begin from an older one, and the splits in between are not told any more.
    if (this.#checkpointId !== undefined && completedCheckpointId > this.#checkpointId) {
      const [told, latest] = [String(completedCheckpointId), String(this.#checkpointId)];
      return {
        reason: `${attemptId} was told that checkpoint ${told} is complete, the latest stored is ${latest}`,
      };
    }
    return { position, attemptId, attemptNumber, generation, state, endOfData, readers };
  }

  #plan(recorded: readonly Recorded[], found: ReadonlyMap<number, PlannedAttempt>): AdoptionPlan {
    return this.#slots.flatMap(({ key, positions }) => {
      const [first] = positions.map((position) => recorded[position]);
      const presence = first && this.#taskManagers.get(first.taskManagerId)?.presence;
      if (first === undefined || presence?.kind !== 'registered') return [];
      return [
        {
          slotKey: key,
          taskManagerId: first.taskManagerId,
          registration: presence.registration,
          allocationId: first.allocationId,
          attempts: positions.flatMap((position) => found.get(position) ?? []),
        },
      ];
    });
  }

  #restore(reason: string, failure?: Failure): readonly JobAdoptionEffect[] {
    this.#isDecided = true;
    return [{ kind: 'restore', reason, ...(failure !== undefined && { failure }) }];
  }
}

/** The attempts by position, or why the record does not fit the job: the leader died while it was written anew. */
function readRecord(
  record: ExecutionRecord,
  topology: ExecutionTopology,
  slots: readonly SharedSlot[],
): readonly Recorded[] | string {
  const byPosition = new Map<number, Recorded>();
  for (const [id, { taskManagerId, allocationId, attemptNumber }] of Object.entries(
    record.attempts,
  )) {
    const attempt = parseAttemptId(id, topology);
    if (attempt === undefined) return `it has no subtask for the recorded attempt ${id}`;
    if (byPosition.has(attempt.position)) return `two attempts are recorded for one subtask: ${id}`;
    byPosition.set(attempt.position, {
      ...attempt,
      taskManagerId,
      allocationId: allocationId as AllocationId,
      attemptNumber,
    });
  }
  const recorded = topology.subtasks.flatMap(({ position }) => byPosition.get(position) ?? []);
  if (recorded.length < topology.subtasks.length) {
    const missing = topology.subtasks.length - recorded.length;
    return `no attempt is recorded for ${String(missing)} of its subtasks`;
  }
  const allocations = new Set<AllocationId>();
  for (const { positions } of slots) {
    const shared = new Set(positions.map((position) => recorded[position]?.allocationId));
    const [allocationId] = shared;
    if (allocationId === undefined || shared.size > 1 || allocations.has(allocationId))
      return 'its recorded attempts do not share slots as its tasks do';
    allocations.add(allocationId);
  }
  return recorded;
}

/** `<vertex>_<subtask>_<generation>_<nonce>`. */
function parseAttemptId(
  id: string,
  topology: ExecutionTopology,
): Pick<Recorded, 'attemptId' | 'position' | 'generation'> | undefined {
  const [vertexId, subtask, generation] = id.split('_');
  const vertex = topology.graph.vertices.find((one) => one.id === vertexId);
  const subtaskIndex = Number(subtask);
  if (vertex === undefined || !Number.isInteger(subtaskIndex)) return undefined;
  if (subtaskIndex < 0 || subtaskIndex >= vertex.parallelism) return undefined;
  return {
    attemptId: id as AttemptId,
    position: topology.position(vertex.id, subtaskIndex),
    generation: Number(generation),
  };
}
