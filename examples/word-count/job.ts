import { parseArgs } from 'node:util';
import { FileSink, FileSource, StreamExecutionEnvironment, WatermarkStrategy } from 'millrace';

const { values: options } = parseArgs({
  options: {
    input: { type: 'string', default: 'README.md' },
    output: { type: 'string', default: 'word-counts' },
  },
});
const env = StreamExecutionEnvironment.getExecutionEnvironment();

env
  .fromSource(FileSource.forLines(options.input), WatermarkStrategy.noWatermarks(), 'text')
  .flatMap<string>((line, out) => {
    for (const word of line.toLowerCase().match(/\w+/g) ?? []) out.collect(word);
  })
  .map((word) => ({ word, count: 1 }))
  .keyBy((one) => one.word)
  .reduce((a, b) => ({ word: a.word, count: a.count + b.count }))
  .map(({ word, count }) => `${word}\t${count}`)
  .sinkTo(FileSink.forLines(options.output));

await env.execute('word count');
