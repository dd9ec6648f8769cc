/** Failures of a job, as REST shows them: the last root causes, each with what failed along with it. Bounded. */
import type { ExceptionInfo, JobExceptions } from '../../gateway/client-gateway.js';
import type { Failure } from '../../base/errors.js';

interface Entry {
  readonly root: ExceptionInfo;
  readonly concurrent: ExceptionInfo[];
}

/** What outlives the leader: plain data, oldest first. */
export interface ExceptionHistoryState {
  readonly entries: readonly {
    readonly root: ExceptionInfo;
    readonly concurrent: readonly ExceptionInfo[];
  }[];
  readonly truncated: boolean;
}

/** Failures that follow from a root are many (every consumer of a dead peer): a few say enough. */
const concurrentMax = 32;

export class ExceptionHistory {
  readonly #sizeMax: number;
  readonly #entries: Entry[] = [];
  #truncated = false;
  #version = 0;
  /** Those before belong to an earlier leader: nothing of now happened along with them. */
  #own = 0;

  constructor(sizeMax: number, past?: ExceptionHistoryState) {
    this.#sizeMax = sizeMax;
    if (past === undefined) return;
    const kept = past.entries.slice(-sizeMax);
    this.#truncated = past.truncated || kept.length < past.entries.length;
    for (const { root, concurrent } of kept) {
      this.#entries.push({ root, concurrent: [...concurrent] });
    }
    this.#own = this.#entries.length;
  }

  /** Grows with every change. */
  get version(): number {
    return this.#version;
  }

  state(): ExceptionHistoryState {
    return { entries: this.#entries.map((entry) => ({ ...entry })), truncated: this.#truncated };
  }

  addRoot(info: ExceptionInfo): void {
    this.#version += 1;
    this.#entries.push({ root: info, concurrent: [] });
    if (this.#entries.length > this.#sizeMax) {
      this.#entries.shift();
      this.#own = Math.max(0, this.#own - 1);
      this.#truncated = true;
    }
  }

  /** A failure while the last root's restart was pending. */
  addConcurrent(info: ExceptionInfo): void {
    if (this.#entries.length <= this.#own) return;
    const last = this.#entries.at(-1);
    if (last === undefined || last.concurrent.length >= concurrentMax) return;
    last.concurrent.push(info);
    this.#version += 1;
  }

  /** Newest first, as Flink does. */
  view(maxExceptions: number): JobExceptions {
    const entries = this.#entries
      .slice(-maxExceptions)
      .reverse()
      .map(({ root, concurrent }) => ({ ...root, concurrentExceptions: [...concurrent] }));
    const [newest] = entries;
    return {
      ...(newest && { 'root-exception': newest.stacktrace, timestamp: newest.timestamp }),
      exceptionHistory: {
        entries,
        truncated: this.#truncated || this.#entries.length > entries.length,
      },
    };
  }
}

export function exceptionInfo(
  failure: Failure,
  timestamp: number,
  where: {
    readonly taskName?: string;
    readonly endpoint?: string;
    readonly taskManagerId?: string;
  } = {},
): ExceptionInfo {
  return {
    exceptionName: failure.code ?? failure.name,
    stacktrace: stackText(failure),
    timestamp,
    ...where,
    failure,
  };
}

function stackText(failure: Failure): string {
  const own = failure.stack ?? `${failure.name}: ${failure.message}`;
  return failure.cause === undefined ? own : `${own}\nCaused by: ${stackText(failure.cause)}`;
}
