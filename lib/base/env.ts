import type { Clock } from './clock.js';
import type { Logger } from './logger.js';
import type { MetricRegistry } from './metrics.js';
import type { Random } from './random.js';

/** What every component with behaviour is handed first: nothing reads these from the surroundings. */
export interface Env {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  readonly metrics: MetricRegistry;
  /**
   * Called at the named places where a crash is worth trying (`// Fault: name`), by drills only; absent
   * otherwise. An implementation ends the process or throws.
   */
  readonly fault?: (name: FaultPoint) => void;
}

/** Where a crash hurts most; each is between two durable steps. */
export type FaultPoint =
  /** Checkpoint files and metadata are durable, the pointer is not added. */
  | 'checkpoint.files-written'
  /** The pointer is added, no task has been told. */
  | 'checkpoint.pointer-added'
  /** All tasks have ended, the job's result is not written. */
  | 'job.finished'
  /** The job's result is in etcd, marked DIRTY; nothing of the job is deleted. */
  | 'job.result-written'
  /** The job graph is in etcd, the client has no answer. */
  | 'job.submitted'
  /** The wish to cancel a job is in etcd, no task has been told. */
  | 'job.cancel-stored'
  /** The lease of a candidacy is granted, nothing else is in etcd. */
  | 'election.lease-held'
  /** The candidate key is in etcd. */
  | 'election.registered'
  /** The transaction that makes a leader is done, nobody has been told. */
  | 'election.elected'
  /** The new leader has recovered, etcd does not call it ACTIVE. */
  | 'leader.recovered'
  /** etcd calls the new leader ACTIVE. */
  | 'leader.active';

/** The same Env, logging under a component's name. */
export function childEnv(
  env: Env,
  component: string,
  fields: Readonly<Record<string, unknown>> = {},
): Env {
  return { ...env, log: env.log.child({ component, ...fields }) };
}
