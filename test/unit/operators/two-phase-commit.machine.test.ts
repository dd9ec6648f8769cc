import fc from 'fast-check';
import t from 'tap';
import {
  commitTransitions,
  TwoPhaseCommitMachine,
  type CommitEffect,
  type CommitState,
  type PendingCommit,
} from '../../../lib/operators/two-phase-commit.machine.js';

const options = { attemptsMax: 3, initialBackoffMs: 100, maxBackoffMs: 150 };
const machineOf = (): TwoPhaseCommitMachine => new TwoPhaseCommitMachine(options);

t.test('a completion commits everything up to its id, also of aborted checkpoints', async (t) => {
  const machine = machineOf();
  machine.step({ kind: 'prepared', checkpointId: 1, committables: ['a'] });
  t.same(machine.step({ kind: 'checkpointAborted', checkpointId: 1 }), []);
  machine.step({ kind: 'prepared', checkpointId: 2, committables: ['b', 'c'] });
  machine.step({ kind: 'prepared', checkpointId: 3, committables: ['d'] });
  t.same(machine.uncommitted.length, 4);
  t.same(machine.step({ kind: 'checkpointCompleted', checkpointId: 2 }), [
    { kind: 'commit', committables: ['a', 'b', 'c'] },
  ]);
  t.equal(machine.uncommitted.length, 4, 'until they are known to be committed');
  t.same(
    machine.step({
      kind: 'commitReturned',
      outcomes: ['committed', 'alreadyCommitted', 'committed'],
    }),
    [{ kind: 'committedUpTo', checkpointId: 2 }],
  );
  t.same(machine.uncommitted, [{ checkpointId: 3, committable: 'd' }]);
  t.equal(machine.state, 'idle');
});

t.test('nothing to commit is committed at once', async (t) => {
  t.same(machineOf().step({ kind: 'checkpointCompleted', checkpointId: 5 }), [
    { kind: 'committedUpTo', checkpointId: 5 },
  ]);
});

t.test('a completion during a commit is taken up when it returns', async (t) => {
  const machine = machineOf();
  machine.step({ kind: 'prepared', checkpointId: 1, committables: ['a'] });
  machine.step({ kind: 'checkpointCompleted', checkpointId: 1 });
  machine.step({ kind: 'prepared', checkpointId: 2, committables: ['b'] });
  t.same(machine.step({ kind: 'checkpointCompleted', checkpointId: 2 }), []);
  t.same(machine.step({ kind: 'commitReturned', outcomes: ['committed'] }), [
    { kind: 'committedUpTo', checkpointId: 1 },
    { kind: 'commit', committables: ['b'] },
  ]);
  t.same(machine.step({ kind: 'commitReturned', outcomes: ['committed'] }), [
    { kind: 'committedUpTo', checkpointId: 2 },
  ]);
});

t.test(
  'what is to be retried is, with growing and bounded pauses, then the task fails',
  async (t) => {
    const machine = machineOf();
    machine.step({ kind: 'prepared', checkpointId: 1, committables: ['a', 'b'] });
    machine.step({ kind: 'checkpointCompleted', checkpointId: 1 });
    const retry = (count: number): CommitEffect[] =>
      machine.step({ kind: 'commitReturned', outcomes: new Array<string>(count).fill('retry') });
    t.same(retry(2), [{ kind: 'armBackoff', delayMs: 100 }]);
    t.same(machine.step({ kind: 'backoffElapsed' }), [
      { kind: 'commit', committables: ['a', 'b'] },
    ]);
    t.same(machine.step({ kind: 'commitReturned', outcomes: ['committed', 'retry'] }), [
      { kind: 'armBackoff', delayMs: 100 },
    ]);
    t.same(machine.uncommitted, [{ checkpointId: 1, committable: 'b' }], 'progress is kept');
    machine.step({ kind: 'prepared', checkpointId: 2, committables: ['c'] });
    t.same(
      machine.step({ kind: 'checkpointCompleted', checkpointId: 2 }),
      [],
      'waits for the pause',
    );
    t.same(machine.step({ kind: 'backoffElapsed' }), [
      { kind: 'commit', committables: ['b', 'c'] },
    ]);
    t.same(retry(2), [{ kind: 'armBackoff', delayMs: 100 }]);
    machine.step({ kind: 'backoffElapsed' });
    t.same(retry(2), [{ kind: 'armBackoff', delayMs: 150 }]);
    machine.step({ kind: 'backoffElapsed' });
    t.same(retry(2), [
      { kind: 'fail', reason: { kind: 'retriesExhausted', attempts: 3, pendingCount: 2 } },
    ]);
    t.equal(machine.uncommitted.length, 2, 'nothing is lost');
    t.same(machine.step({ kind: 'checkpointCompleted', checkpointId: 3 }), [], 'failed is the end');
  },
);

