/** Random faults on the processes of a local cluster, the same for the same seed, and their repair. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Random } from '../../lib/base/random.js';
import type { LocalCluster } from '../local/local-cluster.js';
import { isAlive, type ManagedProcess } from '../local/managed-process.js';

export type FaultTarget = 'leader' | 'standby' | 'taskmanager' | 'etcd';
export type FaultKind = 'SIGKILL' | 'SIGTERM' | 'pause';

export interface PlannedFault {
  readonly target: FaultTarget;
  readonly kind: FaultKind;
  /** Length of a pause, or how long the process stays dead. ms */
  readonly downMs: number;
  /** Wait before it, counted from the fault before it in the same round. 0 is: at once. ms */
  readonly afterMs: number;
  /** Which of several processes of that kind, in [0, 1). */
  readonly choice: number;
}

export interface PlannedRound {
  readonly faults: readonly PlannedFault[];
  /** The job runs again before the next round begins; otherwise that one meets the recovery. */
  readonly awaitRecovery: boolean;
  readonly calmMs: number;
}

const targets: readonly FaultTarget[] = ['leader', 'leader', 'standby', 'taskmanager', 'etcd'];
const kinds: readonly FaultKind[] = ['SIGKILL', 'SIGKILL', 'SIGTERM', 'pause'];

/** A third each: one fault, two at once, a second one while the first is recovered from. */
export function planRounds(count: number, random: Random): PlannedRound[] {
  const pick = <T>(from: readonly T[]): T => from[Math.floor(random.next() * from.length)] as T;
  const fault = (afterMs: number): PlannedFault => ({
    target: pick(targets),
    kind: pick(kinds),
    downMs: Math.round(500 + random.next() * 4_500),
    afterMs,
    choice: random.next(),
  });
  return Array.from({ length: count }, () => {
    const shape = pick(['single', 'both', 'recovering'] as const);
    const faults = [fault(0)];
    if (shape === 'both') faults.push(fault(0));
    if (shape === 'recovering') faults.push(fault(Math.round(random.next() * 2_000)));
    return {
      faults,
      awaitRecovery: random.next() < 0.7,
      calmMs: Math.round(random.next() * 2_000),
    };
  });
}

/** etcd without a quorum is down no longer than this. */
const noQuorumMs = 2_000;

interface Down {
  readonly name: string;
  readonly repairAt: number;
  readonly isPaused: boolean;
}

/** Inflicts planned faults and repairs them when their time is over; processes that end by themselves are started again. */
export class Nemesis {
  readonly #cluster: LocalCluster;
  readonly #progress: (line: string) => void;
  readonly #random: Random;
  /** Every process ever seen, for the question what is left at the end. */
  readonly #seen = new Map<number, ManagedProcess>();
  #down: Down[] = [];
  #leader = '';
  #ending = false;
  #loop: Promise<void> | undefined;

  constructor(cluster: LocalCluster, random: Random, progress: (line: string) => void) {
    this.#cluster = cluster;
    this.#random = random;
    this.#progress = progress;
  }

  start(): void {
    this.#loop = this.#supervise();
  }

  /** Repairs everything and stops. */
  async stop(): Promise<void> {
    this.#ending = true;
    await this.#loop;
  }

  leftovers(): ManagedProcess[] {
    return [...this.#seen.values()].filter(isAlive);
  }

  async inflict(fault: PlannedFault): Promise<void> {
    if (fault.afterMs > 0) await sleep(fault.afterMs);
    const name = await this.#victim(fault);
    if (name === undefined) return;
    const downMs =
      fault.target === 'etcd' && this.#down.some((one) => one.name.startsWith('etcd'))
        ? Math.min(fault.downMs, noQuorumMs)
        : fault.downMs;
    if (fault.target === 'etcd') this.#shortenEtcd();
    const isPaused = fault.kind === 'pause';
    this.#progress(`${name} (${fault.target}): ${fault.kind}, for ${String(downMs)} ms`);
    this.#down.push({ name, repairAt: Date.now() + downMs, isPaused });
    this.#cluster.signal(name, fault.kind === 'pause' ? 'SIGSTOP' : fault.kind);
  }

  /** A member that is down comes back in time when a second one goes. */
  #shortenEtcd(): void {
    const latest = Date.now() + noQuorumMs;
    this.#down = this.#down.map((one) =>
      one.name.startsWith('etcd') ? { ...one, repairAt: Math.min(one.repairAt, latest) } : one,
    );
  }

  async #victim(fault: PlannedFault): Promise<string | undefined> {
    if (fault.target === 'leader' || fault.target === 'standby')
      this.#leader = (await this.#cluster.leaderName()) ?? this.#leader;
    const role =
      fault.target === 'leader' || fault.target === 'standby' ? 'jobmanager' : fault.target;
    const candidates = this.#cluster
      .processes()
      .filter((one) => one.role === role && one.alive)
      .map((one) => one.name)
      .filter((name) => !this.#down.some((one) => one.name === name))
      .filter(
        (name) => role !== 'jobmanager' || (name === this.#leader) === (fault.target === 'leader'),
      );
    return candidates[Math.floor(fault.choice * candidates.length)];
  }

  async #supervise(): Promise<void> {
    for (;;) {
      for (const one of this.#cluster.processes()) {
        this.#seen.set(one.pid, one);
        const planned = this.#down.find(({ name }) => name === one.name);
        if (planned === undefined && !one.alive)
          this.#down.push({
            name: one.name,
            repairAt: Date.now() + this.#random.next() * 2_000,
            isPaused: false,
          });
      }
      const due = this.#down.filter((one) => this.#ending || one.repairAt <= Date.now());
      this.#down = this.#down.filter((one) => !due.includes(one));
      for (const { name, isPaused } of due) {
        const process_ = this.#cluster.process(name);
        if (isPaused) this.#cluster.signal(name, 'SIGCONT');
        else if (isAlive(process_)) {
          // SIGTERM takes its time.
          this.#down.push({ name, repairAt: Date.now() + 50, isPaused: false });
        } else await this.#cluster.restart(name);
      }
      if (this.#ending && this.#down.length === 0) return;
      await sleep(50);
    }
  }
}
