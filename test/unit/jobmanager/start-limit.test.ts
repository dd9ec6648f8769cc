import t from 'tap';
import { StartLimit } from '../../../lib/jobmanager/jobmaster/start-limit.js';
import { ManualClock, settle } from '../../support/manual-clock.js';

t.test(
  'so many start at once, in order, and one that hangs holds up others only for a while',
  async (t) => {
    const clock = new ManualClock();
    const limit = new StartLimit(clock, 2, 1_000);
    const begun: number[] = [];
    const done: (() => void)[] = [];
    for (const index of [0, 1, 2, 3, 4]) {
      void limit.begin().then((started) => {
        begun.push(index);
        done[index] = started;
      });
    }
    await settle();
    t.same(begun, [0, 1]);
    done[0]?.();
    done[0]?.();
    await settle();
    t.same(begun, [0, 1, 2], 'said twice, it started once');
    await clock.advance(1_000);
    t.same(begun, [0, 1, 2, 3, 4]);
    for (const started of done) started();
    void limit.begin().then(() => begun.push(5));
    await settle();
    t.same(begun, [0, 1, 2, 3, 4, 5]);
  },
);
