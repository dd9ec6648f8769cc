/** Throughput of one chain in one slot: source, three steps, sink; no exchange. */
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
  .map((bid) => ({ ...bid, price: bid.price * 2 }))
  .filter((bid) => bid.id % 10 !== 0)
  .map((bid) => ({ key: bid.key, price: bid.price }))
  .sinkTo(new BlackholeSink());
await env.execute('bench-chain');
