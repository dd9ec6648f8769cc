/**
 * Random jobs as plain data: what fast-check makes (random-graph-arbitrary.ts) and shrinks, and what a failure prints. `planGraph` turns a
 * description into a valid job: it decides where order, event time and watermarks are defined, and with
 * that which functions give the same output however the records of several channels fall together.
 */
import type { Key, Payload, Shape } from './random-graph-values.js';

export type Part = 'none' | 'forward' | 'rebalance' | 'rescale' | 'broadcast' | 'global' | 'key';

export interface Placing {
  readonly part: Part;
  /** 0: that of the job. */
  readonly par: number;
  readonly chain: 'always' | 'head' | 'never';
  readonly group: number;
}

export interface SourceSpec {
  readonly splits: number;
  /** Records of a split in a phase; at least 2. */
  readonly count: number;
  readonly payloads: readonly Payload[];
  readonly shape: Shape;
  readonly par: number;
  readonly times: 'given' | 'read' | 'unmarked';
  readonly batch: boolean;
  /** After so many records there is nothing for a moment: what was collected is sent. */
  readonly burst: number;
}

export type Operation =
  | { readonly op: 'map'; readonly fn: MapKind; readonly shape: Shape; readonly flavor: number }
  | { readonly op: 'filter'; readonly modulo: number; readonly flavor: number }
  | { readonly op: 'flatMap'; readonly mode: FlatMapMode; readonly copies: number }
  | { readonly op: 'process'; readonly modulo: number; readonly flavor: number }
  | { readonly op: 'assign'; readonly offset: number }
  | { readonly op: 'union'; readonly with: readonly number[] }
  | { readonly op: 'roll'; readonly how: RollKind; readonly key: Key; readonly strict: boolean }
  | { readonly op: 'buckets'; readonly key: Key; readonly size: number }
  | {
      readonly op: 'window';
      readonly how: WindowKind;
      readonly key: Key;
      readonly size: number;
      readonly lateness: number;
      readonly late: boolean;
    };

export const mapKinds = [
  'same',
  'shape',
  'half',
  'big',
  'negate',
  'accent',
  'wrap',
  'age',
] as const;
export type MapKind = (typeof mapKinds)[number];
export const flatMapModes = ['collect', 'array', 'generator', 'both'] as const;
export type FlatMapMode = (typeof flatMapModes)[number];
export const rollKinds = ['reduce', 'value', 'list', 'map', 'reducing'] as const;
export type RollKind = (typeof rollKinds)[number];
export const windowKinds = ['reduce', 'aggregate', 'process', 'reduce+', 'aggregate+'] as const;
export type WindowKind = (typeof windowKinds)[number];

export type NodeSpec = Operation & Placing & { readonly input: number };

export interface SinkSpec {
  readonly input: number;
  readonly part: Part;
  readonly par: number;
}

export interface GraphSpec {
  /** Of the data. */
  readonly seed: number;
  /** 1: time flows on by itself. More: a phase begins when everything of the one before is processed, so that records can be late. */
  readonly phases: number;
  readonly sources: readonly SourceSpec[];
  readonly nodes: readonly NodeSpec[];
  readonly sinks: readonly SinkSpec[];
  readonly chaining: boolean;
  readonly bufferTimeoutMs: number;
}

/** A stream of the planned job. */
export interface PlannedStream {
  /** An operator with, for side outputs, the tag; or a union of streams by index. */
  readonly from: { readonly node: number; readonly tag?: string } | readonly number[];
  /** 0: that of the job; -1: differs. */
  readonly par: number;
  /** Records of a lane (`Fields.l`) are in order. */
  readonly ordered: boolean;
  /** Every record has an event time that depends on nothing but the record. */
  readonly timed: boolean;
  /** Watermarks rise phase by phase; otherwise only at the end. */
  readonly marked: boolean;
  /** Sources it comes from. */
  readonly origins: ReadonlySet<number>;
}

