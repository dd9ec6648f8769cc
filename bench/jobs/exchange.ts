/** A keyed exchange: every record is hashed, goes to the subtask of its key and is counted there. */
import { DataGeneratorSource, StreamExecutionEnvironment, WatermarkStrategy } from 'millrace';
import { benchArguments, MeterSink } from './arguments.js';
import { CountTrades, KeepRecords } from './functions.js';
import { bid, checkOfBid, checkOfSized, sizedRecords, trade } from './records.js';

const args = benchArguments();
const { keys, variant = 'trade' } = args;
const options = { count: args.records };
const unstamped = WatermarkStrategy.noWatermarks();
const env = StreamExecutionEnvironment.getExecutionEnvironment();
const sink = new MeterSink(args);
if (variant === 'trade') {
  env
    .fromSource(new DataGeneratorSource((i) => trade(i, keys), options), unstamped, 'trades')
    .keyBy((t) => t.key)
    .process(CountTrades)
    .sinkTo(sink);
} else if (variant === 'bid') {
  env
    .fromSource(new DataGeneratorSource((i) => bid(i, keys), options), unstamped, 'bids')
    .keyBy((b) => b.auction)
    .process(() => new KeepRecords(checkOfBid, 256))
    .sinkTo(sink);
} else {
  const sized = sizedRecords(Number(variant));
  env
    .fromSource(new DataGeneratorSource((i) => sized(i, keys), options), unstamped, 'sized')
    .keyBy((s) => s.key)
    .process(() => new KeepRecords(checkOfSized, 64))
    .sinkTo(sink);
}
await env.execute(`bench-exchange-${variant}`);
