/** What people are shown of a job goes on under the next leader, whatever the last one got to write down. */
import t from 'tap';
import type { CheckpointPointer } from '../../../checkpoint/types.js';
import { MillraceError, toFailure } from '../../../lib/base/errors.js';
import type { JobId } from '../../../lib/base/ids.js';
import { exceptionInfo } from '../../../lib/jobmanager/executiongraph/exception-history.js';
import { encodeJobHistory, JobHistory } from '../../../lib/jobmanager/jobmaster/job-history.js';
import { ManualClock } from '../../support/manual-clock.js';
import { testEnv } from '../../support/test-env.js';

class Fixture {
  readonly clock = new ManualClock();
  readonly puts: string[] = [];
  mayAct = true;
  fails = false;

  history(pastHistory?: string, size = 10): JobHistory {
    const store = {
      put: async (_: JobId, history: string) => {
        if (this.fails) throw new MillraceError('ETCD_UNAVAILABLE', 'away');
        this.puts.push(history);
      },
      get: async () => this.puts.at(-1),
    };
    const history = new JobHistory(
      testEnv(this.clock),
      { store, mayAct: () => this.mayAct },
      {
        jobId: 'j' as JobId,
        pastHistory,
        exceptionHistorySize: size,
        checkpointHistorySize: size,
      },
    );
    history.start();
    t.teardown(() => {
      history.close();
    });
    return history;
  }
}

const pointer = (checkpointId: number): CheckpointPointer => ({
  checkpointId,
  metadataPath: `/c/chk-${String(checkpointId)}/_metadata`,
  sha256: 'aa',
  timestamp: 1_000 + checkpointId,
  sizeBytes: 7,
  kind: 'checkpoint',
});

function trigger({ checkpoints }: JobHistory, checkpointId: number): void {
  checkpoints.record({ kind: 'triggered', checkpointId, timestamp: 1_000, tasks: 2 }, 1_000);
}

function complete({ checkpoints }: JobHistory, checkpointId: number): void {
  const event = { kind: 'completed' as const, durationMs: 5, stateSize: 9 };
  checkpoints.record({ ...event, pointer: pointer(checkpointId) }, 1_005);
}

const failed = (message: string): ReturnType<typeof exceptionInfo> =>
  exceptionInfo(toFailure(new MillraceError('USER_FUNCTION', message)), 5);

t.test(
  'changes are written at most once a second, and only by a leader that may act',
  async (t) => {
    const fixture = new Fixture();
    const history = fixture.history();
    await fixture.clock.advance(3_000);
    t.equal(fixture.puts.length, 0, 'nothing changed');
    for (let id = 1; id <= 5; id++) {
      trigger(history, id);
      complete(history, id);
      await fixture.clock.advance(100);
    }
    await fixture.clock.advance(2_000);
    t.equal(fixture.puts.length, 1);
    fixture.mayAct = false;
    history.exceptions.addRoot(failed('bad'));
    await fixture.clock.advance(5_000);
    t.equal(fixture.puts.length, 1, 'suspended');
    fixture.mayAct = true;
    fixture.fails = true;
    await fixture.clock.advance(2_000);
    fixture.fails = false;
    await fixture.clock.advance(1_000);
    t.equal(fixture.puts.length, 2, 'a write that failed is made up for');
    history.checkpoints.record(
      { kind: 'acknowledged', checkpointId: 5, tasks: 1, stateSize: 1 },
      1_000,
    );
    await fixture.clock.advance(2_000);
    t.equal(fixture.puts.length, 2, 'progress alone is not worth a write');
  },
);

t.test('the successor goes on counting; pointers say what completed last', async (t) => {
  const fixture = new Fixture();
  const first = fixture.history();
  trigger(first, 1);
  complete(first, 1);
  trigger(first, 2);
  first.exceptions.addRoot(failed('first'));
  first.exceptions.addConcurrent(failed('along with it'));
  trigger(first, 3);
  await fixture.clock.advance(1_000);
  // Not written down any more: 3 completed, 4 was triggered and completed.
  complete(first, 3);
  trigger(first, 4);
  complete(first, 4);

  const second = fixture.history(fixture.puts[0]);
  t.match(second.checkpoints.snapshot(), {
    counts: { total: 3, completed: 1, failed: 2, in_progress: 0 },
    latest: { completed: { id: 1 }, failed: { id: 3, failure_message: /leader/ } },
  });
  second.checkpoints.pointersKnown([pointer(1), pointer(3), pointer(4)]);
  const { counts, latest, history } = second.checkpoints.snapshot();
  t.same(counts, { restored: 0, total: 4, in_progress: 0, completed: 3, failed: 1 });
  t.match(latest, { completed: { id: 4, external_path: '/c/chk-4' }, failed: { id: 2 } });
  t.same(
    history.map(({ id, status }) => [id, status]),
    [
      [4, 'COMPLETED'],
      [3, 'COMPLETED'],
      [2, 'FAILED'],
      [1, 'COMPLETED'],
    ],
  );
  t.equal(second.checkpoints.details(3)?.failure_message, undefined);
  second.checkpoints.pointersKnown([pointer(3), pointer(4)]);
  t.equal(second.checkpoints.snapshot().counts.total, 4, 'known ones are not counted again');
  trigger(second, 5);
  second.checkpoints.pointersKnown([pointer(4), pointer(5)]);
  t.equal(second.checkpoints.snapshot().counts.in_progress, 1, 'its coordinator says how it ends');

  second.exceptions.addConcurrent(failed('of now'));
  t.match(second.exceptions.view(10).exceptionHistory, {
    entries: [{ failure: { message: 'first' }, concurrentExceptions: { length: 1 } }],
  });
  second.exceptions.addRoot(failed('second'));
  t.equal(second.exceptions.view(10).exceptionHistory.entries.length, 2);
});

t.test('damage begins anew, and what is known by pointers is counted', async (t) => {
  for (const text of ['{', '[]', '{"version":2}', '{"version":1,"checkpoints":{"total":"x"}}']) {
    const history = new Fixture().history(text);
    history.checkpoints.pointersKnown([pointer(7), pointer(8)]);
    t.match(history.checkpoints.snapshot().counts, { total: 2, completed: 2, failed: 0 });
    t.same(history.exceptions.view(10).exceptionHistory, { entries: [], truncated: false });
  }
});

t.test('what is stored stays below 64 KiB; the newest is kept', async (t) => {
  const fixture = new Fixture();
  const history = fixture.history(undefined, 1_000);
  for (let id = 1; id <= 1_000; id++) {
    trigger(history, id);
    complete(history, id);
    history.exceptions.addRoot(failed(`${'é'.repeat(9_000)} ${String(id)}`));
  }
  const text = encodeJobHistory({
    checkpoints: history.checkpoints.state(),
    exceptions: history.exceptions.state(),
  });
  t.ok(Buffer.byteLength(text) <= 65_536 && text.length > 10_000, String(text.length));
  const next = fixture.history(text, 1_000);
  t.match(next.checkpoints.snapshot(), {
    counts: { total: 1_000, completed: 1_000 },
    latest: { completed: { id: 1_000 } },
  });
  t.equal(next.checkpoints.snapshot().history[0]?.id, 1_000);
  t.equal(next.exceptions.view(10).exceptionHistory.truncated, true);
});
