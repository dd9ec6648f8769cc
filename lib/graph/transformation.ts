/**
 * What the job author's API builds: a graph of operators with partitionings, unions and side outputs
 * as nodes of their own. Turned into a StreamGraph when the job is executed.
 */
import type { OperatorFactory } from '../operators/stream-operator.js';
import type { Boundedness, Source } from '../api/source.js';
import type { OperatorKind, ShipStrategy } from './job-graph.js';

/** `head`: may have operators chained to it but is chained to none; `never`: a task of its own. */
export type ChainingStrategy = 'always' | 'head' | 'never';

export interface OperatorTransformation {
  readonly kind: 'operator';
  readonly operatorKind: OperatorKind;
  /** Constructor-like name for people and for structural operator ids. */
  readonly type: string;
  readonly inputs: readonly Transformation[];
  readonly factory: OperatorFactory;
  /** The user's functions and function objects; their source texts make the operator's digest. */
  readonly functions: readonly unknown[];
  /** With sources only. */
  readonly source?: Source<unknown, unknown, unknown>;
  readonly boundedness?: Boundedness;
  /** Set for operators that run in one subtask whatever the job's parallelism is. */
  readonly fixedParallelism?: number;
  name: string;
  uid?: string;
  parallelism?: number;
  maxParallelism?: number;
  slotSharingGroup?: string;
  chaining: ChainingStrategy;
}

/** How records travel to whatever consumes this node. */
export interface PartitionTransformation {
  readonly kind: 'partition';
  readonly input: Transformation;
  readonly strategy: ShipStrategy;
  /** With HASH. */
  readonly keySelector?: (value: unknown) => unknown;
}

export interface UnionTransformation {
  readonly kind: 'union';
  readonly inputs: readonly Transformation[];
}

export interface SideOutputTransformation {
  readonly kind: 'sideOutput';
  readonly input: Transformation;
  readonly tag: string;
}

export type Transformation =
  OperatorTransformation | PartitionTransformation | UnionTransformation | SideOutputTransformation;
