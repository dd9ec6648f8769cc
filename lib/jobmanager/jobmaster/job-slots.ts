/** Drives the slot pool of a job: what it needs goes to the ResourceManager, what it has to the execution graph. */
import type { CancelTimer } from '../../base/clock.js';
import type { Env } from '../../base/env.js';
import { MillraceError, toFailure, type Failure } from '../../base/errors.js';
import type { JobId } from '../../base/ids.js';
import type { ExecutionGraphInput } from '../executiongraph/execution-graph.machine.js';
import type { ResourceManager, SlotOwner } from '../resourcemanager/resource-manager.js';
import { SlotPool, type SlotPoolEffect, type SlotPoolInput } from './slot-pool.machine.js';

export interface JobSlotsDeps {
  readonly jobId: JobId;
  readonly resources: ResourceManager;
  readonly owner: SlotOwner;
  /** Runs `task` in the JobMaster's mailbox, when it may act. */
  readonly run: (task: () => void) => void;
  readonly apply: (input: ExecutionGraphInput) => void;
  readonly requestTimeoutMs: number;
}

export class JobSlots {
  readonly #env: Env;
  readonly #deps: JobSlotsDeps;
  readonly #pool = new SlotPool();
  #cancelTimer: CancelTimer | undefined;

  constructor(env: Env, deps: JobSlotsDeps) {
    this.#env = env;
    this.#deps = deps;
  }

  step(input: SlotPoolInput): void {
    for (const effect of this.#pool.step(input)) this.#execute(effect);
  }

  stop(): void {
    this.#cancelTimer?.();
  }

  #execute(effect: SlotPoolEffect): void {
    const { jobId, resources, owner, run, apply, requestTimeoutMs } = this.#deps;
    switch (effect.kind) {
      case 'declareRequirements':
        resources.declareRequirements(jobId, effect.slots, owner);
        return;
      case 'armRequestTimer':
        this.#cancelTimer?.();
        this.#cancelTimer = this.#env.clock.setTimer(requestTimeoutMs, () => {
          run(() => {
            this.step({ kind: 'requestTimedOut', round: effect.round });
          });
        });
        return;
      case 'cancelRequestTimer':
        this.#cancelTimer?.();
        return;
      case 'slotsReserved':
        apply({ kind: 'slotsAllocated', round: effect.round, slots: effect.slots });
        return;
      case 'slotsUnavailable':
        apply({ kind: 'slotsUnavailable', round: effect.round, failure: this.#shortageFailure() });
        return;
      case 'releaseSlot':
        resources.releaseSlot(effect.allocationId, effect.cause);
    }
  }

  #shortageFailure(): Failure {
    const { jobId, resources, requestTimeoutMs } = this.#deps;
    const shortage = resources.shortage(jobId) ?? 'needs more slots than it got';
    const waited = `${String(requestTimeoutMs)} ms (slot.request.timeout)`;
    const message = `the job ${shortage}, and no more came within ${waited}: start TaskManagers, free slots, or lower the parallelism`;
    return toFailure(new MillraceError('NO_RESOURCE_AVAILABLE', message));
  }
}
