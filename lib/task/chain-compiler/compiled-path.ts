/**
 * A chain's generated code, bound to the operators and channels of one subtask. Whatever does not come with a record
 * (watermarks, barriers, timers) still goes from operator to operator; the operators are the same.
 */
import { InvariantError, unreachable } from '../../base/assert.js';
import { MillraceError } from '../../base/errors.js';
import { fmix32, hashKey } from '../../state/key-group.js';
import type { BatchReader } from '../../record/codec/batch-codec.js';
import { generatesCode, generatesSourceCode } from '../../operators/operator-code.js';
import { userError } from '../../operators/user-function.js';
import { DirectChannel, type TakeRecord } from '../direct-channel.js';
import { keySelectorError, type EdgeOutput } from '../edge-output.js';
import type { OperatorChain, OperatorNode } from '../operator-chain.js';
import { RingOutputChannel } from '../output-channel.js';
import { InterpretedPath, type RecordPath, type RecordPathOwner } from '../record-path.js';
import type { ChainShape, EdgePart, EdgeShape, Parameter } from './chain-shape.js';
import { generateChain } from './chain-source.js';

/** Chains compiled by this thread: V8 shares feedback between equal texts, so each has a number of its own. */
let compiled = 0;

export interface CompileOptions {
  readonly owner: RecordPathOwner;
  readonly chain: OperatorChain;
  readonly edges: readonly EdgeOutput[];
  /** Names of the tasks the edges lead to. */
  readonly edgeTargets: readonly string[];
  readonly inputs: ChainShape['inputs'];
  /** For stack traces: vertex and subtask. */
  readonly name: string;
  readonly subtaskIndex: number;
}

/** What the generated function returns. */
interface GeneratedChain {
  readonly rows?: (batch: BatchReader, from: number) => number;
  readonly direct?: TakeRecord;
  readonly collect?: (value: unknown, timestamp?: number, splitId?: string) => void;
  readonly emitters: Readonly<Record<number, (value: unknown, timestamp: number) => void>>;
}

export class CompiledPath implements RecordPath {
  readonly #interpreted: InterpretedPath;
  readonly #generated: GeneratedChain;
  /** Element 0: records that came in by generated code. */
  readonly #received = new Float64Array(1);
  readonly direct: TakeRecord;

