/**
 * A job's past as people are shown it, checkpoint statistics and exceptions, beyond the leader: what an earlier one
 * wrote down is where this one goes on. Written at most once a second, only when something changed and the leader
 * may act; losing the last write costs nothing but the view, and nothing ever waits for it.
 */
import { Type } from '@sinclair/typebox';
import {
  CheckpointStatisticsTracker,
  type CheckpointStatisticsState,
} from '../../../checkpoint/coordinator/checkpoint-statistics.js';
import type { JobHistoryStore } from '../../../ha/services.js';
import { setPeriodicTimer, type CancelTimer } from '../../base/clock.js';
import type { Env } from '../../base/env.js';
import type { JobId } from '../../base/ids.js';
import type { CheckpointSummary, ExceptionInfo } from '../../gateway/client-gateway.js';
import { FailureSchema, messageCheck } from '../../gateway/schema.js';
import {
  ExceptionHistory,
  type ExceptionHistoryState,
} from '../executiongraph/exception-history.js';

export interface JobHistoryDeps {
  readonly store: JobHistoryStore;
  readonly mayAct: () => boolean;
}

export interface JobHistoryOptions {
  readonly jobId: JobId;
  /** What the store had. */
  readonly pastHistory: string | undefined;
  readonly exceptionHistorySize: number;
  readonly checkpointHistorySize: number;
}

interface History {
  readonly version: 1;
  readonly checkpoints: CheckpointStatisticsState;
  readonly exceptions: ExceptionHistoryState;
}

const writePeriodMs = 1_000;
/** Bytes of the text that is stored; what exceeds it is left out, the oldest first. */
const textMax = 65_536;
const stackMax = 4_096;
const concurrentMax = 4;

export class JobHistory {
  readonly exceptions: ExceptionHistory;
  readonly checkpoints: CheckpointStatisticsTracker;
  readonly #env: Env;
  readonly #deps: JobHistoryDeps;
  readonly #jobId: JobId;
  #stop: CancelTimer | undefined;
  #isWriting = false;
  #written = 0;

  constructor(env: Env, deps: JobHistoryDeps, options: JobHistoryOptions) {
    this.#env = env;
    this.#deps = deps;
    this.#jobId = options.jobId;
    const past = decode(env, options.pastHistory);
    this.exceptions = new ExceptionHistory(options.exceptionHistorySize, past?.exceptions);
    this.checkpoints = new CheckpointStatisticsTracker(
      options.checkpointHistorySize,
      past?.checkpoints,
    );
  }

  /** Writes from now on. */
  start(): void {
    this.#stop ??= setPeriodicTimer(this.#env.clock, writePeriodMs, () => {
      this.#writeIfChanged();
    });
  }

  /** A write under way is left to end by itself: it is fenced, and a hand-over does not wait for it. */
  close(): void {
    this.#stop?.();
  }

  #writeIfChanged(): void {
    const version = this.exceptions.version + this.checkpoints.version;
    if (version === this.#written || this.#isWriting || !this.#deps.mayAct()) return;
    this.#isWriting = true;
    void this.#write(version);
  }

  async #write(version: number): Promise<void> {
    try {
      const state = {
        checkpoints: this.checkpoints.state(),
        exceptions: this.exceptions.state(),
      };
      await this.#deps.store.put(this.#jobId, encodeJobHistory(state));
      this.#written = version;
    } catch (err) {
      this.#env.log.debug({ err }, 'the history of the job was not written; it will be');
    } finally {
      this.#isWriting = false;
    }
  }
}

/** Compiles the check of what is read, ahead of a takeover that would have to wait for it. */
export function prepareJobHistory(): void {
  try {
    checkHistory(undefined);
  } catch {
    // Refused, as it should be: there is nothing in it.
  }
}

