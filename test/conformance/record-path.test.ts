/**
 * Random jobs give the output that plain arrays give: interpreted and compiled, in one slot, in several, between
 * TaskManagers, at parallelism 1 to 4, undisturbed, failed over in the middle, stopped and restored at another
 * parallelism. The jobs are data (test/support/random-graph.ts); a failure prints the smallest one found and how to
 * run it again:
 *
 *   MILLRACE_RUNS=2000 node --enable-source-maps build/test/conformance/record-path.test.js    more cases
 *   MILLRACE_SEED=42 ...                                                        other cases (default: fixed ones)
 *   MILLRACE_CASE='{"graph":...}' ...                                           one case
 */
import fc from 'fast-check';
import t from 'tap';
import { graphOf } from '../support/random-graph-arbitrary.js';
import { planGraph, type GraphSpec } from '../support/random-graph.js';
import { expectedOutput } from '../support/random-graph-model.js';
import {
  Clusters,
  differences,
  runGraph,
  variant,
  type Variant,
} from '../support/random-graph-run.js';
import { testEnv } from '../support/test-env.js';

const runs = Number(process.env['MILLRACE_RUNS'] ?? 30);
const seed = Number(process.env['MILLRACE_SEED'] ?? 20_240_229);
const given = process.env['MILLRACE_CASE'];
/** Which ways to run: both, or one to see where a difference comes from. */
const modes = (process.env['MILLRACE_COMPILE'] ?? 'false,true').split(',').map((s) => s === 'true');
/** Records of all streams together. */
const recordsMax = 20_000;

interface Case {
  readonly graph: GraphSpec;
  readonly variant: Variant;
}

t.setTimeout(0);
const clusters = new Clusters(testEnv());
t.teardown(() => clusters.close());

async function check({ graph, variant: chosen }: Case): Promise<void> {
  const plan = planGraph(graph, chosen.place === 'slot');
  const { sinks, records } = expectedOutput(plan);
  fc.pre(records <= recordsMax);
  for (const compile of modes) {
    const actual = await runGraph(clusters, { plan, variant: chosen, compile });
    const found = differences(sinks, actual, plan);
    if (found.length > 0) {
      throw new Error(`${compile ? 'compiled' : 'interpreted'}:\n${found.join('\n')}`);
    }
  }
}

async function checkAll(cases: fc.Arbitrary<Case>, numRuns: number): Promise<void> {
  if (given !== undefined) return check(JSON.parse(given) as Case);
  const { counterexample, errorInstance, numShrinks } = await fc.check(
    fc.asyncProperty(cases, check),
    { numRuns, seed },
  );
  if (counterexample === null) return;
  const again = `MILLRACE_CASE='${JSON.stringify(counterexample[0])}'`;
  const reason = errorInstance instanceof Error ? errorInstance.message : String(errorInstance);
  throw new Error(`${reason}\nagain (after ${numShrinks} reductions): ${again}`);
}

t.test('small jobs', () =>
  checkAll(
    fc.record({ graph: graphOf({ nodes: 6, records: 400, phases: 3 }), variant }),
    Math.ceil(runs * 0.8),
  ),
);

t.test('jobs with more records than a batch and a quantum take', () =>
  checkAll(
    fc.record({ graph: graphOf({ nodes: 4, records: 1500, phases: 1 }), variant }),
    Math.ceil(runs * 0.2),
  ),
);
