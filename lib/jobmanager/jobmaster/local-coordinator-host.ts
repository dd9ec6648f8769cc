import type { Env } from '../../base/env.js';
import type { FunctionSource } from '../../operators/stream-operator.js';
import type { CoordinatorHostFactory } from './coordinator-host.js';
import { EnumeratorRunner } from './enumerator-runner.js';

/** Enumerators in the calling thread, over functions by reference (local environment, MiniCluster). */
export function localCoordinatorHosts(
  env: Env,
  functionsOf: (jobId: string) => FunctionSource,
): CoordinatorHostFactory {
  return (graph, onReply) => {
    const runner = new EnumeratorRunner(env, functionsOf(graph.jobId), onReply);
    return {
      send: (command) => {
        runner.handle(command);
      },
      close: () => runner.close(),
    };
  };
}
