import t from 'tap';
import { Bell, createBells } from '../../../lib/network/bell.js';
import { Sleeper } from '../../../lib/network/sleeper.js';
import { ManualClock } from '../../../lib/testing/manual-clock.js';

/** A thread of which the test runs each round of the event loop. */
function thread() {
  const clock = new ManualClock();
  const bell = new Bell(createBells(1), 0);
  const rounds: (() => void)[] = [];
  const sleeper = new Sleeper(bell, clock, (fn) => rounds.push(fn), { maxPollMs: 1 });
  let wakes = 0;
  const sleep = (): (() => void) =>
    sleeper.sleep(bell.sequence, () => {
      wakes += 1;
    });
  return {
    clock,
    bell,
    sleep,
    get isPolling() {
      return rounds.length > 0;
    },
    get wakes() {
      return wakes;
    },
    /** One round of the event loop, `ms` after the last. */
    round: (ms = 0.25) => {
      clock.advance(ms);
      for (const fn of rounds.splice(0)) fn();
    },
    /** A sleep in which nobody rings until a poll has ended; whether it polled. */
    sleepInVain: async (): Promise<boolean> => {
      const before = wakes;
      sleep();
      const polled = rounds.length > 0;
      while (rounds.length > 0) {
        clock.advance(0.25);
        for (const fn of rounds.splice(0)) fn();
      }
      bell.ring();
      while (wakes === before) await new Promise((resolve) => setImmediate(resolve));
      return polled;
    },
  };
}

t.test('news that comes soon is found by polling, without a wake-up', (t) => {
  const one = thread();
  for (let i = 1; i <= 5; i += 1) {
    one.sleep();
    one.round();
    t.equal(one.wakes, i - 1);
    one.bell.ring();
    t.equal(one.wakes, i - 1, 'not from inside the ringing');
    one.round();
    t.equal(one.wakes, i);
    t.equal(one.isPolling, false);
  }
  t.end();
});

t.test('polls in vain get rare, and come back when they are worth it', async (t) => {
  const one = thread();
  let polls = 0;
  for (let i = 0; i < 400; i += 1) if (await one.sleepInVain()) polls += 1;
  t.ok(polls >= 5 && polls <= 9, `${String(polls)} of 400 sleeps began with a poll`);
  while (!(await one.sleepInVain()));
  let sleeps = 0;
  for (let found = 0; found < 20; sleeps += 1) {
    const before = one.wakes;
    one.sleep();
    if (one.isPolling) {
      found += 1;
      one.bell.ring();
      one.round();
    } else one.bell.ring();
    while (one.wakes === before) await new Promise((resolve) => setImmediate(resolve));
  }
  one.sleep();
  t.ok(one.isPolling, `after ${String(sleeps)} sleeps it polls each time`);
  t.ok(sleeps < 1100);
});

t.test('a poll that was interrupted for long counts as one in vain', async (t) => {
  const one = thread();
  one.sleep();
  one.bell.ring();
  one.round(10);
  t.equal(one.wakes, 1, 'but is not lost');
  t.equal(await one.sleepInVain(), false, 'the core is needed by others');
});

t.test('a cancelled wait never wakes, polling or asleep', async (t) => {
  const one = thread();
  const cancelPoll = one.sleep();
  cancelPoll();
  one.bell.ring();
  one.round();
  t.equal(one.wakes, 0);
  const cancelSleep = one.sleep();
  while (one.isPolling) one.round();
  cancelSleep();
  one.bell.ring();
  await new Promise((resolve) => setImmediate(resolve));
  t.equal(one.wakes, 0);
  t.equal(await one.sleepInVain(), false);
  t.equal(one.wakes, 1, 'the next one does');
});