t.test('a committer that throws or answers nonsense fails the task', async (t) => {
  const commit = (): TwoPhaseCommitMachine => {
    const machine = machineOf();
    machine.step({ kind: 'prepared', checkpointId: 1, committables: ['a'] });
    machine.step({ kind: 'checkpointCompleted', checkpointId: 1 });
    return machine;
  };
  t.same(commit().step({ kind: 'commitThrew', error: 'e' }), [
    { kind: 'fail', reason: { kind: 'threw', error: 'e' } },
  ]);
  for (const outcomes of [[], ['committed', 'committed'], ['perhaps']]) {
    const [effect] = commit().step({ kind: 'commitReturned', outcomes });
    t.match(effect, { kind: 'fail', reason: { kind: 'badAnswer', expected: 1 } });
  }
});

t.test('restored work is due at once', async (t) => {
  const machine = machineOf();
  const pending = [
    { checkpointId: 3, committable: 'a' },
    { checkpointId: 4, committable: 'b' },
  ];
  t.same(machine.step({ kind: 'restored', pending }), [
    { kind: 'commit', committables: ['a', 'b'] },
  ]);
  t.same(machine.uncommitted, pending);
});

t.test('inputs out of place are bugs', async (t) => {
  t.throws(() => machineOf().step({ kind: 'commitReturned', outcomes: [] }), { code: 'INVARIANT' });
  t.throws(() => machineOf().step({ kind: 'backoffElapsed' }), { code: 'INVARIANT' });
  const machine = machineOf();
  machine.step({ kind: 'checkpointCompleted', checkpointId: 5 });
  t.throws(() => machine.step({ kind: 'prepared', checkpointId: 5, committables: [] }), {
    code: 'INVARIANT',
  });
});

/** One attempt after the other over one world: a crash may come at every step. */
type Move =
  | 'write'
  | 'checkpoint'
  | 'complete'
  | 'abort'
  | 'commitAll'
  | 'commitNone'
  | 'commitHalf'
  | 'backoff'
  | 'crash';

const moves: readonly Move[] = [
  'write',
  'write',
  'checkpoint',
  'complete',
  'abort',
  'commitAll',
  'commitNone',
  'commitHalf',
  'backoff',
  'crash',
];

class World {
  readonly taken = new Set<string>();
  readonly committed: string[] = [];
  machine = new TwoPhaseCommitMachine({ attemptsMax: 4, initialBackoffMs: 1, maxBackoffMs: 1 });
  /** Written and not prepared. */
  open: string[] = [];
  checkpointId = 0;
  written = 0;
  /** The last completed checkpoint: position of the input, and the sink's state. */
  durable: { written: number; uncommitted: readonly PendingCommit[] } = {
    written: 0,
    uncommitted: [],
  };
  snapshots = new Map<number, { written: number; uncommitted: readonly PendingCommit[] }>();
  inFlight: readonly unknown[] | undefined;
  backingOff = false;

  apply(move: Move): void {
    switch (move) {
      case 'write':
        this.written += 1;
        this.open.push(String(this.written));
        break;
      case 'checkpoint': {
        this.checkpointId += 1;
        const { checkpointId } = this;
        this.run(this.machine.step({ kind: 'prepared', checkpointId, committables: this.open }));
        this.open = [];
        const uncommitted = [...this.machine.uncommitted];
        this.snapshots.set(checkpointId, { written: this.written, uncommitted });
        break;
      }
      case 'complete': {
        const [checkpointId, snapshot] = [...this.snapshots].at(-1) ?? [];
        if (checkpointId === undefined || snapshot === undefined) break;
        this.durable = snapshot;
        this.snapshots.clear();
        this.run(this.machine.step({ kind: 'checkpointCompleted', checkpointId }));
        break;
      }
      case 'abort': {
        const checkpointId = [...this.snapshots.keys()][0];
        if (checkpointId === undefined) break;
        this.snapshots.delete(checkpointId);
        this.run(this.machine.step({ kind: 'checkpointAborted', checkpointId }));
        break;
      }
      case 'commitAll':
      case 'commitNone':
      case 'commitHalf':
        this.answer(move);
        break;
      case 'backoff':
        if (!this.backingOff) break;
        this.backingOff = false;
        this.run(this.machine.step({ kind: 'backoffElapsed' }));
        break;
      case 'crash':
        this.crash();
        break;
    }
  }