export interface PlannedNode extends Placing {
  readonly name: string;
  readonly spec: SourceSpec | Operation;
  /** Index of the input stream; absent for sources. */
  readonly input?: number;
  /** Index of the output stream, and those of side outputs behind it. */
  readonly output: number;
  readonly key: Key;
  /** Order counts: a rolling result of everything before, by lane. */
  readonly strict: boolean;
  /** Late records fire their windows again. */
  readonly refires: boolean;
  /** What functions see of the watermark is defined. */
  readonly seesMarks: boolean;
  readonly phases: number;
  readonly seesTimes: boolean;
}

export interface PlannedSink {
  readonly name: string;
  readonly input: number;
  readonly part: Part;
  readonly par: number;
  readonly ordered: boolean;
  readonly timed: boolean;
}

export interface GraphPlan {
  readonly spec: GraphSpec;
  readonly streams: readonly PlannedStream[];
  /** Sources first, then in the order of the program. */
  readonly nodes: readonly PlannedNode[];
  readonly sinks: readonly PlannedSink[];
}

export const sideTag = 'side';

class Planner {
  readonly streams: PlannedStream[] = [];
  readonly nodes: PlannedNode[] = [];
  readonly sinks: PlannedSink[] = [];
  readonly #spec: GraphSpec;
  readonly #isSmall: boolean;
  readonly #consumed = new Set<number>();

  constructor(spec: GraphSpec, isSmall: boolean) {
    this.#spec = spec;
    this.#isSmall = isSmall;
  }

