/**
 * The operators of a chain, wired by direct virtual calls (the interpreter). Each call into an operator
 * is guarded so that an exception is blamed on the operator that threw, however many stacks it surfaces in.
 */
import { InvariantError } from '../base/assert.js';
import type { OperatorId } from '../base/ids.js';
import { MetricRegistry } from '../base/metrics.js';
import type { JobOperator } from '../graph/job-graph.js';
import type {
  FunctionSource,
  OperatorContext,
  StreamOperator,
} from '../operators/stream-operator.js';
import type { EdgeOutput } from './edge-output.js';
import { OperatorOutput, type OutputTarget } from './operator-output.js';

export interface OperatorNode {
  readonly id: OperatorId;
  readonly name: string;
  readonly type: string;
  readonly operator: StreamOperator;
  /** What takes its main output in the chain. */
  readonly chained: readonly OperatorNode[];
  readonly output: OperatorOutput;
  readonly metrics: MetricRegistry;
}

/** Remembers who threw first; the chain's task asks it when an exception surfaces. */
export type Blame = (error: unknown, node: OperatorNode) => void;

export interface ChainOptions {
  /** Head first, parents before children. */
  readonly operators: readonly JobOperator[];
  readonly functions: FunctionSource;
  /** The edges that leave an operator. */
  readonly edgesOf: (operator: OperatorId) => readonly EdgeOutput[];
  readonly contextOf: (node: OperatorNode) => OperatorContext;
  readonly blame: Blame;
}

export class OperatorChain {
  /** Head first. */
  readonly nodes: readonly OperatorNode[];
  readonly head: OperatorNode;
  readonly #options: ChainOptions;

  constructor(options: ChainOptions) {
    this.#options = options;
    const built = new Map<OperatorId, OperatorNode>();
    // Children first: an operator's output needs them.
    for (const operator of [...options.operators].reverse()) {
      built.set(operator.id, createNode(operator, built, options));
    }
    this.nodes = options.operators.map(
      (operator) => built.get(operator.id) ?? notChained(operator.id),
    );
    this.head = this.nodes[0] ?? notChained('head');
  }

  /** Tail first, so that what an operator emits while opening finds its successors open. */
  async open(): Promise<void> {
    for (const node of [...this.nodes].reverse()) {
      this.guard(node, () => node.operator.setup(this.#options.contextOf(node)));
      await this.guardAsync(node, () => node.operator.open());
    }
  }

  /** In place of `open`, for a subtask that had ended: no operator is opened, those with output to commit do that. */
  async commitRestored(): Promise<void> {
    for (const node of this.nodes) {
      const { operator } = node;
      if (operator.commitRestored === undefined) continue;
      this.guard(node, () => operator.setup(this.#options.contextOf(node)));
      try {
        await this.guardAsync(node, () => operator.commitRestored?.());
      } finally {
        await this.guardAsync(node, () => operator.close());
      }
    }
  }

  guard<T>(node: OperatorNode, run: () => T): T {
    try {
      return run();
    } catch (error) {
      this.#options.blame(error, node);
      throw error;
    }
  }

  async guardAsync<T>(node: OperatorNode, run: () => T | Promise<T>): Promise<T> {
    try {
      return await run();
    } catch (error) {
      this.#options.blame(error, node);
      throw error;
    }
  }
}

function createNode(
  operator: JobOperator,
  built: ReadonlyMap<OperatorId, OperatorNode>,
  options: ChainOptions,
): OperatorNode {
  const main: OutputTarget[] = [];
  const sides = new Map<string, OutputTarget[]>();
  const add = (target: OutputTarget, tag: string | undefined): void => {
    if (tag === undefined) main.push(target);
    else sides.set(tag, [...(sides.get(tag) ?? []), target]);
  };
  const mainChildren: OperatorNode[] = [];
  for (const chained of operator.chainedTo) {
    const child = built.get(chained.operator) ?? notChained(chained.operator);
    if (chained.sideOutput === undefined) mainChildren.push(child);
    add(new ChainedTarget(child, options.blame), chained.sideOutput);
  }
  for (const edge of options.edgesOf(operator.id)) {
    add(new EdgeTarget(edge, (error) => options.blame(error, node)), edge.sideOutput);
  }
  const node: OperatorNode = {
    id: operator.id,
    name: operator.name,
    type: operator.type,
    chained: mainChildren,
    operator: options.functions.operatorFactory(operator.id)(),
    output: new OperatorOutput(main, sides),
    metrics: new MetricRegistry(),
  };
  return node;
}

/** An edge behind an operator: what it throws is remembered, as the user function that emitted may swallow it. */
class EdgeTarget implements OutputTarget {
  readonly #edge: EdgeOutput;
  readonly #blame: (error: unknown) => void;

  constructor(edge: EdgeOutput, blame: (error: unknown) => void) {
    this.#edge = edge;
    this.#blame = blame;
  }

  collect(value: unknown, timestamp: number): void {
    try {
      this.#edge.collect(value, timestamp);
    } catch (error) {
      this.#blame(error);
      throw error;
    }
  }

  emitWatermark(timestamp: number): void {
    this.#edge.emitWatermark(timestamp);
  }

  emitWatermarkStatus(active: boolean): void {
    this.#edge.emitWatermarkStatus(active);
  }
}

class ChainedTarget implements OutputTarget {
  readonly #node: OperatorNode;
  readonly #operator: StreamOperator;
  readonly #blame: Blame;

  constructor(node: OperatorNode, blame: Blame) {
    this.#node = node;
    this.#operator = node.operator;
    this.#blame = blame;
  }

  collect(value: unknown, timestamp: number): void {
    try {
      this.#operator.processElement(value, timestamp);
    } catch (error) {
      this.#blame(error, this.#node);
      throw error;
    }
  }

  emitWatermark(timestamp: number): void {
    try {
      this.#operator.processWatermark(timestamp);
    } catch (error) {
      this.#blame(error, this.#node);
      throw error;
    }
  }

  emitWatermarkStatus(active: boolean): void {
    try {
      this.#operator.processWatermarkStatus(active);
    } catch (error) {
      this.#blame(error, this.#node);
      throw error;
    }
  }
}

function notChained(operator: string): never {
  throw new InvariantError('the job graph names an operator its chain does not have', { operator });
}