/** At most 64 KiB: exceptions go first, then the history of checkpoints; counts always stay. */
export function encodeJobHistory({ checkpoints, exceptions }: Omit<History, 'version'>): string {
  let entries = exceptions.entries.map(({ root, concurrent }) => ({
    root: bounded(root),
    concurrent: concurrent.slice(0, concurrentMax).map(bounded),
  }));
  let history = checkpoints.history.map(boundedSummary);
  for (;;) {
    const kept: History = {
      version: 1,
      checkpoints: {
        ...checkpoints,
        ...(checkpoints.latestFailed && {
          latestFailed: boundedSummary(checkpoints.latestFailed),
        }),
        history,
      },
      exceptions: {
        entries,
        truncated: exceptions.truncated || entries.length < exceptions.entries.length,
      },
    };
    const text = JSON.stringify(kept);
    if (Buffer.byteLength(text) <= textMax || (entries.length === 0 && history.length === 0))
      return text;
    if (entries.length > 0) entries = entries.slice(Math.ceil(entries.length / 2));
    else history = history.slice(Math.ceil(history.length / 2));
  }
}

function bounded(info: ExceptionInfo): ExceptionInfo {
  const { failure } = info;
  return {
    ...info,
    stacktrace: info.stacktrace.slice(0, stackMax),
    // The stack is in the text above; causes are, too.
    failure: {
      name: failure.name,
      message: failure.message.slice(0, stackMax),
      ...(failure.code !== undefined && { code: failure.code }),
      ...(failure.domain !== undefined && { domain: failure.domain }),
      ...(failure.retry !== undefined && { retry: failure.retry }),
    },
  };
}

function boundedSummary(summary: CheckpointSummary): CheckpointSummary {
  const { failure_message: message } = summary;
  return message === undefined ? summary : { ...summary, failure_message: message.slice(0, 1_024) };
}

const summarySchema = Type.Object({
  id: Type.Integer(),
  status: Type.Union([
    Type.Literal('IN_PROGRESS'),
    Type.Literal('COMPLETED'),
    Type.Literal('FAILED'),
  ]),
  is_savepoint: Type.Boolean(),
  trigger_timestamp: Type.Number(),
  latest_ack_timestamp: Type.Number(),
  end_to_end_duration: Type.Number(),
  state_size: Type.Number(),
  num_subtasks: Type.Integer(),
  num_acknowledged_subtasks: Type.Integer(),
  external_path: Type.Optional(Type.String()),
  failure_message: Type.Optional(Type.String()),
});

const exceptionSchema = Type.Object({
  exceptionName: Type.String(),
  stacktrace: Type.String(),
  timestamp: Type.Number(),
  taskName: Type.Optional(Type.String()),
  endpoint: Type.Optional(Type.String()),
  taskManagerId: Type.Optional(Type.String()),
  failure: FailureSchema,
});

const checkHistory = messageCheck(
  'the history of a job',
  Type.Object({
    version: Type.Literal(1),
    checkpoints: Type.Object({
      total: Type.Integer({ minimum: 0 }),
      completed: Type.Integer({ minimum: 0 }),
      failed: Type.Integer({ minimum: 0 }),
      restored: Type.Integer({ minimum: 0 }),
      latestCompleted: Type.Optional(summarySchema),
      latestFailed: Type.Optional(summarySchema),
      latestRestored: Type.Optional(
        Type.Object({
          id: Type.Integer(),
          restore_timestamp: Type.Number(),
          is_savepoint: Type.Boolean(),
          external_path: Type.String(),
        }),
      ),
      history: Type.Array(summarySchema),
    }),
    exceptions: Type.Object({
      entries: Type.Array(
        Type.Object({ root: exceptionSchema, concurrent: Type.Array(exceptionSchema) }),
      ),
      truncated: Type.Boolean(),
    }),
  }),
);

/** A damaged history begins anew: a view never keeps a job from being recovered. */
function decode(env: Env, text: string | undefined): History | undefined {
  if (text === undefined) return undefined;
  try {
    return checkHistory(JSON.parse(text));
  } catch (err) {
    env.log.warn(
      { err, event: 'job.history-damaged' },
      'the history of the job cannot be read and begins anew',
    );
    return undefined;
  }
}
