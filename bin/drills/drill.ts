/** What a drill is: a fault, injected into a real cluster under load, and what must hold afterwards. */
import type { LocalCluster } from '../local/local-cluster.js';
import type { AccessLogRun } from './access-log-run.js';
import type { ClusterLinks, LinkKind } from './cluster-links.js';

/** The cluster a drill wants. Defaults: 3 JobManagers, 2 TaskManagers of 2 slots, 3 etcd members, supervised, no proxies. */
export interface DrillCluster {
  readonly jobManagers?: number;
  readonly taskManagers?: number;
  readonly slotsPerTaskManager?: number;
  readonly etcdMembers?: number;
  /** Whether JobManagers and TaskManagers run under supervisors that start them again. */
  readonly supervised?: boolean;
  readonly settings?: Readonly<Record<string, string>>;
  /** By process name. */
  readonly processSettings?: Readonly<Record<string, Readonly<Record<string, string>>>>;
  /** Environment of the cluster's processes (fault points). `directory` is the cluster's. */
  readonly environment?: (directory: string) => Readonly<Record<string, string>>;
  /** Links that go through fault proxies, see `context.links`. */
  readonly links?: readonly LinkKind[];
}

/** The access-log job of a drill. It lasts about `lines / rate` seconds, which must outlast fault and recovery. */
export interface DrillJob {
  /** Lines a second. Default 600. */
  readonly rate?: number;
  /** Lines of the log it reads, at most 10,000. Default 7,000. */
  readonly lines?: number;
  /** Default 2. */
  readonly parallelism?: number;
  /** Over a checkpoint every 300 ms and a first restart after 100 ms. */
  readonly settings?: Readonly<Record<string, string>>;
}

export interface DrillContext {
  readonly cluster: LocalCluster;
  readonly run: AccessLogRun;
  /** Proxies of the links the drill asked for. */
  readonly links: ClusterLinks;
  /** The long variant was asked for. */
  readonly soak: boolean;
  /** One line of progress. */
  readonly progress: (line: string) => void;
  /** Says what was done to the cluster, in progress and timeline; returns the wall-clock ms. The timeline begins with the first. */
  readonly did: (what: string) => number;
  /** From now on another run is the one that is followed to its end and checked (a job resumed from a savepoint). */
  readonly follow: (run: AccessLogRun) => void;
}

export interface Drill {
  readonly name: string;
  /** What is done to the cluster. */
  readonly fault: string;
  /** What must hold, besides the exactly-once output and the order of writes that every drill checks. */
  readonly mustHold: string;
  readonly cluster?: DrillCluster;
  /** Depends on the length of the fault where the long variant has a longer one. */
  readonly job?: DrillJob | ((soak: boolean) => DrillJob);
  /** How the job ends. CANCELED: what is committed must be right, the rest may be missing. Default FINISHED. */
  readonly ends?: 'FINISHED' | 'CANCELED';
  /**
   * Present when the drill may be run on a cluster somebody uses: needs no settings, proxies or fault points,
   * starts again what it ends. Says what it would strike, for the question beforehand.
   */
  readonly strikes?: (cluster: LocalCluster) => Promise<readonly string[]>;
  /** Checkpoints completed and output committed before the fault. Default 2; 0 strikes as soon as the job is submitted. */
  readonly underway?: number;
  /** Injects the fault and returns when the job has recovered; throws when something did not hold. */
  readonly inject: (context: DrillContext) => Promise<DrillFindings>;
}

/** Milliseconds (names ending in Ms), counts and facts, by name, for people and JSON. */
export type DrillFindings = Readonly<Record<string, number | string>>;

export interface TimelineEntry {
  /** After the first deed of the drill. */
  readonly ms: number;
  /** `drill` for what was done. */
  readonly process: string;
  readonly event: string;
  readonly text: string;
}

export interface DrillReport {
  readonly drill: string;
  readonly passed: boolean;
  readonly exactlyOnce: boolean;
  readonly committedLines: number;
  readonly findings: DrillFindings;
  /** Why it did not pass. */
  readonly failure?: string;
  readonly durationMs: number;
  readonly timeline: readonly TimelineEntry[];
}
