/** Load for failover measurements: an endless, paced stream counted by key. */
import {
  BlackholeSink,
  DataGeneratorSource,
  StreamExecutionEnvironment,
  WatermarkStrategy,
} from 'millrace';

const env = StreamExecutionEnvironment.getExecutionEnvironment();
env
  .fromSource(
    new DataGeneratorSource((i: number) => ({ key: i % 1000, value: i }), {
      recordsPerSecond: 2000,
    }),
    WatermarkStrategy.noWatermarks(),
    'numbers',
  )
  .uid('numbers')
  .keyBy((record) => record.key)
  .reduce((a, b) => ({ key: a.key, value: a.value + b.value }))
  .uid('sums')
  .sinkTo(new BlackholeSink())
  .uid('sink');
await env.execute('bench-counter');
