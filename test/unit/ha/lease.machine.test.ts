import t from 'tap';
import { hasCode } from '../../../lib/base/errors.js';
import {
  LeaseMachine,
  leaseTransitions,
  type LeaseEffect,
  type LeaseInput,
  type LeaseState,
} from '../../../ha/lease.machine.js';

/** Transitions taken by any test of this file. */
const taken = new Set<string>();

class Driven {
  readonly machine = new LeaseMachine();

  step(input: LeaseInput, now: number): string[] {
    const from = this.machine.state;
    const effects = this.machine.step(input, now);
    if (this.machine.state !== from) taken.add(`${from}>${this.machine.state}`);
    return effects.map(describe);
  }
}

function describe(effect: LeaseEffect): string {
  if (effect.type === 'armTimer') return `armTimer ${String(effect.at)}`;
  return 'leaseId' in effect ? `${effect.type} ${effect.leaseId}` : effect.type;
}

/** A lease of 3 s granted by a request sent at 1,000 and answered at 1,100. */
function held(): Driven {
  const d = new Driven();
  d.step({ type: 'started' }, 1_000);
  d.step({ type: 'granted', leaseId: 'L', ttlMs: 3_000, sentAt: 1_000 }, 1_100);
  return d;
}

t.test('the deadline counts from the sending of the request, less the margin', async (t) => {
  const d = new Driven();
  t.same(d.step({ type: 'started' }, 1_000), ['grant']);
  t.equal(d.machine.validUntil, -Infinity);
  t.same(d.step({ type: 'granted', leaseId: 'L', ttlMs: 3_000, sentAt: 1_000 }, 1_100), [
    'announceHeld L',
    'armTimer 1500',
  ]);
  t.equal(d.machine.validUntil, 3_500, '1,000 + 3,000 - 500');
  const long = new Driven();
  long.step({ type: 'started' }, 0);
  long.step({ type: 'granted', leaseId: 'L', ttlMs: 10_000, sentAt: 0 }, 0);
  t.equal(long.machine.validUntil, 9_000, '10 % of a long lease');
});

t.test('it renews every sixth of the time to live, and at once after a late answer', async (t) => {
  const d = held();
  t.same(d.step({ type: 'timerFired' }, 1_500), ['renew L', 'armTimer 3500']);
  t.same(d.step({ type: 'timerFired' }, 1_600), ['armTimer 3500'], 'one renewal at a time');
  t.same(d.step({ type: 'renewed', ttlMs: 3_000, sentAt: 1_500 }, 1_520), ['armTimer 2000']);
  t.equal(d.machine.validUntil, 4_000);
  d.step({ type: 'timerFired' }, 2_000);
  t.same(d.step({ type: 'renewed', ttlMs: 3_000, sentAt: 2_000 }, 2_900), ['armTimer 2900']);
});

t.test('a failed renewal is tried again shortly after, and the deadline stays', async (t) => {
  const d = held();
  d.step({ type: 'timerFired' }, 1_500);
  t.same(d.step({ type: 'renewalFailed' }, 1_900), ['armTimer 1950']);
  t.equal(d.machine.validUntil, 3_500);
});

t.test(
  'past its deadline it is overdue, goes on renewing, and recovers by an answer',
  async (t) => {
    const d = held();
    d.step({ type: 'timerFired' }, 1_500);
    t.same(d.step({ type: 'timerFired' }, 3_500), ['announceOverdue']);
    t.equal(d.machine.state, 'OVERDUE');
    t.same(d.step({ type: 'renewalFailed' }, 3_600), ['armTimer 3650']);
    t.same(d.step({ type: 'timerFired' }, 3_650), ['renew L']);
    t.same(d.step({ type: 'renewed', ttlMs: 3_000, sentAt: 3_650 }, 3_660), [
      'announceRecovered',
      'armTimer 4150',
    ]);
    t.equal(d.machine.state, 'HELD');
  },
);

t.test('an answer that came too late to be worth anything does not recover it', async (t) => {
  const d = held();
  d.step({ type: 'timerFired' }, 1_500);
  d.step({ type: 'timerFired' }, 3_500);
  t.same(d.step({ type: 'renewed', ttlMs: 3_000, sentAt: 1_500 }, 9_000), ['armTimer 9000']);
  t.equal(d.machine.state, 'OVERDUE');
});

t.test(
  'a grant that was answered after its own deadline is held and overdue at once',
  async (t) => {
    const d = new Driven();
    d.step({ type: 'started' }, 0);
    const effects = d.step({ type: 'granted', leaseId: 'L', ttlMs: 3_000, sentAt: 0 }, 5_000);
    t.same(effects, ['announceHeld L', 'announceOverdue', 'armTimer 500']);
  },
);

t.test('a lease that does not exist any more is lost for good', async (t) => {
  for (const overdue of [false, true]) {
    const d = held();
    d.step({ type: 'timerFired' }, 1_500);
    if (overdue) d.step({ type: 'timerFired' }, 3_500);
    t.same(d.step({ type: 'renewed', ttlMs: 0, sentAt: 1_500 }, 3_600), [
      'cancelTimer',
      'announceLost',
    ]);
    t.equal(d.machine.validUntil, -Infinity);
    t.same(d.step({ type: 'timerFired' }, 4_000), []);
    t.same(d.step({ type: 'renewed', ttlMs: 3_000, sentAt: 3_900 }, 4_000), []);
    t.same(d.step({ type: 'closed' }, 5_000), ['cancelTimer'], 'nothing is left to revoke');
  }
});

t.test('a failed grant is repeated after a pause', async (t) => {
  const d = new Driven();
  d.step({ type: 'started' }, 1_000);
  t.same(d.step({ type: 'grantFailed' }, 3_000), ['armTimer 3500']);
  t.same(d.step({ type: 'timerFired' }, 3_400), ['armTimer 3500']);
  t.same(d.step({ type: 'timerFired' }, 3_500), ['grant']);
});

t.test('closing revokes the lease, also one that is granted afterwards', async (t) => {
  const d = held();
  t.same(d.step({ type: 'closed' }, 1_200), ['cancelTimer', 'revoke L']);
  t.same(d.step({ type: 'closed' }, 1_300), []);
  const overdue = held();
  overdue.step({ type: 'timerFired' }, 3_500);
  t.same(overdue.step({ type: 'closed' }, 3_600), ['cancelTimer', 'revoke L']);
  const granting = new Driven();
  granting.step({ type: 'started' }, 0);
  t.same(granting.step({ type: 'closed' }, 10), ['cancelTimer']);
  t.same(granting.step({ type: 'granted', leaseId: 'L', ttlMs: 3_000, sentAt: 0 }, 20), [
    'revoke L',
  ]);
  t.same(granting.step({ type: 'grantFailed' }, 30), []);
  const idle = new Driven();
  t.same(idle.step({ type: 'closed' }, 0), ['cancelTimer']);
});

t.test('starting twice is a bug', async (t) => {
  const d = held();
  try {
    d.step({ type: 'started' }, 2_000);
    t.fail('accepted');
  } catch (error) {
    t.ok(hasCode(error, 'INVARIANT'));
  }
});

t.test('every transition of the table is taken by these tests', async (t) => {
  const table = Object.entries(leaseTransitions) as [LeaseState, readonly LeaseState[]][];
  const all = table.flatMap(([from, to]) => to.map((state) => `${from}>${state}`));
  t.same(
    all.filter((transition) => !taken.has(transition)),
    [],
  );
});
