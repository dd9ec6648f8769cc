/** Throughput of a keyed exchange: every record is hashed, crosses to the subtask of its key, and updates state. */
import {
  BlackholeSink,
  DataGeneratorSource,
  StreamExecutionEnvironment,
  WatermarkStrategy,
} from 'millrace';

const count = Number(process.argv[2] ?? 1_000_000);
const env = StreamExecutionEnvironment.getExecutionEnvironment();
env
  .fromSource(
    new DataGeneratorSource((i: number) => ({ id: i, key: i % 10_000, price: i * 3, time: i }), {
      count,
    }),
    WatermarkStrategy.noWatermarks(),
    'bids',
  )
  .keyBy((bid) => bid.key)
  .reduce((a, b) => ({ id: b.id, key: b.key, price: a.price + b.price, time: b.time }))
  .sinkTo(new BlackholeSink());
await env.execute('bench-exchange');