  plan(): void {
    this.#spec.sources.forEach((spec, index) => {
      const par = this.#isSmall ? 0 : spec.par;
      const output = this.#stream({
        from: { node: this.nodes.length },
        par,
        ordered: spec.shape !== 'number',
        timed: true,
        marked: spec.times !== 'unmarked',
        origins: new Set([index]),
      });
      this.#node(`source ${index}`, spec, { output, part: 'none', par, chain: 'always', group: 0 });
    });
    for (const spec of this.#spec.nodes) this.#add(spec);
    const given = this.#spec.sinks.map((sink) => ({ ...sink, input: this.#at(sink.input) }));
    for (const sink of given) this.#sink(sink);
    const left = this.streams.flatMap((_, index) => (this.#consumed.has(index) ? [] : [index]));
    for (const input of left) this.#sink({ input, part: 'none', par: 0 });
  }

  #at(back: number): number {
    return this.streams.length - 1 - (back % this.streams.length);
  }

  #stream(stream: PlannedStream): number {
    this.streams.push(stream);
    return this.streams.length - 1;
  }

  #node(
    name: string,
    spec: SourceSpec | Operation,
    more: Placing & Partial<PlannedNode> & { readonly output: number },
  ): void {
    const base = { key: 'lane' as const, strict: false, refires: false };
    const plain = { seesMarks: false, seesTimes: false, phases: this.#spec.phases };
    this.nodes.push({ name, spec, ...base, ...plain, ...more });
  }

  #add(spec: NodeSpec): void {
    const at = this.#at(spec.input);
    if (spec.op === 'union') {
      this.#union([at, ...spec.with.map((back) => this.#at(back))]);
      return;
    }
    const needsTimes = spec.op === 'window' || spec.op === 'buckets';
    const input = needsTimes && !this.streams[at]!.timed ? this.#assigned(at) : at;
    this.#operator(spec, spec, input);
  }

  #assigned(input: number): number {
    const placing = { part: 'none' as const, par: 0, chain: 'always' as const, group: 0 };
    return this.#operator({ op: 'assign', offset: 5 }, placing, input);
  }

  #union(all: readonly number[]): void {
    const inputs = [...new Set(all)];
    if (inputs.length === 1) return;
    const parts = inputs.map((index) => this.streams[index]!);
    // At its end an input without watermarks holds back those of the others no more: when that is depends on timing.
    const isMixed = new Set(parts.map(({ marked }) => marked)).size > 1;
    if (isMixed && this.#spec.phases > 1) return;
    const origins = new Set(parts.flatMap((one) => [...one.origins]));
    const isDisjoint = origins.size === parts.reduce((sum, one) => sum + one.origins.size, 0);
    for (const index of inputs) this.#consumed.add(index);
    const par = parts[0]!.par;
    this.#stream({
      from: inputs,
      par: parts.every((one) => one.par === par) ? par : -1,
      ordered: isDisjoint && parts.every((one) => one.ordered),
      timed: parts.every((one) => one.timed),
      marked: parts.every((one) => one.marked),
      origins,
    });
  }

  /** The partitioning that is possible, and whether it keeps lanes in order. */
  #part(wanted: Part, from: PlannedStream, par: number): { part: Part; keepsOrder: boolean } {
    const isSame = from.par === par;
    if (wanted === 'broadcast' && par > 0) return { part: wanted, keepsOrder: par === 1 };
    if (wanted === 'rebalance' || wanted === 'rescale' || wanted === 'broadcast') {
      return { part: wanted === 'broadcast' ? 'rebalance' : wanted, keepsOrder: par === 1 };
    }
    if (wanted === 'global' || wanted === 'key') return { part: wanted, keepsOrder: true };
    const part = wanted === 'forward' && isSame ? wanted : 'none';
    return { part, keepsOrder: isSame || par === 1 };
  }

  #operator(spec: Exclude<Operation, { op: 'union' }>, placing: Placing, input: number): number {
    const from = this.streams[input]!;
    const isKeyed = spec.op === 'roll' || spec.op === 'buckets' || spec.op === 'window';
    const par = this.#isSmall ? 0 : placing.par;
    const group = this.#isSmall ? 0 : placing.group;
    // Overridden by keyBy.
    const wanted = isKeyed && placing.part === 'broadcast' ? 'rebalance' : placing.part;
    const { part, keepsOrder } = this.#part(wanted, from, par);
    const isOrdered = from.ordered && (isKeyed || keepsOrder);
    const strict = spec.op === 'roll' && spec.strict && from.ordered;
    const isPhased = this.#spec.phases > 1;
    const refires = spec.op === 'window' && spec.lateness > 0 && isPhased && from.marked;
    const loses = spec.op === 'map' && spec.shape === 'number' && spec.fn !== 'same';
    const output = this.#stream({
      from: { node: this.nodes.length },
      par,
      ordered: isKeyed ? strict : isOrdered && !loses,
      timed: spec.op === 'assign' || (spec.op === 'roll' ? strict && from.timed : from.timed),
      marked: spec.op === 'assign' ? false : from.marked,
      origins: from.origins,
    });
    const hasSide = spec.op === 'process' || spec.op === 'buckets' || spec.op === 'window';
    if (hasSide) {
      const side = { node: this.nodes.length, tag: sideTag };
      const ordered = spec.op === 'process' && isOrdered;
      this.#stream({ ...this.streams[output]!, from: side, ordered });
    }
    this.#consumed.add(input);
    const name = `${spec.op} ${this.nodes.length}`;
    const key = strict ? 'lane' : isKeyed ? spec.key : 'string';
    const seesMarks = isPhased;
    const { timed: seesTimes } = from;
    const { chain } = placing;
    const seen = { key, strict, refires, seesMarks, seesTimes };
    this.#node(name, spec, { input, output, part, par, chain, group, ...seen });
    return output;
  }

  #sink({ input, part: wanted, par: given }: SinkSpec): void {
    const from = this.streams[input]!;
    const par = this.#isSmall ? 0 : given;
    const { part, keepsOrder } = this.#part(wanted, from, par);
    const ordered = from.ordered && (keepsOrder || part === 'key') && part !== 'broadcast';
    const name = `sink ${this.sinks.length}`;
    this.sinks.push({ name, input, part, par, ordered, timed: from.timed });
  }
}

/** @param isSmall one slot: everything at the job's parallelism and in one sharing group */
export function planGraph(spec: GraphSpec, isSmall = false): GraphPlan {
  const planner = new Planner(spec, isSmall);
  planner.plan();
  const { streams, nodes, sinks } = planner;
  return { spec, streams, nodes, sinks };
}
