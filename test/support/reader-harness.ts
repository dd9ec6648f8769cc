/** Drives a SourceReader as its task would, on manual time: a timer's delay passes when nothing else can happen. */
import type { SourceReader, SourceReaderContext } from '../../lib/api/source.js';

export class ReaderHarness<T, SplitT> {
  readonly reader: SourceReader<T, SplitT>;
  readonly released: string[] = [];
  now = 0;
  onSplitRequest: () => void = () => undefined;
  #failure: { readonly error: unknown } | undefined;
  #isAwake = false;
  #wake: () => void = () => undefined;
  readonly #timers: { at: number; fn: () => void }[] = [];

  constructor(
    create: (context: SourceReaderContext) => SourceReader<T, SplitT>,
    options: { readonly subtaskIndex?: number; readonly parallelism?: number } = {},
  ) {
    this.reader = create({
      subtaskIndex: options.subtaskIndex ?? 0,
      parallelism: options.parallelism ?? 1,
      now: () => this.now,
      setTimer: (delayMs, fn) => {
        const timer = { at: this.now + delayMs, fn };
        this.#timers.push(timer);
        return () => {
          const index = this.#timers.indexOf(timer);
          if (index >= 0) this.#timers.splice(index, 1);
        };
      },
      requestSplit: () => {
        this.onSplitRequest();
      },
      wakeUp: () => {
        this.#isAwake = true;
        this.#wake();
      },
      fail: (error) => {
        this.#failure = { error };
        this.#isAwake = true;
        this.#wake();
      },
    });
    this.reader.start();
  }

  readAll(): Promise<T[]> {
    return this.read(Infinity);
  }

  /**
   * At most `count` records; fewer at the end of input. Rejects with what the reader failed with. By `pollNext`, or
   * with `batches` by `pollBatch` with outputs that are full after so many records, in turn.
   */
  async read(count: number, batches?: readonly number[]): Promise<T[]> {
    const records: T[] = [];
    for (let calls = 0; records.length < count; calls += 1) {
      if (this.#failure !== undefined) throw this.#failure.error as Error;
      this.#isAwake = false;
      const batch = batches?.[calls % batches.length] ?? 1;
      const fullAt = Math.min(count, records.length + batch);
      const output = {
        collect: (value: T) => {
          if (records.length === fullAt) throw new Error('collected although the output is full');
          records.push(value);
        },
        releaseSplit: (splitId: string) => this.released.push(splitId),
        get isFull() {
          return records.length >= fullAt;
        },
      };
      const poll = batches === undefined ? 'pollNext' : 'pollBatch';
      const status = this.reader[poll]!(output);
      if (status === 'end') break;
      if (status === 'nothing' && !this.#isAwake) await this.#pause();
    }
    return records;
  }

  async #pause(): Promise<void> {
    const next = this.#timers.sort((a, b) => a.at - b.at).shift();
    if (next !== undefined) {
      this.now = next.at;
      next.fn();
      return;
    }
    await new Promise<void>((resolve) => {
      this.#wake = resolve;
      if (this.#isAwake) resolve();
    });
  }
}
