import fc from 'fast-check';
import t from 'tap';
import type { AllocationId, TaskManagerId } from '../../../lib/base/ids.js';
import type { SlotReport } from '../../../lib/gateway/taskmanager-gateway.js';
import {
  SlotManager,
  type SlotManagerEffect,
  type SlotManagerInput,
} from '../../../lib/jobmanager/resourcemanager/slot-manager.machine.js';
import { jobIdOf } from '../../support/job-graphs.js';

const tm = (name: string): TaskManagerId => name as TaskManagerId;
const emptySlots = (count: number): SlotReport => ({
  slots: Array.from({ length: count }, (_, slotIndex) => ({ slotIndex, attempts: [] })),
});

function newManager(isOpen = true, keepsHeld = false): SlotManager {
  let last = 0;
  return new SlotManager({
    newAllocationId: () => `alloc-${String((last += 1))}` as AllocationId,
    isOpen,
    keepsHeld,
  });
}

type Request = Extract<SlotManagerEffect, { kind: 'requestSlot' }>;
const requests = (effects: readonly SlotManagerEffect[]): Request[] =>
  effects.filter((effect) => effect.kind === 'requestSlot');

t.test('a job gets its slots at once or not at all, spread evenly', async (t) => {
  const slots = newManager();
  slots.step({ kind: 'taskManagerRegistered', taskManagerId: tm('a'), report: emptySlots(3) });
  const jobId = jobIdOf('big');
  t.same(slots.step({ kind: 'requirementsDeclared', jobId, slots: 6 }), []);
  t.equal(slots.shortage(jobId), 'needs 6 slots, 3 exist');
  const small = slots.step({ kind: 'requirementsDeclared', jobId: jobIdOf('small'), slots: 1 });
  t.equal(requests(small).length, 1, 'a job that fits is let past');
  t.same(slots.step({ kind: 'requirementsDeclared', jobId: jobIdOf('small'), slots: 0 }), []);
  const [request] = requests(small);
  const confirmed = slots.step({
    kind: 'slotConfirmed',
    allocationId: request?.allocationId ?? ('' as AllocationId),
  });
  t.match(confirmed, [{ kind: 'freeSlot' }], 'it ended while the TaskManager was asked');
  slots.step({
    kind: 'slotFreed',
    taskManagerId: tm('a'),
    allocationId: request?.allocationId ?? ('' as AllocationId),
  });
  const all = requests(
    slots.step({ kind: 'taskManagerRegistered', taskManagerId: tm('b'), report: emptySlots(3) }),
  );
  t.same(
    all.map(({ taskManagerId }) => taskManagerId),
    ['a', 'b', 'a', 'b', 'a', 'b'],
  );
  t.equal(slots.view().free, 0);
});

t.test(
  'a shortage tells slots of other jobs from those a TaskManager refuses to give',
  async (t) => {
    const slots = newManager();
    slots.step({ kind: 'taskManagerRegistered', taskManagerId: tm('a'), report: emptySlots(2) });
    const other = slots.step({ kind: 'requirementsDeclared', jobId: jobIdOf('other'), slots: 1 });
    t.equal(requests(other).length, 1);
    const jobId = jobIdOf('refused');
    const [request] = requests(slots.step({ kind: 'requirementsDeclared', jobId, slots: 1 }));
    const allocationId = request?.allocationId ?? ('' as AllocationId);
    slots.step({ kind: 'slotRefused', allocationId, reason: 'no thread can be started' });
    t.equal(
      slots.shortage(jobId),
      'needs 1 slot, 2 exist, of which 1 are in use by other jobs and 1 cannot be used yet: no thread can be started',
    );
  },
);

t.test('what a TaskManager holds for nobody is freed before it is used again', async (t) => {
  const slots = newManager();
  const old = 'old' as AllocationId;
  const report: SlotReport = {
    slots: [{ slotIndex: 0, allocationId: old, jobId: jobIdOf('gone'), attempts: [] }],
  };
  t.match(slots.step({ kind: 'taskManagerRegistered', taskManagerId: tm('a'), report }), [
    { kind: 'freeSlot', allocationId: old },
  ]);
  t.same(
    slots.step({ kind: 'requirementsDeclared', jobId: jobIdOf('j'), slots: 1 }),
    [],
    'not free yet',
  );
  const freed = slots.step({ kind: 'slotFreed', taskManagerId: tm('a'), allocationId: old });
  t.equal(requests(freed).length, 1);
});

