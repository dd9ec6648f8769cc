/**
 * Counts records against the clock inside the thread that processes them. Times come from the machine's monotonic
 * clock, which all threads and processes share.
 */
import { writeFileSync } from 'node:fs';
import { Session } from 'node:inspector';
import { join } from 'node:path';

export interface Mark {
  readonly atMs: number;
  readonly count: number;
  /** User and system time of the whole process so far, all its threads. */
  readonly cpuMs: number;
}

/** What one thread saw. */
export interface MeterReport {
  readonly pid: number;
  readonly count: number;
  /** Of what was emitted: compared with what must come out. */
  readonly sum: number;
  readonly check: number;
  readonly marks: readonly Mark[];
  readonly residentMb: number;
  /** Only where latency was measured: ms, as they came. */
  readonly latencies?: readonly number[];
}

export interface MeterOptions {
  /** Records after which the profile begins. */
  readonly from: number;
  /** Writes a CPU profile from there to the end. */
  readonly profileFile?: string;
}

const clockMask = 0xfff;
const markPeriodMs = 5;

export function monotonicMs(): number {
  return Number(process.hrtime.bigint()) / 1e6;
}

export class Meter {
  count = 0;
  /**
   * Sum and check. In an array of doubles: a field that outgrows a small integer changes the object's hidden class,
   * and V8 throws away everything it compiled for it, in the middle of a measurement.
   */
  readonly #totals = new Float64Array(2);
  readonly #marks: Mark[] = [];
  readonly #from: number;
  readonly #profileFile: string | undefined;
  #profiler: Session | undefined;
  #markedAt = -Infinity;

  constructor({ from, profileFile }: MeterOptions) {
    this.#from = from;
    this.#profileFile = profileFile;
  }

  /** One record; looks at the clock every 4096. */
  add(value: number, check: number): void {
    this.count += 1;
    this.#totals[0]! += value;
    this.#totals[1]! += check;
    if ((this.count & clockMask) === 0) this.#mark();
  }

  /** For few, large records. */
  addSlow(value: number, check: number): void {
    this.count += 1;
    this.#totals[0]! += value;
    this.#totals[1]! += check;
    if ((this.count & 0xf) === 0) this.#mark();
  }

  /** Call when everything is through. What comes after the last record is in no mark. */
  report(): MeterReport {
    if (this.#profiler !== undefined) this.#stopProfile(this.#profiler);
    return {
      pid: process.pid,
      count: this.count,
      sum: this.#totals[0] ?? NaN,
      check: this.#totals[1] ?? NaN,
      marks: this.#marks,
      residentMb: process.memoryUsage.rss() / 1024 ** 2,
    };
  }

  #mark(): void {
    const atMs = monotonicMs();
    if (atMs - this.#markedAt < markPeriodMs) return;
    this.#markedAt = atMs;
    this.#marks.push({ atMs, count: this.count, cpuMs: cpuMs() });
    if (this.#profileFile === undefined || this.#profiler !== undefined) return;
    if (this.count >= this.#from) this.#startProfile();
  }

  #startProfile(): void {
    const session = new Session();
    session.connect();
    session.post('Profiler.enable');
    session.post('Profiler.setSamplingInterval', { interval: 200 });
    session.post('Profiler.start');
    this.#profiler = session;
  }

  /** The session is this thread's own: its answers come before `post` returns. */
  #stopProfile(session: Session): void {
    const file = this.#profileFile ?? '';
    session.post('Profiler.stop', (error, stopped) => {
      if (error === null) writeFileSync(file, JSON.stringify(stopped.profile));
    });
    session.disconnect();
  }
}

function cpuMs(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
}

/** Where the harness looks for it. */
export function writeReport(directory: string, subtask: number, report: MeterReport): void {
  writeFileSync(join(directory, `subtask-${String(subtask)}.json`), JSON.stringify(report));
}
