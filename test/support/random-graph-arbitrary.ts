/** Random descriptions of jobs. */
import fc from 'fast-check';
import {
  flatMapModes,
  mapKinds,
  rollKinds,
  windowKinds,
  type GraphSpec,
  type Part,
  type SourceSpec,
} from './random-graph.js';
import { keys, payloads, shapes } from './random-graph-values.js';

export interface GraphLimits {
  readonly nodes: number;
  /** Records of a split and phase. */
  readonly records: number;
  readonly phases: number;
}

const part = fc.oneof(
  { weight: 6, arbitrary: fc.constant<Part>('none') },
  {
    weight: 4,
    arbitrary: fc.constantFrom<Part>(
      'forward',
      'rebalance',
      'rescale',
      'broadcast',
      'global',
      'key',
    ),
  },
);
const par = fc.oneof({ weight: 5, arbitrary: fc.constant(0) }, fc.integer({ min: 1, max: 4 }));
const chain = fc.oneof(
  { weight: 5, arbitrary: fc.constant('always' as const) },
  fc.constantFrom('head' as const, 'never' as const),
);
const placing = {
  part,
  par,
  chain,
  group: fc.oneof({ weight: 5, arbitrary: fc.constant(0) }, fc.constant(1)),
};
/** From the last stream backwards. */
const input = fc.oneof({ weight: 3, arbitrary: fc.constant(0) }, fc.nat(7));
const flavor = fc.nat(2);
const size = fc.constantFrom(10, 25, 60);
const key = fc.constantFrom(...keys);

const node = fc.oneof(
  fc.record({
    ...placing,
    input,
    op: fc.constant('map' as const),
    fn: fc.constantFrom(...mapKinds),
    shape: fc.constantFrom(...shapes),
    flavor,
  }),
  fc.record({
    ...placing,
    input,
    op: fc.constant('filter' as const),
    modulo: fc.integer({ min: 2, max: 5 }),
    flavor,
  }),
  fc.record({
    ...placing,
    input,
    op: fc.constant('flatMap' as const),
    mode: fc.constantFrom(...flatMapModes),
    copies: fc.integer({ min: 1, max: 3 }),
  }),
  fc.record({
    ...placing,
    input,
    op: fc.constant('process' as const),
    modulo: fc.integer({ min: 2, max: 5 }),
    flavor,
  }),
  fc.record({ ...placing, input, op: fc.constant('assign' as const), offset: fc.nat(90) }),
  fc.record({
    ...placing,
    input,
    op: fc.constant('union' as const),
    with: fc.array(fc.nat(7), { minLength: 1, maxLength: 2 }),
  }),
  fc.record({
    ...placing,
    input,
    op: fc.constant('roll' as const),
    how: fc.constantFrom(...rollKinds),
    key,
    strict: fc.boolean(),
  }),
  fc.record({ ...placing, input, op: fc.constant('buckets' as const), key, size }),
  fc.record({
    ...placing,
    input,
    op: fc.constant('window' as const),
    how: fc.constantFrom(...windowKinds),
    key,
    size,
    lateness: fc.constantFrom(0, 30, 120),
    late: fc.boolean(),
  }),
);

const sourceOf = (records: number): fc.Arbitrary<SourceSpec> =>
  fc.record({
    splits: fc.integer({ min: 1, max: 3 }),
    count: fc.oneof(
      { weight: 3, arbitrary: fc.integer({ min: 2, max: Math.min(records, 40) }) },
      // Enough for a channel to learn what its records look like.
      { weight: 3, arbitrary: fc.integer({ min: Math.min(records, 250), max: records }) },
      fc.integer({ min: 2, max: records }),
    ),
    payloads: fc.array(fc.constantFrom(...payloads), { minLength: 1, maxLength: 3 }),
    shape: fc.constantFrom(...shapes),
    par,
    times: fc.constantFrom(
      'given' as const,
      'read' as const,
      'given' as const,
      'unmarked' as const,
    ),
    batch: fc.boolean(),
    burst: fc.constantFrom(9, 35, 80, 2000),
  });

export const graphOf = (limits: GraphLimits): fc.Arbitrary<GraphSpec> =>
  fc.record({
    seed: fc.nat(2 ** 31 - 1),
    phases: fc.integer({ min: 1, max: limits.phases }),
    sources: fc.array(sourceOf(limits.records), { minLength: 1, maxLength: 2 }),
    nodes: fc.array(node, { minLength: 1, maxLength: limits.nodes, size: 'max' }),
    sinks: fc.array(fc.record({ input: fc.nat(7), part, par }), { maxLength: 2 }),
    chaining: fc.oneof({ weight: 4, arbitrary: fc.constant(true) }, fc.constant(false)),
    bufferTimeoutMs: fc.constantFrom(0, 1, 100),
  });
