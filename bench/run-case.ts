/** Takes the samples of a case: round by round, every variant once, each in processes of its own. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { MillraceError } from '../lib/base/errors.js';
import type { BenchCase, MicroSpec, RunContext, Unit, Variant, VariantFigures } from './case.js';
import { sampleJob } from './macro/job-sample.js';
import type { MicroArguments } from './micro/protocol.js';
import type { Sample } from './rate.js';
import { spread, type Spread } from './support.js';

export interface VariantResult extends VariantFigures {
  readonly variant: Variant;
  readonly samples: readonly Sample[];
  readonly spread: Spread;
  /** Why there is no sample. */
  readonly failure?: string;
}

export type Progress = (line: string) => void;

const leastRecords = 1000;
/** Of the steady window asked for. */
const leastShare = 0.4;
const attempts = 4;

export async function runCase(
  bench: BenchCase,
  rounds: number,
  context: RunContext,
  progress: Progress,
): Promise<VariantResult[]> {
  const runs = bench.variants.map((variant) => new VariantRun(bench.unit, variant, context));
  // The first round finds out how many records a sample needs; programs that stop by the clock need none.
  for (const run of runs) await run.calibrate(`${bench.name}: `, progress);
  for (let round = 1; round <= rounds; round += 1) {
    for (const run of runs) await run.take(`${bench.name} ${round}/${rounds}: `, progress);
  }
  return runs.map((run) => run.result());
}

class VariantRun {
  readonly #unit: Unit;
  readonly #variant: Variant;
  readonly #context: RunContext;
  readonly #samples: Sample[] = [];
  #rate: number;
  #failure: string | undefined;

  constructor(unit: Unit, variant: Variant, context: RunContext) {
    this.#unit = unit;
    this.#variant = variant;
    this.#context = context;
    this.#rate = variant.guess ?? 0;
  }

  async calibrate(label: string, progress: Progress): Promise<void> {
    const { job, name } = this.#variant;
    if (job === undefined || job.recordsPerSecond !== undefined) return;
    await this.#guarded(`${label}${name}`, progress, async () => {
      // Twice where it is cheap: too few records to become fast would say too little.
      const isOnce = job.warmRecords !== undefined || this.#context.isQuick;
      for (const share of isOnce ? [0.7] : [0.4, 0.7])
        this.#rate = (await this.#sampleJob(share)).value;
      progress(`${label}${name}: about ${this.#describe(this.#rate)}`);
    });
  }

  async take(label: string, progress: Progress): Promise<void> {
    await this.#guarded(`${label}${this.#variant.name}`, progress, async () => {
      const { micro } = this.#variant;
      const sample = await (micro === undefined
        ? this.#jobOfFullLength(`${label}${this.#variant.name}`, progress)
        : sampleProgram(micro, this.#context));
      this.#samples.push(sample);
      progress(`${label}${this.#variant.name}: ${this.#describe(sample.value)}`);
    });
  }

  /** A job that was done too soon, being faster than it was, runs again with more records. */
  async #jobOfFullLength(label: string, progress: Progress): Promise<Sample> {
    for (let attempt = 1; ; attempt += 1) {
      const sample = await this.#sampleJob(1);
      if (this.#variant.job?.recordsPerSecond !== undefined) return sample;
      const seconds = sample.facts['seconds'] ?? NaN;
      this.#rate = sample.value;
      if (seconds >= (leastShare * this.#context.windowMs) / 1000) return sample;
      const said = `${label}: ${seconds.toFixed(2)} s at ${this.#describe(sample.value)}`;
      if (attempt === attempts) throw new MillraceError('INVARIANT', `${said}: too short to count`);
      progress(`${said}: again, with more records`);
    }
  }

  result(): VariantResult {
    const values = spread(this.#samples.map(({ value }) => value));
    const names = Object.keys(this.#samples[0]?.facts ?? {});
    const facts = Object.fromEntries(
      names.map((name) => [
        name,
        spread(this.#samples.map((sample) => sample.facts[name] ?? NaN)).median,
      ]),
    );
    return {
      variant: this.#variant,
      samples: this.#samples,
      spread: values,
      median: values.median,
      values: this.#samples.map(({ value }) => value),
      facts,
      ...(this.#failure !== undefined && { failure: this.#failure }),
    };
  }

  /** One variant that cannot run does not take the others with it; it is not tried again. */
  async #guarded(label: string, progress: Progress, work: () => Promise<void>): Promise<void> {
    if (this.#failure !== undefined) return;
    try {
      await work();
    } catch (error) {
      this.#failure = error instanceof Error ? error.message : String(error);
      progress(`${label}: FAILED: ${this.#failure.slice(0, 500)}`);
    }
  }

  #sampleJob(share: number): Promise<Sample> {
    const { job } = this.#variant;
    if (job === undefined) throw new MillraceError('INVARIANT', 'a program is not a job');
    const { clusters, settings, latencySeconds, warmMs, windowMs } = this.#context;
    const seconds =
      job.recordsPerSecond === undefined ? (share * (warmMs + windowMs)) / 1000 : latencySeconds;
    const records = Math.max(leastRecords, Math.round(this.#rate * seconds));
    return sampleJob(clusters, { ...job, settings: { ...settings, ...job.settings } }, records);
  }

  #describe(value: number): string {
    return this.#unit === 'rate'
      ? `${(value / 1e6).toFixed(value < 1e6 ? 4 : 2)} M/s`
      : `p99 ${value.toFixed(2)} ms`;
  }
}

async function sampleProgram(
  { program, args }: MicroSpec,
  { warmMs, windowMs }: RunContext,
): Promise<Sample> {
  const file = fileURLToPath(new URL(`micro/${program}.js`, import.meta.url));
  // Loops are hot sooner than clusters, and steadier.
  const times = { warmMs: warmMs / 4, windowMs: 0.6 * windowMs };
  const told = { ...times, ...args } as unknown as MicroArguments;
  const child = spawn(process.execPath, [file, JSON.stringify(told)], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let said = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => (said += text));
  const [code] = (await once(child, 'close')) as [number | null];
  if (code !== 0) throw new MillraceError('INVARIANT', `${program} ended with code ${code}`);
  return JSON.parse(said) as Sample;
}
