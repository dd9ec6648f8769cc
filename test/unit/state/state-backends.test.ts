import fc from 'fast-check';
import t from 'tap';
import type { MillraceError } from '../../../lib/base/errors.js';
import { HashMapStates } from '../../../lib/state/hash-map-states.js';
import { computeKeyGroupRange } from '../../../lib/state/key-group-range.js';
import { KeyedStateBackend } from '../../../lib/state/keyed-state-backend.js';
import { OperatorStateBackend } from '../../../lib/state/operator-state-backend.js';
import {
  ListStateDescriptor,
  MapStateDescriptor,
  ReducingStateDescriptor,
  ValueStateDescriptor,
} from '../../../lib/state/state-descriptor.js';
import type { SnapshotStorage } from '../../../lib/state/snapshot-storage.js';
import type { KeyedStateHandle, StateHandle } from '../../../lib/state/state-handle.js';

const storage: SnapshotStorage = {
  write: (_id, _name, bytes) => Promise.resolve({ kind: 'inline', bytes }),
  read: (handle) => Promise.resolve(bytesOf(handle)),
};

function bytesOf(handle: StateHandle): Uint8Array {
  return handle.kind === 'inline' ? handle.bytes : new Uint8Array();
}

const all = { start: 0, end: 127 };
const backendOf = (): KeyedStateBackend => new KeyedStateBackend(all, 128);

async function snapshotOf(backend: KeyedStateBackend): Promise<KeyedStateHandle> {
  const handle = await backend.snapshot().write(storage, 1, 'state');
  if (handle === undefined) throw new Error('no state');
  return handle;
}

function restored(...handles: KeyedStateHandle[]): KeyedStateBackend {
  const backend = backendOf();
  for (const handle of handles) backend.restore(handle, bytesOf(handle.data));
  return backend;
}

const codeOf = (run: () => unknown): string => {
  try {
    run();
  } catch (error) {
    return (error as MillraceError).code;
  }
  return 'nothing thrown';
};

t.test('states are kept by key, -0 as 0, and types of keys are told apart', async (t) => {
  const backend = backendOf();
  const state = new HashMapStates(backend).getState(new ValueStateDescriptor<string>('s'));
  const keys = [0, '0', 0n, false, null, 'null', NaN, 'NaN', ['a', 'b'], ['ab'], [], ['a,b'], 'x'];
  for (const key of keys) {
    backend.setCurrentKey(key);
    t.equal(state.value(), undefined);
    state.update(`value of ${JSON.stringify(String(key))} ${typeof key}`);
  }
  for (const key of keys) {
    backend.setCurrentKey(key);
    t.equal(state.value(), `value of ${JSON.stringify(String(key))} ${typeof key}`);
  }
  backend.setCurrentKey(-0);
  t.equal(state.value(), 'value of "0" number');
  t.equal(backend.currentKey, 0);
});

t.test('each kind of state does what it says', async (t) => {
  const backend = backendOf();
  const states = new HashMapStates(backend);
  const value = states.getState(new ValueStateDescriptor('count', 7));
  const list = states.getListState(new ListStateDescriptor<number>('list'));
  const map = states.getMapState(new MapStateDescriptor<unknown, number>('map'));
  const sum = states.getReducingState(new ReducingStateDescriptor<number>('sum', (a, b) => a + b));
  t.equal(
    codeOf(() => value.value()),
    'USER_FUNCTION',
    'no key, no state',
  );
  backend.setCurrentKey('k');
  t.equal(value.value(), 7);
  value.update(8);
  t.equal(value.value(), 8);
  value.clear();
  t.equal(value.value(), 7);
  t.same(list.get(), []);
  list.add(1);
  list.addAll(list.get());
  t.same(list.get(), [1, 1]);
  list.update([5, 6]);
  t.same(list.get(), [5, 6]);
  list.clear();
  t.same(list.get(), []);
  map.put(['t', 1], 1);
  map.put(-0, 2);
  t.same(
    [...map.entries()],
    [
      [['t', 1], 1],
      [0, 2],
    ],
  );
  t.same([...map.keys()], [['t', 1], 0]);
  t.same([...map.values()], [1, 2]);
  t.equal(map.get(0), 2);
  t.ok(map.contains(['t', 1]) && !map.contains('t'));
  t.equal(map.size, 2);
  t.ok(map.remove(0) && !map.remove(0) && map.remove(['t', 1]) && map.isEmpty());
  sum.add(1);
  sum.add(2);
  t.equal(sum.get(), 3);
  sum.clear();
  t.equal(sum.get(), undefined);
  backend.setCurrentKey('other');
  t.equal(sum.get(), undefined);
  t.equal(
    codeOf(() => states.getListState(new ListStateDescriptor('count'))),
    'JOB_INVALID',
  );
});

