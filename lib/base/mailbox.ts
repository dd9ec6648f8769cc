import { MillraceError } from './errors.js';

/**
 * An endpoint's main thread: tasks run one after the other, in order of arrival, each to its end
 * (awaits included). State of an endpoint is touched only here (Flink's RpcEndpoint main thread).
 */
export class Mailbox {
  readonly #limit: number;
  #tail: Promise<unknown> = Promise.resolve();
  #queued = 0;
  #closed = false;

  /** @param limit tasks that may wait; one more is refused with CLOSED-like backpressure to its sender. */
  constructor(limit = 100_000) {
    this.#limit = limit;
  }

  /** Runs `task` after all earlier ones; resolves with its result. */
  run<T>(task: () => T | Promise<T>): Promise<T> {
    if (this.#closed) return Promise.reject(new MillraceError('CLOSED', 'the endpoint is closed'));
    if (this.#queued >= this.#limit) {
      return Promise.reject(
        new MillraceError('TIMEOUT', `the endpoint has ${String(this.#limit)} tasks waiting`),
      );
    }
    this.#queued += 1;
    const result = this.#tail.then(async () => {
      this.#queued -= 1;
      return task();
    });
    this.#tail = result.catch(() => undefined);
    return result;
  }

  /** Refuses new tasks and resolves when those accepted have run. */
  async close(): Promise<void> {
    this.#closed = true;
    await this.#tail;
  }
}
