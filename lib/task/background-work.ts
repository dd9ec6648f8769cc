import { Deferred } from '../base/deferred.js';
import { MillraceError } from '../base/errors.js';

interface Work {
  readonly step: () => boolean;
  readonly done: Deferred<void>;
}

/** Long work of a task's operators beside the records, one step after each of the task's turns: first come, first served. */
export class BackgroundWork {
  #works: Work[] = [];
  #isClosed = false;

  /** `step` takes about 1 ms and runs until it returns true. */
  add(step: () => boolean): Promise<void> {
    const done = new Deferred<void>();
    if (this.#isClosed) done.reject(new MillraceError('CLOSED', 'the task has ended'));
    else this.#works.push({ step, done });
    return done.promise;
  }

  /** True when there was something to do. */
  run(): boolean {
    const work = this.#works[0];
    if (work === undefined) return false;
    try {
      if (!work.step()) return true;
      work.done.resolve();
    } catch (error) {
      work.done.reject(error);
    }
    this.#works.splice(this.#works.indexOf(work), 1);
    return true;
  }

  close(): void {
    this.#isClosed = true;
    for (const { done } of this.#works) {
      done.reject(new MillraceError('CLOSED', 'the task ended before its work was done'));
    }
    this.#works = [];
  }
}
