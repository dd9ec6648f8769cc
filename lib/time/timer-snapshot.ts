/**
 * Copy-on-write snapshot of a timer queue. A timer never changes, so that only its removal is told
 * (`beforeRemoval`); one registered later is known by its birth.
 */
import { GroupLog } from '../state/group-log.js';
import type { KeyedStateBackend } from '../state/keyed-state-backend.js';
import type { PartSnapshot } from '../state/keyed-snapshot.js';

/** Timers between two yields. */
const timersPerStep = 512;
const listsPerStep = 4096;

/** The queue as the snapshot sees it. */
export interface TimerSource {
  readonly name: string;
  readonly backend: KeyedStateBackend;
  /** Lists and timers from here on came later. */
  readonly listLimit: number;
  readonly timerLimit: number;
  readonly firstOf: (list: number) => number;
  readonly nextOf: (timer: number) => number;
  readonly slotOf: (timer: number) => number;
  /** It was there when the snapshot began; those that were not are at the end of their list. */
  readonly isPart: (timer: number) => boolean;
  readonly timeOf: (list: number) => number;
  readonly onEnd: () => void;
}

export class TimerSnapshot implements PartSnapshot {
  readonly name: string;
  readonly kind = 'timers';
  readonly #source: TimerSource;
  readonly #log: GroupLog;
  /** A bit per timer: encoded. */
  readonly #done: Uint8Array;
  /** Next timer to be encoded, while `encode` rests. */
  #cursor = -1;
  /** Timers of the step: chain, timer and time of each, sorted by chain by links. */
  readonly #links = new Int32Array(timersPerStep);
  readonly #heads: Int32Array;
  readonly #chains = new Set<number>();
  readonly #timers = new Int32Array(timersPerStep);
  readonly #times = new Float64Array(timersPerStep);
  #size = 0;
  #failure: Error | undefined;

  constructor(source: TimerSource) {
    this.name = source.name;
    this.#source = source;
    this.#log = new GroupLog(`state "${source.name}"`);
    this.#done = new Uint8Array((source.timerLimit + 7) >>> 3);
    this.#heads = new Int32Array(source.timerLimit === 0 ? 0 : source.backend.groupCount);
  }

  beforeRemoval(list: number, timer: number): void {
    const { nextOf, isPart, timeOf } = this.#source;
    if (this.#cursor === timer) this.#cursor = nextOf(timer);
    if (!isPart(timer) || this.#isDone(timer)) return;
    try {
      this.#log.open(this.#chainOf(timer));
      this.#add(timer, timeOf(list));
      this.#log.close();
    } catch (error) {
      this.#failure ??= error as Error;
    }
  }

  *encode(): Generator<void> {
    const { listLimit, firstOf, nextOf, isPart, timeOf } = this.#source;
    for (let list = 0; list < listLimit; list += 1) {
      this.#cursor = firstOf(list);
      while (this.#cursor >= 0 && isPart(this.#cursor)) {
        const timer = this.#cursor;
        this.#cursor = nextOf(timer);
        if (this.#isDone(timer)) continue;
        this.#collect(timer, timeOf(list));
        if (this.#size < timersPerStep) continue;
        this.#flush();
        yield;
      }
      if ((list & (listsPerStep - 1)) !== listsPerStep - 1) continue;
      this.#flush();
      this.#cursor = -1;
      yield;
    }
    this.#flush();
    this.end();
    if (this.#failure !== undefined) throw this.#failure;
  }

  groups(): Iterable<number> {
    return this.#log.chains();
  }

  sizeOf(group: number): number {
    return this.#log.has(group) ? this.#log.sizeOf(group) : 0;
  }

  payload(group: number): Iterable<Uint8Array> {
    return this.#log.payload(group);
  }

  end(): void {
    this.#source.onEnd();
  }

  #collect(timer: number, time: number): void {
    const at = this.#size;
    const chain = this.#chainOf(timer);
    this.#timers[at] = timer;
    this.#times[at] = time;
    this.#chains.add(chain);
    this.#links[at] = this.#heads[chain]!;
    this.#heads[chain] = at + 1;
    this.#size = at + 1;
  }

  #flush(): void {
    for (const chain of this.#chains) {
      const order: number[] = [];
      for (let link = this.#heads[chain]!; link > 0; link = this.#links[link - 1]!) {
        order.push(link - 1);
      }
      this.#heads[chain] = 0;
      this.#log.open(chain);
      for (const at of order.reverse()) this.#add(this.#timers[at]!, this.#times[at]!);
      this.#log.close();
    }
    this.#chains.clear();
    this.#size = 0;
  }

  #add(timer: number, time: number): void {
    this.#done[timer >>> 3]! |= 1 << (timer & 7);
    const { backend, slotOf } = this.#source;
    this.#log.entry(time, backend.index.keyAt(slotOf(timer)));
  }

  #isDone(timer: number): boolean {
    return (this.#done[timer >>> 3]! & (1 << (timer & 7))) !== 0;
  }

  #chainOf(timer: number): number {
    return this.#source.backend.groupOf(this.#source.slotOf(timer));
  }
}
