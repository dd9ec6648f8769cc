import t from 'tap';
import {
  ElectionMachine,
  electionTransitions,
  type ElectionEffect,
  type ElectionInput,
  type ElectionState,
} from '../../../ha/leader-election.machine.js';

const taken = new Set<string>();

type Roundless<T> = T extends unknown ? Omit<T, 'round'> : never;

class Driven {
  readonly machine = new ElectionMachine({ outageGraceMs: 10_000 });
  now = 0;

  /** Gives the input the current round, unless it has one. */
  step(input: Roundless<ElectionInput> & { readonly round?: number }): string[] {
    const from = this.machine.state;
    const full = { round: this.machine.round, ...input } as ElectionInput;
    const effects = this.machine.step(full, this.now);
    if (this.machine.state !== from) taken.add(`${from}>${this.machine.state}`);
    return effects.map(describe);
  }

  observe(revision: number, ...queue: number[]): string[] {
    return this.step({ type: 'candidatesObserved', revision, queue });
  }
}

function describe(effect: ElectionEffect): string {
  switch (effect.type) {
    case 'armTimer':
      return `armTimer ${String(effect.at)}`;
    case 'elect':
    case 'grant':
    case 'probe':
    case 'predecessorGone':
      return `${effect.type} ${String(effect.revision)}`;
    case 'revoke':
      return `revoke: ${effect.reason}`;
    default:
      return effect.type;
  }
}

function waiting(...ahead: number[]): Driven {
  const d = new Driven();
  d.step({ type: 'started' });
  d.step({ type: 'leaseHeld', leaseId: 'L' });
  d.observe(5, ...ahead);
  d.step({ type: 'registered', revision: 10 });
  return d;
}

function leading(): Driven {
  const d = waiting();
  d.observe(10, 10);
  d.step({ type: 'elected' });
  return d;
}

function suspended(): Driven {
  const d = leading();
  d.step({ type: 'leaseOverdue' });
  return d;
}

t.test('a candidate alone takes a lease, registers, is elected and leads', async (t) => {
  const d = new Driven();
  t.same(d.step({ type: 'started' }), ['openLease']);
  t.same(d.step({ type: 'leaseHeld', leaseId: 'L' }), ['register']);
  t.same(d.step({ type: 'registered', revision: 10 }), ['cancelTimer', 'observe']);
  t.same(d.observe(9), ['observe'], 'what was seen before its own key says nothing');
  t.same(d.observe(10, 10), ['elect 10']);
  t.same(d.step({ type: 'elected' }), ['cancelTimer', 'grant 10']);
  t.equal(d.machine.state, 'LEADING');
});

t.test('its own key may be observed before the answer to its creation', async (t) => {
  const d = new Driven();
  d.step({ type: 'started' });
  d.step({ type: 'leaseHeld', leaseId: 'L' });
  d.observe(10, 10);
  t.same(d.step({ type: 'registered', revision: 10 }), ['cancelTimer', 'elect 10']);
});

t.test('a candidate waits for all before it, and not for those after it', async (t) => {
  const d = waiting(3, 4);
  t.same(d.observe(10, 3, 4, 10), []);
  t.same(d.observe(11, 4, 10, 11), ['predecessorGone 3']);
  t.same(d.observe(12, 10, 11), ['predecessorGone 4', 'elect 10']);
});

t.test(
  'a standby notices the end of the leader and of its predecessor, once, and no other',
  async (t) => {
    const d = waiting(2, 3, 4);
    t.same(d.observe(10, 2, 3, 4, 10), []);
    t.same(d.observe(11, 2, 4, 10, 11), [], 'neither the leader nor just before it');
    t.same(d.observe(12, 2, 10, 11), ['predecessorGone 4']);
    t.same(d.observe(13, 2, 10), [], 'behind it');
    t.same(d.observe(14, 10), ['predecessorGone 2', 'elect 10']);
    t.same(d.observe(14, 10), []);
    const last = waiting(2);
    t.match(last.machine.step({ type: 'candidatesObserved', revision: 11, queue: [10] }, 0), [
      { type: 'predecessorGone', revision: 2, wasLeader: true },
      { type: 'elect' },
    ]);
    const gone = waiting(2);
    t.same(gone.observe(11), ['leave', 'armTimer 50'], 'without a key of its own it is no standby');
  },
);

t.test('an election that fails or is not answered is tried again', async (t) => {
  const d = waiting();
  d.observe(10, 10);
  t.same(d.step({ type: 'notElected' }), ['observe', 'armTimer 200']);
  t.equal(d.machine.state, 'WAITING');
  d.now = 200;
  t.same(d.step({ type: 'timerFired' }), ['elect 10']);
});

t.test('a standby whose key is gone never leads with it, and joins again', async (t) => {
  const d = waiting(3);
  const { round } = d.machine;
  d.now = 100;
  t.same(d.observe(11, 3), ['leave', 'armTimer 150']);
  t.equal(d.machine.state, 'JOINING');
  t.same(d.observe(12), [], 'nobody leads, but this one has no key');
  t.same(d.step({ type: 'elected', round }), [], 'nor by an answer to its former self');
  t.same(d.step({ type: 'registered', round, revision: 10 }), []);
  t.same(d.step({ type: 'timerFired' }), ['openLease']);
  t.same(d.step({ type: 'leaseHeld', leaseId: 'M' }), ['register']);
  t.same(d.step({ type: 'registered', revision: 13 }), ['cancelTimer', 'observe']);
});

t.test('a standby whose lease is lost while it is being elected does not lead', async (t) => {
  const d = waiting();
  d.observe(10, 10);
  const { round } = d.machine;
  t.same(d.step({ type: 'leaseLost' }), ['leave', 'armTimer 50']);
  t.same(d.step({ type: 'elected', round }), []);
  t.equal(d.machine.state, 'JOINING');
});

