/** A mailbox whose tasks wait, in order, while the leader is suspended: `mayAct` is asked before each of them. */
import type { CancelTimer } from '../../base/clock.js';
import type { Env } from '../../base/env.js';
import { hasCode } from '../../base/errors.js';
import type { Closeable } from '../../base/lifecycle.js';
import { Mailbox } from '../../base/mailbox.js';

export interface ActingMailboxDeps {
  readonly mayAct: () => boolean;
  /** A task threw. */
  readonly onBroken: (error: unknown) => void;
}

/** How often it is looked whether a suspended leader may act again. */
const suspendedPollMs = 100;

export class ActingMailbox implements Closeable {
  readonly #env: Env;
  readonly #deps: ActingMailboxDeps;
  readonly #mailbox = new Mailbox();
  #waiting: (() => void)[] = [];
  #cancelPoll: CancelTimer | undefined;
  #isStopped = false;

  constructor(env: Env, deps: ActingMailboxDeps) {
    this.#env = env;
    this.#deps = deps;
  }

  post(task: () => void): void {
    if (this.#isStopped) return;
    this.#waiting.push(task);
    this.#mailbox
      .run(() => {
        this.#run();
      })
      .catch((error: unknown) => {
        if (!hasCode(error, 'CLOSED')) this.#deps.onBroken(error);
      });
  }

  /** Drops what waits, and all that comes. */
  stop(): void {
    this.#isStopped = true;
    this.#waiting = [];
    this.#cancelPoll?.();
  }

  async close(): Promise<void> {
    this.stop();
    await this.#mailbox.close();
  }

  #run(): void {
    while (this.#waiting.length > 0 && !this.#isStopped) {
      if (!this.#deps.mayAct()) {
        this.#cancelPoll?.();
        this.#cancelPoll = this.#env.clock.setTimer(suspendedPollMs, () => {
          this.post(() => undefined);
        });
        return;
      }
      this.#waiting.shift()?.();
    }
  }
}
