import fc from 'fast-check';
import t from 'tap';
import type { MillraceError } from '../../../lib/base/errors.js';
import { entriesPerStep, slotsPerStep } from '../../../lib/state/column-snapshot.js';
import { HashMapStates } from '../../../lib/state/hash-map-states.js';
import { encodeValue } from '../../../lib/record/codec/value-codec.js';
import { keyGroupOf } from '../../../lib/state/key-group.js';
import { computeKeyGroupRange } from '../../../lib/state/key-group-range.js';
import { identityOf, type KeyIdentity } from '../../../lib/state/key-identity.js';
import { KeyedStateBackend } from '../../../lib/state/keyed-state-backend.js';
import type { KeyedSnapshot } from '../../../lib/state/keyed-snapshot.js';
import {
  ListStateDescriptor,
  MapStateDescriptor,
  ValueStateDescriptor,
} from '../../../lib/state/state-descriptor.js';
import { encodeSections, snapshotKind } from '../../../lib/state/snapshot-format.js';
import type { SnapshotStorage } from '../../../lib/state/snapshot-storage.js';
import type { KeyedStateHandle } from '../../../lib/state/state-handle.js';
import { TimerQueue } from '../../../lib/time/timer-service.js';

const storage: SnapshotStorage = {
  write: (_id, _name, bytes) => Promise.resolve({ kind: 'inline', bytes }),
  read: () => Promise.reject(new RangeError('nothing is read')),
};
const maxParallelism = 16;

/** Everything a job keeps for its keys, and how it is used. */
class Job {
  readonly backend: KeyedStateBackend;
  readonly #value;
  readonly #list;
  readonly #map;
  /** Objects of numbers, and now and then something else. */
  readonly #row;
  readonly timers: TimerQueue;

  constructor(parallelism = 1, index = 0, handles: readonly KeyedStateHandle[] = []) {
    const range = computeKeyGroupRange(maxParallelism, parallelism, index);
    this.backend = new KeyedStateBackend(range, maxParallelism);
    for (const handle of handles) {
      if (handle.data.kind === 'inline') this.backend.restore(handle, handle.data.bytes);
    }
    const states = new HashMapStates(this.backend);
    this.#value = states.getState(new ValueStateDescriptor<unknown>('value', 'absent'));
    this.#list = states.getListState(new ListStateDescriptor<unknown>('list'));
    this.#map = states.getMapState(new MapStateDescriptor<unknown, unknown>('map'));
    this.#row = states.getState(new ValueStateDescriptor<unknown>('row'));
    this.timers = this.backend.declare(new TimerQueue('timers', this.backend));
  }

  apply({ key, act, n }: Step): void {
    this.backend.setCurrentKey(key);
    const before = this.#value.value();
    switch (act) {
      case 'number':
        this.#value.update(n % 7 === 0 ? NaN : n % 7 === 1 ? -0 : n);
        break;
      case 'object':
        this.#value.update({ n, text: 'a text that is long enough' });
        break;
      case 'mutate':
        // Against the contract, and what people write.
        if (typeof before === 'object' && before !== null) {
          (before as { n: number }).n += 1;
          this.#value.update(before);
        }
        break;
      case 'row':
        this.#row.update(rowOf(n));
        break;
      case 'undefined':
        this.#value.update(undefined);
        break;
      case 'add':
        this.#list.add(n);
        break;
      case 'put':
        this.#map.put(n % 3, [n]);
        break;
      case 'remove':
        this.#map.remove(n % 3);
        break;
      case 'register':
        this.timers.register(n % 5);
        break;
      case 'delete':
        this.timers.delete(n % 5);
        break;
      case 'clear':
        this.#value.clear();
        this.#row.clear();
        this.#list.clear();
        this.#map.clear();
        break;
    }
  }

