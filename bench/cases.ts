/** Every figure, with the variants measured beside it in the same run. */
import type { BenchCase, MicroSpec, Variant } from './case.js';
import type { JobSpec } from './macro/job-sample.js';
import { atLeastRate, atLeastTimes, fasterThan } from './targets.js';

const million = 1e6;

const ours = (name: string, guess: number, job: JobSpec): Variant => ({
  name,
  isOurs: true,
  guess,
  job,
});
const beside = (name: string, guess: number, job: JobSpec): Variant => ({
  name,
  isOurs: false,
  guess,
  job,
});
const naive = (
  name: string,
  program: MicroSpec['program'],
  args: Readonly<Record<string, string | number>>,
): Variant => ({ name, isOurs: false, micro: { program, args } });

const oneSlot = { topology: 'one', parallelism: 1 } as const;
const twoSlots = { topology: 'one', parallelism: 2 } as const;
const twoTaskManagers = { topology: 'two', parallelism: 2 } as const;

const chain: JobSpec = { job: 'chain', ...oneSlot, keys: 10_000 };
const interpreted = { 'pipeline.compile': 'false' };

function chainCase(): BenchCase {
  const by = (variant: string): Variant =>
    naive(`by hand: ${variant}`, 'naive-chain', { variant, keys: 10_000 });
  return {
    name: 'chain',
    title: 'same slot: source, map, filter, map, count by key (10,000 keys), sink',
    unit: 'rate',
    variants: [
      ours('millrace', 10 * million, chain),
      beside('interpreted', 4 * million, { ...chain, settings: interpreted }),
      by('loop'),
      by('batches'),
      by('streams'),
      by('async-generators'),
    ],
    targets: [atLeastRate('millrace', 15), atLeastTimes('millrace', 2.5, 'interpreted')],
  };
}

function exchangeCase(
  shape: 'trade' | 'bid',
  title: string,
  [local, remote]: readonly [number, number],
  ratios: boolean,
): BenchCase {
  const job = { job: 'exchange', variant: shape, keys: 10_000 } as const;
  const codecs = ['json', 'msgpackr', 'v8'];
  const by = (peers: string, variant: string): Variant =>
    naive(`${peers}, ${variant}`, 'naive-exchange', { peers, variant, shape, keys: 10_000 });
  const [slots, managers] = ['two slots', 'two TaskManagers'];
  const times = (variant: string, peers: string): BenchCase['targets'] => [
    atLeastTimes(variant, 4, `${peers}, json`),
    atLeastTimes(variant, 2, `${peers}, msgpackr`),
  ];
  return {
    name: `exchange-${shape}`,
    title,
    unit: 'rate',
    variants: [
      ours(slots, million, { ...job, ...twoSlots }),
      ours(managers, million, { ...job, ...twoTaskManagers }),
      by('threads', 'structured-clone'),
      ...codecs.map((codec) => by('threads', codec)),
      ...codecs.map((codec) => by('processes', codec)),
    ],
    targets: [
      atLeastRate(slots, local),
      atLeastRate(managers, remote),
      ...(ratios ? [...times(slots, 'threads'), ...times(managers, 'processes')] : []),
    ],
  };
}

function codecCase(shape: 'trade' | 'bid', title: string): BenchCase {
  const program = (variant: string): MicroSpec => ({
    program: 'codec',
    args: { variant, shape, keys: 10_000 },
  });
  const others = ['json', 'msgpackr', 'msgpackr-bundled', 'v8', 'structured-clone'];
  return {
    name: `codec-${shape}`,
    title,
    unit: 'rate',
    rounds: 0.6,
    variants: [
      { name: 'columnar', isOurs: true, micro: program('millrace') },
      ...others.map((name) => ({ name, isOurs: false, micro: program(name) })),
    ],
    targets:
      shape === 'bid'
        ? [atLeastTimes('columnar', 4, 'json'), atLeastTimes('columnar', 2, 'msgpackr')]
        : [],
  };
}

function windowCase(): BenchCase {
  const by = (variant: string): Variant =>
    naive(`by hand: ${variant}`, 'naive-state', { variant, keys: 20_000 });
  return {
    name: 'window',
    title:
      'tumbling count of 1 minute per key (20,000 keys, ten records per key and minute), one slot',
    unit: 'rate',
    variants: [
      ours('millrace', 3 * million, { job: 'window', ...oneSlot, keys: 20_000 }),
      by('window-first'),
      by('key-first'),
    ],
    targets: [atLeastRate('millrace', 8)],
  };
}

function wordsCase(): BenchCase {
  const words = (variant: string): JobSpec => ({
    job: 'words',
    topology: 'large',
    parallelism: 1,
    keys: million,
    variant,
    warmRecords: 2 * million,
  });
  return {
    name: 'words',
    title: 'count and sum by string key (1,000,000 keys), one slot',
    unit: 'rate',
    variants: [
      ours('one state of {count, sum}', 0.5 * million, words('one')),
      ours('two states of a number', 0.5 * million, words('two')),
      naive('by hand: Map', 'naive-state', { variant: 'words', keys: million }),
    ],
    targets: [
      atLeastRate('one state of {count, sum}', 1),
      atLeastRate('two states of a number', 1),
    ],
  };
}