t.test('a snapshot holds what was there when it was taken', async (t) => {
  const backend = backendOf();
  const states = new HashMapStates(backend);
  const list = states.getListState(new ListStateDescriptor<unknown>('list'));
  const map = states.getMapState(new MapStateDescriptor<unknown, unknown>('map'));
  backend.setCurrentKey(['tuple', -1.5]);
  list.addAll([undefined, -0, 2n ** 70n, new Date(5), { a: [1] }]);
  map.put(1n, undefined);
  const snapshot = backend.snapshot();
  list.add('later');
  map.clear();
  const handle = (await snapshot.write(storage, 1, 'state'))!;
  const again = restored(handle);
  const statesAgain = new HashMapStates(again);
  again.setCurrentKey(['tuple', -1.5]);
  t.same(statesAgain.getListState(new ListStateDescriptor('list')).get(), [
    undefined,
    -0,
    2n ** 70n,
    new Date(5),
    { a: [1] },
  ]);
  const mapAgain = statesAgain.getMapState(new MapStateDescriptor<unknown, unknown>('map'));
  t.ok(mapAgain.contains(1n) && mapAgain.size === 1 && !mapAgain.contains(1));
});

t.test('an empty backend writes nothing', async (t) => {
  t.equal(await backendOf().snapshot().write(storage, 1, 'state'), undefined);
  t.equal(await new OperatorStateBackend().snapshot().write(storage, 1, 'state'), undefined);
});

t.test('state a job does not declare is written again, however often', async (t) => {
  const first = backendOf();
  const counter = new HashMapStates(first).getState(new ValueStateDescriptor<number>('count'));
  first.setCurrentKey('a');
  counter.update(42);
  const second = restored(await snapshotOf(first));
  const other = new HashMapStates(second).getState(new ValueStateDescriptor<number>('other'));
  second.setCurrentKey('a');
  other.update(1);
  const third = restored(await snapshotOf(restored(await snapshotOf(second))));
  third.setCurrentKey('a');
  t.equal(new HashMapStates(third).getState(new ValueStateDescriptor('count', 0)).value(), 42);
  t.equal(new HashMapStates(third).getState(new ValueStateDescriptor('other', 0)).value(), 1);
});

t.test('another kind of state under the same name is refused', async (t) => {
  const first = backendOf();
  first.setCurrentKey('a');
  new HashMapStates(first).getState(new ValueStateDescriptor<number>('s')).update(1);
  const states = new HashMapStates(restored(await snapshotOf(first)));
  t.equal(
    codeOf(() => states.getListState(new ListStateDescriptor('s'))),
    'CHECKPOINT_INCOMPATIBLE',
  );
});