t.test('a lost TaskManager takes its slots with it; the job gets others', async (t) => {
  const slots = newManager();
  for (const name of ['a', 'b'])
    slots.step({ kind: 'taskManagerRegistered', taskManagerId: tm(name), report: emptySlots(1) });
  const jobId = jobIdOf('j');
  const [first] = requests(slots.step({ kind: 'requirementsDeclared', jobId, slots: 1 }));
  const allocationId = first?.allocationId ?? ('' as AllocationId);
  slots.step({ kind: 'slotConfirmed', allocationId });
  const effects = slots.step({ kind: 'taskManagerLost', taskManagerId: tm('a'), reason: 'gone' });
  t.match(effects, [
    { kind: 'slotsLost', jobId, allocationIds: [allocationId] },
    { kind: 'requestSlot', taskManagerId: 'b' },
  ]);
});

t.test('one report without the slot may be late, the second is believed', async (t) => {
  const slots = newManager();
  slots.step({ kind: 'taskManagerRegistered', taskManagerId: tm('a'), report: emptySlots(1) });
  const jobId = jobIdOf('j');
  const [first] = requests(slots.step({ kind: 'requirementsDeclared', jobId, slots: 1 }));
  slots.step({ kind: 'slotConfirmed', allocationId: first?.allocationId ?? ('' as AllocationId) });
  const report: SlotManagerInput = {
    kind: 'slotsReported',
    taskManagerId: tm('a'),
    report: emptySlots(1),
  };
  t.same(slots.step(report), []);
  t.match(slots.step(report), [{ kind: 'slotsLost', jobId }]);
  t.match(slots.step(report), [{ kind: 'requestSlot', slotIndex: 0 }], 'and is given out again');
});

t.test('after a takeover nothing is handed out before the wait is over', async (t) => {
  const slots = newManager(false);
  slots.step({ kind: 'requirementsDeclared', jobId: jobIdOf('j'), slots: 1 });
  t.same(
    slots.step({ kind: 'taskManagerRegistered', taskManagerId: tm('a'), report: emptySlots(2) }),
    [],
  );
  t.equal(requests(slots.step({ kind: 'allocationOpened' })).length, 1);
});

/** The TaskManagers' own truth: which allocation holds which slot. */
class World {
  readonly slots = newManager();
  readonly held = new Map<TaskManagerId, (AllocationId | undefined)[]>();
  readonly jobs = new Map<string, number>();
  readonly owned = new Map<AllocationId, string>();
  #inFlight: SlotManagerEffect[] = [];

  step(input: SlotManagerInput): void {
    for (const effect of this.slots.step(input)) {
      if (effect.kind === 'slotAllocated') this.owned.set(effect.allocationId, effect.jobId);
      else if (effect.kind === 'slotsLost')
        for (const id of effect.allocationIds) this.owned.delete(id);
      else this.#inFlight.push(effect);
    }
  }

  /** A TaskManager answers one of the requests on their way. */
  answer(pick: number, refuses: boolean): void {
    const [effect] = this.#inFlight.splice(pick % Math.max(1, this.#inFlight.length), 1);
    if (effect?.kind === 'requestSlot') this.#request(effect, refuses);
    if (effect?.kind === 'freeSlot') this.#free(effect, refuses);
  }

  report(id: TaskManagerId): SlotReport {
    return {
      slots: (this.held.get(id) ?? []).map((allocationId, slotIndex) => ({
        slotIndex,
        ...(allocationId !== undefined && { allocationId }),
        attempts: [],
      })),
    };
  }

