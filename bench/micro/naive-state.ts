/** Windows and totals by hand: what a program without an engine keeps. */
import { eventTime, scrambledKey, wordsOf } from '../jobs/records.js';
import { expectEqual, microArguments, repeat, tell, type MicroArguments } from './protocol.js';

const minute = 60_000;
const pieceRecords = 128 * 1024;

interface View {
  readonly key: number;
  readonly price: number;
  readonly time: number;
}

const viewOf = (i: number, keys: number): View => ({
  key: scrambledKey(i, keys),
  price: i % 1000,
  time: eventTime(i),
});

interface WindowCounter {
  add(view: View): void;
  /** Ends everything; answers the sum of all counts that came out. */
  finish(): number;
}

/** The window first, then the key: one table of counts for each window. */
function windowFirst(): WindowCounter {
  const windows = new Map<number, Map<number, number>>();
  let out = 0;
  const fire = (until: number): void => {
    for (const [start, counts] of windows) {
      if (start + minute > until) continue;
      for (const count of counts.values()) out += count;
      windows.delete(start);
    }
  };
  let current = -1;
  let counts = new Map<number, number>();
  return {
    add({ key, time }) {
      const start = time - (time % minute);
      if (start !== current) {
        fire(time);
        counts = windows.get(start) ?? new Map<number, number>();
        windows.set(start, counts);
        current = start;
      }
      counts.set(key, (counts.get(key) ?? 0) + 1);
    },
    finish() {
      fire(Infinity);
      return out;
    },
  };
}

interface Timer {
  readonly at: number;
  readonly key: number;
}

/** Key first, as Flink's heap backend: each key has its windows and each (key, window) a timer in one heap. */
class TimerHeap {
  readonly #heap: Timer[] = [];
  readonly #known = new Set<string>();

  add(at: number, key: number): void {
    const id = `${String(at)}/${String(key)}`;
    if (this.#known.has(id)) return;
    this.#known.add(id);
    const heap = this.#heap;
    let i = heap.length;
    heap.push({ at, key });
    while (i > 0) {
      const parent = (i - 1) >> 1;
      if (heap[parent]!.at <= at) break;
      heap[i] = heap[parent]!;
      i = parent;
    }
    heap[i] = { at, key };
  }

  get first(): Timer | undefined {
    return this.#heap[0];
  }

  removeFirst(): void {
    const heap = this.#heap;
    const { at, key } = heap[0]!;
    this.#known.delete(`${String(at)}/${String(key)}`);
    const last = heap.pop()!;
    if (heap.length === 0) return;
    let i = 0;
    for (;;) {
      let child = 2 * i + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && heap[child + 1]!.at < heap[child]!.at) child += 1;
      if (heap[child]!.at >= last.at) break;
      heap[i] = heap[child]!;
      i = child;
    }
    heap[i] = last;
  }
}

function keyFirst(): WindowCounter {
  const state = new Map<number, Map<number, number>>();
  const timers = new TimerHeap();
  let out = 0;
  const fire = (until: number): void => {
    for (let timer = timers.first; timer !== undefined && timer.at <= until;) {
      const windows = state.get(timer.key)!;
      const start = timer.at - minute + 1;
      out += windows.get(start) ?? 0;
      windows.delete(start);
      if (windows.size === 0) state.delete(timer.key);
      timers.removeFirst();
      timer = timers.first;
    }
  };
  let watermark = -1;
  return {
    add({ key, time }) {
      // Watermarks come now and then, not with every record.
      if (time > watermark + 200) {
        watermark = time;
        fire(time - 1);
      }
      const start = time - (time % minute);
      let windows = state.get(key);
      if (windows === undefined) {
        windows = new Map<number, number>();
        state.set(key, windows);
      }
      windows.set(start, (windows.get(start) ?? 0) + 1);
      timers.add(start + minute - 1, key);
    },
    finish() {
      fire(Infinity);
      return out;
    },
  };
}

async function measureWindows(args: MicroArguments, counter: WindowCounter): Promise<void> {
  let next = 0;
  const result = await repeat(args, () => {
    const end = next + pieceRecords;
    for (; next < end; next += 1) counter.add(viewOf(next, args.keys));
    return pieceRecords;
  });
  expectEqual('the sum of all windows', counter.finish(), next);
  tell(result);
}

async function measureWords(args: MicroArguments): Promise<void> {
  const { keys } = args;
  const word = wordsOf(keys);
  const totals = new Map<string, { count: number; sum: number }>();
  let [next, sum] = [0, 0];
  const step = (): number => {
    const end = next + pieceRecords;
    for (; next < end; next += 1) {
      const record = { word: word(scrambledKey(next, keys)), amount: next % 1000 };
      const total = totals.get(record.word);
      if (total === undefined) {
        totals.set(record.word, { count: 1, sum: record.amount });
        sum += 1;
      } else {
        total.count += 1;
        total.sum += record.amount;
        sum += total.count;
      }
    }
    return pieceRecords;
  };
  // As beside it: all words are there when the measurement begins.
  while (totals.size < keys) step();
  const result = await repeat(args, step);
  let expected = 0;
  for (const { count } of totals.values()) expected += (count * (count + 1)) / 2;
  expectEqual('the sum of counts', sum, expected);
  tell(result);
}

const args = microArguments();
if (args.variant === 'window-first') await measureWindows(args, windowFirst());
else if (args.variant === 'key-first') await measureWindows(args, keyFirst());
else if (args.variant === 'words') await measureWords(args);
else throw new RangeError(`no variant ${args.variant}`);
