/** The user functions of random jobs: pure, the same for the job and for its model. */
import type { AggregateFunction } from 'millrace';
import type { FlatMapMode, MapKind, PlannedNode, RollKind, SourceSpec } from './random-graph.js';
import {
  fieldsOf,
  keyOfRecord,
  learnedAfter,
  mix,
  payloadOf,
  plainKey,
  shaped,
  show,
  type Fields,
  type Shape,
} from './random-graph-values.js';

/** Watermarks trail by so much and 1 ms. */
export const boundMs = 50;
const phaseMs = 100;
/** Of the records before it no watermark is above this. */
const flowEndMs = 1_000_000;

/** The highest event time of a phase's end: a split's last record there has it. */
export function tickOf(phases: number, phase: number): number {
  return phases === 1 ? flowEndMs : (phase + 1) * phaseMs;
}

export interface Timed {
  readonly value: unknown;
  readonly timestamp: number;
}

/** Record `n` of a split. */
export function recordOf(
  data: { readonly seed: number; readonly phases: number },
  source: { readonly spec: SourceSpec; readonly index: number },
  split: number,
  n: number,
): Timed {
  const { count, payloads, shape } = source.spec;
  const { seed, phases } = data;
  const h = mix(seed, source.index, split, n);
  const phase = Math.floor(n / count);
  let t: number;
  if (n % count === count - 1) t = tickOf(phases, phase);
  else if (phases === 1) t = n * 7 + (h % boundMs);
  // No window or timer is due before the first phase is through.
  else if (phase === 0) t = (h >>> 8) % boundMs;
  else t = Math.max(0, phase * phaseMs - ((h >>> 8) % (phaseMs * 2)));
  const fields: Fields = {
    l: `${source.index}.${split}`,
    n,
    t,
    k: n % 11 === 10 ? (h % 100) / 4 : (h >>> 4) % 20,
    s: ['a', 'b', 'key', n < learnedAfter ? 'plain' : 'ünï'][(h >>> 12) % 4]!,
    p: payloadOf(payloads[h % payloads.length]!, mix(h, 1), n),
  };
  return { value: shaped(shape, fields), timestamp: t };
}

export function mapRecord(kind: MapKind, shape: Shape, value: unknown): unknown {
  if (kind === 'same') return value;
  const fields = fieldsOf(value);
  return shaped(shape, { ...fields, ...changed(kind, fields) });
}

function changed(kind: MapKind, { n, t, k, s, p }: Fields): Partial<Fields> {
  switch (kind) {
    case 'half':
      return { k: k / 2 };
    case 'big':
      return { k: k * 2 ** 33 };
    case 'negate':
      return { k: -k };
    case 'accent':
      return { s: `${s}é` };
    case 'wrap':
      return { p: { w: p, n } };
    case 'age':
      return { t: t + 1 };
    default:
      return {};
  }
}

export const keeps = (modulo: number, value: unknown): boolean => fieldsOf(value).n % modulo !== 1;

/** What a flatMap makes of a record: by `collect` first, then by returning. */
export function flatMapped(
  mode: FlatMapMode,
  copies: number,
  value: unknown,
): { collected: unknown[]; returned: unknown[] | undefined } {
  const { n } = fieldsOf(value);
  const all = Array.from({ length: (n % (copies + 1)) + (n % 5 === 0 ? 1 : 0) }, (_, i) =>
    i === 0 ? value : mapRecord('accent', 'flat', value),
  );
  if (mode === 'collect') return { collected: all, returned: undefined };
  if (mode === 'both') return { collected: all.slice(0, 1), returned: all.slice(1) };
  return { collected: [], returned: all };
}

/** The watermark that the phase leaves behind. */
export const markAfter = (phases: number, phase: number): number =>
  tickOf(phases, phase) - boundMs - 1;

