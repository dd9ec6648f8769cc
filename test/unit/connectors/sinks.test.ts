import t from 'tap';
import type { SinkContext } from '../../../lib/api/sink.js';
import { CollectSink } from '../../../lib/connectors/collect-sink.js';
import { PrintSink } from '../../../lib/connectors/print-sink.js';

const contextOf = (subtaskIndex: number, parallelism: number): SinkContext => ({
  jobId: 'job',
  operatorId: 'operator',
  subtaskIndex,
  parallelism,
  generation: 0,
  attemptId: `v_${subtaskIndex}_0_x`,
  now: () => 0,
});

t.test('print says which subtask a record came from, as Flink does', (t) => {
  const captured = t.capture(console, 'log');
  new PrintSink<string>().createWriter(contextOf(0, 1)).write('text', 0);
  new PrintSink<object>('out').createWriter(contextOf(0, 1)).write({ a: [1] }, 0);
  new PrintSink<number>('out').createWriter(contextOf(1, 2)).write(5, 0);
  new PrintSink<bigint>().createWriter(contextOf(1, 2)).write(5n, 0);
  t.strictSame(
    captured().map(({ args }) => args),
    [['text'], ['out> { a: [ 1 ] }'], ['out:2> 5'], ['2> 5n']],
  );
  t.end();
});

t.test('collected values appear with their checkpoint, and once', async (t) => {
  const sink = new CollectSink<number>();
  const writer = sink.createWriter(contextOf(0, 1));
  const committer = sink.createCommitter();
  writer.write(1, 0);
  writer.write(2, 0);
  const first = writer.prepareCommit?.(1) ?? [];
  writer.write(3, 0);
  t.strictSame(sink.values, []);
  t.strictSame(await committer.commit(first), ['committed']);
  t.strictSame(await sink.createCommitter().commit(first), ['alreadyCommitted']);
  t.strictSame(sink.values, [1, 2]);
  t.strictSame(writer.prepareCommit?.(2)[0]?.values, [3]);
  t.strictSame(writer.prepareCommit?.(3), []);
});
