/**
 * Load for takeovers: an endless, paced stream with keyed state of a chosen size, written exactly once. Every line
 * tells which record it is and how often its key came before it, so that both the output and the state can be
 * checked; the sink keeps stamps of when records reached it.
 */
import { closeSync, mkdirSync, openSync, writeSync } from 'node:fs';
import {
  DataGeneratorSource,
  FileSink,
  StreamExecutionEnvironment,
  ValueStateDescriptor,
  WatermarkStrategy,
  type Collector,
  type KeyedProcessContext,
  type KeyedProcessFunction,
  type RuntimeContext,
  type Sink,
  type SinkContext,
  type SinkWriter,
  type ValueState,
} from 'millrace';
import { takeoverArguments, type TakeoverArguments } from './takeover-arguments.js';

interface Numbered {
  readonly key: number;
  readonly index: number;
}

interface Seen {
  readonly count: number;
  /** Makes the state as large as is wanted; nobody reads it. */
  readonly text: string;
}

class CountByKey implements KeyedProcessFunction<number, Numbered, string> {
  readonly #bytesPerKey: number;
  #seen!: ValueState<Seen>;

  constructor(bytesPerKey: number) {
    this.#bytesPerKey = bytesPerKey;
  }

  open(context: RuntimeContext): void {
    this.#seen = context.getState(new ValueStateDescriptor<Seen>('seen'));
  }

  processElement(
    { key, index }: Numbered,
    _context: KeyedProcessContext<number>,
    out: Collector<string>,
  ): void {
    const before = this.#seen.value();
    const count = (before?.count ?? 0) + 1;
    const text = before?.text ?? `key ${String(key)} `.padEnd(this.#bytesPerKey, '.');
    this.#seen.update({ count, text });
    out.collect(`${String(index)} ${String(count)}`);
  }
}

/** A stamp at most this often, in ms: a hundred small writes a second disturb nothing. */
const stampPeriodMs = 10;

/** The file sink, and a file of an attempt's own with the wall-clock ms at which records reached it. */
class StampingSink implements Sink<string, unknown> {
  readonly createCommitter: () => ReturnType<FileSink<string>['createCommitter']>;
  readonly #args: TakeoverArguments;
  readonly #files: FileSink<string>;

  constructor(args: TakeoverArguments) {
    this.#args = args;
    this.#files = FileSink.forLines<string>(args.out);
    this.createCommitter = () => this.#files.createCommitter();
  }

  createWriter(context: SinkContext): SinkWriter<string, unknown> {
    const writer = this.#files.createWriter(context);
    mkdirSync(this.#args.stamps, { recursive: true });
    const name = `${String(context.subtaskIndex)}-${context.attemptId}`;
    const stamps = openSync(`${this.#args.stamps}/${name}`, 'a');
    let [first, last] = [0, 0];
    return {
      ...(writer.open !== undefined && { open: () => writer.open?.() }),
      write: (value, timestamp) => {
        writer.write(value, timestamp);
        const now = Date.now();
        if (now - first >= stampPeriodMs) {
          // The one before this record too: the interval between them may be the longest.
          writeSync(stamps, `${String(last)}\n${String(now)}\n`);
          first = now;
        }
        last = now;
      },
      prepareCommit: (checkpointId) => writer.prepareCommit?.(checkpointId) ?? [],
      sync: async () => {
        await writer.sync?.();
      },
      close: async () => {
        closeSync(stamps);
        await writer.close();
      },
    };
  }
}

const args = takeoverArguments();
const env = StreamExecutionEnvironment.getExecutionEnvironment();
env
  .fromSource(
    new DataGeneratorSource((index): Numbered => ({ key: index % args.keys, index }), {
      recordsPerSecond: args.recordsPerSecond,
    }),
    WatermarkStrategy.noWatermarks(),
    'numbers',
  )
  .uid('numbers')
  .keyBy((record) => record.key)
  .process(() => new CountByKey(args.bytesPerKey))
  .uid('counts')
  .sinkTo(new StampingSink(args))
  .uid('lines');
await env.execute('bench-takeover');