/** The results of a process function: `side` for the side output. */
export function processed(
  node: PlannedNode,
  modulo: number,
  value: unknown,
  seen: { readonly timestamp: number | undefined; readonly watermark: number },
): { main?: unknown; side?: unknown } {
  const fields = fieldsOf(value);
  // In the first phase it may rise already; that of the last one may be told, or be overtaken by the end.
  const mark = Math.min(Math.max(seen.watermark, -1), markAfter(node.phases, node.phases - 2));
  const p = {
    p: fields.p,
    ...(node.seesTimes && { at: seen.timestamp }),
    ...(node.seesMarks && { mark }),
  };
  const side = fields.n % modulo === 0 ? { side: shaped('tuple', { ...fields, p }) } : {};
  const main = fields.n % 3 === 2 ? {} : { main: shaped('mixed', { ...fields, p }) };
  return { ...side, ...main };
}

/** A record of nothing but its key and a count. */
export function counter(key: unknown, n: number): unknown {
  const plain = plainKey(key);
  return shaped('wide', { l: '', n, t: n, k: n / 2, s: show(plain), p: plain });
}

export const addCounters = (a: unknown, b: unknown): unknown =>
  counter(fieldsOf(a).p, fieldsOf(a).n + fieldsOf(b).n);

export const selectorOf =
  ({ key }: PlannedNode): ((value: unknown) => unknown) =>
  (value) =>
    keyOfRecord(key, value);

/** Everything before it counts. */
export function rolled(before: unknown, value: unknown): unknown {
  const [a, b] = [fieldsOf(before), fieldsOf(value)];
  const k = Math.trunc(Number.isFinite(a.k) ? a.k : 0) * 31 + b.n;
  return shaped('flat', { ...b, k: k % 1_000_003, p: [a.n, a.s, b.p] });
}

/** A record with another payload. */
export function withPayload(value: unknown, p: unknown): unknown {
  return shaped('wide', { ...fieldsOf(value), p });
}

const inOrder = (values: readonly unknown[]): unknown[] =>
  [...values].sort((a, b) => (show(a) < show(b) ? -1 : 1));

export interface Accumulator {
  count: number;
  sum: number;
  texts: string[];
}

/** Counts; where a window fires once, more than that. */
export function aggregateOf({
  refires,
}: PlannedNode): AggregateFunction<unknown, Accumulator, unknown> {
  return {
    createAccumulator: () => ({ count: 0, sum: 0, texts: [] }),
    add: (value, accumulator) => {
      accumulator.count += 1;
      if (refires) return accumulator;
      const { n, s } = fieldsOf(value);
      accumulator.texts.push(s);
      return { ...accumulator, sum: accumulator.sum + n };
    },
    getResult: ({ count, sum, texts }) =>
      shaped('flat', { l: '', n: count, t: sum, k: count, s: '', p: [...texts].sort().join() }),
  };
}

const listMax = 20;

/** What a firing window emits. */
export function fired(
  { refires }: PlannedNode,
  {
    key,
    start,
    elements,
    fires,
  }: {
    readonly key: unknown;
    readonly start: number;
    readonly elements: readonly unknown[];
    readonly fires: number;
  },
): { main: unknown; side?: unknown } {
  const n = elements.length;
  const isLong = refires || n > listMax;
  // An accumulated element of a window that fires again says how much there was: that is a fact.
  const p = isLong ? n : inOrder(elements);
  const k = refires ? start : fires;
  const main = shaped('mixed', { l: '', n, t: start, k, s: show(plainKey(key)), p });
  return n % 2 === 1 ? { main, side: shaped('flat', { ...fieldsOf(main), p: key }) } : { main };
}

/** What is kept of the records in a bucket of time. */
export function bucketRecord(key: unknown, bucket: number, ns: readonly number[]): unknown {
  const p = [plainKey(key), [...ns].sort((a, b) => a - b).slice(0, listMax)];
  const s = show(plainKey(key));
  return shaped('order', { l: '', n: ns.length, t: bucket, k: ns.length / 4, s, p });
}

export const chainedRecord = (key: unknown, at: number): unknown =>
  shaped('tuple', { l: '', n: Math.floor(at), t: at, k: at, s: show(plainKey(key)), p: 'chained' });

/** State is cleared at these counts. */
export const clearedAt: Readonly<Record<RollKind, number>> = {
  reduce: Infinity,
  value: 3,
  list: 4,
  map: 5,
  reducing: 6,
};

/** What a sink keeps of a record: event time only where it is defined. */
export function sinkText(isTimed: boolean, value: unknown, timestamp: number): string {
  return isTimed ? `${show(value)} @${timestamp}` : show(value);
}
