/** A job as `execute()` hands it over, without running it. */
import { setExecutionContext, type DefinedJob } from '../../lib/api/execution-context.js';
import { StreamExecutionEnvironment } from '../../lib/api/stream-execution-environment.js';
import type { JobId } from '../../lib/base/ids.js';

/** Throws what is wrong with the job. */
export function defineJob(
  build: (env: StreamExecutionEnvironment) => void,
  settings: Readonly<Record<string, string>> = {},
  attributes: { readonly jobId?: JobId; readonly restore?: DefinedJob['jobGraph']['restore'] } = {},
): DefinedJob {
  let defined: DefinedJob | undefined;
  let failure: { readonly error: unknown } | undefined;
  const { jobId = '0123456789abcdef0123456789abcdef' as JobId, restore } = attributes;
  const putBack = setExecutionContext({
    kind: 'capture',
    settings,
    attributes: {
      jobId,
      main: { argv: [], workingDirectory: '/', environment: {}, captureTime: 0, seed: 1 },
      ...(restore !== undefined && { restore }),
    },
    declareEnvironment: () => ({}),
    handOver: (job) => {
      defined = job;
    },
    reject: (error) => {
      failure ??= { error };
    },
  });
  try {
    const env = StreamExecutionEnvironment.getExecutionEnvironment();
    build(env);
    void env.execute('test job');
  } finally {
    putBack();
  }
  if (failure !== undefined) throw failure.error as Error;
  if (defined === undefined) throw new Error('execute handed nothing over');
  return defined;
}
