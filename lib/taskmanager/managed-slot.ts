/**
 * One deployment in one slot, from the fetched bundle to the end of its thread: starts it, passes reports on,
 * ends it in bounded time. Asked first, ended then; a thread that survives that (user code in a synchronous
 * native call) takes the process with it after task.cancellation.timeout.
 */
import type { CancelTimer } from '../base/clock.js';
import { Deferred } from '../base/deferred.js';
import type { Env } from '../base/env.js';
import { MillraceError, toFailure, type Failure } from '../base/errors.js';
import type { AttemptId, OperatorId } from '../base/ids.js';
import type { SlotDeployment } from '../gateway/task-deployment-descriptor.js';
import type { OperatorEvent } from '../operators/stream-operator.js';
import type { SlotCommand, SlotReportMessage } from '../task/slot-api.js';
import type { RunningSlot, SlotRunner, SlotStart } from './slot-runner.js';

export interface ManagedSlotDeps {
  readonly runner: SlotRunner;
  /** Fetches and verifies the bundle; resolves with nothing for jobs without one. */
  readonly bundle: () => Promise<
    { readonly path: string; readonly release: () => void } | undefined
  >;
  readonly onReport: (report: SlotReportMessage) => void;
  /** The thread is gone. */
  readonly onEnded: (failure: Failure | undefined) => void;
  /** A task could not be ended; the process must be. */
  readonly onFatal: (error: MillraceError) => void;
}

export interface ManagedSlotOptions {
  /** Time a cancelled task has to end by itself before its thread is ended. */
  readonly cancelGraceMs: number;
  /** task.cancellation.timeout. */
  readonly cancellationTimeoutMs: number;
}

/** Events sent to a task that does not take them (it is held back) are bounded. */
const maxPendingTickets = 10_000;

export class ManagedSlot {
  readonly #env: Env;
  readonly #deps: ManagedSlotDeps;
  readonly #options: ManagedSlotOptions;
  readonly #tickets = new Map<number, Deferred<void>>();
  readonly #ended = new Deferred<void>();
  /** Commands that came while the bundle was being fetched. */
  readonly #early: SlotCommand[] = [];
  #running: RunningSlot | undefined;
  #isCancelled = false;
  #isEnded = false;
  #lastTicket = 0;
  #cancelTimers: CancelTimer[] = [];

  constructor(env: Env, deps: ManagedSlotDeps, options: ManagedSlotOptions) {
    this.#env = env;
    this.#deps = deps;
    this.#options = options;
  }

  /** Resolves when nothing of the slot is left. */
  get ended(): Promise<void> {
    return this.#ended.promise;
  }

  async start(deployment: SlotDeployment, slotIndex: number): Promise<void> {
    let bundle: { readonly path: string; readonly release: () => void } | undefined;
    try {
      bundle = await this.#deps.bundle();
    } catch (error) {
      this.#end(toFailure(error));
      return;
    }
    if (this.#isCancelled) {
      bundle?.release();
      return;
    }
    const start: SlotStart = {
      deployment,
      slotIndex,
      ...(bundle !== undefined && { bundlePath: bundle.path }),
    };
    this.#running = this.#deps.runner.start(start, {
      onReport: (report) => {
        this.#onReport(report);
      },
      onEnded: (failure) => {
        bundle?.release();
        this.#end(failure);
      },
    });
    for (const command of this.#early.splice(0)) this.#running.send(command);
  }

  send(command: SlotCommand): void {
    if (this.#isEnded) return;
    if (this.#running === undefined) this.#early.push(command);
    else this.#running.send(command);
  }

  /** Resolves when the task has taken the event; SLOT_LOST when the slot ends before. */
  sendOperatorEvent(event: {
    readonly attemptId: AttemptId;
    readonly operatorId: OperatorId;
    readonly event: OperatorEvent;
  }): Promise<void> {
    const { attemptId, operatorId } = event;
    return this.#ask((ticket) => ({
      kind: 'operatorEvent',
      ticket,
      attemptId,
      operatorId,
      event: event.event,
    }));
  }

  /** Resolves when the slot's thread goes on under the new leader; SLOT_LOST when it ends before. */
  adopt(terms: {
    readonly epochLabel: string;
    readonly completedCheckpointId: number;
    readonly abortedCheckpointId: number;
  }): Promise<void> {
    const { epochLabel, completedCheckpointId, abortedCheckpointId } = terms;
    return this.#ask((ticket) => ({
      kind: 'adopt',
      ticket,
      epochLabel,
      completedCheckpointId,
      abortedCheckpointId,
    }));
  }

  /** Resolves when the command was taken. Rejects at once with SLOT_LOST or RPC_OVERLOADED: it was not sent then. */
  #ask(command: (ticket: number) => SlotCommand): Promise<void> {
    if (this.#isEnded) return Promise.reject(slotEnded());
    if (this.#tickets.size >= maxPendingTickets) {
      return Promise.reject(
        new MillraceError('RPC_OVERLOADED', 'the task does not take its operator events'),
      );
    }
    const taken = new Deferred<void>();
    const ticket = ++this.#lastTicket;
    this.#tickets.set(ticket, taken);
    this.send(command(ticket));
    return taken.promise;
  }

  /** Whether `sendOperatorEvent` would send. */
  get takesEvents(): boolean {
    return !this.#isEnded && this.#tickets.size < maxPendingTickets;
  }

  /** Ends it in bounded time; resolves when it is gone. */
  cancel(): Promise<void> {
    if (this.#isCancelled || this.#isEnded) return this.ended;
    this.#isCancelled = true;
    if (this.#running === undefined) {
      // Still fetching the bundle: nothing runs yet.
      this.#end(undefined);
      return this.ended;
    }
    this.send({ kind: 'cancel' });
    const { clock } = this.#env;
    this.#cancelTimers = [
      clock.setTimer(this.#options.cancelGraceMs, () => {
        this.#running?.terminate();
      }),
      clock.setTimer(this.#options.cancellationTimeoutMs, () => {
        this.#deps.onFatal(
          new MillraceError(
            'TASK_CANCEL_TIMEOUT',
            `a task did not end within ${String(this.#options.cancellationTimeoutMs)} ms of its cancellation (task.cancellation.timeout): user code is in a synchronous call that cannot be interrupted`,
          ),
        );
      }),
    ];
    return this.ended;
  }

  #onReport(report: SlotReportMessage): void {
    if (this.#isEnded) return;
    if (report.kind === 'taken') {
      this.#tickets.get(report.ticket)?.resolve();
      this.#tickets.delete(report.ticket);
      return;
    }
    this.#deps.onReport(report);
  }

  #end(failure: Failure | undefined): void {
    if (this.#isEnded) return;
    this.#isEnded = true;
    for (const cancelTimer of this.#cancelTimers) cancelTimer();
    for (const ticket of this.#tickets.values()) ticket.reject(slotEnded());
    this.#tickets.clear();
    this.#early.length = 0;
    this.#deps.onEnded(failure);
    this.#ended.resolve();
  }
}

function slotEnded(): MillraceError {
  return new MillraceError('SLOT_LOST', 'the slot ended before it took what it was sent');
}
