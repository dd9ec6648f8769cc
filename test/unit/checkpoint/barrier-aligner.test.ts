import t from 'tap';
import {
  BarrierAligner,
  type BarrierEffect,
} from '../../../checkpoint/barrier/barrier-aligner.machine.js';

const names = (effects: readonly BarrierEffect[]): string[] =>
  effects.map((effect) => {
    switch (effect.kind) {
      case 'blockChannel':
        return `block ${String(effect.channel)}`;
      case 'unblockChannels':
        return `unblock ${effect.channels.join(' ')}`.trim();
      case 'takeSnapshot':
        return `snapshot ${String(effect.checkpointId)}`;
      case 'giveUp':
        return `giveUp ${String(effect.checkpointId)}${effect.superseded ? ' superseded' : ''}`;
    }
  });

class Driver {
  readonly aligner: BarrierAligner;
  now = 0;

  constructor(channels: number) {
    this.aligner = new BarrierAligner(channels);
  }
  barrier(channel: number, checkpointId: number): string[] {
    return names(
      this.aligner.step({ kind: 'barrierArrived', channel, checkpointId, timestamp: 5 }, this.now),
    );
  }
  ended(channel: number): string[] {
    return names(this.aligner.step({ kind: 'partitionEnded', channel }, this.now));
  }
  cancelled(checkpointId: number): string[] {
    return names(this.aligner.step({ kind: 'cancelBarrierArrived', checkpointId }, this.now));
  }
  aborted(checkpointId: number): string[] {
    return names(this.aligner.step({ kind: 'abortedByCoordinator', checkpointId }, this.now));
  }
  triggered(checkpointId: number): string[] {
    return names(this.aligner.step({ kind: 'triggered', checkpointId, timestamp: 5 }, this.now));
  }
}

t.test(
  'channels are blocked until all barriers came; the snapshot is before what is behind them',
  (t) => {
    const d = new Driver(3);
    t.same(d.barrier(1, 1), ['block 1']);
    d.now = 4;
    t.same(d.barrier(0, 1), ['block 0']);
    d.now = 10;
    const effects = d.aligner.step(
      { kind: 'barrierArrived', channel: 2, checkpointId: 1, timestamp: 5 },
      10,
    );
    t.same(names(effects), ['block 2', 'snapshot 1', 'unblock 1 0 2']);
    t.match(effects[1], { alignmentMs: 10, firstBarrierAt: 0, timestamp: 5 });
    t.end();
  },
);

t.test('a barrier at or below the last taken or aborted checkpoint is dropped', (t) => {
  const d = new Driver(2);
  d.barrier(0, 3);
  d.barrier(1, 3);
  t.same(d.barrier(0, 3), []);
  t.same(d.barrier(0, 2), []);
  t.same(d.aborted(5), ['giveUp 5']);
  t.same(d.barrier(0, 5), []);
  t.same(d.barrier(0, 4), []);
  t.same(d.barrier(0, 6), ['block 0']);
  t.end();
});

t.test('a higher barrier aborts the running alignment', (t) => {
  const d = new Driver(3);
  d.barrier(0, 1);
  d.barrier(1, 1);
  t.same(d.barrier(2, 2), ['giveUp 1 superseded', 'unblock 0 1', 'block 2']);
  t.same(d.barrier(0, 2), ['block 0']);
  t.same(d.barrier(1, 2), ['block 1', 'snapshot 2', 'unblock 2 0 1']);
  t.end();
});

t.test('cancellation ends the alignment once, in whichever way it comes', (t) => {
  const d = new Driver(2);
  d.barrier(0, 1);
  t.same(d.cancelled(1), ['giveUp 1', 'unblock 0']);
  t.same(d.aborted(1), []);
  t.same(d.cancelled(1), []);
  t.same(d.barrier(1, 1), []);
  d.barrier(0, 3);
  t.same(d.cancelled(2), [], 'an older one leaves the running alignment alone');
  t.same(d.cancelled(4), ['giveUp 3 superseded', 'unblock 0', 'giveUp 4']);
  t.end();
});

t.test('the end of a partition counts as its barrier, for this and every later checkpoint', (t) => {
  const d = new Driver(3);
  d.barrier(0, 1);
  t.same(d.ended(1), []);
  t.same(d.ended(2), ['snapshot 1', 'unblock 0']);
  t.same(d.barrier(0, 2), ['block 0', 'snapshot 2', 'unblock 0']);
  t.same(d.triggered(3), [], 'the root is still fed by channel 0');
  t.same(d.ended(0), ['snapshot 3', 'unblock']);
  t.equal(d.aligner.allEnded, true);
  t.same(d.triggered(4), ['snapshot 4', 'unblock']);
  t.same(d.triggered(4), []);
  t.end();
});

t.test(
  'a source, which has no channels, snapshots when triggered, unless it was aborted before',
  (t) => {
    const d = new Driver(0);
    t.same(d.triggered(1), ['snapshot 1', 'unblock']);
    t.same(d.aborted(2), ['giveUp 2']);
    t.same(d.triggered(2), []);
    t.end();
  },
);
