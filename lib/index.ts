/** What a job author imports: `import { ... } from 'millrace'`. */
import {
  installExecutors,
  type JobExecutor,
  type RemoteExecutor,
} from './api/execution-context.js';

export {
  StreamExecutionEnvironment,
  type CheckpointingOptions,
  type RemoteEnvironmentOptions,
} from './api/stream-execution-environment.js';
export {
  DataStream,
  DataStreamSink,
  KeyedStream,
  SingleOutputStreamOperator,
  WindowedStream,
} from './api/data-stream.js';
export type * from './api/functions.js';
export * from './api/process-function.js';
export type { FunctionMetrics, KeyedStateStore, RuntimeContext } from './api/runtime-context.js';
export { OutputTag } from './api/side-output.js';
export type * from './api/source.js';
export type * from './api/sink.js';
export {
  ListStateDescriptor,
  MapStateDescriptor,
  ReducingStateDescriptor,
  ValueStateDescriptor,
  type ListState,
  type MapState,
  type ReducingState,
  type ValueState,
} from './state/state-descriptor.js';
export type { Duration } from './time/duration.js';
export { WatermarkStrategy, type TimestampAssigner } from './time/watermark-strategy.js';
export { TumblingEventTimeWindows, type WindowAssigner } from './windowing/assigners.js';
export { TimeWindow } from './windowing/window.js';
export { BlackholeSink } from './connectors/blackhole-sink.js';
export { CollectionSource } from './connectors/collection-source.js';
export { CollectSink } from './connectors/collect-sink.js';
export { DataGeneratorSource, type DataGeneratorOptions } from './connectors/datagen-source.js';
export { FileSink, type FileSinkOptions } from './connectors/file-sink.js';
export { FileSource, type FileSourceOptions } from './connectors/file-source.js';
export { PrintSink } from './connectors/print-sink.js';
export { SequenceSource } from './connectors/sequence-source.js';
export { MillraceError } from './base/errors.js';
export type { ErrorCode, ErrorDomain, RetryHint } from './base/error-codes.js';
export type { JobExecutionResult } from './gateway/client-gateway.js';
export type { CheckpointConfig, RestartStrategyConfig } from './graph/job-graph.js';

interface LocalExecutorModule {
  readonly executeLocally: JobExecutor['execute'];
}

// By URL and at first use: a slot that only rebuilds a job must not load the local cluster or the client.
const load = (path: string): Promise<unknown> => import(new URL(path, import.meta.url).href);

installExecutors({
  local: async () => {
    const { executeLocally } = (await load('./testing/local-executor.js')) as LocalExecutorModule;
    return { execute: (jobGraph, functions) => executeLocally(jobGraph, functions) };
  },
  remote: async () => (await load('./client/remote-environment.js')) as RemoteExecutor,
});