  /** What there is for a key. */
  of(key: unknown): unknown[] {
    this.backend.setCurrentKey(key);
    return [
      this.#value.value(),
      this.#row.value() ?? 'no row',
      [...this.#list.get()],
      [...this.#map.entries()].sort(),
    ];
  }
}

/** Mostly of one shape. */
function rowOf(n: number): unknown {
  const others = [
    { m: n, n },
    { n },
    { n: NaN, m: 1 },
    { n, m: 1, o: 2 },
    { n, m: 'text' },
    n,
    null,
  ];
  return others[n % 30] ?? { n, m: n % 3 === 0 ? -0 : n / 2 };
}

const acts = [
  'row',
  'row',
  'number',
  'number',
  'object',
  'mutate',
  'undefined',
  'add',
  'put',
  'remove',
  'register',
  'delete',
  'clear',
] as const;

interface Step {
  readonly key: unknown;
  readonly act: (typeof acts)[number];
  readonly n: number;
}

const key = fc.oneof(
  fc.integer({ min: 0, max: 300 }),
  fc.integer({ min: 0, max: 20 }).map((n) => `key of text number ${n}`),
  fc.constantFrom<unknown[]>(NaN, -0, 0.5, true, null, 7n, ['a', 1], [NaN], 'zażółć'),
);
const step = fc.record({ key, act: fc.constantFrom(...acts), n: fc.nat(1000) });
const event = fc.oneof(
  { weight: 30, arbitrary: step },
  { weight: 2, arbitrary: fc.constant('begin' as const) },
  { weight: 6, arbitrary: fc.constant('slice' as const) },
  { weight: 1, arbitrary: fc.constant('poll' as const) },
  { weight: 1, arbitrary: fc.constant('cancel' as const) },
);

interface Begun {
  readonly snapshot: KeyedSnapshot;
  /** A job to which nothing happened since. */
  readonly expected: readonly (readonly [unknown, string])[];
  readonly timers: string;
}

function show(value: unknown): string {
  return JSON.stringify(value, (_, part: unknown) => {
    if (typeof part === 'number' && (part !== part || Object.is(part, -0))) return `number ${part}`;
    if (Object.is(part, -0)) return 'minus zero';
    if (part === undefined) return 'undefined';
    return typeof part === 'bigint' ? `${part}n` : part;
  });
}

/** Timers of a job in the order in which they fire, sorted within a time. */
function drain(job: Job): string {
  const fired: string[] = [];
  for (;;) {
    const slot = job.timers.poll(Infinity);
    if (slot < 0) return show(fired.sort());
    fired.push(show([job.timers.polledAt, job.backend.index.keyAt(slot)]));
    job.backend.index.release(slot);
  }
}

function begin(job: Job, seen: ReadonlyMap<KeyIdentity, unknown>, timers: string): Begun {
  // Reading objects captures nothing yet: there is no snapshot of this state under way when it is new.
  const expected = [...seen.values()].map((each) => [each, show(job.of(each))] as const);
  return { snapshot: job.backend.snapshot(), expected, timers };
}

async function check({ snapshot, expected, timers }: Begun, parallelism: number): Promise<string> {
  const handle = await snapshot.write(storage, 1, 'state');
  const handles = handle === undefined ? [] : [handle];
  const parts = Array.from({ length: parallelism }, (_, i) => new Job(parallelism, i, handles));
  for (const [each, text] of expected) {
    const owners = parts.filter((part) => {
      try {
        part.backend.setCurrentKey(each);
        return true;
      } catch {
        return false;
      }
    });
    if (owners.length !== 1) return `${owners.length} owners of ${show(each)}`;
    const found = show(owners[0]!.of(each));
    if (found !== text) return `${show(each)}: ${found}, not ${text}`;
  }
  const keys = parts.reduce((sum, part) => sum + part.backend.index.limit, 0);
  if (keys > expected.length) return 'too many keys';
  const fired = parts.flatMap((part) => JSON.parse(drain(part)) as string[]);
  const found = show(fired.sort());
  return found === timers ? '' : `timers ${found}, not ${timers}`;
}

/** The timers of the model: by time and key. */
class TimerModel {
  readonly #set = new Map<string, unknown>();

  apply({ key: each, act, n }: Step): void {
    const name = show([n % 5, each === 0 ? 0 : each]);
    if (act === 'register') this.#set.set(name, n % 5);
    if (act === 'delete') this.#set.delete(name);
  }

  fired(timestamp: number, each: unknown): void {
    this.#set.delete(show([timestamp, each]));
  }

  text(): string {
    return show([...this.#set.keys()].sort());
  }
}

t.test('each of many overlapping snapshots is the state at its beginning', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(step, { maxLength: 400 }),
      fc.array(event, { maxLength: 250 }),
      fc.integer({ min: 1, max: 4 }),
      async (before, events, parallelism) => {
        const job = new Job();
        const seen = new Map<KeyIdentity, unknown>();
        const timers = new TimerModel();
        const begun: Begun[] = [];
        const apply = (each: Step): void => {
          seen.set(identityOf(each.key), each.key);
          job.apply(each);
          timers.apply(each);
        };
        before.forEach(apply);
        for (const each of events) {
          if (each === 'begin') begun.push(begin(job, seen, timers.text()));
          else if (each === 'slice') begun.at(-1)?.snapshot.step(() => true);
          else if (each === 'cancel') begun.shift()?.snapshot.cancel();
          else if (each === 'poll') {
            const slot = job.timers.poll(Infinity);
            if (slot < 0) continue;
            timers.fired(job.timers.polledAt, job.backend.index.keyAt(slot));
            job.backend.index.release(slot);
          } else apply(each);
        }
        for (const each of begun) {
          const problem = await check(each, parallelism);
          if (problem !== '') throw new Error(problem);
        }
        return true;
      },
    ),
    { numRuns: 300 },
  );
});

t.test('no step of a snapshot is long, however large the state', async (t) => {
  const backend = new KeyedStateBackend({ start: 0, end: maxParallelism - 1 }, maxParallelism);
  const states = new HashMapStates(backend);
  let encoded = 0;
  const text = states.getMapState(new MapStateDescriptor<string, unknown>('text'));
  const counts = states.getState(new ValueStateDescriptor<number>('count'));
  const keys = 20_000;
  for (let i = 0; i < keys; i += 1) {
    backend.setCurrentKey(i);
    counts.update(i);
    if (i % 10 === 0)
      text.put(
        'n',
        counting(() => (encoded += 1)),
      );
  }
  encoded = 0;
  const snapshot = backend.snapshot();
  t.equal(encoded, 0, 'nothing is encoded at the beginning');
  let steps = 0;
  let longest = 0;
  for (;;) {
    const before = encoded;
    steps += 1;
    const isDone = snapshot.step(() => true);
    longest = Math.max(longest, encoded - before);
    if (isDone) break;
  }
  // The value codec looks at a value, and then writes it.
  t.equal(encoded, (2 * keys) / 10);
  t.ok(longest <= 2 * entriesPerStep, `${longest} values in one step`);
  t.ok(steps > keys / slotsPerStep, `${steps} steps`);
});

/** Plain data that tells when it is read. */
function counting(onRead: () => void): object {
  return Object.defineProperty({}, 'read', {
    enumerable: true,
    get: () => {
      onRead();
      return 1;
    },
  });
}

t.test('what cannot be encoded fails the snapshot, not the record that changes it', async (t) => {
  const job = new Job();
  job.backend.setCurrentKey('a');
  const states = new HashMapStates(job.backend);
  const bad = states.getState(new ValueStateDescriptor<unknown>('bad'));
  bad.update({ fn: () => 1 });
  const snapshots = [job.backend.snapshot(), job.backend.snapshot()];
  bad.update(1);
  for (const snapshot of snapshots) {
    try {
      snapshot.step(() => false);
      t.fail('encoded');
    } catch (error) {
      t.equal((error as MillraceError).code, 'RECORD_UNSUPPORTED');
      t.match((error as MillraceError).message, 'state "user/bad"');
    }
  }
  t.ok(await job.backend.snapshot().write(storage, 1, 'state'));
});

t.test('strings in state share no memory with what they were cut from', async (t) => {
  // Seen from outside only by what is kept: the same text, in a record of its own.
  const job = new Job();
  const states = new HashMapStates(job.backend);
  const state = states.getState(new ValueStateDescriptor<unknown>('s'));
  const long = `${'x'.repeat(2000)} end of the long text`;
  const record = { text: long.slice(1990), n: 1 };
  job.backend.setCurrentKey('a');
  state.update(record);
  t.same(state.value(), record);
  t.not(state.value(), record);
  const numbers = { n: 1 };
  state.update(numbers);
  t.equal(state.value(), numbers, 'nothing to copy');
  const match = /(?<word>long text enough)/.exec('a long text enough')!;
  state.update(match);
  t.equal(state.value(), match, 'left as it is');
});

t.test(
  'sections whose states were encoded as wholes, as they once were, are restored',
  async (t) => {
    const entry = (name: string, kind: string, payload: unknown): object => ({
      name,
      kind,
      bytes: encodeValue(payload),
    });
    const keyGroup = keyGroupOf('a key', maxParallelism);
    const { data, places } = encodeSections(snapshotKind.keyed, [
      [
        entry('user/value', 'value', ['a key', { count: 1, sum: -0 }]),
        entry('user/list', 'list', ['a key', [1, 'two']]),
        entry('timers', 'timers', [4, 'a key', 2, 'a key']),
      ] as Parameters<typeof encodeSections>[1][number],
    ]);
    const job = new Job(1, 0, [
      {
        range: { start: 0, end: maxParallelism - 1 },
        sections: places.map((place) => ({ keyGroup, ...place })),
        data: { kind: 'inline', bytes: data },
      },
    ]);
    t.same(job.of('a key'), [{ count: 1, sum: -0 }, 'no row', [1, 'two'], []]);
    t.equal(drain(job), show(['[2,"a key"]', '[4,"a key"]']));
  },
);

t.test('objects of numbers come back equal, whatever else there is', async () => {
  const steps = fc.array(fc.tuple(fc.nat(40), fc.nat(200)), { maxLength: 150 });
  fc.assert(
    fc.property(steps, (some) => {
      const backend = new KeyedStateBackend({ start: 0, end: maxParallelism - 1 }, maxParallelism);
      const row = new HashMapStates(backend).getState(new ValueStateDescriptor<unknown>('row'));
      const model = new Map<number, string>();
      for (const [each, n] of some) {
        backend.setCurrentKey(each);
        if (n % 10 === 9) row.clear();
        else row.update(rowOf(n));
        model.set(each, show(n % 10 === 9 ? undefined : rowOf(n)));
        for (const [known, text] of model) {
          backend.setCurrentKey(known);
          if (show(row.value()) !== text) return false;
        }
      }
      return true;
    }),
    { numRuns: 200 },
  );
});
