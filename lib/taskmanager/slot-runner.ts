/**
 * Port: where the tasks of a slot run. A worker thread of its own (worker-slot-runner.ts) or the calling
 * thread (in-process-slot-runner.ts).
 */
import type { Failure } from '../base/errors.js';
import type { SlotDeployment } from '../gateway/task-deployment-descriptor.js';
import type { SlotCommand, SlotReportMessage } from '../task/slot-api.js';

export interface SlotStart {
  readonly deployment: SlotDeployment;
  readonly slotIndex: number;
  /** The job's bundle, verified just now; absent for jobs whose functions are by reference. */
  readonly bundlePath?: string;
}

export interface SlotEvents {
  onReport(report: SlotReportMessage): void;
  /**
   * The slot's thread, if any, is gone and its channels are closed. Comes once, after the last report. `failure`
   * says why when it did not end by itself or by `terminate`.
   */
  onEnded(failure: Failure | undefined): void;
}

export interface RunningSlot {
  /** Nothing happens when the slot has ended. */
  send(command: SlotCommand): void;
  /** Ends it without asking its tasks; `onEnded` follows unless user code sits in a native call. Idempotent. */
  terminate(): void;
}

export interface SlotRunner {
  /** Whether `terminate` ends user code that loops for ever: false for slots in the calling thread. */
  readonly isPreemptive: boolean;
  /** A hint: so many slots will soon be started. What is prepared and not used goes away by itself. */
  prepare?(slots: number): void;
  /** Ends what was prepared; running slots are ended by their owner before. */
  close?(): void;
  /** Never throws: what goes wrong is told by `onEnded`. */
  start(start: SlotStart, events: SlotEvents): RunningSlot;
}
