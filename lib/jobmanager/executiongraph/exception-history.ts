/** Failures of a job, as REST shows them: the last root causes, each with what failed along with it. Bounded. */
import type { ExceptionInfo, JobExceptions } from '../../gateway/client-gateway.js';
import type { Failure } from '../../base/errors.js';

interface Entry {
  readonly root: ExceptionInfo;
  readonly concurrent: ExceptionInfo[];
}

/** Failures that follow from a root are many (every consumer of a dead peer): a few say enough. */
const concurrentMax = 32;

export class ExceptionHistory {
  readonly #sizeMax: number;
  readonly #entries: Entry[] = [];
  #truncated = false;

  constructor(sizeMax: number) {
    this.#sizeMax = sizeMax;
  }

  addRoot(info: ExceptionInfo): void {
    this.#entries.push({ root: info, concurrent: [] });
    if (this.#entries.length > this.#sizeMax) {
      this.#entries.shift();
      this.#truncated = true;
    }
  }

  /** A failure while the last root's restart was pending. */
  addConcurrent(info: ExceptionInfo): void {
    const last = this.#entries.at(-1);
    if (last !== undefined && last.concurrent.length < concurrentMax) last.concurrent.push(info);
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
