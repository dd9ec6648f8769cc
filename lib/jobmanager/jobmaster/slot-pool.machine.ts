/**
 * The slots one job holds (pure): which are reserved for which shared slot, and whether a request is
 * complete. A restarted slot keeps its place, so that a restart needs no new slot unless one was lost.
 */
import { invariant, unreachable } from '../../base/assert.js';
import type { AllocationId } from '../../base/ids.js';
import type { SlotLocation } from '../executiongraph/execution.js';

export type SlotPoolInput =
  /** Slots are needed for these keys; replaces an earlier request. */
  | { readonly kind: 'slotsRequired'; readonly round: number; readonly slotKeys: readonly string[] }
  | { readonly kind: 'slotOffered'; readonly location: SlotLocation; readonly sequence: number }
  /** Slots the job had under an earlier leader, which it goes on with, by key. */
  | { readonly kind: 'slotsAdopted'; readonly slots: ReadonlyMap<string, SlotLocation> }
  | { readonly kind: 'slotsLost'; readonly allocationIds: readonly AllocationId[] }
  | { readonly kind: 'requestTimedOut'; readonly round: number }
  | { readonly kind: 'jobEnded'; readonly cause: string };

export type SlotPoolEffect =
  /** To the ResourceManager: slots the job needs in all. */
  | { readonly kind: 'declareRequirements'; readonly slots: number }
  | { readonly kind: 'armRequestTimer'; readonly round: number }
  | { readonly kind: 'cancelRequestTimer' }
  | {
      readonly kind: 'slotsReserved';
      readonly round: number;
      readonly slots: ReadonlyMap<string, SlotLocation>;
    }
  | { readonly kind: 'slotsUnavailable'; readonly round: number; readonly missing: number }
  | { readonly kind: 'releaseSlot'; readonly allocationId: AllocationId; readonly cause: string };

interface HeldSlot {
  readonly location: SlotLocation;
  /** Order of allocation by the ResourceManager, which alternates between TaskManagers. */
  readonly sequence: number;
  key: string | undefined;
}

export class SlotPool {
  readonly #slots = new Map<AllocationId, HeldSlot>();
  #request: { readonly round: number; readonly slotKeys: readonly string[] } | undefined;
  #declared = 0;
  #hasEnded = false;

  step(input: SlotPoolInput): readonly SlotPoolEffect[] {
    switch (input.kind) {
      case 'slotsRequired':
        this.#request = { round: input.round, slotKeys: input.slotKeys };
        return this.#serve(true);
      case 'slotOffered':
        if (this.#hasEnded)
          return [
            {
              kind: 'releaseSlot',
              allocationId: input.location.allocationId,
              cause: 'the job has ended',
            },
          ];
        this.#slots.set(input.location.allocationId, {
          location: input.location,
          sequence: input.sequence,
          key: undefined,
        });
        return this.#serve(false);
      case 'slotsAdopted':
        for (const [key, location] of input.slots)
          this.#slots.set(location.allocationId, { location, sequence: 0, key });
        this.#declared = this.#slots.size;
        return [{ kind: 'declareRequirements', slots: this.#declared }];
      case 'slotsLost':
        for (const allocationId of input.allocationIds) this.#slots.delete(allocationId);
        return [];
      case 'requestTimedOut':
        return this.#onTimeout(input.round);
      case 'jobEnded':
        return this.#onJobEnded(input.cause);
      default:
        return unreachable(input);
    }
  }

  #serve(isNew: boolean): SlotPoolEffect[] {
    if (this.#request === undefined) return [];
    const { round, slotKeys } = this.#request;
    const missing = slotKeys.filter((key) => this.#reservedFor(key) === undefined);
    const idle = [...this.#slots.values()]
      .filter(({ key }) => key === undefined)
      .sort((a, b) => a.sequence - b.sequence);
    if (idle.length < missing.length) {
      if (!isNew) return [];
      this.#declared = Math.max(this.#declared, this.#slots.size - idle.length + missing.length);
      return [
        { kind: 'declareRequirements', slots: this.#declared },
        { kind: 'armRequestTimer', round },
      ];
    }
    missing.forEach((key, index) => {
      const slot = idle[index];
      invariant(slot !== undefined, 'there are as many idle slots as missing ones');
      slot.key = key;
    });
    const slots = new Map(
      slotKeys.map((key) => {
        const location = this.#reservedFor(key);
        invariant(location !== undefined, 'a reserved slot is held', { key });
        return [key, location];
      }),
    );
    this.#request = undefined;
    return [{ kind: 'cancelRequestTimer' }, { kind: 'slotsReserved', round, slots }];
  }

  #onTimeout(round: number): SlotPoolEffect[] {
    if (this.#request?.round !== round) return [];
    const missing = this.#request.slotKeys.filter(
      (key) => this.#reservedFor(key) === undefined,
    ).length;
    this.#request = undefined;
    return [{ kind: 'slotsUnavailable', round, missing }];
  }

  #onJobEnded(cause: string): SlotPoolEffect[] {
    this.#hasEnded = true;
    this.#request = undefined;
    const released = [...this.#slots.keys()].map((allocationId): SlotPoolEffect => ({
      kind: 'releaseSlot',
      allocationId,
      cause,
    }));
    this.#slots.clear();
    return [{ kind: 'cancelRequestTimer' }, { kind: 'declareRequirements', slots: 0 }, ...released];
  }

  #reservedFor(key: string): SlotLocation | undefined {
    for (const slot of this.#slots.values()) if (slot.key === key) return slot.location;
    return undefined;
  }
}
