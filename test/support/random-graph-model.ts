/**
 * What a random job must output, computed with plain arrays: phase by phase, operator by operator, without
 * channels, subtasks, batches or bytes.
 */
import {
  type GraphPlan,
  type Operation,
  type PlannedNode,
  type SourceSpec,
} from './random-graph.js';
import {
  addCounters,
  aggregateOf,
  bucketRecord,
  chainedRecord,
  clearedAt,
  counter,
  fired,
  flatMapped,
  keeps,
  markAfter,
  mapRecord,
  processed,
  recordOf,
  rolled,
  selectorOf,
  sinkText,
  withPayload,
  type Timed,
} from './random-graph-functions.js';
import { fieldsOf, plainKey, show } from './random-graph-values.js';

export interface SinkOutput {
  /** Every record as text, sorted. */
  readonly all: readonly string[];
  /** By lane, in order; only where order is defined. */
  readonly lanes: Readonly<Record<string, readonly string[]>>;
}

interface Emit {
  main(value: unknown, timestamp: number): void;
  side(value: unknown, timestamp: number): void;
}

interface ModelOperator {
  record(item: Timed, watermark: number, emit: Emit): void;
  advance?(watermark: number, emit: Emit): void;
}

/** By sink, and the number of records on all streams together. */
export function expectedOutput(plan: GraphPlan): { sinks: SinkOutput[]; records: number } {
  const { spec, nodes, streams, sinks } = plan;
  const operators = nodes.map((node) => modelOf(node));
  const received = sinks.map((): Timed[] => []);
  let records = 0;
  for (let step = 0; step <= spec.phases; step += 1) {
    const flows = streams.map((): Timed[] => []);
    const contents = (index: number): Timed[] => {
      const { from } = streams[index]!;
      return 'node' in from ? flows[index]! : from.flatMap(contents);
    };
    nodes.forEach((node, at) => {
      const emit = emitInto(flows[node.output]!, flows[node.output + 1]);
      const isSource = node.input === undefined;
      const isMarked = isSource || streams[node.input]!.marked;
      const watermark = isMarked ? watermarkAt(spec.phases, step) : -Infinity;
      const items = isSource ? emitted(plan, at, step) : contents(node.input);
      const copies = node.part === 'broadcast' ? node.par : 1;
      const operator = operators[at]!;
      for (let copy = 0; copy < copies; copy += 1) {
        for (const item of items) operator.record(item, watermark, emit);
      }
      const next = step === spec.phases ? Infinity : watermarkAt(spec.phases, step + 1);
      if (isMarked || step === spec.phases) operator.advance?.(next, emit);
      records += items.length * copies;
    });
    sinks.forEach(({ input, part, par }, at) => {
      const copies = part === 'broadcast' ? par : 1;
      for (let copy = 0; copy < copies; copy += 1) received[at]!.push(...contents(input));
    });
  }
  const outputs = sinks.map(({ ordered, timed }, at) =>
    outputOf(
      received[at]!.map(({ value, timestamp }) => ({
        lane: fieldsOf(value).l,
        text: sinkText(timed, value, timestamp),
      })),
      ordered,
    ),
  );
  return { sinks: outputs, records };
}

export function outputOf(
  entries: readonly { readonly lane: string; readonly text: string }[],
  isOrdered: boolean,
): SinkOutput {
  const lanes: Record<string, string[]> = {};
  if (isOrdered) for (const { lane, text } of entries) (lanes[lane] ??= []).push(text);
  return { all: entries.map(({ text }) => text).sort(), lanes };
}

/** Before the records of a step. */
function watermarkAt(phases: number, step: number): number {
  return step === 0 ? -Infinity : markAfter(phases, step - 1);
}

function emitInto(main: Timed[], side: Timed[] | undefined): Emit {
  return {
    main: (value, timestamp) => void main.push({ value, timestamp }),
    side: (value, timestamp) => void side!.push({ value, timestamp }),
  };
}

