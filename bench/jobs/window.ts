/** A tumbling count of one minute per key, in one slot. The source counts against the clock: few records come out. */
import {
  DataGeneratorSource,
  StreamExecutionEnvironment,
  TumblingEventTimeWindows,
  WatermarkStrategy,
  type SinkContext,
  type SinkWriter,
} from 'millrace';
import { benchArguments, newMeter, type BenchJobArguments } from './arguments.js';
import { writeReport, type Meter } from './meter.js';
import { eventTime, scrambledKey } from './records.js';

const args = benchArguments();
const { keys } = args;
// One subtask: the source and the sink share it.
const meter = newMeter(args, 0);

class WindowSink {
  readonly #args: BenchJobArguments;
  readonly #meter: Meter;

  constructor(args: BenchJobArguments, meter: Meter) {
    this.#args = args;
    this.#meter = meter;
  }

  createWriter({ subtaskIndex }: SinkContext): SinkWriter<number> {
    let counted = 0;
    return {
      write: (count) => {
        counted += count;
      },
      close: () => {
        writeReport(this.#args.out, subtaskIndex, { ...this.#meter.report(), sum: counted });
      },
    };
  }
}

const env = StreamExecutionEnvironment.getExecutionEnvironment();
env
  .fromSource(
    new DataGeneratorSource(
      (i) => {
        meter.add(0, 0);
        return { key: scrambledKey(i, keys), price: i % 1000, time: eventTime(i) };
      },
      { count: args.records },
    ),
    WatermarkStrategy.forMonotonousTimestamps().withTimestampAssigner(
      (view: { readonly time: number }) => view.time,
    ),
    'views',
  )
  .keyBy((view) => view.key)
  .window(TumblingEventTimeWindows.of('1 min'))
  .aggregate({
    createAccumulator: () => 0,
    add: (_, count: number) => count + 1,
    getResult: (count) => count,
  })
  .sinkTo(new WindowSink(args, meter));
await env.execute('bench-window');
