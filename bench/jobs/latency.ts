/**
 * Thin traffic over one keyed exchange: every record carries when and by which subtask it was made, and the sink of
 * another subtask says how old it is. Records that stay in their slot are counted only: they cross nothing.
 */
import {
  DataGeneratorSource,
  StreamExecutionEnvironment,
  WatermarkStrategy,
  type SinkContext,
  type SinkWriter,
} from 'millrace';
import { benchArguments, newMeter, type BenchJobArguments } from './arguments.js';
import { monotonicMs, writeReport } from './meter.js';
import { scrambledKey } from './records.js';

interface Stamped {
  readonly key: number;
  readonly madeAt: number;
  readonly madeBy: number;
  readonly text: string;
}

class AgeSink {
  readonly #args: BenchJobArguments;

  constructor(args: BenchJobArguments) {
    this.#args = args;
  }

  createWriter({ subtaskIndex }: SinkContext): SinkWriter<Stamped> {
    const meter = newMeter(this.#args, subtaskIndex);
    const latencies: number[] = [];
    return {
      write: (value) => {
        meter.addSlow(value.key, 0);
        if (value.madeBy !== subtaskIndex) latencies.push(monotonicMs() - value.madeAt);
      },
      close: () => {
        writeReport(this.#args.out, subtaskIndex, { ...meter.report(), latencies });
      },
    };
  }
}

const args = benchArguments();
const env = StreamExecutionEnvironment.getExecutionEnvironment();
env
  .fromSource(
    new DataGeneratorSource(
      (i): Stamped => ({
        key: scrambledKey(i, args.keys),
        madeAt: monotonicMs(),
        // Subtasks of a generator take turns.
        madeBy: i % args.parallelism,
        text: 'a record of traffic',
      }),
      { count: args.records, recordsPerSecond: args.recordsPerSecond ?? 1000 },
    ),
    WatermarkStrategy.noWatermarks(),
    'traffic',
  )
  .keyBy((value) => value.key)
  .map((value) => value)
  .sinkTo(new AgeSink(args));
await env.execute('bench-latency');
