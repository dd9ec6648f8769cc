/** Rebuilds a job in its own thread and answers what its functions give. */
import { parentPort, workerData } from 'node:worker_threads';
import { rebuildFunctions } from '../../lib/api/rebuild.js';
import { type Failure, toFailure } from '../../lib/base/errors.js';
import { silentLogger } from '../../lib/base/logger.js';
import { MetricRegistry } from '../../lib/base/metrics.js';
import { SystemClock } from '../../lib/base/system-clock.js';
import { SystemRandom } from '../../lib/base/system-random.js';
import type { JobGraph } from '../../lib/graph/job-graph.js';
import { OperatorTestHarness } from '../../lib/testing/operator-test-harness.js';

export type RebuildAnswer =
  | { readonly fingerprint: string; readonly results: Readonly<Record<string, unknown>> }
  | { readonly failure: Failure };

interface RebuildRequest {
  readonly jobGraph: JobGraph;
  readonly bundlePath: string;
  readonly timeoutMs: number;
}

async function rebuild({
  jobGraph,
  bundlePath,
  timeoutMs,
}: RebuildRequest): Promise<RebuildAnswer> {
  const env = {
    clock: new SystemClock(),
    random: new SystemRandom(),
    log: silentLogger,
    metrics: new MetricRegistry(),
  };
  try {
    const functions = await rebuildFunctions({ bundlePath, jobGraph, timeoutMs, env });
    const results: Record<string, unknown> = {};
    for (const operator of jobGraph.vertices.flatMap((vertex) => vertex.operators)) {
      if (operator.type !== 'Map' || operator.uid === undefined) continue;
      const harness = await new OperatorTestHarness(
        functions.operatorFactory(operator.id)(),
      ).open();
      harness.processElement(1);
      [results[operator.uid]] = harness.values;
    }
    return { fingerprint: functions.fingerprint, results };
  } catch (error) {
    return { failure: toFailure(error) };
  }
}

parentPort?.postMessage(await rebuild(workerData as RebuildRequest));
