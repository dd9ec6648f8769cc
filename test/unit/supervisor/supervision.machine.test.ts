import t from 'tap';
import {
  SupervisionMachine,
  supervisionTransitions,
  type SupervisionEffect,
  type SupervisionInput,
  type SupervisionOptions,
} from '../../../bin/supervisor/supervision.machine.js';

/** Transitions taken by any test of this file. */
const taken = new Set<string>();

const defaults: SupervisionOptions = {
  heartbeatIntervalMs: 200,
  heartbeatTimeoutMs: 2_000,
  pausesFirst: true,
  initialDelayMs: 1_000,
  maxDelayMs: 30_000,
  stopTimeoutMs: 35_000,
  finalExitCodes: [0, 2],
};

class Driven {
  readonly machine: SupervisionMachine;
  now = 0;

  constructor(options: Partial<SupervisionOptions> = {}) {
    this.machine = new SupervisionMachine({ ...defaults, ...options });
  }

  step(input: SupervisionInput, at = this.now): string[] {
    this.now = at;
    const from = this.machine.state;
    const effects = this.machine.step(input, at);
    if (this.machine.state !== from) taken.add(`${from}>${this.machine.state}`);
    return effects.map(describe);
  }

  /** Ticks in time until `until`; what they cause, with when. */
  tick(until: number): string[] {
    const seen: string[] = [];
    while (this.now + 200 <= until) {
      const effects = this.step({ type: 'tick', starvedMs: 0 }, this.now + 200);
      seen.push(...effects.map((one) => `${String(this.now)}: ${one}`));
    }
    return seen;
  }

  /** Ends with `code` after `livedMs`; resolves the pause that follows. */
  die(code: number, livedMs: number): string[] {
    const effects = this.step({ type: 'exited', code }, this.now + livedMs);
    const armed = /armTimer (\d+)/.exec(effects.join(' '))?.[1];
    if (armed !== undefined) this.step({ type: 'timerFired' }, Number(armed));
    return effects;
  }
}

function describe(effect: SupervisionEffect): string {
  switch (effect.type) {
    case 'armTimer':
      return `armTimer ${String(effect.at)}`;
    case 'pause':
      return `pause ${String(effect.delayMs)}`;
    case 'kill':
      return `kill ${effect.reason}`;
    case 'end':
      return `end ${String(effect.code)}`;
    default:
      return effect.type;
  }
}

function started(options: Partial<SupervisionOptions> = {}): Driven {
  const d = new Driven(options);
  d.step({ type: 'started' });
  return d;
}

const pauses = (d: Driven, times: number): number[] =>
  Array.from({ length: times }, () => Number(d.die(137, 10)[0]?.slice('pause '.length)));

t.test('a process silent for two seconds is killed, once', async (t) => {
  const d = started();
  t.same(d.tick(10_000), [], 'nothing is expected of it before it was heard');
  d.step({ type: 'heartbeat' });
  t.same(d.tick(20_000), ['12200: kill silent']);
  const beating = started();
  for (let i = 0; i < 50; i += 1) {
    beating.step({ type: 'heartbeat' });
    t.same(beating.tick(beating.now + 1_800), []);
  }
  const patient = started({ heartbeatTimeoutMs: 0 });
  patient.step({ type: 'heartbeat' });
  t.same(patient.tick(100_000), [], 'a timeout of 0 is none');
});

t.test(
  'the time in which the supervisor itself did not run is not the silence of its process',
  async (t) => {
    const d = started();
    d.step({ type: 'heartbeat' });
    t.same(d.step({ type: 'tick', starvedMs: 0 }, 60_000), [], 'the whole machine slept');
    t.same(d.step({ type: 'tick', starvedMs: 0 }, 60_200), []);
    d.step({ type: 'heartbeat' });
    t.same(d.step({ type: 'tick', starvedMs: 0 }, 120_000), []);
  },
);

t.test('a process that waits for a processor is not hung', async (t) => {
  const d = started();
  d.step({ type: 'heartbeat' });
  for (let i = 0; i < 100; i += 1) {
    t.same(d.step({ type: 'tick', starvedMs: 195 }, d.now + 200), []);
  }
  t.same(d.tick(100_000).length, 1, 'it is when it has one');
});

t.test(
  'restarts pause longer and longer, at most the limit, and begin anew after a long life',
  async (t) => {
    const jobManager = started();
    t.same(pauses(jobManager, 7), [1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000]);
    t.match(jobManager.die(75, 59_999), ['pause 30000']);
    t.match(jobManager.die(75, 60_000), ['pause 1000']);
    const taskManager = started({ pausesFirst: false });
    t.same(pauses(taskManager, 7), [0, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000]);
  },
);

t.test('an orderly end and a wrong configuration end the supervisor, too', async (t) => {
  t.same(started().die(0, 100), ['cancelTimer', 'end 0']);
  t.same(started().die(2, 100), ['cancelTimer', 'end 2']);
  t.match(started().die(3, 100), ['pause 1000'], 'etcd may come yet');
  t.match(started().die(75, 100), ['pause 1000']);
});

t.test('a stop is passed on and waited for, the second one is not', async (t) => {
  const d = started();
  t.same(d.step({ type: 'stopRequested' }, 100), ['terminate', 'armTimer 35100']);
  t.same(d.step({ type: 'exited', code: 0 }, 200), ['cancelTimer', 'end 0']);
  t.same(d.step({ type: 'stopRequested' }), []);
  const stuck = started();
  stuck.step({ type: 'stopRequested' }, 0);
  t.same(stuck.step({ type: 'stopRequested' }, 10), ['kill not ending']);
  const late = started();
  late.step({ type: 'heartbeat' });
  late.step({ type: 'stopRequested' });
  t.same(late.tick(30_000), [], 'who is ending may be silent');
  t.same(late.step({ type: 'timerFired' }, 35_000), ['kill not ending']);
  t.same(late.step({ type: 'exited', code: 137 }), ['cancelTimer', 'end 137']);
});

t.test('a stop and a wish to start at once end the pause', async (t) => {
  const d = started();
  d.step({ type: 'exited', code: 137 });
  t.same(d.step({ type: 'wakeRequested' }), ['cancelTimer', 'start']);
  t.same(d.step({ type: 'wakeRequested' }), [], 'it runs');
  d.step({ type: 'exited', code: 137 });
  t.same(d.step({ type: 'stopRequested' }), ['cancelTimer', 'end 0']);
  t.same(new Driven().step({ type: 'stopRequested' }), ['cancelTimer', 'end 0']);
});

t.test('every transition of the table was taken', async (t) => {
  const all = Object.entries(supervisionTransitions).flatMap(([from, to]) =>
    to.map((one) => `${from}>${one}`),
  );
  t.same(
    all.filter((one) => !taken.has(one)),
    [],
  );
});