function emitted({ spec, nodes }: GraphPlan, index: number, step: number): Timed[] {
  if (step === spec.phases) return [];
  const source = nodes[index]!.spec as SourceSpec;
  const from = step * source.count;
  return Array.from({ length: source.splits }, (_, split) => split).flatMap((split) =>
    Array.from({ length: source.count }, (_, i) =>
      recordOf(spec, { spec: source, index }, split, from + i),
    ),
  );
}

function modelOf(node: PlannedNode): ModelOperator {
  const { spec } = node;
  if (!('op' in spec))
    return { record: ({ value, timestamp }, _, emit) => emit.main(value, timestamp) };
  switch (spec.op) {
    case 'map':
      return {
        record: ({ value, timestamp }, _, emit) =>
          emit.main(mapRecord(spec.fn, spec.shape, value), timestamp),
      };
    case 'filter':
      return {
        record: ({ value, timestamp }, _, emit) => {
          if (keeps(spec.modulo, value)) emit.main(value, timestamp);
        },
      };
    case 'flatMap':
      return {
        record: ({ value, timestamp }, _, emit) => {
          const { collected, returned = [] } = flatMapped(spec.mode, spec.copies, value);
          for (const one of [...collected, ...returned]) emit.main(one, timestamp);
        },
      };
    case 'process':
      return {
        record: ({ value, timestamp }, watermark, emit) => {
          const out = processed(node, spec.modulo, value, { timestamp, watermark });
          if ('main' in out) emit.main(out.main, timestamp);
          if ('side' in out) emit.side(out.side, timestamp);
        },
      };
    case 'assign':
      return {
        record: ({ value }, _, emit) => emit.main(value, fieldsOf(value).t + spec.offset),
      };
    case 'roll':
      return node.strict ? strictModel(node, spec.how) : countModel(node, spec.how);
    case 'buckets':
      return bucketsModel(node, spec.size);
    case 'window':
      return windowModel(node, spec);
    case 'union':
      throw new TypeError('a union is no operator');
  }
}

/** A Map by keys that are equal by value. */
class ByKey<V> {
  readonly #entries = new Map<string, { key: unknown; value: V }>();
  readonly #create: () => V;

