import t from 'tap';
import { encodeText, decodeText } from '../../../ha/kv-store.js';
import { MemoryKvServer } from '../../../ha/memory/memory-kv-server.js';
import { MemoryKvStore } from '../../../ha/memory/memory-kv-store.js';
import { StateWatch } from '../../../ha/state-watch.js';
import { ManualClock, settle } from '../../support/manual-clock.js';
import { testEnv } from '../../support/test-env.js';

function setUp(t: { teardown: (fn: () => unknown) => void }) {
  const clock = new ManualClock();
  const server = new MemoryKvServer(clock);
  const kv = new MemoryKvStore(clock, server);
  const states: string[] = [];
  const problems: unknown[] = [];
  const watch = new StateWatch(testEnv(clock), kv, {
    prefix: '/p/',
    onState: ({ entries }) => {
      states.push(
        [...entries.values()]
          .map((entry) => `${entry.key.slice(3)}=${decodeText(entry.value)}`)
          .sort()
          .join(','),
      );
    },
    onUnavailable: (error) => problems.push(error),
  });
  t.teardown(() => watch.close());
  const put = (key: string, value: string): void => {
    server.txn({ compare: [], then: [{ op: 'put', key: `/p/${key}`, value: encodeText(value) }] });
  };
  const remove = (key: string): void => {
    server.txn({ compare: [], then: [{ op: 'delete', key: `/p/${key}` }] });
  };
  return { clock, server, kv, watch, states, problems, put, remove };
}

t.test(
  'it emits the first state, then one state per change, and nothing for no change',
  async (t) => {
    const { clock, watch, states, put, remove } = setUp(t);
    put('a', '1');
    watch.start();
    await settle();
    put('b', '2');
    put('a', '3');
    remove('a');
    await settle();
    t.same(states, ['a=1', 'a=1,b=2', 'a=3,b=2', 'b=2']);
    await clock.advance(5_000);
    t.equal(states.length, 4, 'a resync that finds nothing new is silent');
  },
);

t.test('an empty prefix is a state as well', async (t) => {
  const { watch, states } = setUp(t);
  watch.start();
  await settle();
  t.same(states, ['']);
});

t.test('a lost event is made good by the next resync', async (t) => {
  const { clock, kv, watch, states, put, remove } = setUp(t);
  put('a', '1');
  put('b', '1');
  watch.start();
  await settle();
  kv.faults.dropEvent = () => true;
  put('a', '2');
  remove('b');
  await settle();
  t.same(states, ['a=1,b=1']);
  await clock.advance(1_000);
  t.same(states, ['a=1,b=1', 'a=2']);
  kv.faults.dropEvent = () => false;
  put('a', '3');
  await settle();
  t.equal(states.at(-1), 'a=3', 'the watch goes on');
});

t.test('late events do not bring back what a resync has overtaken', async (t) => {
  const { clock, kv, watch, states, put } = setUp(t);
  watch.start();
  await settle();
  kv.faults.watchDelayMs = 3_000;
  put('a', '1');
  await clock.advance(500);
  put('a', '2');
  await clock.advance(6_000);
  t.same(states, ['', 'a=2']);
});

t.test('after the end of a watch it reads again, whatever the reason', async (t) => {
  const { server, kv, watch, states, put } = setUp(t);
  watch.start();
  await settle();
  kv.faults.dropEvent = () => true;
  put('a', '1');
  server.compact();
  kv.disconnectWatches();
  kv.faults.dropEvent = () => false;
  await settle();
  t.same(states, ['', 'a=1']);
  put('a', '2');
  await settle();
  t.equal(states.at(-1), 'a=2');
});

t.test('while the store is out it keeps trying, and reports the outage once', async (t) => {
  const { clock, kv, watch, states, problems, put } = setUp(t);
  kv.faults.unavailable = true;
  watch.start();
  await clock.advance(2_000);
  t.same(states, []);
  t.equal(problems.length, 1);
  put('a', '1');
  kv.faults.unavailable = false;
  await clock.advance(200);
  t.same(states, ['a=1']);
});

t.test('closing leaves no timer and emits nothing more', async (t) => {
  const { clock, watch, states, put } = setUp(t);
  watch.start();
  watch.start();
  await settle();
  watch.refresh();
  await watch.close();
  await watch.close();
  put('a', '1');
  await settle();
  watch.refresh();
  t.same(states, ['']);
  t.equal(clock.pendingTimers, 0);
});
