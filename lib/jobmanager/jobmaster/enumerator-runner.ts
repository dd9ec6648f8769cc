/** Runs the split enumerators of one job on the thread it is created on; calls into one enumerator never overlap. */
import { setPeriodicTimer, type CancelTimer } from '../../base/clock.js';
import type { Env } from '../../base/env.js';
import { MillraceError, toFailure } from '../../base/errors.js';
import type { OperatorId } from '../../base/ids.js';
import { Mailbox } from '../../base/mailbox.js';
import type { Source, SplitEnumerator, SplitEnumeratorContext } from '../../api/source.js';
import type { FunctionSource } from '../../operators/stream-operator.js';
import { decodeValue, encodeValue } from '../../record/codec/value-codec.js';
import type { CoordinatorCommand, CoordinatorReply, EnumeratorSpec } from './coordinator-host.js';

type Emit = (reply: CoordinatorReply) => void;

export class EnumeratorRunner {
  readonly #env: Env;
  readonly #functions: FunctionSource;
  readonly #emit: Emit;
  #resetNumber = 0;
  #enumerators = new Map<OperatorId, EnumeratorHolder>();

  constructor(env: Env, functions: FunctionSource, emit: Emit) {
    this.#env = env;
    this.#functions = functions;
    this.#emit = emit;
  }

  handle(command: CoordinatorCommand): void {
    if (command.kind === 'reset') {
      void this.#reset(command.resetNumber, command.sources);
      return;
    }
    this.#enumerators.get(command.operatorId)?.handle(command);
  }

  async close(): Promise<void> {
    const holders = [...this.#enumerators.values()];
    this.#enumerators.clear();
    await Promise.all(holders.map((holder) => holder.close()));
  }

  async #reset(resetNumber: number, sources: readonly EnumeratorSpec[]): Promise<void> {
    this.#resetNumber = resetNumber;
    const old = [...this.#enumerators.values()];
    const emit: Emit = (reply) => {
      if (this.#resetNumber === resetNumber) this.#emit(reply);
    };
    try {
      this.#enumerators = new Map(
        sources.map((spec) => {
          const source = this.#functions.source(spec.operatorId);
          return [
            spec.operatorId,
            new EnumeratorHolder(this.#env, source, spec, { resetNumber, emit }),
          ];
        }),
      );
      const started = [...this.#enumerators.values()];
      await Promise.all(old.map((holder) => holder.close()));
      await Promise.all(started.map((holder) => holder.start()));
      emit({ kind: 'ready', resetNumber });
    } catch (error) {
      emit({ kind: 'failed', resetNumber, failure: userFailure(error) });
    }
  }
}

interface Reporting {
  readonly resetNumber: number;
  readonly emit: Emit;
}

class EnumeratorHolder {
  readonly #env: Env;
  readonly #spec: EnumeratorSpec;
  readonly #reporting: Reporting;
  readonly #mailbox = new Mailbox();
  readonly #readers = new Set<number>();
  readonly #timers = new Set<CancelTimer>();
  readonly #enumerator: SplitEnumerator<unknown, unknown>;
  #hasAssigned = false;
  #isAdopting = false;
  #isClosed = false;

  constructor(
    env: Env,
    source: Source<unknown, unknown, unknown>,
    spec: EnumeratorSpec,
    reporting: Reporting,
  ) {
    this.#env = env;
    this.#spec = spec;
    this.#reporting = reporting;
    const context = this.#context();
    this.#enumerator =
      spec.state === undefined
        ? source.createEnumerator(context)
        : source.restoreEnumerator(context, decodeValue(spec.state));
  }

  start(): Promise<void> {
    return this.#mailbox.run(() => this.#enumerator.start());
  }

  handle(command: Exclude<CoordinatorCommand, { kind: 'reset' }>): void {
    this.#run(() => {
      switch (command.kind) {
        case 'addReader':
          this.#readers.add(command.subtask);
          this.#reportReader(command.subtask);
          this.#enumerator.addReader(command.subtask);
          return;
        case 'removeReader':
          this.#readers.delete(command.subtask);
          return;
        case 'requestSplit':
          this.#enumerator.handleSplitRequest(command.subtask);
          return;
        case 'addSplitsBack':
          this.#enumerator.addSplitsBack(command.splits, command.subtask);
          return;
        case 'adoptSplits':
          this.#adoptSplits(command.splits, command.subtask);
          return;
        case 'snapshot':
          this.#snapshot(command.checkpointId);
          return;
      }
    });
  }

  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    for (const cancel of this.#timers) cancel();
    this.#timers.clear();
    const closing = this.#mailbox.run(() => this.#enumerator.close());
    await this.#mailbox.close();
    await closing.catch((err: unknown) => {
      this.#env.log.warn(
        { err, operator: this.#spec.operatorId },
        'closing a split enumerator failed',
      );
    });
  }

  #reportReader(subtask: number): void {
    const { operatorId } = this.#spec;
    const { resetNumber, emit } = this.#reporting;
    emit({ kind: 'readerAdded', resetNumber, operatorId, subtask });
  }

