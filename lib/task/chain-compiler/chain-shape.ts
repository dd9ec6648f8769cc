/** What the generator of a chain's code knows about the chain, and what its code refers to by name. */
import type { OperatorId } from '../../base/ids.js';
import type { ShipStrategy } from '../../graph/job-graph.js';
import type { StreamOperator } from '../../operators/stream-operator.js';

/** An edge as the generator needs to know it. */
export interface EdgeShape {
  /** Name of the task it leads to. */
  readonly target: string;
  readonly strategy: ShipStrategy;
  /** By channel: a direct call inside the slot, or a ring. */
  readonly channels: readonly ('direct' | 'ring')[];
  /** Buffer timeout 0. */
  readonly sealsEachRecord: boolean;
  /** Key groups of a HASH edge. */
  readonly maxParallelism: number;
}

/** An operator of the chain with what takes its main output. */
export interface ChainNode {
  readonly id: OperatorId;
  readonly name: string;
  readonly type: string;
  readonly operator: StreamOperator;
  /** Indices of chained operators. */
  readonly chained: readonly number[];
  /** Indices of `edges`. */
  readonly edges: readonly number[];
}

export interface ChainShape {
  /** For people; shown in stack traces. */
  readonly name: string;
  /** Head first. */
  readonly nodes: readonly ChainNode[];
  readonly edges: readonly EdgeShape[];
  readonly inputs: { readonly direct: boolean; readonly ring: boolean };
}

/** What the code calls by a name of its own. */
export interface Parameter {
  readonly name: string;
  readonly of:
    /** Given by an operator. */
    | { readonly kind: 'value'; readonly value: () => unknown }
    /** One of the runtime's: see `CompiledPath`. */
    | { readonly kind: 'runtime' }
    | { readonly kind: 'edge'; readonly edge: number; readonly part: EdgePart }
    | { readonly kind: 'operator'; readonly operator: number };
}

export type EdgePart =
  | { readonly kind: 'output' | 'sent' | 'keyOf' | 'channelOfGroup' | 'channels' | 'writers' }
  | { readonly kind: 'direct'; readonly channel: number };

/** The generator as the code of edges sees it. */
export interface ChainScope {
  readonly shape: ChainShape;
  /** Declares a parameter once; answers its name. */
  parameter(parameter: Parameter): string;
}

/** Names of users in comments of generated code: they must not end the line. */
export function oneLine(text: string): string {
  return text.replace(/[\r\n\u2028\u2029]+/g, ' ').slice(0, 120);
}
