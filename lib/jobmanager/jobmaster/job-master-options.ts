/** What a JobMaster is given, and what it says of its job. */
import type { CheckpointStorage } from '../../../checkpoint/storage/checkpoint-storage.js';
import type { ExecutionRecord, Leadership } from '../../../ha/services.js';
import type { Failure } from '../../base/errors.js';
import type { ResourceManager } from '../resourcemanager/resource-manager.js';
import type { CoordinatorHostFactory } from './coordinator-host.js';

/** How a job ended under this JobMaster. */
export interface JobEnd {
  readonly status: 'FAILED' | 'CANCELED' | 'FINISHED';
  readonly failure?: Failure;
  /**
   * It could not be recovered, which says nothing about the job: no result is written, what HA and
   * storage hold of it is kept.
   */
  readonly isRecoveryFailure: boolean;
}

export interface JobMasterDeps {
  readonly leadership: Leadership;
  readonly resources: ResourceManager;
  /** Of this job, under this leadership. */
  readonly storage: CheckpointStorage;
  readonly coordinatorHosts: CoordinatorHostFactory;
  onEnded(end: JobEnd): void;
  /** Once: as soon as `recovered` is known. */
  onSettled?(how: JobRecovered): void;
}

/**
 * adopted: it goes on with tasks that run since an earlier leader; restored: it has run before, and all its tasks run
 * again; new: it runs for the first time; failed: it ended before.
 */
export type JobRecovered = 'adopted' | 'restored' | 'new' | 'failed';

export interface JobMasterOptions {
  readonly submittedAt: number;
  /** The last recorded attempts: it has run before. */
  readonly lastExecution: ExecutionRecord | undefined;
  /** Statistics and exceptions under earlier leaders, as JobHistoryStore keeps them. */
  readonly pastHistory: string | undefined;
  readonly checkpointDirectory: string;
  readonly epochLabel: string;
  readonly slotRequestTimeoutMs: number;
  readonly smallStateThresholdBytes: number;
  readonly exceptionHistorySize: number;
  readonly checkpointHistorySize: number;
}
