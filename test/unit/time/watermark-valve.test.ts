import fc from 'fast-check';
import t from 'tap';
import { MAX_WATERMARK } from '../../../lib/record/stream-element.js';
import { WatermarkValve, type WatermarkEffect } from '../../../lib/time/watermark-valve.machine.js';

const names = (effects: readonly WatermarkEffect[]): string[] =>
  effects.map((e) =>
    e.kind === 'emitWatermark' ? `wm ${String(e.timestamp)}` : e.active ? 'active' : 'idle',
  );

class Driver {
  readonly valve: WatermarkValve;

  constructor(channels: number) {
    this.valve = new WatermarkValve(channels);
  }
  wm(channel: number, timestamp: number): string[] {
    return names(this.valve.step({ kind: 'watermarkArrived', channel, timestamp }));
  }
  idle(channel: number): string[] {
    return names(this.valve.step({ kind: 'statusArrived', channel, active: false }));
  }
  active(channel: number): string[] {
    return names(this.valve.step({ kind: 'statusArrived', channel, active: true }));
  }
}

t.test('the minimum over all channels goes out, when it rises', (t) => {
  const d = new Driver(2);
  t.same(d.wm(0, 10), []);
  t.same(d.wm(1, 5), ['wm 5']);
  t.same(d.wm(1, 4), [], 'a channel does not go back');
  t.same(d.wm(1, 20), ['wm 10']);
  t.end();
});

t.test('an idle channel holds nothing back, and does not set the time back when it wakes', (t) => {
  const d = new Driver(2);
  d.wm(0, 10);
  t.same(d.idle(1), ['wm 10']);
  t.same(d.wm(0, 20), ['wm 20']);
  t.same(d.active(1), []);
  t.same(d.wm(1, 15), []);
  t.same(d.wm(0, 30), [], 'held back again');
  t.same(d.wm(1, 25), ['wm 25']);
  t.end();
});

t.test('all channels idle: so is the task, after what the last active one held back', (t) => {
  const d = new Driver(2);
  d.wm(0, 10);
  d.wm(1, 5);
  t.same(d.idle(0), []);
  t.same(d.idle(1), ['wm 10', 'idle']);
  t.same(d.active(1), ['active']);
  t.end();
});

t.test('an ended channel counts no more; the end of time comes when all have ended', (t) => {
  const d = new Driver(3);
  t.same(d.wm(0, MAX_WATERMARK), []);
  d.wm(1, 5);
  t.same(d.wm(2, 7), ['wm 5']);
  t.same(d.idle(1), ['wm 7']);
  t.same(d.wm(2, MAX_WATERMARK), ['idle'], 'the idle one may still wake up');
  t.same(d.active(1), ['active']);
  t.same(d.wm(1, MAX_WATERMARK), [`wm ${String(MAX_WATERMARK)}`]);
  t.end();
});

t.test('whatever comes, watermarks only rise and statuses alternate', (t) => {
  const step = fc.record({
    channel: fc.integer({ min: 0, max: 3 }),
    timestamp: fc.integer({ min: 0, max: 50 }),
    kind: fc.constantFrom('wm', 'idle', 'active'),
  });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 100 }), (steps) => {
      const d = new Driver(4);
      let last = -Infinity;
      let isActive = true;
      for (const { channel, timestamp, kind } of steps) {
        const effects =
          kind === 'wm'
            ? d.wm(channel, timestamp)
            : kind === 'idle'
              ? d.idle(channel)
              : d.active(channel);
        for (const effect of effects) {
          if (effect.startsWith('wm')) {
            const watermark = Number(effect.slice(3));
            if (watermark <= last) return false;
            last = watermark;
          } else {
            if ((effect === 'active') === isActive) return false;
            isActive = !isActive;
          }
        }
      }
      return true;
    }),
    { seed: 1 },
  );
  t.pass('for 100 runs');
  t.end();
});