function latencyCase(): BenchCase {
  const job = { job: 'latency', keys: 1000, recordsPerSecond: 1000 } as const;
  const atOnce = { 'execution.buffer-timeout.interval': '0' };
  const bufferTimeoutMs = 100;
  const p50 = 5;
  const variants = [
    ours('two slots, default', 1000, { ...job, ...twoSlots }),
    ours('two TaskManagers, default', 1000, { ...job, ...twoTaskManagers }),
    ours('two slots, timeout 0', 1000, { ...job, ...twoSlots, settings: atOnce }),
    ours('two TaskManagers, timeout 0', 1000, { ...job, ...twoTaskManagers, settings: atOnce }),
  ];
  return {
    name: 'latency',
    title:
      'source to sink over one keyed exchange at 1,000 records/s (default buffer timeout 100 ms)',
    unit: 'latency',
    rounds: 0.4,
    variants: [...variants, naive('by hand: postMessage', 'naive-latency', { windowMs: 8000 })],
    targets: variants.flatMap(({ name }) =>
      name.endsWith('default')
        ? [fasterThan(name, 'p50', p50), fasterThan(name, 'p99', bufferTimeoutMs + 10)]
        : [fasterThan(name, 'p99', p50)],
    ),
  };
}

function checkpointCase(): BenchCase {
  const job: JobSpec = { ...chain, keys: 100_000, warmRecords: million };
  const every = { 'execution.checkpointing.interval': '1 s' };
  return {
    name: 'checkpoint',
    title: 'the same chain with 100,000 keys, with a checkpoint every second and without',
    unit: 'rate',
    variants: [
      ours('every second', 4 * million, { ...job, settings: every }),
      beside('none', 4 * million, job),
    ],
    targets: [atLeastTimes('every second', 0.9, 'none')],
  };
}

function parallelismCurve(): BenchCase {
  const point = (parallelism: number): Variant =>
    ours(`parallelism ${String(parallelism)}`, million, {
      job: 'exchange',
      variant: 'trade',
      topology: 'one',
      parallelism,
      keys: 10_000,
    });
  return {
    name: 'curve-parallelism',
    title: 'keyed exchange of four numbers by parallelism, one TaskManager',
    unit: 'rate',
    rounds: 0.6,
    variants: [1, 2, 4].map(point),
    targets: [],
    // From one slot to two, half the records begin to be encoded; then three quarters, and four threads share two cores.
    curve: { mayGrow: [1.5, 2] },
  };
}

function keysCurve(): BenchCase {
  const points: readonly (readonly [string, number])[] = [
    ['1 k', 1000],
    ['10 k', 10_000],
    ['100 k', 100_000],
    ['1 M', million],
    ['10 M', 10 * million],
  ];
  return {
    name: 'curve-keys',
    title: 'count by key by number of keys (numbers), one slot',
    unit: 'rate',
    rounds: 0.4,
    variants: points.map(([text, keys]) =>
      ours(`${text} keys`, 2 * million, {
        job: 'exchange',
        variant: 'trade',
        topology: 'large',
        parallelism: 1,
        keys,
        warmRecords: 2 * keys,
      }),
    ),
    targets: [],
    // Caches end; a JavaScript Map takes 2.4 and 4.7 times as long for ten times the keys.
    curve: { mayGrow: [3, 3, 5, 3] },
  };
}

function sizeCurve(): BenchCase {
  const sizes = [16, 100, 1024, 16 * 1024, 64 * 1024];
  return {
    name: 'curve-size',
    title: 'keyed exchange by size of the record (a number and a string), two slots',
    unit: 'rate',
    rounds: 0.6,
    variants: sizes.map((size) =>
      ours(`${String(size)} B`, Math.min(million, 3e8 / size), {
        job: 'exchange',
        variant: String(size),
        ...twoSlots,
        keys: 10_000,
      }),
    ),
    targets: [],
    // By no more than the bytes do, and noise.
    curve: {
      mayGrow: sizes.slice(1).map((size, i) => Math.max(3, (1.4 * size) / (sizes[i] ?? size))),
    },
  };
}

export const cases: readonly BenchCase[] = [
  chainCase(),
  exchangeCase('trade', 'keyed exchange of four numbers, parallelism 2', [12, 10], false),
  exchangeCase(
    'bid',
    'keyed exchange of a bid (7 fields, 3 strings), kept whole, parallelism 2',
    [5, 4],
    true,
  ),
  codecCase('trade', 'four numbers to bytes and back, one thread'),
  codecCase('bid', 'a bid to bytes and back, kept whole, one thread'),
  windowCase(),
  wordsCase(),
  latencyCase(),
  checkpointCase(),
  parallelismCurve(),
  keysCurve(),
  sizeCurve(),
];