  #adoptSplits(splits: readonly unknown[], subtask: number): void {
    if (this.#enumerator.adoptSplits === undefined) {
      throw adoptionRefused(
        'its split enumerator has no adoptSplits(splits, subtask), which would tell it what readers were given',
      );
    }
    // What it gave away before it was told may be with a reader already.
    if (this.#hasAssigned && !this.#isAdopting) {
      throw adoptionRefused(
        'its split enumerator assigned splits in start, before it was told what readers were given; it should wait for addReader',
      );
    }
    this.#isAdopting = true;
    try {
      this.#enumerator.adoptSplits(splits, subtask);
    } catch (error) {
      const text = error instanceof Error ? error.message : String(error);
      throw adoptionRefused(`its split enumerator threw from adoptSplits: ${text}`, error);
    }
  }

  #snapshot(checkpointId: number): void {
    const state = encodeValue(this.#enumerator.snapshotState(checkpointId));
    const { operatorId } = this.#spec;
    this.#reporting.emit({
      kind: 'snapshotTaken',
      resetNumber: this.#reporting.resetNumber,
      operatorId,
      checkpointId,
      state,
    });
  }

  #run(call: () => void | Promise<void>): void {
    if (this.#isClosed) return;
    this.#mailbox
      .run(() => (this.#isClosed ? undefined : call()))
      .catch((error: unknown) => {
        this.#fail(error);
      });
  }

  #fail(error: unknown): void {
    if (this.#isClosed) return;
    this.#reporting.emit({
      kind: 'failed',
      resetNumber: this.#reporting.resetNumber,
      failure: userFailure(error),
    });
  }

  #context(): SplitEnumeratorContext<unknown> {
    const { operatorId, parallelism } = this.#spec;
    const { resetNumber, emit } = this.#reporting;
    const checkSubtask = (subtask: number): void => {
      if (Number.isInteger(subtask) && subtask >= 0 && subtask < parallelism) return;
      throw new RangeError(
        `there is no reader ${String(subtask)}: the source has parallelism ${String(parallelism)}`,
      );
    };
    return {
      parallelism,
      registeredReaders: () => [...this.#readers].sort((a, b) => a - b),
      assignSplits: (subtask, splits) => {
        checkSubtask(subtask);
        if (splits.length === 0) return;
        this.#hasAssigned = true;
        emit({ kind: 'assigned', resetNumber, operatorId, subtask, splits: [...splits] });
      },
      signalNoMoreSplits: (subtask) => {
        checkSubtask(subtask);
        emit({ kind: 'noMoreSplits', resetNumber, operatorId, subtask });
      },
      callAsync: (fn, periodMs = 0) => {
        const run = (): void => {
          this.#run(fn);
        };
        if (periodMs <= 0) run();
        else this.#timers.add(setPeriodicTimer(this.#env.clock, periodMs, run));
      },
    };
  }
}

function adoptionRefused(why: string, cause?: unknown): MillraceError {
  const message = `a source cannot go on under a new leader as it ran, and its job is restored from the latest checkpoint: ${why}`;
  return new MillraceError('ADOPTION_REFUSED', message, { cause });
}

function userFailure(error: unknown): ReturnType<typeof toFailure> {
  if (error instanceof MillraceError) return toFailure(error);
  const text = error instanceof Error ? error.message : String(error);
  return toFailure(
    new MillraceError('USER_FUNCTION', `the split enumerator of a source threw: ${text}`, {
      cause: error,
    }),
  );
}
