/** What the harness tells a job, as JSON in its first argument. */
import type { SinkContext, SinkWriter } from 'millrace';
import { Meter, writeReport } from './meter.js';

export interface BenchJobArguments {
  /** Of the whole source. */
  readonly records: number;
  /** Records of one subtask before its steady window begins. */
  readonly from: number;
  /** Directory for reports. */
  readonly out: string;
  readonly parallelism: number;
  readonly keys: number;
  /** What the job makes of it: a kind of record, its size. */
  readonly variant?: string;
  readonly recordsPerSecond?: number;
  readonly profile?: boolean;
}

export function benchArguments(): BenchJobArguments {
  return JSON.parse(process.argv[2] ?? '{}') as BenchJobArguments;
}

export function newMeter({ from, out, profile }: BenchJobArguments, subtask: number): Meter {
  const profileFile = `${out}/subtask-${String(subtask)}.cpuprofile`;
  return new Meter({ from, ...(profile === true && { profileFile }) });
}

/** What keyed operators emit for each record. */
export interface Counted {
  readonly count: number;
  readonly check: number;
}

/** Takes every record, keeps none, and tells how many there were and when. */
export class MeterSink {
  readonly #args: BenchJobArguments;

  constructor(args: BenchJobArguments) {
    this.#args = args;
  }

  createWriter(context: SinkContext): SinkWriter<Counted> {
    return new MeterWriter(this.#args, context.subtaskIndex);
  }
}

class MeterWriter implements SinkWriter<Counted> {
  readonly #args: BenchJobArguments;
  readonly #subtask: number;
  readonly #meter: Meter;

  constructor(args: BenchJobArguments, subtask: number) {
    this.#args = args;
    this.#subtask = subtask;
    this.#meter = newMeter(args, subtask);
  }

  write(value: Counted): void {
    this.#meter.add(value.count, value.check);
  }

  close(): void {
    writeReport(this.#args.out, this.#subtask, this.#meter.report());
  }
}
