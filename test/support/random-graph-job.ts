/**
 * A random job as a program for a cluster of processes: `run random-graph-job.ts -- SPEC OUTPUT`, SPEC being the
 * description in JSON. Each sink writes its records as lines of text into a folder of its own.
 */
import { join } from 'node:path';
import {
  FileSink,
  StreamExecutionEnvironment,
  type Collector,
  type ProcessContext,
} from 'millrace';
import { buildGraph } from './random-graph-build.js';
import { sinkText } from './random-graph-functions.js';
import { GatedSource, SourceControl } from './random-graph-source.js';
import { planGraph, type GraphSpec } from './random-graph.js';

const [text = '', output = ''] = process.argv.slice(2);
const spec = JSON.parse(text) as GraphSpec;
const plan = planGraph(spec);
const control = new SourceControl(spec);
const env = StreamExecutionEnvironment.getExecutionEnvironment();
buildGraph(env, plan, {
  sourceOf: (index) => new GatedSource(spec, index, control),
  sinkTo: (stream, { name, timed, par }) => {
    const lines = stream.process({
      processElement: (value: unknown, context: ProcessContext, out: Collector<string>) => {
        out.collect(sinkText(timed, value, context.timestamp ?? -Infinity));
      },
    });
    if (par > 0) lines.setParallelism(par);
    return lines.sinkTo(FileSink.forLines(join(output, name))).name(name);
  },
});
await env.execute('random job');
