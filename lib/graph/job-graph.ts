/**
 * The JobGraph: plain JSON that says everything about a job except its functions, which every slot
 * finds by operator id after re-running main. Written by the client, kept in etcd, read by JobMasters.
 */
import type { Digest, JobId, OperatorId, VertexId } from '../base/ids.js';

export const jobGraphVersion = 1;

/** Flink's ship strategies. FORWARD connects subtask i with subtask i. */
export type ShipStrategy = 'FORWARD' | 'HASH' | 'REBALANCE' | 'RESCALE' | 'BROADCAST' | 'GLOBAL';

export type OperatorKind = 'source' | 'operator' | 'sink';

export interface JobOperator {
  readonly id: OperatorId;
  readonly uid?: string;
  readonly name: string;
  readonly kind: OperatorKind;
  /** Constructor-like name for people: `Map`, `KeyedProcess`, `TumblingEventTimeWindows`... */
  readonly type: string;
  /** Fixed when the graph is made and stored in checkpoints; bounds every later parallelism. */
  readonly maxParallelism: number;
  /** Hex SHA-256 over the source text of the operator's user functions. */
  readonly functionDigest: string;
  /** Operators of the same chain that take this one's output by direct call; `sideOutput` names the tag. */
  readonly chainedTo: readonly { readonly operator: OperatorId; readonly sideOutput?: string }[];
  /** For sources. */
  readonly boundedness?: 'bounded' | 'unbounded';
}

/** A chain: one task per subtask. */
export interface JobVertex {
  /** The head operator's id. */
  readonly id: VertexId;
  readonly name: string;
  readonly parallelism: number;
  readonly maxParallelism: number;
  readonly slotSharingGroup: string;
  /** Head first, in chain order (a tree, parents before children). */
  readonly operators: readonly JobOperator[];
}

export interface JobEdge {
  /** Unique in the graph and stable: `<source operator>_<target operator>_<n>`. */
  readonly id: string;
  readonly source: VertexId;
  /** The operator of the source chain whose output this is. */
  readonly sourceOperator: OperatorId;
  readonly sideOutput?: string;
  readonly target: VertexId;
  readonly shipStrategy: ShipStrategy;
  /** Why the two ends were not chained, for people. */
  readonly notChainedBecause: string;
}

export interface CheckpointConfig {
  /** 0 switches periodic checkpoints off (the final one of a bounded job is still taken). */
  readonly intervalMs: number;
  readonly timeoutMs: number;
  readonly minPauseMs: number;
  readonly maxConcurrent: number;
  /** Consecutive failures tolerated before the job fails over. */
  readonly tolerableFailures: number;
  readonly numRetained: number;
}

export type RestartStrategyConfig =
  | { readonly type: 'none' }
  | { readonly type: 'fixed-delay'; readonly attempts: number; readonly delayMs: number }
  | {
      readonly type: 'exponential-delay';
      readonly initialBackoffMs: number;
      readonly maxBackoffMs: number;
      readonly backoffMultiplier: number;
      readonly resetBackoffThresholdMs: number;
      readonly jitterFactor: number;
      /** Failures in a row before the job fails; absent: without end. */
      readonly attemptsBeforeResetBackoff?: number;
    };

export interface JobConfig {
  readonly checkpointing: CheckpointConfig;
  readonly restartStrategy: RestartStrategyConfig;
  /** Longest time a record waits in a partly filled buffer. */
  readonly bufferTimeoutMs: number;
  readonly autoWatermarkIntervalMs: number;
  /** Chains run as generated code; otherwise every operator is a virtual call (pipeline.compile). */
  readonly compile: boolean;
  /** `-D` settings given with the job, as text. */
  readonly settings: Readonly<Record<string, string>>;
}

/** What main could capture and must find again when a slot re-runs it. */
export interface PinnedMain {
  readonly argv: readonly string[];
  /** `process.cwd()` of the capture: relative paths in main mean the same in every slot. */
  readonly workingDirectory: string;
  /** Declared environment variables (`env.declareEnvironment('NAME')` or `--env NAME`). */
  readonly environment: Readonly<Record<string, string>>;
  /** Wall-clock ms of the capture; `Date` starts here while main is re-run. */
  readonly captureTime: number;
  /** Seed of Math.random and crypto.randomUUID while main is re-run. */
  readonly seed: number;
}

export interface JobGraph {
  readonly version: typeof jobGraphVersion;
  readonly jobId: JobId;
  readonly name: string;
  /** Topological order. */
  readonly vertices: readonly JobVertex[];
  readonly edges: readonly JobEdge[];
  readonly config: JobConfig;
  readonly main: PinnedMain;
  /** Absent for jobs whose functions are by reference (local). */
  readonly bundle?: { readonly digest: Digest; readonly sizeBytes: number };
  /** Digest over graph, bundle and functions: a rebuild must give the same. */
  readonly fingerprint: string;
  /** Start from this checkpoint directory or metadata file (`run -s`). */
  readonly restore?: { readonly path: string; readonly allowNonRestoredState: boolean };
}
