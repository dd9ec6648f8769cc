import type { Logger } from './logger.js';

/** Something with a lifetime. `close` is idempotent, never throws, and resolves when everything owned is closed. */
export interface Closeable {
  close(): Promise<void>;
}

/** Owns resources and background work; closes in reverse order of registration, then awaits the work. */
export class CloseableRegistry implements Closeable {
  readonly #log: Logger;
  readonly #owned: { name: string; close: () => unknown }[] = [];
  readonly #running = new Set<Promise<unknown>>();
  #closing: Promise<void> | undefined;

  constructor(log: Logger) {
    this.#log = log;
  }

  /** Registers how to close something; returns it. After close began, it is closed at once. */
  own<T>(name: string, thing: T, close: (thing: T) => unknown): T {
    if (this.#closing !== undefined) void this.#closeOne({ name, close: () => close(thing) });
    else this.#owned.push({ name, close: () => close(thing) });
    return thing;
  }

  /** Records background work, so that close awaits it; its failure is logged here, once. */
  run(name: string, work: Promise<unknown>): void {
    const tracked = work.catch((err: unknown) => {
      this.#log.error({ err, work: name }, 'background work failed');
    });
    this.#running.add(tracked);
    void tracked.finally(() => this.#running.delete(tracked));
  }

  close(): Promise<void> {
    this.#closing ??= this.#closeAll();
    return this.#closing;
  }

  async #closeAll(): Promise<void> {
    for (let next = this.#owned.pop(); next !== undefined; next = this.#owned.pop())
      await this.#closeOne(next);
    await Promise.all(this.#running);
  }

  async #closeOne({ name, close }: { name: string; close: () => unknown }): Promise<void> {
    try {
      await close();
    } catch (err) {
      this.#log.warn({ err, resource: name }, 'closing a resource failed');
    }
  }
}
