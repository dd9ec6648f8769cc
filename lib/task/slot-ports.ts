/** What a slot's runtime is given, and its options. */
import type { MillraceError } from '../base/errors.js';
import type { AttemptId, JobId } from '../base/ids.js';
import type { ChannelProvider } from '../network/slot-channels.js';
import type { FunctionSource } from '../operators/stream-operator.js';
import type { BatchCodec } from '../record/codec/batch-codec.js';
import type { OpenStorage } from './epoch-storage.js';
import type { SlotReportMessage } from './slot-api.js';
import type { SlotLoop } from './slot-loop.js';

export interface SlotPorts {
  readonly functions: FunctionSource;
  readonly storage: OpenStorage;
  readonly channels: ChannelProvider;
  readonly report: (message: SlotReportMessage) => void;
  readonly loop: SlotLoop;
  /** Default: columnarBatchCodec. Both ends of a channel must use the same. */
  readonly codec?: BatchCodec;
}

/** Which task's code runs: for attributing what it prints. */
export interface TaskContext {
  readonly jobId: JobId;
  readonly attemptId: AttemptId;
  readonly vertexName: string;
  readonly subtaskIndex: number;
}

export interface SlotRuntimeOptions {
  /** A quantum ends after this many records (512) ... */
  readonly quantumRecords?: number;
  /** ... or ms (2). */
  readonly quantumMs?: number;
  /** The thread's event loop gets its turn after this many ms (1). */
  readonly yieldMs?: number;
  /** Sealed buffers that may wait outside a full channel (1024); beyond, the task fails with OVERDRAFT_EXCEEDED. */
  readonly maxOverdraftBuffers?: number;
  /** Records that may wait before a directly called task that is held back (2048). */
  readonly maxQueuedRecords?: number;
  /** Asked every 16 quanta; an error fails every task of the slot. */
  readonly checkMemory?: () => MillraceError | undefined;
  /** A turn longer than this many ms is logged and counted (100); 0: none. */
  readonly blockedThresholdMs?: number;
  /** ms between `metrics` reports (1000). */
  readonly metricsIntervalMs?: number;
}