  answer(how: Move): void {
    if (this.inFlight === undefined) return;
    const items = this.inFlight;
    this.inFlight = undefined;
    const outcomes = items.map((item, i) => {
      const isDone = how === 'commitAll' || (how === 'commitHalf' && i % 2 === 0);
      return isDone ? this.commit(item as string) : 'retry';
    });
    this.run(this.machine.step({ kind: 'commitReturned', outcomes }));
  }

  commit(item: string): string {
    if (this.taken.has(item)) return 'alreadyCommitted';
    this.taken.add(item);
    this.committed.push(item);
    return 'committed';
  }

  /** The committer may have done half of its work without the answer arriving. */
  crash(): void {
    for (const item of (this.inFlight ?? []).slice(0, 1)) this.commit(item as string);
    this.machine = new TwoPhaseCommitMachine({
      attemptsMax: 4,
      initialBackoffMs: 1,
      maxBackoffMs: 1,
    });
    this.inFlight = undefined;
    this.backingOff = false;
    this.open = [];
    this.snapshots.clear();
    this.written = this.durable.written;
    if (this.durable.uncommitted.length === 0) return;
    this.run(this.machine.step({ kind: 'restored', pending: this.durable.uncommitted }));
  }

  run(effects: readonly CommitEffect[]): void {
    for (const effect of effects) {
      if (effect.kind === 'commit') this.inFlight = effect.committables;
      if (effect.kind === 'armBackoff') this.backingOff = true;
      if (effect.kind === 'fail') return this.crash();
    }
  }
}

t.test(
  'over all crashes every record is committed exactly once, never before its checkpoint',
  async () => {
    fc.assert(
      fc.property(fc.array(fc.constantFrom(...moves), { maxLength: 80 }), (history) => {
        const world = new World();
        for (const move of history) {
          world.apply(move);
          const isEarly = world.committed.some((item) => Number(item) > world.durable.written);
          if (isEarly) return false;
        }
        for (const move of ['write', 'checkpoint', 'complete'] as const) world.apply(move);
        for (let i = 0; i < 10; i += 1) {
          world.apply('backoff');
          world.apply('commitAll');
        }
        const all = Array.from({ length: world.written }, (_, i) => String(i + 1));
        const found = [...world.committed].sort((a, b) => Number(a) - Number(b));
        return (
          JSON.stringify(found) === JSON.stringify(all) && world.machine.uncommitted.length === 0
        );
      }),
      { numRuns: 2000 },
    );
  },
);

t.test('every legal transition is taken', async (t) => {
  const taken = new Set<string>();
  let from: CommitState = 'idle';
  const machine = new TwoPhaseCommitMachine({
    attemptsMax: 2,
    initialBackoffMs: 1,
    maxBackoffMs: 1,
  });
  let checkpointId = 0;
  const step = (...args: Parameters<TwoPhaseCommitMachine['step']>): void => {
    machine.step(...args);
    taken.add(`${from} -> ${machine.state}`);
    from = machine.state;
  };
  const prepare = (): void => {
    checkpointId += 1;
    machine.step({ kind: 'prepared', checkpointId, committables: [checkpointId] });
  };
  prepare();
  step({ kind: 'checkpointCompleted', checkpointId });
  prepare();
  machine.step({ kind: 'checkpointCompleted', checkpointId });
  step({ kind: 'commitReturned', outcomes: ['committed'] });
  step({ kind: 'commitReturned', outcomes: ['committed'] });
  prepare();
  step({ kind: 'checkpointCompleted', checkpointId });
  step({ kind: 'commitReturned', outcomes: ['retry'] });
  step({ kind: 'backoffElapsed' });
  step({ kind: 'commitReturned', outcomes: ['retry'] });
  const legal = Object.entries(commitTransitions).flatMap(([state, next]) =>
    next.map((to) => `${state} -> ${to}`),
  );
  t.same([...taken].sort(), legal.sort());
});
