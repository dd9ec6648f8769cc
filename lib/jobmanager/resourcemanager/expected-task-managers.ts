/**
 * TaskManagers etcd knew when a leadership began. Their leases outlive them by seconds, so those that do not
 * register are looked at: one whose data port refuses connections is gone, and nobody waits for it.
 */
import { setPeriodicTimer, type CancelTimer } from '../../base/clock.js';
import type { Env } from '../../base/env.js';
import type { TaskManagerId } from '../../base/ids.js';
import type { TaskManagerInfo } from '../../../ha/services.js';

/** Resolves to true when nothing can be alive at `dataAddress` (`host:port`); never rejects. */
export type IsGone = (dataAddress: string) => Promise<boolean>;

export interface ExpectedTaskManagersOptions {
  readonly isGone: IsGone | undefined;
  /** How long one is looked at. */
  readonly windowMs: number;
  onGone(): void;
}

/** Between looks at one that still accepts connections. */
const lookAgainMs = 100;

export class ExpectedTaskManagers {
  readonly #env: Env;
  readonly #options: ExpectedTaskManagersOptions;
  readonly #gone = new Set<TaskManagerId>();
  readonly #looking = new Map<TaskManagerId, CancelTimer>();
  #infos: ReadonlyMap<TaskManagerId, TaskManagerInfo> | undefined;
  #isClosed = false;

  constructor(env: Env, options: ExpectedTaskManagersOptions) {
    this.#env = env;
    this.#options = options;
  }

  set(infos: readonly TaskManagerInfo[]): void {
    this.#infos = new Map(infos.map((info) => [info.taskManagerId, info]));
  }

  /** Undefined while they are being read. */
  get ids(): readonly TaskManagerId[] | undefined {
    return this.#infos && [...this.#infos.keys()];
  }

  /** Why one that is not registered is not worth waiting for; undefined when it is. */
  whyGone(id: TaskManagerId): string | undefined {
    if (this.#infos === undefined) return undefined;
    if (!this.#infos.has(id)) return 'is not registered with etcd';
    return this.#gone.has(id) ? 'refuses connections' : undefined;
  }

  /** It is not registered here: looks whether it lives. */
  look(id: TaskManagerId): void {
    const { isGone, windowMs } = this.#options;
    const info = this.#infos?.get(id);
    if (isGone === undefined || info === undefined || this.#isClosed) return;
    this.stopLooking(id);
    const until = this.#env.clock.now() + windowMs;
    let isBusy = false;
    const once = async (): Promise<void> => {
      if (isBusy) return;
      isBusy = true;
      const gone = await isGone(info.dataAddress);
      isBusy = false;
      if (this.#looking.get(id) !== stop) return;
      if (gone || this.#env.clock.now() >= until) this.stopLooking(id);
      if (!gone) return;
      this.#gone.add(id);
      this.#env.log.warn(
        { event: 'taskmanager.gone', resourceId: id, dataAddress: info.dataAddress },
        'a TaskManager that was expected refuses connections',
      );
      this.#options.onGone();
    };
    const stop = setPeriodicTimer(this.#env.clock, lookAgainMs, () => void once());
    this.#looking.set(id, stop);
    void once();
  }

  stopLooking(id: TaskManagerId): void {
    this.#looking.get(id)?.();
    this.#looking.delete(id);
    this.#gone.delete(id);
  }

  close(): void {
    this.#isClosed = true;
    for (const stop of this.#looking.values()) stop();
    this.#looking.clear();
  }
}
