/** What a failover drill is: a fault, injected into a real cluster under load, and what must hold afterwards. */
import type { AccessLogRun } from './access-log-run.js';
import type { LocalCluster } from '../local/local-cluster.js';

export interface DrillContext {
  readonly cluster: LocalCluster;
  readonly run: AccessLogRun;
  /** One line of progress. */
  readonly progress: (line: string) => void;
}

export interface Drill {
  readonly name: string;
  /** What is done to the cluster. */
  readonly fault: string;
  /** What must hold, besides the exactly-once output that every drill checks. */
  readonly mustHold: string;
  /** Lines a second of the job, so that it outlasts the fault and the recovery. Default 600. */
  readonly rate?: number;
  /** Environment of the cluster's processes (fault points). `directory` is the cluster's. */
  readonly environment?: (directory: string) => Readonly<Record<string, string>>;
  /** Injects the fault and returns when the job has recovered; throws when something did not hold. */
  readonly inject: (context: DrillContext) => Promise<DrillFindings>;
}

/** Milliseconds and facts, by name, for people and JSON. */
export type DrillFindings = Readonly<Record<string, number | string>>;

export interface DrillReport {
  readonly drill: string;
  readonly passed: boolean;
  readonly exactlyOnce: boolean;
  readonly committedLines: number;
  readonly findings: DrillFindings;
  /** Why it did not pass. */
  readonly failure?: string;
  readonly durationMs: number;
}
