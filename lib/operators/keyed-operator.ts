/** Base of operators on keyed streams: state and timers scoped to the current key. */
import type { KeySelector } from '../api/functions.js';
import type { TimeDomain, TimerService } from '../api/process-function.js';
import { MillraceError } from '../base/errors.js';
import { computeKeyGroupRange } from '../state/key-group-range.js';
import { hashKey } from '../state/key-group.js';
import { KeyedStateBackend } from '../state/keyed-state-backend.js';
import { HashMapStates } from '../state/hash-map-states.js';
import { TimerQueue } from '../time/timer-service.js';
import { AbstractOperator } from './abstract-operator.js';
import type { CodeScope, RecordNames } from './operator-code.js';
import type { OperatorContext } from './stream-operator.js';

export abstract class KeyedOperator extends AbstractOperator {
  protected backend!: KeyedStateBackend;
  protected states!: HashMapStates;
  protected readonly keySelector: KeySelector<unknown, unknown>;

  constructor(keySelector: KeySelector<unknown, unknown>) {
    super();
    this.keySelector = keySelector;
  }

  override setup(context: OperatorContext): void {
    super.setup(context);
    const { maxParallelism, parallelism, subtaskIndex } = context;
    const range = computeKeyGroupRange(maxParallelism, parallelism, subtaskIndex);
    this.backend = new KeyedStateBackend(range, maxParallelism);
    this.states = new HashMapStates(this.backend);
  }

  protected override keyedBackend(): KeyedStateBackend {
    return this.backend;
  }

  protected override keyedStates(): HashMapStates {
    return this.states;
  }

  protected selectKey(value: unknown): unknown {
    const select = this.keySelector;
    try {
      return select(value);
    } catch (error) {
      throw this.blame(error);
    }
  }

  /** Statements that make the record's key the current one; user code is blamed on this operator. */
  protected generateKey(scope: CodeScope, { value, keyHash }: RecordNames): string {
    const select = scope.bind('keyOf', () => this.keySelector);
    const backend = scope.bind('backend', () => this.backend);
    const key = scope.local('key');
    return `${scope.blame}
const ${key} = ${select}(${value});
${backend}.setCurrentKey(${key}, ${generateHash(scope, key, keyHash)});`;
  }
}

/** Expression of the key's hash, which the producer may have computed already. */
export function generateHash(scope: CodeScope, key: string, keyHash: string | undefined): string {
  const hash = `${scope.bind('hashKey', () => hashKey)}(${key})`;
  return keyHash === undefined ? hash : `${keyHash} ?? ${hash}`;
}

/** Adds timers in both time domains. */
export abstract class TimedKeyedOperator extends KeyedOperator {
  #eventTimers!: TimerQueue;
  #processingTimers!: TimerQueue;
  protected timerService!: TimerService;
  /** The one armed timer of the task's processing time. */
  #armedAt = Infinity;
  #disarm: () => void = () => undefined;
  #isClosed = false;

  override setup(context: OperatorContext): void {
    super.setup(context);
    this.#eventTimers = new TimerQueue('timers/event', this.backend);
    this.#processingTimers = new TimerQueue('timers/processing', this.backend);
    this.timerService = this.#createTimerService();
  }

  protected override onRestored(): void {
    this.backend.declare(this.#eventTimers);
    this.backend.declare(this.#processingTimers);
  }

  protected override onOpened(): void {
    this.#arm();
  }

  override close(): Promise<void> {
    this.#isClosed = true;
    this.#disarm();
    return super.close();
  }

  /** The key's context is set. */
  protected abstract fireTimer(domain: TimeDomain, timestamp: number): void;

  protected override advanceEventTime(timestamp: number): boolean {
    return this.#fireDue(this.#eventTimers, 'event', timestamp);
  }

  #fireDue(queue: TimerQueue, domain: TimeDomain, limit: number): boolean {
    for (;;) {
      const slot = queue.poll(limit);
      if (slot < 0) return true;
      this.backend.setCurrentSlot(slot);
      this.fireTimer(domain, queue.polledAt);
      this.backend.clearCurrentKey();
      // Held until here, so that the key kept its slot whatever the function cleared.
      this.backend.index.release(slot);
      if (this.context.shouldYield()) return false;
    }
  }

  #arm(): void {
    const next = this.#processingTimers.next();
    if (this.#isClosed || next === undefined || next >= this.#armedAt) return;
    this.#disarm();
    this.#armedAt = next;
    this.#disarm = this.context.processingTime.registerTimer(next, () => {
      this.#armedAt = Infinity;
      this.runResumable(() => {
        const now = this.context.processingTime.now();
        if (!this.#fireDue(this.#processingTimers, 'processing', now)) return false;
        this.#arm();
        return true;
      });
    });
  }

  #createTimerService(): TimerService {
    const { backend, context } = this;
    const event = this.#eventTimers;
    const processing = this.#processingTimers;
    const watermark = (): number => this.currentWatermark;
    const checked = (timestamp: number): number => {
      backend.checkKey();
      if (Number.isFinite(timestamp)) return timestamp === 0 ? 0 : timestamp;
      throw new MillraceError(
        'USER_FUNCTION',
        `${context.operatorName}: a timer needs a time in ms, not ${timestamp}`,
      );
    };
    return {
      get currentWatermark() {
        return watermark();
      },
      get currentProcessingTime() {
        return context.processingTime.now();
      },
      registerEventTimeTimer: (timestamp) => {
        event.register(checked(timestamp));
      },
      registerProcessingTimeTimer: (timestamp) => {
        processing.register(checked(timestamp));
        this.#arm();
      },
      deleteEventTimeTimer: (timestamp) => {
        event.delete(checked(timestamp));
      },
      deleteProcessingTimeTimer: (timestamp) => {
        processing.delete(checked(timestamp));
      },
    };
  }
}
