/**
 * The wake word of a thread: a sequence that whoever has news for it raises, and a flag that says
 * whether it sleeps. Only a sleeper is woken (a wake-up costs some 35 us), so a thread drains
 * everything while it is awake and looks at the sequence again before it sleeps.
 *
 * All bells of a process lie in one SharedArrayBuffer, each on a cache line of its own.
 */
const wordsPerBell = 16;
const sequenceWord = 0;
const asleepWord = 1;
/** What its thread is doing, for another one that watches it: odd while a task has its turn. */
const turnWord = 2;
const taskWord = 3;

export function createBells(count: number): SharedArrayBuffer {
  return new SharedArrayBuffer(count * wordsPerBell * Int32Array.BYTES_PER_ELEMENT);
}

export class Bell {
  readonly index: number;
  readonly #words: Int32Array<SharedArrayBuffer>;
  readonly #sequence: number;
  readonly #asleep: number;
  readonly #turn: number;
  readonly #task: number;

  constructor(bells: SharedArrayBuffer, index: number) {
    this.index = index;
    this.#words = new Int32Array(bells);
    this.#sequence = index * wordsPerBell + sequenceWord;
    this.#asleep = index * wordsPerBell + asleepWord;
    this.#turn = index * wordsPerBell + turnWord;
    this.#task = index * wordsPerBell + taskWord;
  }

  /** Read it before looking for work; pass it to `sleep` when there was none. */
  get sequence(): number {
    return Atomics.load(this.#words, this.#sequence);
  }

  /** The owner gives the task of this index its turn. */
  beginTurn(task: number): void {
    Atomics.store(this.#words, this.#task, task);
    Atomics.store(this.#words, this.#turn, (this.#words[this.#turn]! + 1) | 1);
  }

  endTurn(): void {
    Atomics.store(this.#words, this.#turn, (this.#words[this.#turn]! + 1) & ~1);
  }

  /** The turn that is under way: another number for each; undefined between turns. For any thread. */
  get turn(): { readonly number: number; readonly task: number } | undefined {
    const number = Atomics.load(this.#words, this.#turn);
    if ((number & 1) === 0) return undefined;
    return { number, task: Atomics.load(this.#words, this.#task) };
  }

  /** There is news for the owner. Callable from any thread. */
  ring(): void {
    Atomics.add(this.#words, this.#sequence, 1);
    if (
      Atomics.load(this.#words, this.#asleep) === 1 &&
      // Waking up takes a while: only the first one who rings wakes it.
      Atomics.compareExchange(this.#words, this.#asleep, 1, 0) === 1
    ) {
      Atomics.notify(this.#words, this.#sequence);
    }
  }

  /**
   * Calls `wake` once, asynchronously, when the bell has rung since `seen` was read. Only the owner
   * sleeps, once at a time. NB: a pending wait does not keep a thread alive; the caller must hold a handle.
   * Returns the canceller.
   */
  sleep(seen: number, wake: () => void): () => void {
    let over = false;
    const end = (): void => {
      if (over) return;
      over = true;
      Atomics.store(this.#words, this.#asleep, 0);
      wake();
    };
    // Flag before the comparison inside waitAsync: a ringer either changed the sequence before, or sees the flag.
    Atomics.store(this.#words, this.#asleep, 1);
    const wait = Atomics.waitAsync(this.#words, this.#sequence, seen);
    if (wait.async) void wait.value.then(end);
    else queueMicrotask(end);
    return () => {
      if (over) return;
      over = true;
      Atomics.store(this.#words, this.#asleep, 0);
      Atomics.notify(this.#words, this.#sequence);
    };
  }
}
