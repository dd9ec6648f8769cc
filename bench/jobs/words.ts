/** State by string keys, in one slot: count and sum of each word. */
import { DataGeneratorSource, StreamExecutionEnvironment, WatermarkStrategy } from 'millrace';
import { benchArguments, MeterSink } from './arguments.js';
import { TotalOfWord, TwoTotalsOfWord } from './functions.js';
import { scrambledKey, wordsOf } from './records.js';

const args = benchArguments();
const { keys } = args;
const word = wordsOf(keys);
const env = StreamExecutionEnvironment.getExecutionEnvironment();
env
  .fromSource(
    new DataGeneratorSource((i) => ({ word: word(scrambledKey(i, keys)), amount: i % 1000 }), {
      count: args.records,
    }),
    WatermarkStrategy.noWatermarks(),
    'words',
  )
  .keyBy((w) => w.word)
  .process(args.variant === 'two' ? TwoTotalsOfWord : TotalOfWord)
  .sinkTo(new MeterSink(args));
await env.execute('bench-words');
