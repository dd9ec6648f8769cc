/**
 * Contents of windows, window first: one Map of keys per window (performance.md F). A window's keys move
 * from `pending` to `fired` one by one, so that a snapshot between two of them repeats none and loses none.
 * A part of the keyed state.
 */
import { invariant } from '../base/assert.js';
import { keyGroupOf } from '../state/key-group.js';
import { identityOf, keyOf, type KeyIdentity } from '../state/key-identity.js';
import type { KeyedStatePart } from '../state/keyed-state-backend.js';
import type { KeyGroupRange } from '../state/state-handle.js';
import { NumberHeap } from '../time/number-heap.js';
import { TimeWindow } from '../windowing/window.js';

export interface WindowContents {
  readonly window: TimeWindow;
  /** Accumulators of keys that have not fired, in order of their first element. */
  readonly pending: Map<KeyIdentity, unknown>;
  /** Accumulators of keys that fired and are kept for late elements. */
  readonly fired: Map<KeyIdentity, unknown>;
  /** Kept over calls, see TimerQueue. */
  iterator: IterableIterator<[KeyIdentity, unknown]> | undefined;
}

/** `[start, end, pending, fired]`, the latter two flat: key, accumulator, key, accumulator... */
type EncodedWindow = [number, number, unknown[], unknown[]];

export interface WindowTableOptions {
  /** Assigner and kind of function: contents made by others do not fit. */
  readonly kind: string;
  readonly range: KeyGroupRange;
  readonly maxParallelism: number;
}

export class WindowTable implements KeyedStatePart {
  readonly name = 'windows';
  readonly kind: string;
  readonly #range: KeyGroupRange;
  readonly #maxParallelism: number;
  /** By end: one assigner makes one window per end. */
  readonly #windows = new Map<number, WindowContents>();
  /** Ends of windows that may have pending keys. */
  readonly #pendingEnds = new NumberHeap();
  /** Ends of all windows, for their removal. */
  readonly #ends = new NumberHeap();

  constructor(options: WindowTableOptions) {
    this.kind = options.kind;
    this.#range = options.range;
    this.#maxParallelism = options.maxParallelism;
  }

  getOrAdd(window: TimeWindow): WindowContents {
    const known = this.#windows.get(window.end);
    if (known !== undefined) return known;
    const contents = { window, pending: new Map(), fired: new Map(), iterator: undefined };
    this.#windows.set(window.end, contents);
    this.#pendingEnds.push(window.end);
    this.#ends.push(window.end);
    return contents;
  }

  /** INVARIANT for a key of another subtask, which a snapshot would lose. */
  checkOwned(key: unknown): void {
    const keyGroup = keyGroupOf(key, this.#maxParallelism);
    invariant(
      keyGroup >= this.#range.start && keyGroup <= this.#range.end,
      'a key reached the wrong subtask: its key selector does not always give the same key',
      { keyGroup, ...this.#range },
    );
  }

  /** Takes the next key out of the earliest complete window that has one; the caller keeps or drops it. */
  pollPending(
    watermark: number,
  ): { contents: WindowContents; identity: KeyIdentity; accumulator: unknown } | undefined {
    for (;;) {
      const end = this.#pendingEnds.peek();
      if (end === undefined || end - 1 > watermark) return undefined;
      const contents = this.#windows.get(end);
      if (contents === undefined || contents.pending.size === 0) {
        this.#pendingEnds.pop();
        continue;
      }
      contents.iterator ??= contents.pending.entries();
      const step = contents.iterator.next();
      if (step.done === true) {
        contents.iterator = undefined;
        continue;
      }
      const [identity, accumulator] = step.value;
      contents.pending.delete(identity);
      return { contents, identity, accumulator };
    }
  }

  /** Drops windows that no element can reach any more. */
  removeExpired(watermark: number, allowedLatenessMs: number): void {
    for (;;) {
      const end = this.#ends.peek();
      if (end === undefined || end - 1 + allowedLatenessMs > watermark) return;
      this.#ends.pop();
      this.#windows.delete(end);
    }
  }

  get windowCount(): number {
    return this.#windows.size;
  }

  capture(): Map<number, unknown> {
    const groups = new Map<number, EncodedWindow[]>();
    const add = (window: TimeWindow, at: 2 | 3, entries: Map<KeyIdentity, unknown>): void => {
      for (const [identity, accumulator] of entries) {
        const key = keyOf(identity);
        const keyGroup = keyGroupOf(key, this.#maxParallelism);
        let windows = groups.get(keyGroup);
        if (windows === undefined) groups.set(keyGroup, (windows = []));
        let encoded = windows.at(-1);
        if (encoded?.[1] !== window.end) {
          encoded = [window.start, window.end, [], []];
          windows.push(encoded);
        }
        encoded[at].push(key, accumulator);
      }
    };
    for (const { window, pending, fired } of this.#windows.values()) {
      add(window, 2, pending);
      add(window, 3, fired);
    }
    return groups;
  }

  restore(_keyGroup: number, payload: unknown): void {
    for (const [start, end, pending, fired] of payload as EncodedWindow[]) {
      const contents = this.getOrAdd(new TimeWindow(start, end));
      for (let i = 0; i < pending.length; i += 2) {
        contents.pending.set(identityOf(pending[i]), pending[i + 1]);
      }
      for (let i = 0; i < fired.length; i += 2) {
        contents.fired.set(identityOf(fired[i]), fired[i + 1]);
      }
    }
  }
}
