/** Everything in one slot: source, map, filter, map, count by key, sink. */
import { DataGeneratorSource, StreamExecutionEnvironment, WatermarkStrategy } from 'millrace';
import { benchArguments, MeterSink } from './arguments.js';
import { CountByKey } from './functions.js';
import { doubled, order } from './records.js';

const args = benchArguments();
const env = StreamExecutionEnvironment.getExecutionEnvironment();
env
  .fromSource(
    new DataGeneratorSource((i: number) => order(i, args.keys), { count: args.records }),
    WatermarkStrategy.noWatermarks(),
    'orders',
  )
  .map(doubled)
  .filter((o) => o.id % 10 !== 0)
  .map((o) => ({ key: o.key, price: o.price }))
  .keyBy((p) => p.key)
  .process(CountByKey)
  .sinkTo(new MeterSink(args));
await env.execute('bench-chain');
