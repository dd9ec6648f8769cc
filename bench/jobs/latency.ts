/** Thin traffic over one keyed exchange: every record carries when it was made, the sink says how old it is. */
import {
  DataGeneratorSource,
  StreamExecutionEnvironment,
  WatermarkStrategy,
  type SinkContext,
  type SinkWriter,
} from 'millrace';
import { benchArguments, newMeter, type BenchJobArguments } from './arguments.js';
import { monotonicMs, writeReport } from './meter.js';

interface Stamped {
  readonly key: number;
  readonly madeAt: number;
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
        latencies.push(monotonicMs() - value.madeAt);
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
      (i): Stamped => ({ key: i % args.keys, madeAt: monotonicMs(), text: 'a record of traffic' }),
      { count: args.records, recordsPerSecond: args.recordsPerSecond ?? 1000 },
    ),
    WatermarkStrategy.noWatermarks(),
    'traffic',
  )
  .keyBy((value) => value.key)
  .map((value) => value)
  .sinkTo(new AgeSink(args));
await env.execute('bench-latency');