  constructor(create: () => V) {
    this.#create = create;
  }
  at(given: unknown): { key: unknown; value: V } {
    const key = plainKey(given);
    const text = show(key);
    let entry = this.#entries.get(text);
    if (entry === undefined) this.#entries.set(text, (entry = { key, value: this.#create() }));
    return entry;
  }
  [Symbol.iterator](): Iterator<{ key: unknown; value: V }> {
    return [...this.#entries.values()][Symbol.iterator]();
  }
}

type RollKind = Extract<Operation, { op: 'roll' }>['how'];

function countModel(node: PlannedNode, how: RollKind): ModelOperator {
  const select = selectorOf(node);
  const counts = new ByKey<number>(() => 0);
  return {
    record: ({ value, timestamp }, _, emit) => {
      const entry = counts.at(select(value));
      entry.value += 1;
      emit.main(counter(entry.key, entry.value), timestamp);
      if (entry.value === clearedAt[how]) entry.value = 0;
    },
  };
}

function strictModel(node: PlannedNode, how: RollKind): ModelOperator {
  const select = selectorOf(node);
  const states = new ByKey<unknown[]>(() => []);
  return {
    record: ({ value, timestamp }, _, emit) => {
      const entry = states.at(select(value));
      const { n, s, p } = fieldsOf(value);
      const before = entry.value;
      if (how === 'reduce') {
        entry.value = [before.length === 0 ? value : rolled(before[0], value)];
        emit.main(entry.value[0], timestamp);
        return;
      }
      if (how === 'value') {
        emit.main(withPayload(value, { before: before[0], p }), timestamp);
        entry.value = n % 7 === 6 ? [] : [p];
      } else if (how === 'list') {
        entry.value = [...before.slice(-2), p];
        emit.main(withPayload(value, entry.value), timestamp);
      } else if (how === 'map') {
        const map = new Map(before as [unknown, unknown][]);
        if (n % 7 === 6) map.delete(0);
        else map.set(n % 3, p);
        entry.value = [...map];
        emit.main(withPayload(value, [...map]), timestamp);
      } else {
        entry.value = [`${(before[0] as string | undefined) ?? ''}${s}`.slice(-12)];
        emit.main(withPayload(value, entry.value[0]), timestamp);
      }
    },
  };
}

function bucketsModel(node: PlannedNode, size: number): ModelOperator {
  const select = selectorOf(node);
  const states = new ByKey(() => ({
    buckets: new Map<number, number[]>(),
    timers: new Set<number>(),
  }));
  return {
    record: ({ value, timestamp }, watermark, emit) => {
      const { key, value: state } = states.at(select(value));
      const bucket = Math.floor(timestamp / size) * size;
      if (node.seesMarks && bucket + size - 1 <= watermark) {
        emit.side(counter(key, bucket), timestamp);
        return;
      }
      state.buckets.set(bucket, [...(state.buckets.get(bucket) ?? []), fieldsOf(value).n]);
      state.timers.add(bucket + size - 1);
    },
    advance: (watermark, emit) => {
      for (const { key, value: state } of states) {
        for (;;) {
          const at = Math.min(...state.timers);
          if (at > watermark || at === Infinity) break;
          state.timers.delete(at);
          const bucket = at + 1 - size;
          const ns = state.buckets.get(bucket);
          if (!Number.isInteger(at)) emit.main(chainedRecord(key, at), at);
          else if (ns !== undefined) {
            emit.main(bucketRecord(key, bucket, ns), at);
            state.buckets.delete(bucket);
            if (ns.length % 2 === 1) emit.side(counter(key, ns.length), at);
            if (ns.length > 2) state.timers.add(at + 1.25);
          }
        }
      }
    },
  };
}

type WindowOperation = Extract<Operation, { op: 'window' }>;

function windowModel(node: PlannedNode, spec: WindowOperation): ModelOperator {
  const { how, size, lateness } = spec;
  const isCounted = how.startsWith('reduce');
  const select = selectorOf(node);
  const windows = new Map<number, ByKey<{ elements: unknown[]; isFired: boolean }>>();
  const fires = new ByKey<number>(() => 0);
  const aggregate = aggregateOf(node);
  const fire = (start: number, key: unknown, elements: readonly unknown[], emit: Emit): void => {
    const at = start + size - 1;
    let results = elements;
    if (isCounted) results = [elements.reduce(addCounters)];
    else if (how.startsWith('aggregate')) {
      const folded = elements.reduce(
        (accumulator: ReturnType<typeof aggregate.createAccumulator>, value) =>
          aggregate.add(value, accumulator),
        aggregate.createAccumulator(),
      );
      results = [aggregate.getResult(folded)];
    }
    if (how === 'reduce' || how === 'aggregate') {
      emit.main(results[0], at);
      return;
    }
    const count = fires.at(key);
    count.value += 1;
    const out = fired(node, { key, start, elements: results, fires: count.value });
    emit.main(out.main, at);
    if ('side' in out) emit.side(out.side, at);
  };
  return {
    record: ({ value: given, timestamp }, watermark, emit) => {
      const value = isCounted ? counter(select(given), 1) : given;
      const start = Math.floor(timestamp / size) * size;
      const end = start + size - 1;
      if (end + lateness <= watermark) {
        if (spec.late) emit.side(value, timestamp);
        return;
      }
      let keyed = windows.get(start);
      if (keyed === undefined) {
        keyed = new ByKey(() => ({ elements: [] as unknown[], isFired: false }));
        windows.set(start, keyed);
      }
      const entry = keyed.at(isCounted ? fieldsOf(value).p : select(given));
      entry.value.elements.push(value);
      if (end > watermark) return;
      entry.value.isFired = true;
      fire(start, entry.key, entry.value.elements, emit);
    },
    advance: (watermark, emit) => {
      for (const [start, keyed] of [...windows].sort(([a], [b]) => a - b)) {
        const end = start + size - 1;
        if (end > watermark) continue;
        for (const { key, value } of keyed) {
          if (value.isFired) continue;
          value.isFired = true;
          fire(start, key, value.elements, emit);
        }
        if (end + lateness <= watermark) windows.delete(start);
      }
    },
  };
}
