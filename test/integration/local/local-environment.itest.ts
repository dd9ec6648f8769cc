/** Programs that run their job in their own process: the whole runtime behind the public API. */
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import {
  BlackholeSink,
  type Collector,
  FileSink,
  FileSource,
  MillraceError,
  OutputTag,
  type ProcessContext,
  type Sink,
  StreamExecutionEnvironment,
  TumblingEventTimeWindows,
  WatermarkStrategy,
} from '../../../lib/index.js';

t.setTimeout(120_000);

const local = (parallelism = 1): StreamExecutionEnvironment =>
  StreamExecutionEnvironment.createLocalEnvironment().setParallelism(parallelism);

t.test('records of a bounded stream can be had back, at any parallelism', async (t) => {
  for (const parallelism of [1, 2, 4]) {
    const sums = await local(parallelism)
      .fromSequence(1, 100)
      .map((n) => ({ key: n % 3, sum: n }))
      .keyBy((record) => record.key)
      .reduce((a, b) => ({ key: a.key, sum: a.sum + b.sum }))
      .executeAndCollect();
    t.equal(sums.length, 100);
    const last = new Map<number, number>();
    for (const { key, sum } of sums) last.set(key, Math.max(sum, last.get(key) ?? 0));
    t.strictSame([...last].sort(), [
      [0, 1683],
      [1, 1717],
      [2, 1650],
    ]);
  }
});

t.test('event-time windows by key', async (t) => {
  const results = await local(2)
    .fromElements(1_000, 59_000, 61_000, 200_000)
    .map((at) => ({ at }))
    .assignTimestampsAndWatermarks(
      WatermarkStrategy.forMonotonousTimestamps<{ at: number }>().withTimestampAssigner(
        (record) => record.at,
      ),
    )
    .keyBy(() => 'all')
    .window(TumblingEventTimeWindows.of('1m'))
    .aggregate(
      {
        createAccumulator: () => 0,
        add: (_record, count: number) => count + 1,
        getResult: (count) => count,
      },
      (key, { window }, [count], out: Collector<string>) => {
        out.collect(`${key} ${window.start / 1000} ${count}`);
      },
    )
    .executeAndCollect();
  t.strictSame(results, ['all 0 2', 'all 60 1', 'all 180 1']);
});

t.test('a side output is a stream of its own', async (t) => {
  const odd = new OutputTag<string>('odd');
  const oddRecords: string[] = [];
  const split = local()
    .fromSequence(1, 6)
    .process({
      processElement: (n: number, context: ProcessContext, out: Collector<number>) => {
        if (n % 2 === 0) out.collect(n);
        else context.output(odd, `odd ${n}`);
      },
    });
  split
    .getSideOutput(odd)
    .rebalance()
    .map((text) => oddRecords.push(text))
    .sinkTo(new BlackholeSink());
  t.strictSame(await split.executeAndCollect(), [2, 4, 6]);
  t.strictSame(oddRecords, ['odd 1', 'odd 3', 'odd 5']);
});

t.test('files in, files out: each line once, at any parallelism', async (t) => {
  const folder = t.testdir();
  const lines = Array.from({ length: 500 }, (_, i) => `line ${i} ${'ü'.repeat(i % 7)}`);
  writeFileSync(join(folder, 'input.txt'), lines.join('\r\n'));
  for (const parallelism of [1, 2, 3]) {
    const output = join(folder, `out-${parallelism}`);
    const env = local(parallelism);
    env
      .fromSource(
        FileSource.forLines(join(folder, 'input.txt'), { splitBytes: 1000 }),
        WatermarkStrategy.noWatermarks(),
        'lines',
      )
      .filter((line) => line.length > 0)
      .sinkTo(FileSink.forLines(output, { prefix: 'copy', suffix: '.log' }));
    t.match(await env.execute('copy'), { state: 'FINISHED', name: 'copy' });
    const names = readdirSync(output);
    t.ok(
      names.every((name) => /^copy-.*\.log$/.test(name)),
      'nothing hidden is left',
    );
    const found = names.flatMap((name) =>
      readFileSync(join(output, name), 'utf8').trimEnd().split('\n'),
    );
    t.strictSame(found.sort(), [...lines].sort());
  }
});

t.test('a job that fails rejects with the reason', async (t) => {
  const env = local().setRestartStrategy({ type: 'none' });
  env
    .fromElements(1, 2)
    .map((n) => {
      if (n === 2) throw new RangeError('two is too much');
      return n;
    })
    .name('picky')
    .sinkTo(new BlackholeSink());
  const error = await env.execute('picky job').catch((caught: unknown) => caught);
  t.match(error, { code: 'JOB_FAILED', message: /picky job.*FAILED/ });
  t.ok(error instanceof MillraceError);
  t.match(causes(error).join(' | '), /two is too much/);
});

function causes(error: unknown): string[] {
  return error instanceof Error ? [error.message, ...causes(error.cause)] : [];
}

t.test('a failure in between changes nothing in what comes out', async (t) => {
  let failures = 1;
  const env = local(2)
    .enableCheckpointing('20ms')
    .setRestartStrategy({ type: 'fixed-delay', attempts: 3, delayMs: 1 });
  const found = await env
    .dataGenerator((index) => index, { count: 600, recordsPerSecond: 1500 })
    .map((n) => {
      if (n === 400 && failures-- > 0) throw new Error('once');
      return n;
    })
    .executeAndCollect();
  t.equal(failures, -1, 'it did fail');
  t.strictSame(
    found.sort((a, b) => a - b),
    Array.from({ length: 600 }, (_, index) => index),
  );
});

t.test(
  'output whose commit fails after the last checkpoint is committed by the restart',
  async (t) => {
    let failures = 1;
    const found: number[] = [];
    const sink: Sink<number, readonly number[]> = {
      createWriter: () => {
        let open: number[] = [];
        return {
          write: (value) => void open.push(value),
          prepareCommit: () => [open.splice(0)],
          close: () => {
            open = [];
          },
        };
      },
      createCommitter: () => ({
        commit: async (chunks) => {
          if (failures-- > 0) throw new Error('once');
          return chunks.map((chunk) => {
            found.push(...chunk);
            return 'committed' as const;
          });
        },
      }),
    };
    const env = local(2).setRestartStrategy({ type: 'fixed-delay', attempts: 3, delayMs: 1 });
    env.fromSequence(1, 20).sinkTo(sink);
    t.match(await env.execute(), { state: 'FINISHED' });
    t.strictSame(
      found.sort((a, b) => a - b),
      Array.from({ length: 20 }, (_, index) => index + 1),
    );
  },
);

t.test('a program is one job', async (t) => {
  const env = local();
  env.fromElements(1).sinkTo(new BlackholeSink());
  await env.execute();
  await t.rejects(env.execute(), { code: 'JOB_SECOND_EXECUTE' });
  await t.rejects(local().execute(), { code: 'JOB_INVALID', message: /no operators/ });
});

t.test('an input that does not exist fails the job with its path', async (t) => {
  const error = await local()
    .setRestartStrategy({ type: 'none' })
    .fromSource(FileSource.forLines('/no/such/file'), WatermarkStrategy.noWatermarks(), 'f')
    .executeAndCollect()
    .catch((caught: unknown) => caught);
  t.match(error, { code: 'JOB_FAILED' });
  t.match(causes(error).join(' | '), /\/no\/such\/file does not exist/);
});
