/** Collects the operators of one environment and turns them into a job when it is executed. */
import { fromFailure, MillraceError } from '../base/errors.js';
import { newJobId } from '../base/ids.js';
import { SystemClock } from '../base/system-clock.js';
import { SystemRandom } from '../base/system-random.js';
import type { JobExecutionResult } from '../gateway/client-gateway.js';
import { createJobGraph, functionSourceOf } from '../graph/job-graph-builder.js';
import { generateStreamGraph } from '../graph/stream-graph-generator.js';
import { maxParallelismLimit } from '../state/key-group-range.js';
import type { OperatorTransformation } from '../graph/transformation.js';
import type {
  DefinedJob,
  ExecutionContext,
  HandOverContext,
  LocalContext,
} from './execution-context.js';
import { currentWorkingDirectory } from './pinned-globals.js';
import { jobConfigOf, jobOptionsOf, type JobOptions } from './job-options.js';

/** An operator before the author adjusts it. */
export type OperatorDraft = Omit<OperatorTransformation, 'kind' | 'chaining'>;

/** Seeds fit the seeded generator's 32 bits. */
const seedRange = 2 ** 32;

export class StreamBuilder {
  readonly options: JobOptions;
  readonly context: ExecutionContext;
  readonly #operators: OperatorTransformation[] = [];
  #isExecuted = false;

  constructor(context: ExecutionContext) {
    this.context = context;
    this.options = jobOptionsOf(context.settings);
  }

  addOperator(draft: OperatorDraft): OperatorTransformation {
    const operator: OperatorTransformation = { ...draft, kind: 'operator', chaining: 'always' };
    this.#operators.push(operator);
    return operator;
  }

  /**
   * Not async on purpose: main may end right after it. While captured or rebuilt the promise never
   * settles, since a rejection could be swallowed by a try/catch in main.
   */
  execute(name: string | undefined): Promise<JobExecutionResult> {
    const { context } = this;
    if (context.kind === 'local') return this.#executeLocally(name, context);
    try {
      this.#markExecuted();
      context.handOver(this.#define(name, context.attributes));
    } catch (error) {
      context.reject(error);
    }
    return new Promise(() => undefined);
  }

  async #executeLocally(
    name: string | undefined,
    context: LocalContext,
  ): Promise<JobExecutionResult> {
    this.#markExecuted();
    const { jobGraph, functions } = this.#define(name, localAttributes());
    return failedJobsReject(await context.execute(jobGraph, functions));
  }

  #markExecuted(): void {
    if (this.#isExecuted) throw secondExecute();
    this.#isExecuted = true;
  }

  #define(name: string | undefined, attributes: HandOverContext['attributes']): DefinedJob {
    const { options, context } = this;
    const graph = generateStreamGraph(this.#operators, {
      parallelism: options.parallelism,
      ...(options.maxParallelism !== undefined && { maxParallelism: options.maxParallelism }),
      isChainingEnabled: options.isChainingEnabled,
    });
    const jobGraph = createJobGraph(graph, {
      ...attributes,
      name: name ?? options.name ?? 'Millrace job',
      config: jobConfigOf(options, context.settings),
    });
    return { jobGraph, functions: functionSourceOf(graph, jobGraph) };
  }
}

export function secondExecute(): MillraceError {
  return new MillraceError(
    'JOB_SECOND_EXECUTE',
    'execute was called a second time: one program is one job; put further jobs into files of their own',
  );
}

/** As in Flink, a job that ends otherwise than FINISHED rejects for whoever awaits execute(). */
function failedJobsReject(result: JobExecutionResult): JobExecutionResult {
  if (result.state === 'FINISHED') return result;
  const code = result.state === 'CANCELED' ? 'JOB_CANCELED' : 'JOB_FAILED';
  const reason = result.failure === undefined ? '' : `: ${result.failure.message}`;
  throw new MillraceError(code, `job "${result.name}" ended ${result.state}${reason}`, {
    ...(result.failure !== undefined && { cause: fromFailure(result.failure) }),
    details: { jobId: result.jid },
  });
}

function localAttributes(): HandOverContext['attributes'] {
  const random = new SystemRandom();
  return {
    jobId: newJobId(random),
    main: {
      argv: [],
      workingDirectory: currentWorkingDirectory(),
      environment: {},
      captureTime: new SystemClock().wallTime(),
      seed: Math.floor(random.next() * seedRange),
    },
  };
}

/** Throws JOB_INVALID. */
export function checkParallelism(value: number, what: string): number {
  if (!Number.isSafeInteger(value) || value < 1 || value > maxParallelismLimit) {
    throw new MillraceError(
      'JOB_INVALID',
      `${what} is ${value}: expected a whole number from 1 to ${maxParallelismLimit}`,
    );
  }
  return value;
}

/** Where a transformation came from: streams of two environments must not be joined. */
export function requireSameBuilder(builders: readonly StreamBuilder[], what: string): void {
  if (new Set(builders).size > 1) {
    throw new MillraceError('JOB_INVALID', `${what}: the streams belong to different environments`);
  }
}
