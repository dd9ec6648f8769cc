/** What a slot's thread is started with and what it says: structured-cloneable. */
import type { Failure } from '../base/errors.js';
import type { LogLevel } from '../base/pino-logger.js';
import type { SlotDeployment } from '../gateway/task-deployment-descriptor.js';
import type { SlotChannels } from '../network/slot-channels.js';
import type { SlotCommand, SlotReportMessage } from '../task/slot-api.js';

export interface SlotLogOptions {
  readonly level: LogLevel;
  /** The TaskManager's own log file or descriptor; threads append to it whole lines at a time. */
  readonly destination: number | string;
  /** Fields on every line. */
  readonly base: Readonly<Record<string, unknown>>;
}

export interface SlotWorkerOptions {
  /** taskmanager.memory.slot.heap.size */
  readonly slotMemoryBytes: number;
  /** taskmanager.memory.slot.young-generation.size */
  readonly youngGenerationBytes: number;
  /** taskmanager.slot.v8-flags */
  readonly v8Flags: readonly string[];
  /** taskmanager.slot.polling.enabled */
  readonly polls: boolean;
  /** taskmanager.slot.blocked.threshold, ms; 0: off */
  readonly blockedThresholdMs: number;
  /** execution.main.timeout */
  readonly mainTimeoutMs: number;
  /** state.storage.small-state-threshold */
  readonly smallStateThresholdBytes: number;
  readonly log: SlotLogOptions;
}

/** The thread begins with its options only, so that it can be started before its deployment is known. */
export interface SlotWorkerStart {
  readonly kind: 'start';
  readonly deployment: SlotDeployment;
  readonly slotIndex: number;
  readonly bundlePath: string;
  readonly channels: SlotChannels;
}

/** The first message is `start`, commands follow. */
export type SlotWorkerCommand = SlotWorkerStart | SlotCommand;

export type SlotWorkerMessage =
  | SlotReportMessage
  /** The slot cannot go on: every task of it that has not ended fails with this. */
  | { readonly kind: 'fatal'; readonly failure: Failure };