  #request({ taskManagerId, slotIndex, allocationId }: Request, refuses: boolean): void {
    const held = this.held.get(taskManagerId);
    if (held === undefined || refuses || held[slotIndex] !== undefined) {
      this.step({ kind: 'slotRefused', allocationId, reason: 'no' });
      return;
    }
    held[slotIndex] = allocationId;
    this.step({ kind: 'slotConfirmed', allocationId });
  }

  #free(
    { taskManagerId, allocationId }: Extract<SlotManagerEffect, { kind: 'freeSlot' }>,
    refuses: boolean,
  ): void {
    const held = this.held.get(taskManagerId);
    if (held === undefined || refuses) {
      this.step({ kind: 'slotNotFreed', taskManagerId, allocationId });
      return;
    }
    const index = held.indexOf(allocationId);
    if (index >= 0) held[index] = undefined;
    this.step({ kind: 'slotFreed', taskManagerId, allocationId });
  }

  /** Answers everything and reports until nothing moves any more. */
  settle(): void {
    for (let round = 0; round < 6; round++) {
      while (this.#inFlight.length > 0) this.answer(0, false);
      for (const id of this.held.keys())
        this.step({ kind: 'slotsReported', taskManagerId: id, report: this.report(id) });
    }
    while (this.#inFlight.length > 0) this.answer(0, false);
  }
}

t.test(
  'no slot is given twice over random arrivals, losses and refusals, and what fits is served',
  async (t) => {
    const event = fc.oneof(
      {
        weight: 5,
        arbitrary: fc.record({
          kind: fc.constant('arrive' as const),
          slots: fc.integer({ min: 1, max: 5 }),
        }),
      },
      { weight: 2, arbitrary: fc.record({ kind: fc.constant('end' as const), pick: fc.nat(100) }) },
      {
        weight: 2,
        arbitrary: fc.record({
          kind: fc.constant('join' as const),
          slots: fc.integer({ min: 1, max: 4 }),
        }),
      },
      {
        weight: 1,
        arbitrary: fc.record({ kind: fc.constant('lose' as const), pick: fc.nat(100) }),
      },
      {
        weight: 8,
        arbitrary: fc.record({
          kind: fc.constant('answer' as const),
          pick: fc.nat(100),
          refuses: fc.boolean(),
        }),
      },
      {
        weight: 3,
        arbitrary: fc.record({ kind: fc.constant('report' as const), pick: fc.nat(100) }),
      },
    );
    fc.assert(
      fc.property(fc.array(event, { minLength: 100, maxLength: 250 }), (events) => {
        const world = new World();
        let names = 0;
        for (const one of events) {
          const taskManagers = [...world.held.keys()];
          const jobs = [...world.jobs.keys()];
          if (one.kind === 'arrive') {
            const name = `job${String((names += 1))}`;
            world.jobs.set(jobIdOf(name), one.slots);
            world.step({ kind: 'requirementsDeclared', jobId: jobIdOf(name), slots: one.slots });
          } else if (one.kind === 'end' && jobs.length > 0) {
            const job = jobs[one.pick % jobs.length] ?? '';
            world.jobs.delete(job);
            world.step({ kind: 'requirementsDeclared', jobId: job as never, slots: 0 });
            for (const [id, owner] of world.owned) {
              if (owner !== job) continue;
              world.owned.delete(id);
              world.step({ kind: 'slotReleased', allocationId: id, cause: 'ended' });
            }
          } else if (one.kind === 'join') {
            const id = tm(`tm${String((names += 1))}`);
            world.held.set(id, new Array<undefined>(one.slots).fill(undefined));
            world.step({
              kind: 'taskManagerRegistered',
              taskManagerId: id,
              report: world.report(id),
            });
          } else if (one.kind === 'lose' && taskManagers.length > 0) {
            const id = taskManagers[one.pick % taskManagers.length] ?? tm('');
            world.held.delete(id);
            world.step({ kind: 'taskManagerLost', taskManagerId: id, reason: 'lost' });
          } else if (one.kind === 'answer') world.answer(one.pick, one.refuses);
          else if (one.kind === 'report' && taskManagers.length > 0) {
            const id = taskManagers[one.pick % taskManagers.length] ?? tm('');
            world.step({ kind: 'slotsReported', taskManagerId: id, report: world.report(id) });
          }
          checkNoDoubleAllocation(world);
        }
        world.settle();
        checkServed(world);
      }),
      { numRuns: 60 },
    );
    t.pass('held for all histories');
  },
);

function checkNoDoubleAllocation(world: World): void {
  const held = [...world.held.values()].flat().filter((id) => id !== undefined);
  if (new Set(held).size !== held.length) throw new Error('an allocation holds two slots');
  const perJob = new Map<string, number>();
  for (const owner of world.owned.values()) perJob.set(owner, (perJob.get(owner) ?? 0) + 1);
  for (const [job, count] of perJob) {
    if (count > (world.jobs.get(job) ?? 0))
      throw new Error('a job holds more slots than it asked for');
  }
  const { total, free } = world.slots.view();
  if (free < 0 || free + world.owned.size > total) throw new Error('slots do not add up');
}

function checkServed(world: World): void {
  const { free } = world.slots.view();
  const held = [...world.held.values()].flat().filter((id) => id !== undefined).length;
  const total = [...world.held.values()].flat().length;
  if (free !== total - held || held !== world.owned.size)
    throw new Error('the books differ from the TaskManagers');
  for (const [job, needed] of world.jobs) {
    const owned = [...world.owned.values()].filter((owner) => owner === job).length;
    if (owned < needed && needed - owned <= free) throw new Error('a job that fits was not served');
  }
}

t.test('slots of an earlier leader are kept until their job claims or gives them up', async (t) => {
  const slots = newManager(true, true);
  const [jobId, other] = [jobIdOf('job'), jobIdOf('other')];
  const held = (
    slotIndex: number,
    allocation: string,
    of = jobId,
  ): SlotReport['slots'][number] => ({
    slotIndex,
    allocationId: allocation as AllocationId,
    jobId: of,
    attempts: [],
  });
  const register = (name: string, ...report: SlotReport['slots']): readonly SlotManagerEffect[] =>
    slots.step({
      kind: 'taskManagerRegistered',
      taskManagerId: tm(name),
      report: { slots: report },
    });
  t.same(register('a', held(0, 'a0'), held(1, 'a1', other), { slotIndex: 2, attempts: [] }), []);
  t.same(slots.view(), { total: 3, free: 1 }, 'they are in use');
  t.equal(slots.allocations(tm('a')).length, 2);
  const report = { slots: [held(0, 'a0'), held(1, 'a1', other), { slotIndex: 2, attempts: [] }] };
  t.same(slots.step({ kind: 'slotsReported', taskManagerId: tm('a'), report }), []);
  t.same(register('b', held(0, 'b0'), held(1, 'b1')), []);

  const claimed = slots.step({
    kind: 'heldClaimed',
    jobId,
    allocationIds: ['a0', 'b0', 'c0'].map((one) => one as AllocationId),
  });
  t.match(claimed, [
    { kind: 'freeSlot', allocationId: 'b1' },
    { kind: 'slotsLost', jobId, allocationIds: ['c0'] },
  ]);
  t.same(slots.step({ kind: 'requirementsDeclared', jobId, slots: 2 }), [], 'it has what it needs');
  t.match(slots.step({ kind: 'taskManagerLost', taskManagerId: tm('b'), reason: 'dead' })[0], {
    kind: 'slotsLost',
    jobId,
    allocationIds: ['b0'],
  });
  t.match(slots.step({ kind: 'heldDiscarded', jobId: other, cause: 'it is restored' }), [
    { kind: 'freeSlot', allocationId: 'a1', cause: 'it is restored' },
  ]);
  t.match(register('c', held(0, 'c0')), [{ kind: 'freeSlot' }], 'the job was told that it is lost');

  const again = newManager(true, true);
  const both = { slots: [held(0, 'a0'), held(1, 'a1', other)] };
  again.step({ kind: 'taskManagerRegistered', taskManagerId: tm('a'), report: both });
  t.match(
    again.step({ kind: 'jobsRecovered', jobIds: [jobId] }),
    [{ kind: 'freeSlot', allocationId: 'a1' }],
    'of no job there is',
  );
  const gone = { slots: [{ slotIndex: 0, attempts: [] }] };
  again.step({ kind: 'slotsReported', taskManagerId: tm('a'), report: gone });
  t.equal(again.view().free, 1, 'its TaskManager gave it up');
  t.match(
    again.step({ kind: 'taskManagerRegistered', taskManagerId: tm('d'), report: both }),
    [{ kind: 'freeSlot', allocationId: 'a1' }],
    'later ones are judged alike',
  );
});