t.test('damage is found', async (t) => {
  const first = backendOf();
  first.setCurrentKey('a');
  new HashMapStates(first).getState(new ValueStateDescriptor<number>('s')).update(1);
  const handle = await snapshotOf(first);
  const good = bytesOf(handle.data);
  for (let at = 0; at < good.length; at += 1) {
    const bytes = Uint8Array.from(good);
    bytes[at]! ^= 0x10;
    const damaged = { ...handle, data: { kind: 'inline' as const, bytes } };
    t.match(
      codeOf(() => restored(damaged)),
      /^CHECKPOINT_(CORRUPT|INCOMPATIBLE)$/,
      String(at),
    );
  }
  for (const bytes of [new Uint8Array(), good.subarray(0, 7), good.subarray(0, good.length - 1)]) {
    const cut = { ...handle, data: { kind: 'inline' as const, bytes } };
    t.equal(
      codeOf(() => restored(cut)),
      'CHECKPOINT_CORRUPT',
    );
  }
});

t.test('a key of another subtask is found out', async (t) => {
  const backend = new KeyedStateBackend({ start: 0, end: 0 }, 128);
  t.equal(
    codeOf(() => Array.from({ length: 50 }, (_, i) => backend.setCurrentKey(i))),
    'INVARIANT',
  );
});

const keys = fc.uniqueArray(
  fc.oneof(fc.integer(), fc.string(), fc.tuple(fc.string(), fc.integer()), fc.bigInt()),
  { maxLength: 40 },
);
const rescales = fc.array(fc.integer({ min: 1, max: 16 }), { minLength: 1, maxLength: 4 });

t.test('keyed state survives any sequence of parallelisms', async () => {
  await fc.assert(
    fc.asyncProperty(keys, rescales, async (someKeys, parallelisms) => {
      const descriptor = new ValueStateDescriptor<unknown>('s');
      let handles: KeyedStateHandle[] = [];
      for (const parallelism of [1, ...parallelisms]) {
        const next: KeyedStateHandle[] = [];
        let found = 0;
        for (let index = 0; index < parallelism; index += 1) {
          const range = computeKeyGroupRange(16, parallelism, index);
          const backend = new KeyedStateBackend(range, 16);
          for (const handle of handles) backend.restore(handle, bytesOf(handle.data));
          const state = new HashMapStates(backend).getState(descriptor);
          for (const key of someKeys) {
            if (codeOf(() => backend.setCurrentKey(key)) === 'INVARIANT') continue;
            found += 1;
            if (handles.length > 0 && String(state.value()) !== String(key)) return false;
            state.update(key);
          }
          const handle = await backend.snapshot().write(storage, 1, 'state');
          if (handle !== undefined) next.push(handle);
        }
        if (found !== someKeys.length) return false;
        handles = next;
      }
      return true;
    }),
    { numRuns: 60 },
  );
});

t.test('operator lists are dealt out in turn, union lists go to all', async (t) => {
  const files: Uint8Array[] = [];
  for (const items of [[0, 1, 2], [], [3, 4]]) {
    const backend = new OperatorStateBackend();
    backend.listState<number>('items').update(items);
    backend.listState<number>('all', 'union').update(items);
    const handle = await backend.snapshot().write(storage, 1, 'state');
    if (handle !== undefined) files.push(bytesOf(handle));
  }
  const parts = [0, 1].map((index) => {
    const backend = new OperatorStateBackend();
    backend.restore(files, { index, parallelism: 2 });
    return [backend.listState('items').get(), backend.listState('all', 'union').get()];
  });
  t.same(parts, [
    [
      [0, 2, 4],
      [0, 1, 2, 3, 4],
    ],
    [
      [1, 3],
      [0, 1, 2, 3, 4],
    ],
  ]);
  const own = new OperatorStateBackend();
  own.restore(files.slice(0, 1));
  const carried = (await own.snapshot().write(storage, 2, 'state'))!;
  const again = new OperatorStateBackend();
  again.restore([bytesOf(carried)]);
  t.same(again.listState('items').get(), [0, 1, 2], 'undeclared lists are carried along');
  t.equal(
    codeOf(() => again.listState('all', 'list')),
    'CHECKPOINT_INCOMPATIBLE',
  );
});
