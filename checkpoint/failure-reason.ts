/**
 * Why a checkpoint did not complete: a closed list. Only some reasons count towards
 * `tolerable-failed-checkpoints`: those that speak of the job or its storage. Reasons that come and go
 * by themselves (a task just finished, etcd is away) must not fail over a job that runs well.
 */
export type CheckpointFailureReason = keyof typeof checkpointFailureReasons;

interface ReasonEntry {
  readonly message: string;
  /** Counts towards the tolerable consecutive failures. */
  readonly counted: boolean;
}

const entry = (counted: boolean, message: string): ReasonEntry => ({ counted, message });

export const checkpointFailureReasons = {
  TASKS_NOT_RUNNING: entry(false, 'not all tasks were running when it was to be triggered'),
  NO_TASK_RUNNING: entry(false, 'every task has finished: there is nothing left to checkpoint'),
  NOT_STARTED: entry(false, 'checkpointing was not active: the job is not running'),
  ID_UNAVAILABLE: entry(false, 'no checkpoint id could be taken'),
  COORDINATOR_SNAPSHOT: entry(true, 'the state of a source coordinator could not be taken'),
  EXPIRED: entry(true, 'it did not complete within execution.checkpointing.timeout'),
  DECLINED: entry(true, 'a task could not take its snapshot'),
  DECLINED_NOT_READY: entry(false, 'a task was not ready for a checkpoint'),
  TASK_FINISHED: entry(false, 'a task finished while it was triggered; it is planned anew'),
  JOB_FAILOVER: entry(false, 'tasks of the job are being restarted or the job is ending'),
  SUBSUMED: entry(false, 'a later checkpoint completed first'),
  LATER_ABORTED: entry(false, 'a later checkpoint was aborted, and tasks drop barriers up to it'),
  LEADER_SUSPENDED: entry(false, 'the leader was suspended while it triggered the checkpoint'),
  METADATA: entry(true, 'its metadata could not be written'),
  POINTER_REFUSED: entry(true, 'its pointer was refused: this or a later checkpoint is stored'),
  LEADERSHIP_LOST: entry(false, 'this process is no longer the leader'),
  CLOSED: entry(false, 'the checkpoint coordinator was closed'),
} as const satisfies Record<string, ReasonEntry>;

/** Consecutive counted failures up to which a checkpoint may fail without consequence. */
export function exceedsTolerance(consecutiveFailures: number, tolerable: number): boolean {
  return consecutiveFailures > tolerable;
}
