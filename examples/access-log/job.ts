/**
 * A web log at a chosen rate: status codes by the minute and the sessions of every client, written
 * exactly once.
 *
 *   millrace run examples/access-log/job.ts -- --rate 1000 --output ./out
 *
 *   --input FILE    an Apache combined log   [the one beside this example]
 *   --output DIR    where the two results go [./access-log-output]
 *   --rate N        lines a second in all; 0 = as fast as it goes [100]
 */
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import {
  FileSink,
  FileSource,
  MapStateDescriptor,
  StreamExecutionEnvironment,
  TumblingEventTimeWindows,
  ValueStateDescriptor,
  WatermarkStrategy,
  type Collector,
  type KeyedProcessContext,
  type KeyedProcessFunction,
  type MapState,
  type OnTimerContext,
  type RuntimeContext,
  type ValueState,
} from 'millrace';

interface Request {
  readonly client: string;
  /** Event time, ms. */
  readonly time: number;
  readonly status: number;
  readonly bytes: number;
}

interface Session {
  readonly client: string;
  readonly start: number;
  end: number;
  requests: number;
  bytes: number;
}

const sessionGapMs = 30 * 60_000;
const months = ['Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec'];
const combinedLog =
  /^(\S+) \S+ \S+ \[(\d+)\/(\w+)\/(\d+):(\d+):(\d+):(\d+) ([+-])(\d\d)(\d\d)\] ".*?" (\d{3}) (\d+|-)/;

function parse(line: string): Request | undefined {
  const m = combinedLog.exec(line);
  if (m === null) return undefined;
  const [
    ,
    client = '',
    day,
    month = '',
    year,
    hour,
    minute,
    second,
    sign,
    zoneHours,
    zoneMinutes,
    status,
    bytes,
  ] = m;
  const local = Date.UTC(
    Number(year),
    months.indexOf(month),
    Number(day),
    Number(hour),
    Number(minute),
    Number(second),
  );
  const zoneMs = (sign === '-' ? -1 : 1) * (Number(zoneHours) * 60 + Number(zoneMinutes)) * 60_000;
  return {
    client,
    time: local - zoneMs,
    status: Number(status),
    bytes: bytes === '-' ? 0 : Number(bytes),
  };
}

/**
 * A session ends after 30 minutes without a request. Requests arrive out of order (readers are at
 * different places of the log), so they wait in state until the watermark has passed them.
 */
class Sessions implements KeyedProcessFunction<string, Request, Session> {
  #pending!: MapState<number, { requests: number; bytes: number }>;
  #open!: ValueState<Session>;

  open(context: RuntimeContext): void {
    this.#pending = context.getMapState(
      new MapStateDescriptor<number, { requests: number; bytes: number }>('pending'),
    );
    this.#open = context.getState(new ValueStateDescriptor<Session>('open'));
  }

  processElement(request: Request, context: KeyedProcessContext<string>): void {
    const sameInstant = this.#pending.get(request.time);
    this.#pending.put(request.time, {
      requests: (sameInstant?.requests ?? 0) + 1,
      bytes: (sameInstant?.bytes ?? 0) + request.bytes,
    });
    context.timerService.registerEventTimeTimer(request.time);
  }

  onTimer(time: number, context: OnTimerContext<string>, out: Collector<Session>): void {
    let session = this.#open.value();
    if (session !== undefined && time > session.end + sessionGapMs) {
      out.collect(session);
      session = undefined;
      this.#open.clear();
    }
    const arrived = this.#pending.get(time);
    if (arrived === undefined) return;
    this.#pending.remove(time);
    this.#open.update({
      client: context.getCurrentKey(),
      start: session?.start ?? time,
      end: time,
      requests: (session?.requests ?? 0) + arrived.requests,
      bytes: (session?.bytes ?? 0) + arrived.bytes,
    });
    context.timerService.registerEventTimeTimer(time + sessionGapMs + 1);
  }
}

const iso = (time: number): string => new Date(time).toISOString();

const { values: options } = parseArgs({
  options: {
    input: {
      type: 'string',
      default: fileURLToPath(new URL('data/apache_logs.txt', import.meta.url)),
    },
    output: { type: 'string', default: 'access-log-output' },
    rate: { type: 'string', default: '100' },
  },
});

const env = StreamExecutionEnvironment.getExecutionEnvironment();

const requests = env
  .fromSource(
    FileSource.forLines(options.input, {
      splitBytes: 256 * 1024,
      recordsPerSecond: Number(options.rate),
    }),
    WatermarkStrategy.forBoundedOutOfOrderness<string>('60s').withTimestampAssigner(
      (line) => parse(line)?.time ?? -Infinity,
    ),
    'access log',
  )
  .uid('access-log')
  .flatMap<Request>((line, out) => {
    const request = parse(line);
    if (request === undefined) console.warn(`not a combined log line: ${line.slice(0, 120)}`);
    else out.collect(request);
  })
  .name('parse');

requests
  .keyBy((request) => request.status)
  .window(TumblingEventTimeWindows.of('1m'))
  .aggregate(
    {
      createAccumulator: () => 0,
      add: (_request, count) => count + 1,
      getResult: (count) => count,
      merge: (a, b) => a + b,
    },
    (status, { window }, counts, out: Collector<string>) => {
      for (const count of counts)
        out.collect(`${iso(window.start)}\t${String(status)}\t${String(count)}`);
    },
  )
  .uid('status-by-minute')
  .name('status codes by the minute')
  .sinkTo(FileSink.forLines(`${options.output}/status-by-minute`))
  .uid('status-sink')
  .name('status files');

requests
  .keyBy((request) => request.client)
  .process(Sessions)
  .uid('sessions')
  .name('sessions by client')
  .map((s) => [s.client, iso(s.start), iso(s.end), String(s.requests), String(s.bytes)].join('\t'))
  .sinkTo(FileSink.forLines(`${options.output}/sessions`))
  .uid('session-sink')
  .name('session files');

await env.execute('access-log');
