/** What an environment can be told about the job as a whole: `-D` settings first, then what code sets. */
import { configurationOf } from '../../config/configuration.js';
import { options } from '../../config/options.js';
import type { CheckpointConfig, JobConfig, RestartStrategyConfig } from '../graph/job-graph.js';

/** Mutable: the environment's setters write here. */
export interface JobOptions {
  name: string | undefined;
  parallelism: number;
  maxParallelism: number | undefined;
  isChainingEnabled: boolean;
  bufferTimeoutMs: number;
  autoWatermarkIntervalMs: number;
  compile: boolean;
  checkpointing: CheckpointConfig;
  /** Undefined: the default of the settings, which depends on whether checkpointing is on. */
  restartStrategy: RestartStrategyConfig | undefined;
}

export type Settings = Readonly<Record<string, string>>;

/** Throws CONFIG for unknown keys and ill-typed values. */
export function jobOptionsOf(settings: Settings): JobOptions {
  const config = configurationOf(settings);
  return {
    name: config.get(options.pipelineName),
    parallelism: config.get(options.parallelismDefault),
    maxParallelism: config.get(options.pipelineMaxParallelism),
    isChainingEnabled: config.get(options.pipelineOperatorChainingEnabled),
    bufferTimeoutMs: config.get(options.executionBufferTimeoutInterval),
    autoWatermarkIntervalMs: config.get(options.pipelineAutoWatermarkInterval),
    compile: config.get(options.pipelineCompile),
    checkpointing: {
      intervalMs: config.get(options.executionCheckpointingInterval),
      timeoutMs: config.get(options.executionCheckpointingTimeout),
      minPauseMs: config.get(options.executionCheckpointingMinPause),
      maxConcurrent: config.get(options.executionCheckpointingMaxConcurrentCheckpoints),
      tolerableFailures: config.get(options.executionCheckpointingTolerableFailedCheckpoints),
      numRetained: config.get(options.executionCheckpointingNumRetained),
    },
    restartStrategy: config.isSet(options.restartStrategyType)
      ? restartStrategyOf(settings)
      : undefined,
  };
}

export function jobConfigOf(job: JobOptions, settings: Settings): JobConfig {
  const isCheckpointed = job.checkpointing.intervalMs > 0;
  return {
    checkpointing: job.checkpointing,
    restartStrategy:
      job.restartStrategy ?? (isCheckpointed ? restartStrategyOf(settings) : { type: 'none' }),
    bufferTimeoutMs: job.bufferTimeoutMs,
    autoWatermarkIntervalMs: job.autoWatermarkIntervalMs,
    compile: job.compile,
    settings,
  };
}

function restartStrategyOf(settings: Settings): RestartStrategyConfig {
  const config = configurationOf(settings);
  switch (config.get(options.restartStrategyType)) {
    case 'none':
      return { type: 'none' };
    case 'fixed-delay':
      return {
        type: 'fixed-delay',
        attempts: finite(config.get(options.restartStrategyFixedDelayAttempts)),
        delayMs: config.get(options.restartStrategyFixedDelayDelay),
      };
    case 'exponential-delay': {
      const attempts = config.get(
        options.restartStrategyExponentialDelayAttemptsBeforeResetBackoff,
      );
      return {
        type: 'exponential-delay',
        initialBackoffMs: config.get(options.restartStrategyExponentialDelayInitialBackoff),
        maxBackoffMs: config.get(options.restartStrategyExponentialDelayMaxBackoff),
        backoffMultiplier: config.get(options.restartStrategyExponentialDelayBackoffMultiplier),
        resetBackoffThresholdMs: config.get(
          options.restartStrategyExponentialDelayResetBackoffThreshold,
        ),
        jitterFactor: config.get(options.restartStrategyExponentialDelayJitterFactor),
        ...(attempts !== Infinity && { attemptsBeforeResetBackoff: attempts }),
      };
    }
  }
}

/** JSON has no Infinity. */
function finite(attempts: number): number {
  return Math.min(attempts, Number.MAX_SAFE_INTEGER);
}