t.test('an election shows that the candidate key is gone', async (t) => {
  const d = waiting();
  d.observe(10, 10);
  t.same(d.step({ type: 'candidateGone' }), ['leave', 'armTimer 50']);
});

t.test(
  'a candidate with an overdue lease does not stand for election until it is good',
  async (t) => {
    const d = waiting(3);
    t.same(d.step({ type: 'leaseOverdue' }), []);
    t.same(d.observe(11, 10), ['predecessorGone 3']);
    t.same(d.step({ type: 'timerFired' }), []);
    t.same(d.step({ type: 'leaseRecovered' }), ['elect 10']);
    t.same(d.step({ type: 'leaseOverdue' }), []);
    t.same(d.step({ type: 'elected' }), [], 'too late to act on it');
    t.equal(d.machine.state, 'WAITING');
    t.same(d.step({ type: 'leaseRecovered' }), ['elect 10']);
  },
);

t.test('a leader with an overdue lease is suspended, probes, and resumes', async (t) => {
  const d = leading();
  d.now = 1_000;
  t.same(d.step({ type: 'leaseOverdue' }), ['suspend', 'probe 10', 'armTimer 1500']);
  d.now = 1_500;
  t.same(d.step({ type: 'timerFired' }), ['armTimer 2000'], 'one probe at a time');
  t.same(d.step({ type: 'probeFailed' }), []);
  d.now = 2_000;
  t.same(d.step({ type: 'timerFired' }), ['probe 10', 'armTimer 2500']);
  t.same(d.step({ type: 'probeSucceeded' }), [], 'the lease is still overdue');
  t.same(d.step({ type: 'leaseRecovered' }), ['probe 10']);
  t.same(d.step({ type: 'probeSucceeded' }), ['cancelTimer', 'resume']);
  t.equal(d.machine.state, 'LEADING');
});

t.test('a leadership ends when its key is seen to be gone, by whatever means', async (t) => {
  for (const make of [leading, suspended]) {
    const observed = make();
    t.match(observed.observe(20, 15), [/^revoke: .*deleted/, 'leave', /armTimer/]);
    t.equal(observed.machine.state, 'JOINING');
    const lease = make();
    t.match(lease.step({ type: 'leaseLost' }), [/^revoke: .*lease/, 'leave', /armTimer/]);
    const fenced = make();
    t.match(fenced.step({ type: 'candidateGone' }), [/^revoke: .*deleted/, 'leave', /armTimer/]);
  }
});

t.test('an observation older than its own key does not end a leadership', async (t) => {
  const d = leading();
  t.same(d.observe(9, 3), []);
  t.equal(d.machine.state, 'LEADING');
});

t.test('an outage longer than the grace ends the leadership', async (t) => {
  for (const how of ['timer', 'probe'] as const) {
    const d = suspended();
    d.now = 9_999;
    if (how === 'timer') d.step({ type: 'timerFired' });
    d.now = 10_000;
    const effects = d.step({ type: how === 'timer' ? 'timerFired' : 'probeFailed' });
    t.match(effects, [/^revoke: .*too long/, 'leave', /armTimer/]);
  }
});

t.test('a failed registration starts over with another lease, ever more slowly', async (t) => {
  const d = new Driven();
  d.step({ type: 'started' });
  const delays: number[] = [];
  for (let i = 0; i < 8; i += 1) {
    d.step({ type: 'leaseHeld', leaseId: 'L' });
    const [leave, timer] = d.step({ type: 'registrationFailed' });
    t.equal(leave, 'leave');
    delays.push(Number(timer?.replace('armTimer ', '')));
    t.same(d.step({ type: 'timerFired' }), ['openLease']);
    t.same(d.step({ type: 'timerFired' }), [], 'one lease at a time');
  }
  t.same(delays, [50, 100, 200, 400, 800, 1_600, 2_000, 2_000]);
});

t.test('closing leaves in every state, and ends a leadership', async (t) => {
  const idle = new Driven();
  t.same(idle.step({ type: 'closed' }), ['cancelTimer']);
  const joining = new Driven();
  joining.step({ type: 'started' });
  t.same(joining.step({ type: 'closed' }), ['leave', 'cancelTimer']);
  const electing = waiting();
  electing.observe(10, 10);
  t.same(waiting(3).step({ type: 'closed' }), ['leave', 'cancelTimer']);
  t.same(electing.step({ type: 'closed' }), ['leave', 'cancelTimer']);
  for (const make of [leading, suspended]) {
    const d = make();
    t.match(d.step({ type: 'closed' }), [/^revoke: .*resigned/, 'leave', 'cancelTimer']);
    t.same(d.step({ type: 'closed' }), []);
    t.same(d.step({ type: 'elected' }), []);
  }
});

t.test('late answers about elections and probes change nothing', async (t) => {
  const d = leading();
  t.same(d.step({ type: 'notElected' }), []);
  t.same(d.step({ type: 'elected' }), []);
  t.same(d.step({ type: 'probeSucceeded' }), []);
  t.same(d.step({ type: 'timerFired' }), []);
  t.same(d.step({ type: 'leaseRecovered' }), []);
});

t.test('every transition of the table is taken by these tests', async (t) => {
  const table = Object.entries(electionTransitions) as [ElectionState, readonly ElectionState[]][];
  const all = table.flatMap(([from, to]) => to.map((state) => `${from}>${state}`));
  // Joining again from joining keeps the state.
  const missing = all.filter((name) => !taken.has(name) && name !== 'JOINING>JOINING');
  t.same(missing, []);
});
