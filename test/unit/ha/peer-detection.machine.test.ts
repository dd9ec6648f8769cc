import t from 'tap';
import {
  PeerDetectionMachine,
  peerDetectionTransitions,
  type ConnectionEnd,
  type Peer,
  type PeerDetectionEffect,
  type PeerDetectionInput,
} from '../../../ha/peer-detection.machine.js';

/** Transitions taken by any test of this file. */
const taken = new Set<string>();

const peer = (revision: number): Peer => ({
  epoch: { era: 1, revision },
  key: `candidate-${String(revision)}`,
  address: `host:${String(revision)}`,
});

/** Runs the machine against a leader that answers each connection as `answer` says; time passes by timers alone. */
class Driven {
  readonly machine = new PeerDetectionMachine();
  readonly said: string[] = [];
  now = 0;
  connection = 0;
  #timer: number | undefined;

  step(input: PeerDetectionInput): void {
    const from = this.machine.state;
    for (const effect of this.machine.step(input, this.now)) this.#note(effect);
    if (this.machine.state !== from) taken.add(`${from}>${this.machine.state}`);
  }

  watches(one: Peer | undefined): this {
    this.step({ type: 'leader', peer: one });
    return this;
  }

  opened(): this {
    this.step({ type: 'opened', connection: this.connection });
    return this;
  }

  ended(how: ConnectionEnd): this {
    this.step({ type: 'ended', connection: this.connection, how });
    return this;
  }

  /** Fires the armed timer, and returns how long it took. */
  wait(): number {
    const waited = (this.#timer ?? this.now) - this.now;
    this.now += waited;
    this.#timer = undefined;
    this.step({ type: 'timerFired' });
    return waited;
  }

  /** A connection that was open for `ms` closes. */
  closes(afterMs = 60_000): this {
    this.opened();
    this.now += afterMs;
    return this.ended('closed');
  }

  /** Answers probes; one is sent within 50 ms or not at all. */
  probes(answers: readonly ConnectionEnd[]): this {
    for (const how of answers) {
      if (this.#timer !== undefined && this.#timer - this.now <= 50) this.wait();
      this.ended(how);
    }
    return this;
  }

  #note(effect: PeerDetectionEffect): void {
    switch (effect.type) {
      case 'connect':
        this.connection = effect.connection;
        break;
      case 'armTimer':
        this.#timer = effect.at;
        break;
      case 'cancelTimer':
        this.#timer = undefined;
        break;
      case 'depose':
        this.said.push(`depose ${effect.peer.key} after ${String(effect.probes)}`);
        break;
      case 'noteLimited':
        this.said.push('limited');
        break;
      case 'disconnect':
      case 'noteClosed':
        break;
    }
  }
}

t.test('a leader whose connection closes and that refuses three in a row is deposed', async (t) => {
  const d = new Driven().watches(peer(7)).closes();
  const closedAt = d.now;
  d.probes(['refused', 'refused', 'refused']);
  t.same(d.said, ['depose candidate-7 after 3']);
  t.ok(d.now - closedAt <= 15, `within ${String(d.now - closedAt)} ms`);
});

t.test('the listener of a dying process may outlive its connection', async (t) => {
  const d = new Driven().watches(peer(7)).closes();
  d.closes(1).probes(['refused', 'failed', 'refused', 'refused', 'refused']);
  t.same(d.said, ['depose candidate-7 after 6'], 'only refusals in a row count');
});

t.test(
  'a leader that only closes connections is connected to again, more and more seldom',
  async (t) => {
    const d = new Driven().watches(peer(7));
    const pauses: number[] = [];
    for (let i = 0; i < 160; i += 1) {
      d.closes(1);
      const waited = d.wait();
      if (waited > 50) pauses.push(waited);
    }
    t.same(d.said, []);
    t.same(pauses.slice(0, 5), [200, 400, 800, 1_600, 3_200]);
    d.closes(60_000);
    t.equal(d.connection > 0 && d.machine.state, 'PROBING');
    t.same(d.probes(['refused', 'refused', 'refused']).said, ['depose candidate-7 after 3']);
  },
);

t.test('a leader that cannot be reached, or never was, is left alone', async (t) => {
  const silent = new Driven().watches(peer(7)).closes();
  silent.probes(Array.from({ length: 25 }, () => 'failed' as const));
  t.same(silent.said, []);
  t.equal(silent.machine.state, 'PAUSING');
  const never = new Driven().watches(peer(7));
  for (let i = 0; i < 10; i += 1) {
    never.ended('refused');
    t.ok(never.wait() >= 200);
  }
  t.same(never.said, [], 'a wrong address refuses, too');
});

t.test('three leaders a minute are deposed, not more', async (t) => {
  const d = new Driven();
  const dies = (revision: number): void => {
    d.watches(peer(revision)).closes(5_000).probes(['refused', 'refused', 'refused']);
  };
  for (const revision of [1, 2, 3, 4]) dies(revision);
  t.same(d.said.slice(2), ['depose candidate-3 after 3', 'limited']);
  d.now += 60_000;
  dies(5);
  t.equal(d.said.at(-1), 'depose candidate-5 after 3');
});

t.test('what is known of one leader says nothing of the next', async (t) => {
  const d = new Driven().watches(peer(1)).closes();
  d.ended('refused').wait();
  const late = d.connection;
  d.watches(peer(2));
  d.step({ type: 'ended', connection: late, how: 'refused' });
  d.probes(['refused', 'refused', 'refused']);
  t.same(d.said, [], 'the second was never connected to');
  d.watches(undefined).watches(peer(3)).opened().watches(undefined);
  t.equal(d.machine.state, 'IDLE');
  d.wait();
  t.equal(d.machine.state, 'IDLE', 'nobody to look at');
  d.watches(peer(4)).opened().ended('closed').watches(undefined);
});

t.test('stopped, it does nothing in any state', async (t) => {
  const ways: ((d: Driven) => unknown)[] = [
    () => undefined,
    (d) => d.watches(peer(1)),
    (d) => d.watches(peer(1)).opened(),
    (d) => d.watches(peer(1)).closes(),
    (d) => d.watches(peer(1)).ended('failed'),
  ];
  for (const way of ways) {
    const d = new Driven();
    way(d);
    d.step({ type: 'stopped' });
    d.watches(peer(2)).probes(['refused', 'refused', 'refused', 'refused']);
    t.same([d.machine.state, d.said], ['CLOSED', []]);
  }
});

t.test('every transition of the table was taken', async (t) => {
  const d = new Driven().watches(peer(1)).closes();
  d.probes(['refused', 'refused', 'refused']).watches(undefined);
  d.watches(peer(2)).watches(undefined);
  const all = Object.entries(peerDetectionTransitions).flatMap(([from, to]) =>
    to.map((one) => `${from}>${one}`),
  );
  t.same(
    all.filter((one) => !taken.has(one)),
    [],
  );
});