  /** After all operators are open. */
  constructor(options: CompileOptions) {
    const { owner, chain } = options;
    this.#interpreted = new InterpretedPath(owner, chain.head);
    const source = generateChain(shapeOf(options), fileOf(options));
    this.#generated = instantiate(source, new Binder(options, this.#received));
    this.direct = this.#generated.direct ?? this.#interpreted.direct;
    for (const index of source.emitters) {
      chain.nodes[index]!.output.useEmitter(this.#generated.emitters[index]!);
    }
    const head = chain.head.operator;
    if (this.#generated.collect !== undefined && generatesSourceCode(head)) {
      head.useCollect(this.#generated.collect);
    }
  }

  get recordsIn(): number {
    return this.#received[0]! + this.#interpreted.recordsIn;
  }

  rows(batch: BatchReader, from: number): number {
    return this.#generated.rows!(batch, from);
  }

  /** Queued records are rare: not worth another copy of the chain's code. */
  record(value: unknown, timestamp: number): void {
    this.#interpreted.record(value, timestamp);
  }
}

function fileOf({ name, subtaskIndex }: CompileOptions): string {
  compiled += 1;
  const words = name.replace(/[^\w]+/g, '-').replace(/^-|-$/g, '');
  return `millrace/chain/${words.slice(0, 60)}.${String(subtaskIndex)}.${String(compiled)}.js`;
}

function shapeOf({ chain, edges, edgeTargets, inputs, name }: CompileOptions): ChainShape {
  return {
    name,
    inputs,
    edges: edges.map((edge, index) => edgeShape(edge, edgeTargets[index] ?? edge.id)),
    nodes: chain.nodes.map((node) => ({
      id: node.id,
      name: node.name,
      type: node.type,
      operator: node.operator,
      chained: node.chained.map((child) => chain.nodes.indexOf(child)),
      edges: edges.flatMap((edge, index) =>
        edge.sourceOperator === node.id && edge.sideOutput === undefined ? [index] : [],
      ),
    })),
  };
}

function edgeShape(edge: EdgeOutput, target: string): EdgeShape {
  const { strategy, channels } = edge;
  return {
    target,
    strategy,
    channels: channels.map((channel) => (channel instanceof DirectChannel ? 'direct' : 'ring')),
    sealsEachRecord: channels.some(
      (channel) => channel instanceof RingOutputChannel && channel.sealsEachRecord,
    ),
    maxParallelism: edge.hash?.maxParallelism ?? 1,
  };
}

function instantiate(
  { code, parameters }: { readonly code: string; readonly parameters: readonly Parameter[] },
  binder: Binder,
): GeneratedChain {
  const names = parameters.map(({ name }) => name);
  // The one place where text becomes code: its only foreign parts are names in comments, on one line each.
  // eslint-disable-next-line @typescript-eslint/no-implied-eval
  const create = new Function(...names, code) as (...values: unknown[]) => GeneratedChain;
  return create(...parameters.map((parameter) => binder.valueOf(parameter)));
}

class Binder {
  readonly #options: CompileOptions;
  readonly #runtime: Readonly<Record<string, unknown>>;

  constructor(options: CompileOptions, received: Float64Array) {
    const { owner } = options;
    this.#options = options;
    this.#runtime = {
      quantum: owner.quantum,
      running: owner.running,
      task: owner.task,
      received,
      caught: (error: unknown, op: number) => this.#caught(error, op),
      fail: (error: unknown) => {
        owner.fail(error);
      },
      fmix32,
      hashKey,
    };
  }

  valueOf({ name, of }: Parameter): unknown {
    const { chain, edges } = this.#options;
    switch (of.kind) {
      case 'value':
        return of.value();
      case 'runtime':
        if (!(name in this.#runtime)) {
          throw new InvariantError('generated code uses a name nobody gives', { name });
        }
        return this.#runtime[name];
      case 'operator':
        return chain.nodes[of.operator]!.operator;
      case 'edge':
        return partOf(edges[of.edge]!, of.part);
      default:
        return unreachable(of);
    }
  }

  /** Blames what was thrown on the operator, or the key selector, that ran; answers it as that one would throw it. */
  #caught(error: unknown, op: number): unknown {
    const { owner, chain, edges } = this.#options;
    const edge = edges[op - chain.nodes.length];
    const node = edge === undefined ? chain.nodes[op]! : sourceOf(chain, edge);
    const blamed = error instanceof MillraceError ? error : asThrownBy(node, edge, error);
    owner.blame(blamed, node);
    return blamed;
  }
}

/** Generated code calls user functions without the operator in between that would have said whose they are. */
function asThrownBy(node: OperatorNode, edge: EdgeOutput | undefined, error: unknown): unknown {
  if (edge !== undefined) return keySelectorError(edge.id, error);
  const { operator } = node;
  const isInlined = generatesCode(operator) || generatesSourceCode(operator);
  return isInlined ? userError(node.name, error) : error;
}

function sourceOf(chain: OperatorChain, edge: EdgeOutput): OperatorNode {
  const node = chain.nodes.find(({ id }) => id === edge.sourceOperator);
  if (node === undefined) throw new InvariantError('an edge leaves an operator of another chain');
  return node;
}

function partOf(edge: EdgeOutput, part: EdgePart): unknown {
  switch (part.kind) {
    case 'output':
      return edge;
    case 'sent':
      return edge.sent;
    case 'keyOf':
      return edge.hash?.keyOf;
    case 'channelOfGroup':
      return edge.hash?.channelOfGroup;
    case 'channels':
      return edge.channels;
    case 'writers':
      return ringOf(edge).writers;
    case 'direct':
      return edge.channels[part.channel];
    default:
      return unreachable(part);
  }
}

/** The rings of an edge share one array of writers, by index of channel. */
function ringOf(edge: EdgeOutput): RingOutputChannel {
  const ring = edge.channels.find((channel) => channel instanceof RingOutputChannel);
  if (ring === undefined) throw new InvariantError('an edge has no ring', { edge: edge.id });
  return ring;
}
