/** The job as operators and edges, before chaining. Holds functions, so it never leaves the process. */
import type { OperatorId } from '../base/ids.js';
import type { OperatorFactory } from '../operators/stream-operator.js';
import type { Boundedness, Source } from '../api/source.js';
import type { OperatorKind, ShipStrategy } from './job-graph.js';
import type { ChainingStrategy } from './transformation.js';

export interface StreamNode {
  readonly id: OperatorId;
  readonly uid?: string;
  readonly name: string;
  readonly kind: OperatorKind;
  readonly type: string;
  readonly parallelism: number;
  readonly maxParallelism: number;
  readonly slotSharingGroup: string;
  readonly chaining: ChainingStrategy;
  readonly factory: OperatorFactory;
  readonly functions: readonly unknown[];
  readonly source?: Source<unknown, unknown, unknown>;
  readonly boundedness?: Boundedness;
  /** In the order of the program: it is the order of the channels. */
  readonly inputs: StreamEdge[];
  readonly outputs: StreamEdge[];
}

export interface StreamEdge {
  /** `<source operator>_<target operator>_<n>`. */
  readonly id: string;
  readonly source: StreamNode;
  readonly target: StreamNode;
  readonly shipStrategy: ShipStrategy;
  readonly sideOutput?: string;
  /** With HASH. */
  readonly keySelector?: (value: unknown) => unknown;
}

export interface StreamGraph {
  /** Topological order: the order of the program. */
  readonly nodes: readonly StreamNode[];
  readonly edges: readonly StreamEdge[];
  readonly isChainingEnabled: boolean;
}
