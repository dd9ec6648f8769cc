/** Failures as the execution graph judges and words them. */
import type { Failure } from '../../base/errors.js';

/** Nobody asked for the end of the task, and nothing is known of why. */
export const endedByTaskManager: Failure = {
  name: 'MillraceError',
  code: 'SLOT_LOST',
  retry: 'backoff',
  domain: 'system',
  message: 'the TaskManager ended the task without being asked to',
};

/** `never` is final, unless it only says that a component of ours went away. */
export function isRecoverable(failure: Failure): boolean {
  return failure.retry !== 'never' || failure.domain === 'system';
}

export function givenUp(cause: Failure, reason: string): Failure {
  return {
    name: 'MillraceError',
    code: 'JOB_FAILED',
    retry: 'never',
    domain: 'user',
    message: `the job failed and is not restarted, as ${reason}: ${cause.message}`,
    cause,
  };
}
